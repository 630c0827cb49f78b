"""Seccomp filters: a policy as a value, compiled to BPF by an interval tree, loaded as bytes.

The tree halves the range of system call numbers, so that each call costs about eight jumps however
long the policy is. Compile once, keep the bytes, load them in each child.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterable
from typing import NamedTuple

from sagong.linux import syscalls
from sagong.linux.syscall_table import AARCH64, I386, X86_64, numbers

__all__ = ["ALLOW", "KILL", "Condition", "Policy", "Rule", "compile_policy", "errno_action", "load"]

KILL = 0x80000000
KILL_THREAD = 0x00000000
TRAP = 0x00030000
_ERRNO = 0x00050000
NOTIFY = 0x7FC00000
TRACE = 0x7FF00000
LOG = 0x7FFC0000
ALLOW = 0x7FFF0000
_ENOSYS = _ERRNO | 38


def errno_action(number: int) -> int:
    """The action that fails a call with this errno."""
    return _ERRNO | (number & 0xFFFF)


class Condition(NamedTuple):
    """A test of one argument: (argument [& mask]) operator value, unsigned 64 bit.

    Operators: eq ne lt le gt ge, and masked_eq with `mask`.
    """

    argument: int
    operator: str
    value: int
    mask: int = 0xFFFFFFFFFFFFFFFF


class Rule(NamedTuple):
    """What happens to calls if all conditions hold; names an architecture lacks are skipped."""

    names: tuple[str, ...]
    action: int = ALLOW
    conditions: tuple[Condition, ...] = ()


class Policy(NamedTuple):
    """Rules are tried in order, the first that matches decides, else `default`.

    Architectures are names of `syscall_table`; calls of all others kill the process. With an errno
    as default, calls newer than our table fail with ENOSYS so that programs fall back.
    """

    rules: tuple[Rule, ...]
    default: int = errno_action(1)
    architectures: tuple[str, ...] = (X86_64, I386)


AUDIT_ARCHITECTURES = {X86_64: 0xC000003E, I386: 0x40000003, AARCH64: 0xC00000B7}
_X32_BIT = 0x40000000

_LOAD = 0x20
_AND = 0x54
_JUMP = 0x05
_JUMP_EQ = 0x15
_JUMP_GT = 0x25
_JUMP_GE = 0x35
_RETURN = 0x06
_FARTHEST = 250

_OFFSET_NUMBER = 0
_OFFSET_ARCHITECTURE = 4
_OFFSET_ARGUMENTS = 16

# What happens to one system call: guarded actions in order; the last one has no condition.
Outcome = tuple[tuple[tuple[Condition, ...], int], ...]


class _Program:
    """BPF code written from its end to its beginning, so that all jump targets are known.

    A label is the count of instructions from its instruction to the end.
    """

    def __init__(self) -> None:
        self._reversed: list[tuple[int, int, int, int]] = []
        self._returns: dict[int, int] = {}

    def _put(self, code: int, value: int, true: int = 0, false: int = 0) -> int:
        self._reversed.append((code, true, false, value))
        return len(self._reversed)

    def give(self, action: int) -> int:
        """A return of the action, shared if one is near enough."""
        label = self._returns.get(action)
        if label is None or len(self._reversed) - label > _FARTHEST // 2:
            label = self._returns[action] = self._put(_RETURN, action)
        return label

    def load(self, offset: int, then: int) -> int:
        """Load a word of the call's data, then go on at `then`."""
        self._reach(then)
        return self._put(_LOAD, offset)

    def mask(self, value: int) -> int:
        """Mask the loaded word and fall through."""
        return self._put(_AND, value)

    def jump(self, code: int, value: int, true: int, false: int) -> int:
        """Compare the loaded word and go to one of two labels."""
        far = len(self._reversed)
        if far - true > _FARTHEST:
            true = self._put(_JUMP, far - true)
        far = len(self._reversed)
        if far - false > _FARTHEST:
            false = self._put(_JUMP, far - false)
        here = len(self._reversed)
        return self._put(code, value, here - true, here - false)

    def _reach(self, label: int) -> None:
        if label != len(self._reversed):
            self._put(_JUMP, len(self._reversed) - label)

    def encoded(self) -> bytes:
        """The instructions in the order of execution (struct sock_filter)."""
        pack = struct.Struct("=HBBI").pack
        return b"".join(pack(*instruction) for instruction in reversed(self._reversed))


def _word_offset(argument: int, *, high: bool) -> int:
    return _OFFSET_ARGUMENTS + 8 * argument + (4 if high else 0)


# operator -> (jump of the high half, jump of the low half, negated)
_ORDERED = {
    "gt": (_JUMP_GT, _JUMP_GT, False),
    "ge": (_JUMP_GT, _JUMP_GE, False),
    "le": (_JUMP_GT, _JUMP_GT, True),
    "lt": (_JUMP_GT, _JUMP_GE, True),
}


def _emit_equal(program: _Program, test: Condition, true: int, false: int) -> int:
    """Both halves of the (masked) argument are equal to those of the value."""
    label = true
    for high in (False, True):
        shift = 32 if high else 0
        wanted, mask = test.value >> shift & 0xFFFFFFFF, test.mask >> shift & 0xFFFFFFFF
        if mask == 0 and wanted == 0:
            continue
        label = program.jump(_JUMP_EQ, wanted, label, false)
        if mask != 0xFFFFFFFF:
            label = program.mask(mask)
        label = program.load(_word_offset(test.argument, high=high), label)
    return label


def _emit_ordered(program: _Program, test: Condition, true: int, false: int) -> int:
    high_jump, low_jump, negated = _ORDERED[test.operator]
    if negated:
        true, false = false, true
    high, low = test.value >> 32 & 0xFFFFFFFF, test.value & 0xFFFFFFFF
    label = program.jump(low_jump, low, true, false)
    label = program.load(_word_offset(test.argument, high=False), label)
    label = program.jump(_JUMP_EQ, high, label, false)
    label = program.jump(high_jump, high, true, label)
    return program.load(_word_offset(test.argument, high=True), label)


def _emit_condition(program: _Program, test: Condition, true: int, false: int) -> int:
    if test.operator in ("eq", "masked_eq"):
        return _emit_equal(program, test, true, false)
    if test.operator == "ne":
        return _emit_equal(program, test, false, true)
    if test.operator in _ORDERED:
        return _emit_ordered(program, test, true, false)
    raise ValueError(f"seccomp operator {test.operator!r} is unknown; known: eq ne lt le gt ge")


def _emit_outcome(program: _Program, outcome: Outcome) -> int:
    """The code for one call; a single unconditional action is just its return."""
    label = program.give(outcome[-1][1])
    for conditions, action in reversed(outcome[:-1]):
        otherwise, label = label, program.give(action)
        for test in reversed(conditions):
            label = _emit_condition(program, test, label, otherwise)
    return label


def _emit_tree(
    program: _Program, spans: list[tuple[int, Outcome]], done: dict[Outcome, int]
) -> int:
    """Binary search among spans (first number, outcome), sorted, the first starting at 0."""
    if len(spans) == 1:
        return _leaf(program, spans[0][1], done)
    middle = len(spans) // 2
    upper = _emit_tree(program, spans[middle:], done)
    lower = _emit_tree(program, spans[:middle], done)
    return program.jump(_JUMP_GE, spans[middle][0], upper, lower)


def _leaf(program: _Program, outcome: Outcome, done: dict[Outcome, int]) -> int:
    if len(outcome) == 1:
        return program.give(outcome[0][1])
    if outcome not in done:
        done[outcome] = _emit_outcome(program, outcome)
    return done[outcome]


def outcomes(policy: Policy, architecture: str) -> dict[int, Outcome]:
    """What happens to each known call number of an architecture."""
    guarded: dict[str, list[tuple[tuple[Condition, ...], int]]] = {}
    for rule in policy.rules:
        for name in rule.names:
            actions = guarded.setdefault(name, [])
            if not actions or actions[-1][0]:
                actions.append((rule.conditions, rule.action))
    found: dict[int, Outcome] = {}
    for name, number in numbers(architecture).items():
        actions = guarded.get(name, [])
        complete = actions and not actions[-1][0]
        found[number] = tuple(actions if complete else [*actions, ((), policy.default)])
    return found


def _spans(policy: Policy, architecture: str) -> list[tuple[int, Outcome]]:
    """Neighbouring numbers with the same outcome become one span; holes have the default."""
    table = outcomes(policy, architecture)
    plain: Outcome = (((), policy.default),)
    newer: Outcome = (((), _ENOSYS if policy.default & 0xFFFF0000 == _ERRNO else policy.default),)
    spans: list[tuple[int, Outcome]] = []
    for number in range(max(table) + 2):
        outcome = newer if number > max(table) else table.get(number, plain)
        if not spans or spans[-1][1] != outcome:
            spans.append((number, outcome))
    if architecture == X86_64 and spans[-1][1] != plain:
        # x32 calls are x86-64's with a bit set; none is allowed.
        spans.append((_X32_BIT, plain))
    return spans


def compile_policy(policy: Policy) -> bytes:
    """BPF bytes for `load`; ValueError if the kernel's limit of 4096 instructions is exceeded."""
    program = _Program()
    label = program.give(KILL)
    for architecture in reversed(policy.architectures):
        tree = _emit_tree(program, _spans(policy, architecture), {})
        number = program.load(_OFFSET_NUMBER, tree)
        label = program.jump(_JUMP_EQ, AUDIT_ARCHITECTURES[architecture], number, label)
    program.load(_OFFSET_ARCHITECTURE, label)
    code = program.encoded()
    if len(code) // 8 > 4096:
        raise ValueError(f"seccomp policy needs {len(code) // 8} instructions, at most 4096 go")
    return code


# SECCOMP_FILTER_FLAG_SPEC_ALLOW: without it the filter slows the whole process on older kernels.
_FLAG_SPEC_ALLOW = 4


def load(code: bytes, flags: int = _FLAG_SPEC_ALLOW) -> None:
    """Put a compiled filter on this process, for ever; needs no_new_privs or CAP_SYS_ADMIN."""
    buffer = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("@HP", len(code) // 8, ctypes.addressof(buffer))
    raw = ctypes.create_string_buffer(header, len(header))
    syscalls.call("seccomp", 1, flags, raw, path="filter")


def allowed(policy: Policy, name: str) -> bool:
    """Whether a policy lets some form of a call through."""
    actions = [a for rule in policy.rules if name in rule.names for a in (rule.action,)]
    return ALLOW in actions or policy.default == ALLOW


def rule_of(names: str | Iterable[str], action: int = ALLOW, *conditions: Condition) -> Rule:
    """A rule from names, also as one string with spaces."""
    return Rule(tuple(names.split() if isinstance(names, str) else names), action, conditions)
