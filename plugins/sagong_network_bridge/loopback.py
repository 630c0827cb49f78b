"""`[::1]` of the machine for published ports: a BPF program at connect(2) leads elsewhere.

Packets from ::1 can't leave a machine: the kernel drops the answers, and a container without IPv6
could not be reached at all. So a connection of the machine's own processes (never of a container:
the program looks at the network namespace) to [::1] and a published port is made to the mapped
address ::ffff:127.0.0.1, from where the firewall sends it on; where only [::1] is published, or the
container has no IPv4, to the container itself. The program goes with this process.
"""

from __future__ import annotations

import contextlib
import ctypes
import ipaddress
import logging
import os
import socket
import struct
from collections.abc import Iterable
from typing import NamedTuple

from sagong.contracts.network import Sandbox
from sagong.linux import syscalls
from sagong.linux.mounts import mount_table
from sagong_network_bridge.elements import PROTOCOLS
from sagong_network_bridge.interior import Ranks, gateway_endpoints
from sagong_network_bridge.joining import Routed

__all__ = ["Loopback", "Shortcut", "shortcuts"]

_MAP_CREATE, _UPDATE, _DELETE, _LOAD, _LINK = 0, 2, 3, 5, 28
_HASH, _NO_PREALLOCATION = 1, 1
_SOCKET_ADDRESS, _CONNECT6 = 18, 11
_COOKIE = 71
_MOST, _VALUE = 65536, 20
_CODE = struct.Struct("=BBhi")
# Fields of struct bpf_sock_addr.
_ADDRESS, _PORT, _PROTOCOL = 8, 24, 36
_LOOKUP_CALL, _COOKIE_CALL = 1, 122


def _bpf(command: int, attributes: bytes) -> int:
    buffer = ctypes.create_string_buffer(attributes.ljust(128, b"\0"), 128)
    return syscalls.call("bpf", command, buffer, 128)


def _word(raw: bytes) -> int:
    return int(struct.unpack("=i", raw)[0])


def program(ports: int, cookie: int) -> bytes:
    """The instructions; every jump goes to the end, where the connection is allowed as it is."""
    code: list[tuple[int, int, int, int]] = [(0xBF, 0x16, 0, 0)]  # r6 = context
    jumps: list[int] = []

    def unless(opcode: int, registers: int, value: int) -> None:
        jumps.append(len(code))
        code.append((opcode, registers, 0, value))

    for position, raw in enumerate((bytes(4), bytes(4), bytes(4), b"\0\0\0\1")):
        code.append((0x61, 0x61, _ADDRESS + 4 * position, 0))  # r1 = address word
        unless(0x56, 0x01, _word(raw))  # if w1 != word
    code.append((0xBF, 0x61, 0, 0))  # r1 = context
    code.append((0x85, 0, 0, _COOKIE_CALL))
    low, high = struct.unpack("=ii", struct.pack("=Q", cookie))
    code += [(0x18, 0x01, 0, low), (0, 0, 0, high)]  # r1 = cookie
    unless(0x5D, 0x10, 0)  # if r0 != r1
    for field, place in ((_PORT, -8), (_PROTOCOL, -4)):
        code.append((0x61, 0x61, field, 0))
        code.append((0x63, 0x1A, place, 0))  # on the stack: the key
    code += [(0x18, 0x11, 0, ports), (0, 0, 0, 0)]  # r1 = map
    code += [(0xBF, 0xA2, 0, 0), (0x07, 0x02, 0, -8)]  # r2 = key
    code.append((0x85, 0, 0, _LOOKUP_CALL))
    unless(0x15, 0x00, 0)  # if not found
    for position, field in enumerate((*range(_ADDRESS, _ADDRESS + 16, 4), _PORT)):
        code.append((0x61, 0x01, 4 * position, 0))  # r1 = word of the value
        code.append((0x63, 0x16, field, 0))
    end = len(code)
    code += [(0xB7, 0x00, 0, 1), (0x95, 0, 0, 0)]  # allow
    for position in jumps:
        opcode, registers, _, value = code[position]
        code[position] = (opcode, registers, end - position - 1, value)
    return b"".join(_CODE.pack(opcode, r, offset, value) for opcode, r, offset, value in code)


class Shortcut(NamedTuple):
    """A port of [::1], and the IPv6 address (of IPv4: mapped) and port that it leads to."""

    protocol: str
    port: int
    address: str
    target: int

    def key(self) -> bytes:
        """In the program's map."""
        return _port(self.port) + struct.pack("=I", PROTOCOLS[self.protocol])

    def value(self) -> bytes:
        """There."""
        return ipaddress.IPv6Address(self.address).packed + _port(self.target)


def _port(number: int) -> bytes:
    return struct.pack(">H2x", number)


def shortcuts(sandbox: Sandbox, ranks: Ranks, routed: Routed) -> tuple[Shortcut, ...]:
    """What [::1] of the machine leads to for a sandbox: nothing where 0.0.0.0 or :: does not."""
    by4, by6 = (
        endpoint if endpoint and not routed(endpoint.network, version) else None
        for version, endpoint in zip((4, 6), gateway_endpoints(sandbox.endpoints, ranks))
    )
    own = f"::ffff:{by4.ipv4}" if by4 else by6.ipv6 if by6 else ""
    found = []
    for mapping in sandbox.ports if own else ():
        if mapping.host_ip == "::1" or (mapping.host_ip in ("", "::") and not by4):
            target = (own, mapping.container_port)
        elif mapping.host_ip == "":
            target = ("::ffff:127.0.0.1", mapping.host_port)
        else:
            continue
        found.append(Shortcut(mapping.protocol, mapping.host_port, *target))
    return tuple(found)


class Loopback:
    """The program, and the ports that it knows."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._map = -1
        self._descriptors: list[int] = []

    def start(self) -> None:
        """Load and attach; where the kernel can't, [::1] is refused as ever."""
        try:
            self._attach()
        except (OSError, StopIteration) as error:
            self.close()
            self._log.info("published ports can't be reached by [::1] here: %s", error)

    def _attach(self) -> None:
        create = struct.pack("=IIIII", _HASH, 8, _VALUE, _MOST, _NO_PREALLOCATION)
        self._map = _bpf(_MAP_CREATE, create)
        self._descriptors.append(self._map)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as here:
            (cookie,) = struct.unpack("=Q", here.getsockopt(socket.SOL_SOCKET, _COOKIE, 8))
        loaded = self._load(program(self._map, cookie))
        self._descriptors.append(loaded)
        mounted = next(entry.target for entry in mount_table() if entry.kind == "cgroup2")
        group = os.open(mounted, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            link = _bpf(_LINK, struct.pack("=IIII", loaded, group, _CONNECT6, 0))
            self._descriptors.append(link)
        finally:
            os.close(group)

    @staticmethod
    def _load(code: bytes) -> int:
        raw = ctypes.create_string_buffer(code, len(code))
        text = ctypes.create_string_buffer(b"Apache-2.0")
        head = struct.pack(
            "=IIQQ", _SOCKET_ADDRESS, len(code) // 8, ctypes.addressof(raw), ctypes.addressof(text)
        )
        # No log of the verifier, any kernel, no flags; a name; no device; the hook.
        rest = struct.pack("=IIQII16sII", 0, 0, 0, 0, 0, b"sagong_loop6", 0, _CONNECT6)
        return _bpf(_LOAD, head + rest)

    def put(self, added: Iterable[Shortcut]) -> None:
        """Ports that are published."""
        self._change(_UPDATE, added)

    def remove(self, gone: Iterable[Shortcut]) -> None:
        """Ports that are published no more."""
        self._change(_DELETE, gone)

    def _change(self, command: int, changed: Iterable[Shortcut]) -> None:
        if self._map < 0:
            return
        for way in changed:
            key = ctypes.create_string_buffer(way.key(), 8)
            data = ctypes.create_string_buffer(way.value(), _VALUE)
            # A deletion has no value, and the kernel insists.
            given = ctypes.addressof(data) if command == _UPDATE else 0
            where = struct.pack("=IxxxxQQQ", self._map, ctypes.addressof(key), given, 0)
            with contextlib.suppress(FileNotFoundError):
                _bpf(command, where)

    def close(self) -> None:
        """Detach."""
        for descriptor in reversed(self._descriptors):
            os.close(descriptor)
        self._descriptors = []
        self._map = -1
