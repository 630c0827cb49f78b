"""The seccomp compiler, held by a small BPF interpreter against the policy read directly."""

from __future__ import annotations

import json
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sagong.linux import seccomp
from sagong.linux.seccomp import ALLOW, KILL, Condition, Policy, Rule, compile_policy, errno_action
from sagong.linux.seccomp_profile import default_policy, parse_profile
from sagong.linux.syscall_table import AARCH64, I386, X86_64, numbers

ENOSYS = errno_action(38)
EPERM = errno_action(1)


def run_filter(code: bytes, architecture: str, number: int, arguments: tuple[int, ...] = ()) -> int:
    """Execute a filter on one call as the kernel does; its action."""
    padded = (*arguments, 0, 0, 0, 0, 0, 0)[:6]
    audit = seccomp.AUDIT_ARCHITECTURES.get(architecture, 0x12345678)
    data = struct.pack("=IIQ6Q", number, audit, 0, *padded)
    program: list[tuple[int, int, int, int]] = list(struct.iter_unpack("=HBBI", code))
    word = place = steps = 0
    while True:
        steps += 1
        assert steps < 4096
        operation, true, false, value = program[place]
        place += 1
        match operation:
            case 0x06:
                return value
            case 0x20:
                word = struct.unpack_from("=I", data, value)[0]
            case 0x54:
                word &= value
            case 0x05:
                place += value
            case 0x15:
                place += true if word == value else false
            case 0x25:
                place += true if word > value else false
            case 0x35:
                place += true if word >= value else false
            case _:
                raise AssertionError(f"instruction {operation:#x}")


_TESTS = {
    "eq": lambda a, c: a & c.mask == c.value,
    "masked_eq": lambda a, c: a & c.mask == c.value,
    "ne": lambda a, c: a & c.mask != c.value,
    "lt": lambda a, c: a < c.value,
    "le": lambda a, c: a <= c.value,
    "gt": lambda a, c: a > c.value,
    "ge": lambda a, c: a >= c.value,
}


def decide(policy: Policy, name: str, arguments: tuple[int, ...]) -> int:
    """The first rule that matches, read without any compiler."""
    padded = (*arguments, 0, 0, 0, 0, 0, 0)[:6]
    for rule in policy.rules:
        if name in rule.names and all(
            _TESTS[c.operator](padded[c.argument], c) for c in rule.conditions
        ):
            return rule.action
    return policy.default


words = st.one_of(
    st.integers(0, 3),
    st.sampled_from([1 << 31, 1 << 32, (1 << 32) + 1, (1 << 32) - 1, (1 << 64) - 1, 1 << 63]),
    st.integers(0, (1 << 64) - 1),
)
conditions = st.builds(Condition, st.integers(0, 5), st.sampled_from(sorted(_TESTS)), words)
masked = st.builds(
    lambda argument, value, mask: Condition(argument, "masked_eq", value & mask, mask),
    st.integers(0, 5),
    words,
    words,
)
rules = st.builds(
    Rule,
    st.lists(st.sampled_from(sorted(numbers(X86_64))), min_size=1, max_size=30).map(tuple),
    st.sampled_from([ALLOW, EPERM, ENOSYS, seccomp.LOG]),
    st.lists(conditions | masked, max_size=3).map(tuple),
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(rules, max_size=12).map(tuple),
    st.sampled_from([EPERM, ALLOW, KILL]),
    st.lists(st.tuples(*[words] * 6), min_size=1, max_size=3),
)
def test_a_compiled_policy_decides_as_its_rules(
    given_rules: tuple[Rule, ...], default: int, calls: list[tuple[int, ...]]
) -> None:
    policy = Policy(given_rules, default, (X86_64,))
    code = compile_policy(policy)
    for name, number in numbers(X86_64).items():
        for arguments in calls:
            assert run_filter(code, X86_64, number, arguments) == decide(policy, name, arguments)


def test_a_long_policy_jumps_far_enough() -> None:
    def chain(name: str, argument: int) -> tuple[Rule, ...]:
        return tuple(Rule((name,), ALLOW, (Condition(argument, "eq", n),)) for n in range(60))

    policy = Policy(chain("read", 0) + chain("write", 1) + chain("ioctl", 2), EPERM, (X86_64,))
    code = compile_policy(policy)
    assert len(code) // 8 > 600
    for name in ("read", "write", "ioctl", "close"):
        for value in (0, 30, 59, 60):
            call = (value,) * 3
            wanted = decide(policy, name, call)
            assert run_filter(code, X86_64, numbers(X86_64)[name], call) == wanted


def test_a_policy_beyond_the_kernels_limit_is_refused() -> None:
    many = tuple(Rule(("read",), ALLOW, (Condition(0, "eq", n),)) for n in range(2000))
    with pytest.raises(ValueError, match="at most 4096"):
        compile_policy(Policy(many, EPERM, (X86_64,)))


def test_foreign_architectures_are_killed_and_x32_is_refused() -> None:
    code = compile_policy(default_policy((), X86_64))
    assert run_filter(code, "unknown", 0) == KILL
    assert run_filter(code, AARCH64, 0) == KILL
    assert run_filter(code, X86_64, 0x40000000 | numbers(X86_64)["read"]) == EPERM
    assert run_filter(code, X86_64, 0xFFFFFFFF) == EPERM
    assert run_filter(code, I386, numbers(I386)["read"]) == ALLOW


@pytest.mark.parametrize("machine", [X86_64, AARCH64])
def test_dockers_default_lets_programs_live_and_refuses_the_dangerous(machine: str) -> None:
    code = compile_policy(default_policy(("CAP_CHOWN",), machine))
    known = numbers(machine)

    def act(name: str, *arguments: int) -> int:
        return run_filter(code, machine, known[name], arguments)

    for name in ("read", "openat", "execve", "futex", "clone", "ptrace", "mknodat", "statx"):
        assert act(name) == ALLOW, name
    for name in ("mount", "unshare", "bpf", "keyctl", "io_uring_setup", "reboot", "setns"):
        assert act(name) == EPERM, name
    assert act("clone", 0x10000000) == EPERM
    assert act("clone", 0x01200011) == ALLOW
    assert act("clone3") == ENOSYS
    assert act("socket", 1) == ALLOW
    assert act("socket", 40) == EPERM
    assert act("socket", 1 << 32 | 40) == EPERM
    assert act("personality", 0xFFFFFFFF) == ALLOW
    assert act("personality", 0x40000) == EPERM
    assert run_filter(code, machine, max(known.values()) + 1) == ENOSYS


def test_capabilities_open_their_calls() -> None:
    code = compile_policy(default_policy(("CAP_SYS_ADMIN", "CAP_SYS_TIME"), X86_64))
    for name in ("mount", "unshare", "clone3", "clock_settime"):
        assert run_filter(code, X86_64, numbers(X86_64)[name], (0x10000000,)) == ALLOW, name
    assert run_filter(code, X86_64, numbers(X86_64)["init_module"]) == EPERM


def test_a_call_costs_few_instructions() -> None:
    code = compile_policy(default_policy((), X86_64))
    assert len(code) // 8 < 400


PROFILE = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "defaultErrnoRet": 13,
    "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
    "syscalls": [
        {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW"},
        {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["bpf"], "action": "SCMP_ACT_ALLOW", "excludes": {"arches": ["amd64"]}},
        {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
        {"name": "chmod", "action": "SCMP_ACT_ERRNO", "errnoRet": 30},
        {
            "names": ["clone"],
            "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": 2114060288, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}],
        },
    ],
}


def test_a_profile_in_dockers_form_is_understood() -> None:
    text = json.dumps(PROFILE)
    old = parse_profile(text, (), X86_64, "4.4.0-generic")
    new = parse_profile(text, ("CAP_SYS_ADMIN",), X86_64, "6.1.0")
    assert new.architectures == (X86_64, I386)
    verdicts = {
        name: [decide(policy, name, (0x10000000,)) for policy in (old, new)]
        for name in ("read", "mount", "bpf", "ptrace", "chmod", "clone")
    }
    refused = errno_action(13)
    assert verdicts == {
        "read": [ALLOW, ALLOW],
        "mount": [refused, ALLOW],
        "bpf": [refused, refused],
        "ptrace": [refused, ALLOW],
        "chmod": [errno_action(30)] * 2,
        "clone": [refused, refused],
    }


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("{", "not JSON"),
        ("[]", "defaultAction"),
        ('{"defaultAction": "SCMP_ACT_NOTIFY"}', "SCMP_ACT_NOTIFY"),
        (
            '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], '
            '"action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "op": "LIKE"}]}]}',
            "LIKE",
        ),
        (
            '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], '
            '"action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "new"}}]}',
            "new",
        ),
        ("[" * 100_000, "not JSON"),
        ('{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": ["read"]}', "wrong type"),
        ('{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": 1}', "wrong type"),
        ('{"defaultAction": []}', "wrong type"),
        (
            '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], '
            '"action": "SCMP_ACT_ALLOW", "args": [{"op": "SCMP_CMP_EQ"}]}]}',
            "index",
        ),
        (
            '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], '
            '"action": "SCMP_ACT_ALLOW", "args": [{"index": 6, "op": "SCMP_CMP_EQ"}]}]}',
            "index 6",
        ),
    ],
)
def test_a_bad_profile_is_refused_by_name(text: str, names: str) -> None:
    with pytest.raises(ValueError, match=names):
        parse_profile(text, (), X86_64, "6.1.0")


@pytest.mark.parametrize(
    ("architecture", "known"),
    [
        (X86_64, {"read": 0, "clone": 56, "execve": 59, "mount": 165, "pidfd_open": 434}),
        (AARCH64, {"read": 63, "clone": 220, "execve": 221, "mount": 40, "pidfd_open": 434}),
        (I386, {"read": 3, "clone": 120, "execve": 11, "mount": 21, "pidfd_open": 434}),
    ],
)
def test_the_tables_number_calls_as_the_kernel(architecture: str, known: dict[str, int]) -> None:
    table = numbers(architecture)
    assert {name: table[name] for name in known} == known
    assert len(set(table.values())) == len(table)
