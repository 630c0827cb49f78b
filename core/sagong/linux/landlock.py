"""Landlock: what files, TCP ports and peers a process may reach, decided by itself for ever.

A domain that handles files also forbids every mount, umount and pivot_root below it; a process that
mounts can only have the network and scope parts. Source: the kernel's Documentation/userspace-api/
landlock.rst.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Iterable
from typing import NamedTuple

from sagong.linux import syscalls

__all__ = [
    "EXECUTE",
    "READ",
    "WRITE",
    "PathRule",
    "PortRule",
    "Ruleset",
    "abi_version",
    "handled_rights",
    "restrict",
]

_EXECUTE = 1 << 0
_WRITE_FILE = 1 << 1
_READ_FILE = 1 << 2
_READ_DIR = 1 << 3
_REFER = 1 << 13
_TRUNCATE = 1 << 14
_IOCTL_DEV = 1 << 15

READ = _READ_FILE | _READ_DIR
EXECUTE = READ | _EXECUTE
# Reading and everything that changes: make, remove, link across directories, truncate, ioctl.
WRITE = READ | _WRITE_FILE | ((1 << 13) - (1 << 4)) | _REFER | _TRUNCATE | _IOCTL_DEV
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV

_BIND_TCP = 1
_CONNECT_TCP = 2
_SCOPE_ABSTRACT_SOCKETS = 1
_SCOPE_SIGNALS = 2

_RULE_PATH = 1
_RULE_PORT = 2


class PathRule(NamedTuple):
    """`access` (READ, EXECUTE or WRITE) to a path and everything below it."""

    path: str
    access: int


class PortRule(NamedTuple):
    """A TCP port that may be bound or connected to."""

    port: int
    bind: bool
    connect: bool


class Ruleset(NamedTuple):
    """A domain: what isn't allowed by a rule is refused, for each part that is switched on."""

    paths: tuple[PathRule, ...] = ()
    ports: tuple[PortRule, ...] = ()
    handle_files: bool = True
    handle_ports: bool = False
    scope_abstract_sockets: bool = True
    scope_signals: bool = True


class Handled(NamedTuple):
    """Bits that a kernel of some ABI handles for a ruleset, and what it can't, in words."""

    files: int
    ports: int
    scopes: int
    missing: tuple[str, ...]


def abi_version() -> int:
    """The Landlock ABI of the running kernel; 0 when it has none or it is switched off."""
    try:
        return syscalls.call("landlock_create_ruleset", None, 0, 1)
    except OSError:
        return 0


def _file_bits(abi: int) -> int:
    """ABI 1 knows thirteen rights; 2 adds refer, 3 truncate, 5 ioctl on devices."""
    bits = (1 << 13) - 1
    for since, bit in ((2, _REFER), (3, _TRUNCATE), (5, _IOCTL_DEV)):
        bits |= bit if abi >= since else 0
    return bits


def handled_rights(ruleset: Ruleset, abi: int) -> Handled:
    """What of a ruleset a kernel with this ABI can enforce."""
    missing = []
    if abi == 0:
        missing.append("Landlock: the kernel has none or it is switched off")
    if ruleset.handle_ports and 0 < abi < 4:
        missing.append(f"Landlock ports: need ABI 4 (Linux 6.7), the kernel has {abi}")
    scopes = _SCOPE_ABSTRACT_SOCKETS * ruleset.scope_abstract_sockets
    scopes |= _SCOPE_SIGNALS * ruleset.scope_signals
    if scopes and 0 < abi < 6:
        missing.append(f"Landlock scopes: need ABI 6 (Linux 6.12), the kernel has {abi}")
    return Handled(
        _file_bits(abi) if ruleset.handle_files and abi else 0,
        _BIND_TCP | _CONNECT_TCP if ruleset.handle_ports and abi >= 4 else 0,
        scopes if abi >= 6 else 0,
        tuple(missing),
    )


def _attributes(handled: Handled, abi: int) -> bytes:
    """struct landlock_ruleset_attr in the length that the ABI knows."""
    length = 8 if abi < 4 else 16 if abi < 6 else 24
    return struct.pack("=QQQ", handled.files, handled.ports, handled.scopes)[:length]


def _buffer(raw: bytes) -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(raw, len(raw))


def _add_path(ruleset: int, rule: PathRule, handled: int) -> None:
    descriptor = os.open(rule.path, os.O_PATH | os.O_CLOEXEC)
    try:
        allowed = rule.access & handled
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            allowed &= _OF_FILES
        raw = _buffer(struct.pack("=Qi", allowed, descriptor))
        syscalls.call("landlock_add_rule", ruleset, _RULE_PATH, raw, 0, path=rule.path)
    finally:
        os.close(descriptor)


def _add_port(ruleset: int, rule: PortRule) -> None:
    allowed = _BIND_TCP * rule.bind | _CONNECT_TCP * rule.connect
    raw = _buffer(struct.pack("=QQ", allowed, rule.port))
    syscalls.call("landlock_add_rule", ruleset, _RULE_PORT, raw, 0, path=f"port {rule.port}")


def _add_rules(descriptor: int, ruleset: Ruleset, handled: Handled) -> None:
    if handled.files:
        for path in ruleset.paths:
            _add_path(descriptor, path, handled.files)
    if handled.ports:
        for port in ruleset.ports:
            _add_port(descriptor, port)


def restrict(ruleset: Ruleset) -> tuple[str, ...]:
    """Enforce on this thread and all its children; returns what the kernel could not enforce.

    Needs no_new_privs or CAP_SYS_ADMIN. A path that does not exist is an error: name what is there.
    """
    abi = abi_version()
    handled = handled_rights(ruleset, abi)
    if not (handled.files or handled.ports or handled.scopes):
        return handled.missing
    raw = _buffer(_attributes(handled, abi))
    descriptor = syscalls.call("landlock_create_ruleset", raw, len(raw), 0)
    try:
        _add_rules(descriptor, ruleset, handled)
        syscalls.call("landlock_restrict_self", descriptor, 0)
    finally:
        os.close(descriptor)
    return handled.missing


def existing(rules: Iterable[PathRule]) -> tuple[PathRule, ...]:
    """Only the rules whose paths are there; a link that leads nowhere is not."""
    return tuple(rule for rule in rules if os.path.exists(rule.path))
