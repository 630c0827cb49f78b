"""Device rules of cgroup v2: a BPF program that allows what the rules name and denies the rest."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable
from typing import NamedTuple

from sagong.linux import syscalls

__all__ = ["DEFAULT_DEVICES", "DeviceRule", "device_program", "install_device_rules", "parse_rule"]

# What every container may use: make any node, and null, zero, full, random, urandom, tty, console,
# ptmx, pts. Source: the OCI runtime specification, "Default Devices".
DEFAULT_DEVICES = (
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:0 rwm",
    "c 5:1 rwm",
    "c 5:2 rwm",
    "c 136:* rwm",
)


class DeviceRule(NamedTuple):
    """Type "a", "b" or "c"; None for any number; access of the letters r, w, m."""

    kind: str
    major: int | None
    minor: int | None
    access: str


# What a comparison of BPF takes; the machine's kernel has twelve bits for one and twenty for the other.
_MOST = (1 << 31) - 1


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= len(str(_MOST))


def parse_rule(text: str) -> DeviceRule:
    """Read a rule like "c 1:3 rwm" or "a"; ValueError says what is wrong with it."""
    words = text.split()
    if words == ["a"]:
        return DeviceRule("a", None, None, "rwm")
    if len(words) != 3 or words[0] not in ("a", "b", "c") or not set(words[2]) <= set("rwm"):
        raise ValueError(f"device rule {text!r} is not of the form 'c 1:3 rwm'")
    major, colon, minor = words[1].partition(":")
    if not colon or not all(part == "*" or _is_number(part) for part in (major, minor)):
        raise ValueError(f"device rule {text!r}: numbers are MAJOR:MINOR, * for any")
    first, second = (None if part == "*" else int(part) for part in (major, minor))
    if max(first or 0, second or 0) > _MOST:
        raise ValueError(f"device rule {text!r}: numbers of devices end at {_MOST}")
    return DeviceRule(words[0], first, second, words[2])


_KINDS = {"b": 1, "c": 2}
_ACCESS = {"m": 1, "r": 2, "w": 4}

_INSTRUCTION = struct.Struct("=BBhi")
_LOAD_WORD = 0x61
_MOV = 0xB7
_MOV_REGISTER = 0xBF
_AND = 0x57
_SHIFT_RIGHT = 0x77
_JUMP_NE = 0x55
_EXIT = 0x95
_KIND, _ASKED, _MAJOR, _MINOR, _SCRATCH = 2, 3, 4, 5, 1


def _instruction(code: int, target: int, source: int = 0, offset: int = 0, value: int = 0) -> bytes:
    return _INSTRUCTION.pack(code, source << 4 | target, offset, value)


def _rule_code(rule: DeviceRule) -> list[bytes]:
    """If the rule covers the whole access asked for: return 1, else fall through."""
    tests: list[bytes | tuple[int, int]] = []
    if rule.kind != "a":
        tests.append((_KIND, _KINDS[rule.kind]))
    access = sum(_ACCESS[letter] for letter in set(rule.access))
    if access != 7:
        tests.append(_instruction(_MOV_REGISTER, _SCRATCH, _ASKED))
        tests.append(_instruction(_AND, _SCRATCH, value=7 & ~access))
        tests.append((_SCRATCH, 0))
    if rule.major is not None:
        tests.append((_MAJOR, rule.major))
    if rule.minor is not None:
        tests.append((_MINOR, rule.minor))
    code = []
    for position, test in enumerate(tests):
        if isinstance(test, bytes):
            code.append(test)
        else:
            skip = len(tests) - position - 1 + 2
            code.append(_instruction(_JUMP_NE, test[0], offset=skip, value=test[1]))
    return [*code, _instruction(_MOV, 0, value=1), _instruction(_EXIT, 0)]


def device_program(rules: Iterable[str]) -> bytes:
    """BPF instructions that return 1 for what a rule allows, else 0.

    The context holds type (low half) and access (high half) in a word, then major and minor.
    """
    code = [
        _instruction(_LOAD_WORD, _KIND, 1, 0),
        _instruction(_MOV_REGISTER, _ASKED, _KIND),
        _instruction(_AND, _KIND, value=0xFFFF),
        _instruction(_SHIFT_RIGHT, _ASKED, value=16),
        _instruction(_LOAD_WORD, _MAJOR, 1, 4),
        _instruction(_LOAD_WORD, _MINOR, 1, 8),
    ]
    for rule in rules:
        tested = _rule_code(parse_rule(rule))
        code += tested
        if len(tested) == 2:
            # Everything is allowed; the verifier refuses instructions that are never reached.
            return b"".join(code)
    return b"".join([*code, _instruction(_MOV, 0, value=0), _instruction(_EXIT, 0)])


_PROG_LOAD, _PROG_ATTACH, _PROG_DETACH, _PROG_FD_BY_ID, _PROG_QUERY = 5, 8, 9, 13, 16
_TYPE_CGROUP_DEVICE = 15
_ATTACH_CGROUP_DEVICE = 6
_ALLOW_MULTI = 2


def _bpf(command: int, attributes: bytes, purpose: str) -> tuple[int, bytes]:
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    result = syscalls.call("bpf", command, buffer, len(attributes), path=purpose)
    return result, buffer.raw


def _load(program: bytes) -> int:
    code = ctypes.create_string_buffer(program, len(program))
    license_text = ctypes.create_string_buffer(b"Apache-2.0")
    count = len(program) // _INSTRUCTION.size
    attributes = struct.pack(
        "=IIQQIIQII16s",
        *(_TYPE_CGROUP_DEVICE, count, ctypes.addressof(code), ctypes.addressof(license_text)),
        *(0, 0, 0, 0, 0, b"sagong_devices"),
    )
    return _bpf(_PROG_LOAD, attributes, "device rules")[0]


def _attached(directory: int) -> list[int]:
    """Ids of the device programs of exactly this cgroup."""
    ids = (ctypes.c_uint32 * 64)()
    query = struct.pack(
        "=IIIIQI", directory, _ATTACH_CGROUP_DEVICE, 0, 0, ctypes.addressof(ids), 64
    )
    count = struct.unpack("=IIIIQI", _bpf(_PROG_QUERY, query, "device rules")[1])[5]
    return list(ids[:count])


def _detach(directory: int, identity: int) -> None:
    program = _bpf(_PROG_FD_BY_ID, struct.pack("=III", identity, 0, 0), "device rules")[0]
    try:
        _bpf(_PROG_DETACH, struct.pack("=III", directory, program, _ATTACH_CGROUP_DEVICE), "detach")
    finally:
        os.close(program)


def install_device_rules(cgroup: str, rules: Iterable[str]) -> None:
    """Put the rules of a v2 cgroup directory in force, replacing those it had."""
    directory = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        before = _attached(directory)
        program = _load(device_program(rules))
        try:
            attach = (directory, program, _ATTACH_CGROUP_DEVICE, _ALLOW_MULTI)
            _bpf(_PROG_ATTACH, struct.pack("=IIII", *attach), cgroup)
        finally:
            os.close(program)
        for identity in before:
            _detach(directory, identity)
    finally:
        os.close(directory)
