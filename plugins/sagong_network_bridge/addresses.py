"""Address management of one subnet: what is taken, what comes next. Pure.

Addresses are handed out one after the other and a freed one only when the range has been gone
through, so that nobody's neighbour tables and name caches are wrong right after.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from sagong.contracts.network import Subnet
from sagong.errors import Conflict, InvalidArgument, ResourceExhausted

__all__ = ["AddressRange", "Space", "hardware_address", "link_local", "space_of"]

Space = ipaddress.IPv4Network | ipaddress.IPv6Network


def space_of(text: str) -> Space:
    """A subnet's range; InvalidArgument for anything else, host bits included."""
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise InvalidArgument(f"subnet {text!r}: {error}") from None


def _inside(text: str, space: Space, what: str) -> int:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise InvalidArgument(f"{what} {text!r} is not an IP address") from None
    if address not in space:
        raise InvalidArgument(f"{what} {text} is not in subnet {space}")
    return int(address)


class AddressRange:
    """The addresses of one subnet of a network."""

    def __init__(self, subnet: Subnet, *, headed: bool = True) -> None:
        """`headed`: the machine, or another one, has an address that leads out of the subnet."""
        self.space = space_of(subnet.subnet)
        first, last = int(self.space.network_address), int(self.space.broadcast_address)
        small = last - first < 2
        self._low = first if small else first + 1
        self._high = last if small or self.space.version == 6 else last - 1
        given = subnet.gateway.partition("/")[0]
        wanted = self._hosts(given, "gateway") if given else self._low if headed else None
        self._gateway = wanted
        self._first, self._last = self._low, self._high
        if subnet.ip_range:
            self._narrow(subnet.ip_range)
        self._taken: dict[int, str] = {} if wanted is None else {wanted: "the gateway"}
        for name, address in subnet.reserved:
            if self._taken.setdefault(self._hosts(address, name), name) != name:
                raise InvalidArgument(f"auxiliary address {name} {address}: Address already in use")
        self._next = self._first

    def _hosts(self, text: str, what: str) -> int:
        """An address that a host can have."""
        value = _inside(text, self.space, what)
        if not self._low <= value <= self._high:
            raise InvalidArgument(f"{what} {text}: no host of {self.space} can have this address")
        return value

    def _narrow(self, text: str) -> None:
        part = space_of(text)
        if part.version != self.space.version or not part.subnet_of(self.space):  # type: ignore[arg-type]
            raise InvalidArgument(f"ip_range {text} is not within subnet {self.space}")
        self._first = max(self._low, int(part.network_address))
        self._last = min(self._high, int(part.broadcast_address))

    @property
    def version(self) -> int:
        """4 or 6."""
        return self.space.version

    @property
    def gateway(self) -> str:
        """The bridge's own address; "" if there is none."""
        return "" if self._gateway is None else self._text(self._gateway)

    def _text(self, value: int) -> str:
        kind = ipaddress.IPv4Address if self.version == 4 else ipaddress.IPv6Address
        return str(kind(value))

    def reserve(self, address: str, owner: str) -> str:
        """Take a given address; Conflict if somebody else has it."""
        value = self._hosts(address, "address")
        holder = self._taken.get(value)
        if holder is not None and holder != owner:
            raise Conflict(f"Address already in use: {address} is that of {holder}")
        self._taken[value] = owner
        return self._text(value)

    def allocate(self, owner: str) -> str:
        """The next free address; ResourceExhausted when there is none."""
        size = self._last - self._first + 1
        for step in range(min(size, len(self._taken) + 1)):
            value = self._first + (self._next - self._first + step) % size
            if value not in self._taken:
                self._taken[value] = owner
                self._next = value + 1
                return self._text(value)
        raise ResourceExhausted(
            f"no available IPv{self.version} addresses on this network's address pools: of "
            f"{self.space} all of {self._text(self._first)} to {self._text(self._last)} are taken; "
            "remove containers or make a network with a larger subnet"
        )

    def release(self, address: str, owner: str) -> None:
        """Free an address if this owner has it."""
        value = int(ipaddress.ip_address(address))
        if self._taken.get(value) == owner:
            del self._taken[value]

    def holders(self) -> Iterable[str]:
        """Who has addresses, gateway and reservations included."""
        return self._taken.values()


def hardware_address(address: str) -> str:
    """A locally administered hardware address made from an IP address."""
    raw = ipaddress.ip_address(address).packed
    if len(raw) == 16:
        raw = bytes(a ^ b for a, b in zip(raw[-4:], raw[4:8]))
    return "02:42:" + ":".join(f"{byte:02x}" for byte in raw)


def link_local(mac: str) -> str:
    """The link-local address of a hardware address (RFC 4291, appendix A: modified EUI-64)."""
    raw = bytes.fromhex(mac.replace(":", ""))
    identity = bytes([raw[0] ^ 2]) + raw[1:3] + b"\xff\xfe" + raw[3:]
    return str(ipaddress.IPv6Address(b"\xfe\x80" + bytes(6) + identity))
