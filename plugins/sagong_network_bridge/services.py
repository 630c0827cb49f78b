"""Services → elements of the firewall's maps, and the chains that pick one of n backends. Pure.

A virtual address and port leads to a chain by the number of its backends, which draws an index; the
address, the port and that index lead to the backend. So a thousand services with three backends each
share one chain, and a change of one service changes its own elements alone.

Where clients stick to a backend, the service's number is looked up, and with the index the backend's,
which is what is remembered of a client.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from typing import NamedTuple

from sagong.contracts.network import ServicePort
from sagong.errors import InvalidArgument
from sagong_network_bridge import expressions as ex
from sagong_network_bridge.elements import (
    address_bytes,
    door_key,
    front_key,
    target_data,
    value_data,
)
from sagong_network_bridge.expressions import Verdict, verdict_data
from sagong_network_bridge.nft import Rule

__all__ = ["Piece", "ServiceElements", "chain_rules", "elements_of"]

_MOST_BACKENDS = 4096
# By what was asked for, a virtual address (front) or a port of the machine (door): maps to backends
# and to services' numbers.
_BEHIND = {"front": "behind", "door": "behinddoor"}
_NUMBERS = {"front": "serviceids", "door": "nodeids"}


class Piece(NamedTuple):
    """One element: set, key, data."""

    set: str
    key: bytes
    data: bytes


class Backend(NamedTuple):
    """Where connections end."""

    address: str
    port: int


class ServiceElements(NamedTuple):
    """What one service needs: elements, chains, and addresses of backends."""

    pieces: tuple[Piece, ...]
    chains: frozenset[str]
    backends: frozenset[str]


def elements_of(service: ServicePort) -> ServiceElements:
    """All of a service; InvalidArgument names what is wrong with it."""
    _check(service)
    backends = [_backend(text, service) for text in service.backends]
    local = [_backend(text, service) for text in service.local_backends]
    pieces: list[Piece] = []
    chains: set[str] = set()
    for version in (4, 6):
        inner = _Group(service, version, "inner", backends)
        outer = _Group(service, version, "outer", local) if service.local_only else inner
        fronts = [a for a in service.addresses if a and _version(a) == version]
        outside = [a for a in service.external_addresses if _version(a) == version]
        for address in fronts:
            pieces += inner.front(address)
        for address in outside:
            pieces += outer.front(address)
        if service.node_port and (fronts or outer.backends or _single_family(service, version)):
            pieces += outer.door(service.node_port)
        for group in {id(inner): inner, id(outer): outer}.values():
            pieces += group.members()
            chains |= group.chains
    found = frozenset(backend.address for backend in [*backends, *local])
    return ServiceElements(tuple(pieces), frozenset(chains), found)


def _single_family(service: ServicePort, version: int) -> bool:
    return not service.addresses and version == 4


def _version(address: str) -> int:
    return 6 if ":" in address else 4


def _check(service: ServicePort) -> None:
    name = service.name
    if service.protocol.lower() not in ("tcp", "udp", "sctp"):
        raise InvalidArgument(f"service {name}: protocol {service.protocol!r}: tcp, udp or sctp")
    if not 1 <= service.port <= 65535 or not 0 <= service.node_port <= 65535:
        raise InvalidArgument(f"service {name}: port {service.port}, node port {service.node_port}")
    if len(service.backends) > _MOST_BACKENDS:
        raise InvalidArgument(f"service {name}: more than {_MOST_BACKENDS} backends")
    for address in (*service.addresses, *service.external_addresses):
        try:
            if address and address != "None":
                address_bytes(address)
        except OSError:
            raise InvalidArgument(f"service {name}: address {address!r} is no IP address") from None


def _backend(text: str, service: ServicePort) -> Backend:
    address, _, port = text.rpartition(":")
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    elif ":" in address:
        address = ""
    try:
        address_bytes(address)
        number = int(port)
    except (OSError, ValueError):
        number = 0
    if not 1 <= number <= 65535:
        raise InvalidArgument(
            f"service {service.name}: backend {text!r}: write ADDRESS:PORT or [V6]:PORT"
        )
    return Backend(address, number)


class _Group:
    """The backends of one IP version that one number stands for."""

    def __init__(
        self, service: ServicePort, version: int, part: str, backends: list[Backend]
    ) -> None:
        self._service = service
        self._version = version
        self._outer = part == "outer"
        self.backends = [b for b in dict.fromkeys(backends) if _version(b.address) == version]
        word = f"{service.name}|{service.protocol}|{service.port}|{part}|{version}"
        self._number = hashlib.sha256(word.encode()).digest()[:4]
        self.chains: set[str] = set()

    @property
    def _protocol(self) -> str:
        return self._service.protocol.lower()

    def _chain(self, kind: str) -> str:
        count, seconds = len(self.backends), self._service.affinity_seconds
        name = f"{kind}{self._version}_{count}" + (f"_{seconds}" if seconds else "")
        self.chains.add(name)
        return name

    def _lead(self, sets: tuple[str, str, str], key: bytes, kind: str) -> Iterator[Piece]:
        """From a front to the picking chain and the number, or to a refusal."""
        chosen, numbers, nothing = (f"{name}{self._version}" for name in sets)
        if not self.backends:
            # Outside traffic that must stay local is ignored, so that others may take it.
            chain = "ignore" if self._outer else "refuse"
            yield Piece(nothing, key, verdict_data(Verdict.GOTO, chain))
            return
        yield Piece(chosen, key, verdict_data(Verdict.GOTO, self._chain(kind)))
        if self._service.affinity_seconds:
            yield Piece(numbers, key, value_data(self._number))
            return
        for index, backend in enumerate(self.backends):
            data = target_data(backend.address, backend.port)
            yield Piece(f"{_BEHIND[kind]}{self._version}", key + struct.pack("=I", index), data)

    def front(self, address: str) -> Iterator[Piece]:
        """A virtual address."""
        key = front_key(address, self._protocol, self._service.port)
        sets = ("services", "serviceids", "noservices")
        yield from self._lead(sets, key, "front")

    def door(self, port: int) -> Iterator[Piece]:
        """A port of every address of this machine."""
        key = door_key(self._protocol, port)
        yield from self._lead(("nodes", "nodeids", "nonodes"), key, "door")

    def members(self) -> Iterator[Piece]:
        """For clients that stick to one: the backends by index, and as a set."""
        if not self.chains or not self._service.affinity_seconds:
            return
        taken: set[bytes] = set()
        for index, backend in enumerate(self.backends):
            number = _free_number(backend, taken)
            key = self._number + struct.pack("=I", index)
            yield Piece(f"backends{self._version}", key, value_data(number))
            data = target_data(backend.address, backend.port)
            yield Piece(f"live{self._version}", self._number + number, data)


def _free_number(backend: Backend, taken: set[bytes]) -> bytes:
    """By address and port, so that it stays when others come and go."""
    text = f"{backend.address} {backend.port}"
    while (found := hashlib.sha256(text.encode()).digest()[:4]) in taken:
        text += " again"
    taken.add(found)
    return found


def chain_rules(name: str) -> Iterator[Rule]:
    """The rules of a picking chain: `front4_3`, `door6_2_10800` say all that there is to know."""
    head, _, rest = name.partition("_")
    count, _, seconds = rest.partition("_")
    kind, version = head[:-1], int(head[-1])
    width = 1 if version == 4 else 4
    if seconds:
        yield Rule(name, _stick(kind, version, int(seconds)), "where this client went before")
        yield Rule(name, _pick_sticking(kind, version, int(count), int(seconds)))
        return
    load, index = _loaded(kind, version)
    rule = load + ex.random(index, int(count))
    rule += ex.look_up(f"{_BEHIND[kind]}{version}", 0, into=8)
    yield Rule(name, rule + ex.destination_nat(version, 8, 8 + width))


def _loaded(kind: str, version: int) -> tuple[bytes, int]:
    """Load what was asked for from register 0 on; the register after it."""
    width = {"front": {4: 1, 6: 4}[version], "door": 0}[kind]
    load = ex.family(version) + (ex.destination(0, version) if width else b"")
    return load + ex.protocol(width) + ex.destination_port(width + 1), width + 2


def _numbered(kind: str, version: int, into: int) -> bytes:
    """Load the service's number."""
    load, _ = _loaded(kind, version)
    return load + ex.look_up(f"{_NUMBERS[kind]}{version}", 0, into=into) + ex.opaque(into, _SPARE)


# Registers of sticking rules: client up to 3, service's number 4, backend's 5, its address from 8 on.
_NUMBER, _BACKEND, _ADDRESS, _SPARE = 4, 5, 8, 15


def _client(version: int) -> tuple[bytes, int]:
    """Load the client right before the number; its register."""
    register = _NUMBER - (1 if version == 4 else 4)
    return ex.source(register, version), register


def _sent(version: int) -> bytes:
    """To the backend of these numbers, if it is still there."""
    width = 1 if version == 4 else 4
    found = ex.look_up(f"live{version}", _NUMBER, into=_ADDRESS)
    return found + ex.destination_nat(version, _ADDRESS, _ADDRESS + width)


def _stick(kind: str, version: int, seconds: int) -> bytes:
    load, client = _client(version)
    sticky = f"sticky{version}"
    rule = _numbered(kind, version, _NUMBER) + load
    rule += ex.look_up(sticky, client, into=_BACKEND) + ex.opaque(_BACKEND, _SPARE)
    # Only a backend that is there is remembered for longer.
    rule += ex.look_up(f"live{version}", _NUMBER, into=_ADDRESS)
    return rule + ex.remember(sticky, client, _BACKEND, seconds) + _sent(version)


def _pick_sticking(kind: str, version: int, count: int, seconds: int) -> bytes:
    load, client = _client(version)
    sticky = f"sticky{version}"
    rule = _numbered(kind, version, _NUMBER) + ex.random(_BACKEND, count)
    rule += ex.look_up(f"backends{version}", _NUMBER, into=_BACKEND)
    rule += ex.opaque(_BACKEND, _SPARE) + load
    # What is remembered of a backend that has gone would not be overwritten.
    rule += ex.forget(sticky, client, _BACKEND)
    return rule + ex.remember(sticky, client, _BACKEND, seconds) + _sent(version)
