"""Addresses and ports of services: one key each in the store, taken in the service's transaction."""

from __future__ import annotations

import ipaddress
import itertools
import random
from collections.abc import Callable, Sequence

import msgspec

from sagong.contracts.state import Compare, Operation, OperationKind
from sagong_kube import refusal
from sagong_kube.refusal import Cause
from sagong_kube.registry.document import Document
from sagong_kube.storage.keys import ALLOCATIONS

__all__ = ["Allocations", "Taken", "held_keys"]

_TRIES = 64


class Taken(msgspec.Struct, frozen=True):
    """Keys to take, with the operations and conditions that take them."""

    operations: tuple[Operation, ...]
    guards: tuple[Compare, ...]


def _address_key(address: str) -> str:
    return f"{ALLOCATIONS}address/{ipaddress.ip_address(address)}"


def _port_key(port: int) -> str:
    return f"{ALLOCATIONS}port/{port}"


def held_keys(service: Document) -> list[str]:
    """The keys that a service holds."""
    spec = service.get("spec") or {}
    addresses = spec.get("clusterIPs") or ([spec["clusterIP"]] if spec.get("clusterIP") else [])
    keys = [_address_key(a) for a in addresses if a and a != "None"]
    ports = {port["nodePort"] for port in spec.get("ports") or () if port.get("nodePort")}
    if spec.get("healthCheckNodePort"):
        ports.add(spec["healthCheckNodePort"])
    return keys + [_port_key(port) for port in sorted(ports)]


class Allocations:
    """What is taken, as the store's keys say; it proposes what is free."""

    def __init__(
        self, ranges: Sequence[str], ports: tuple[int, int], chance: random.Random
    ) -> None:
        self._networks = [ipaddress.ip_network(text) for text in ranges]
        self._ports = ports
        self._chance = chance
        self._keys: dict[str, bytes] = {}

    def put(self, key: str, value: bytes, revision: int) -> None:
        """A key was taken."""
        self._keys[key] = value

    def remove(self, key: str) -> None:
        """A key was freed."""
        self._keys.pop(key, None)

    @property
    def families(self) -> tuple[str, ...]:
        """Address families of the ranges, in their order."""
        return tuple(f"IPv{network.version}" for network in self._networks)

    @property
    def first_address(self) -> str:
        """The API's own service address: the first of the first range."""
        return str(self._networks[0].network_address + 1)

    def address(self, family: str, claimed: set[str]) -> str:
        """A free address of a family; ResourceExhausted when there is none."""
        network = self._network(family)
        size = min(network.num_addresses, 1 << 20)
        # The lower part is left for addresses that people choose, as upstream does.
        low = min(max(16, size // 16), 256) if size > 64 else 1
        free = self._pick(low, size - 1, lambda at: _address_key(str(network[at])), claimed)
        if free is None and low > 1:
            free = self._pick(1, low, lambda at: _address_key(str(network[at])), claimed)
        if free is None:
            raise refusal.internal("failed to allocate a serviceIP: range is full")
        return str(network[free])

    def port(self, claimed: set[str]) -> int:
        """A free node port."""
        first, last = self._ports
        free: int | None = self._pick(first, last + 1, _port_key, claimed)
        if free is None:
            raise refusal.internal("failed to allocate a nodePort: range is full")
        return free

    def _pick(
        self, low: int, high: int, key: Callable[[int], str], claimed: set[str]
    ) -> int | None:
        for _ in range(_TRIES):
            at: int = self._chance.randrange(low, high)
            if key(at) not in self._keys and key(at) not in claimed:
                return at
        start = self._chance.randrange(low, high)
        for at in itertools.chain(range(start, high), range(low, start)):
            if key(at) not in self._keys and key(at) not in claimed:
                return at
        return None

    def _network(self, family: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
        for network in self._networks:
            if f"IPv{network.version}" == family:
                return network
        cause = f"may only be used on a cluster configured with {family}"
        raise refusal.bad_request(f"spec.ipFamilies: {family} {cause}")

    def check_address(self, address: str) -> Cause | None:
        """Why an asked-for cluster address can't be had; taken ones are seen by `take`."""
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return _wrong("spec.clusterIPs[0]", address, "must be a valid IP address")
        if not any(parsed in network for network in self._networks):
            ranges = ", ".join(str(network) for network in self._networks)
            why = f"failed to allocate IP {address}: the provided IP is not in the valid range. "
            return _wrong("spec.clusterIPs", [address], f"{why}The range of valid IPs is {ranges}")
        return None

    def check_port(self, port: int, at: int) -> Cause | None:
        """Why an asked-for node port can't be had."""
        first, last = self._ports
        if first <= port <= last:
            return None
        said = (
            f"provided port is not in the valid range. The range of valid ports is {first}-{last}"
        )
        return _wrong(f"spec.ports[{at}].nodePort", port, said)

    def taken_by(self, key: str) -> str:
        """`namespace/name` of the service that holds a key, "" for nobody."""
        return self._keys.get(key, b"").decode()

    def take(self, owner: str, keys: Sequence[str], held: Sequence[str]) -> Taken:
        """Take what is not held already, and free what is no longer wanted."""
        fresh = [key for key in keys if key not in held]
        freed = [key for key in held if key not in keys]
        puts = [Operation(kind=OperationKind.PUT, key=k, value=owner.encode()) for k in fresh]
        deletes = [Operation(kind=OperationKind.DELETE, key=key) for key in freed]
        guards = tuple(Compare(key=key, revision=0) for key in fresh)
        return Taken((*puts, *deletes), guards)


def _wrong(field: str, value: object, why: str) -> Cause:
    import msgspec.json

    shown = msgspec.json.encode(value).decode()
    return Cause("FieldValueInvalid", f"Invalid value: {shown}: {why}", field)
