"""nftables expressions as bytes: what one rule loads, compares, looks up and decides.

Registers are the sixteen 4-byte ones, counted from 0 here; a field takes whole registers, so a
concatenation is a run of them. Source: linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import struct
from enum import IntEnum

from sagong_network_bridge.netlink import attribute, nested

__all__ = [
    "Hook",
    "Verdict",
    "accept",
    "address_type",
    "compare",
    "conntrack_bits",
    "counter",
    "destination_nat",
    "discard",
    "forget",
    "go",
    "icmp_reject",
    "interface",
    "jump",
    "look_up",
    "masquerade",
    "number",
    "opaque",
    "payload",
    "random",
    "remember",
    "set_payload",
    "source_nat",
    "tcp_reject",
    "verdict_data",
]

_FIRST_REGISTER = 8
_BE32 = struct.Struct(">I")


class Hook(IntEnum):
    """Where a chain sits in a packet's way."""

    PREROUTING = 0
    INPUT = 1
    FORWARD = 2
    OUTPUT = 3
    POSTROUTING = 4


class Verdict(IntEnum):
    """What becomes of the packet."""

    DROP = 0
    ACCEPT = 1
    JUMP = -3
    GOTO = -4
    RETURN = -5


class Meta(IntEnum):
    """Facts of a packet that are not in it."""

    MARK = 3
    IIFNAME = 6
    OIFNAME = 7
    NFPROTO = 15
    L4PROTO = 16


def number(kind: int, value: int) -> bytes:
    """A 32-bit attribute in the network's order."""
    return attribute(kind, _BE32.pack(value & 0xFFFFFFFF))


def _register(index: int) -> int:
    return _FIRST_REGISTER + index


def _expression(name: str, *values: bytes) -> bytes:
    return nested(1, attribute(1, name.encode() + b"\0"), nested(2, *values))


def text(kind: int, value: str) -> bytes:
    """A NUL-terminated attribute."""
    return attribute(kind, value.encode() + b"\0")


def _meta(key: Meta, register: int) -> bytes:
    return _expression("meta", number(2, key), number(1, _register(register)))


def interface(register: int, *, incoming: bool) -> bytes:
    """Load an interface's name (four registers)."""
    return _meta(Meta.IIFNAME if incoming else Meta.OIFNAME, register)


def family(value: int) -> bytes:
    """Go on only for IPv4 (4) or IPv6 (6)."""
    return _meta(Meta.NFPROTO, 0) + compare(0, bytes([2 if value == 4 else 10]))


def protocol(register: int) -> bytes:
    """Load the transport protocol."""
    return _meta(Meta.L4PROTO, register)


def payload(register: int, base: str, offset: int, length: int) -> bytes:
    """Load bytes of the "network" or "transport" header."""
    where = 1 if base == "network" else 2
    values = (number(1, _register(register)), number(2, where))
    return _expression("payload", *values, number(3, offset), number(4, length))


def source(register: int, version: int) -> bytes:
    """Load the source address."""
    return payload(register, "network", *((12, 4) if version == 4 else (8, 16)))


def destination(register: int, version: int) -> bytes:
    """Load the destination address."""
    return payload(register, "network", *((16, 4) if version == 4 else (24, 16)))


def destination_port(register: int) -> bytes:
    """Load the destination port, which tcp, udp and sctp keep at the same place."""
    return payload(register, "transport", 2, 2)


def set_payload(register: int, offset: int, length: int, checksum: int) -> bytes:
    """Overwrite bytes of the transport header and correct its checksum at `checksum`."""
    values = (number(5, _register(register)), number(2, 2), number(3, offset), number(4, length))
    return _expression("payload", *values, number(6, 1), number(7, checksum))


def compare(register: int, value: bytes, operator: int = 0) -> bytes:
    """Go on if equal (0), not equal (1), less (2), at most (3), greater (4), at least (5)."""
    data = nested(3, attribute(1, value))
    return _expression("cmp", number(1, _register(register)), number(2, operator), data)


def immediate(register: int, value: bytes) -> bytes:
    """Load a constant."""
    return _expression("immediate", number(1, _register(register)), nested(2, attribute(1, value)))


def look_up(
    name: str,
    register: int,
    *,
    into: int | None = None,
    verdict: bool = False,
    absent: bool = False,
) -> bytes:
    """Go on if the set has the key; a map's data goes `into` a register or is the verdict."""
    values = [text(1, name), number(2, _register(register))]
    if verdict:
        values.append(number(3, 0))
    elif into is not None:
        values.append(number(3, _register(into)))
    if absent:
        values.append(number(5, 1))
    return _expression("lookup", *values)


def verdict_data(code: Verdict, chain: str = "") -> bytes:
    """A verdict as the data of a map's element or of `immediate`."""
    values = [number(1, code)] + ([text(2, chain)] if chain else [])
    return nested(2, *values)


def _decide(code: Verdict, chain: str = "") -> bytes:
    return _expression("immediate", number(1, 0), nested(2, verdict_data(code, chain)))


def accept() -> bytes:
    """End this base chain; later ones still decide."""
    return _decide(Verdict.ACCEPT)


def discard() -> bytes:
    """Drop silently."""
    return _decide(Verdict.DROP)


def jump(chain: str) -> bytes:
    """Go to a chain and come back."""
    return _decide(Verdict.JUMP, chain)


def go(chain: str) -> bytes:
    """Go to a chain for good."""
    return _decide(Verdict.GOTO, chain)


def counter() -> bytes:
    """Count packets and bytes."""
    return _expression("counter", attribute(1, bytes(8)), attribute(2, bytes(8)))


def conntrack_bits(key: int, bits: int) -> bytes:
    """Go on if any of the bits is set in conntrack's state (0) or status (2)."""
    load = _expression("ct", number(2, key), number(1, _register(0)))
    mask, zero = struct.pack("=I", bits), bytes(4)
    masked = _expression(
        "bitwise",
        number(1, _register(0)),
        number(2, _register(0)),
        number(3, 4),
        nested(4, attribute(1, mask)),
        nested(5, attribute(1, zero)),
    )
    return load + masked + compare(0, zero, 1)


def address_type(kind: int) -> bytes:
    """Go on if the routing table's type of the destination is `kind` (2: local)."""
    found = _expression("fib", number(1, _register(0)), number(2, 3), number(3, 2))
    return found + compare(0, struct.pack("=I", kind))


def random(register: int, modulus: int) -> bytes:
    """Load a random number below `modulus`, in the machine's order."""
    values = (number(1, _register(register)), number(2, modulus), number(3, 1), number(4, 0))
    return _expression("numgen", *values)


def opaque(register: int, spare: int) -> bytes:
    """The same four bytes again, but no more a map's data to nft(8), by way of the packet's mark.

    What was looked up has no length for nft(8) of Debian 12: it aborts where that is a key, or a part
    of one. The mark is as before after.
    """
    kept, given = _meta(Meta.MARK, spare), _meta(Meta.MARK, register)
    return kept + _set_mark(register) + given + _set_mark(spare)


def _set_mark(register: int) -> bytes:
    return _expression("meta", number(2, Meta.MARK), number(3, _register(register)))


def destination_nat(version: int, address: int, port: int) -> bytes:
    """Send the connection to the address and port in these registers."""
    values = (
        number(1, 1),
        number(2, 2 if version == 4 else 10),
        number(3, _register(address)),
        number(5, _register(port)),
    )
    return _expression("nat", *values)


def source_nat(version: int, address: int) -> bytes:
    """Give the connection the address in this register as its source."""
    family = 2 if version == 4 else 10
    return _expression("nat", number(1, 0), number(2, family), number(3, _register(address)))


def masquerade() -> bytes:
    """Give the connection this machine's address as its source."""
    return _expression("masq")


def _dynamic(name: str, operation: int, key: int, data: int, seconds: int) -> bytes:
    values = [text(1, name), number(3, operation), number(4, _register(key))]
    values.append(number(5, _register(data)))
    if seconds:
        values.append(attribute(6, struct.pack(">Q", seconds * 1000)))
    return _expression("dynset", *values)


def remember(name: str, key: int, data: int, seconds: int) -> bytes:
    """Put key and data into a map, or renew the time of the element there is."""
    return _dynamic(name, 1, key, data, seconds)


def forget(name: str, key: int, data: int) -> bytes:
    """Take the key out of a map; the kernel wants a register of data even so."""
    return _dynamic(name, 2, key, data, 0)


def tcp_reject() -> bytes:
    """Answer with a reset; for tcp only."""
    tcp = protocol(0) + compare(0, b"\x06")
    return tcp + _expression("reject", number(1, 1), attribute(2, b"\0"))


def icmp_reject() -> bytes:
    """Answer that the port can't be reached."""
    return _expression("reject", number(1, 2), attribute(2, b"\x01"))
