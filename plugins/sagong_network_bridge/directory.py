"""Who has which name on which network: the tables that the resolver answers from. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

from sagong_network_bridge.question import address_of

__all__ = ["Found", "NameTable"]


class Found(NamedTuple):
    """Addresses of a name, or the name of an address; `known` even if the asked kind has none."""

    known: bool
    addresses: tuple[str, ...] = ()
    name: str = ""


class NameTable:
    """Sandboxes, their networks, and the names there."""

    def __init__(self) -> None:
        self._sandboxes: dict[str, dict[str, Any]] = {}
        self._names: dict[tuple[str, str], dict[str, list[str]]] = {}
        self._owners: dict[tuple[str, str], tuple[str, str]] = {}
        self._turn = 0

    def put(self, identity: str, sandbox: dict[str, Any]) -> None:
        """Replace what is known of a sandbox: `endpoints` and `forward`."""
        self.drop(identity)
        self._sandboxes[identity] = sandbox
        for endpoint in sandbox["endpoints"]:
            for name in self._all_names(endpoint):
                there = self._names.setdefault((endpoint["network"], name), {})
                there[identity] = endpoint["addresses"]
            for address in endpoint["addresses"]:
                first = next(iter(endpoint["names"]), "")
                if first:
                    label = f"{first}.{endpoint['label']}"
                    self._owners[endpoint["network"], address] = (identity, label)

    def drop(self, identity: str) -> None:
        """Forget a sandbox."""
        for endpoint in self._sandboxes.pop(identity, {}).get("endpoints", ()):
            for name in self._all_names(endpoint):
                key = (endpoint["network"], name)
                there = self._names.get(key, {})
                there.pop(identity, None)
                if not there:
                    self._names.pop(key, None)
            for address in endpoint["addresses"]:
                if self._owners.get((endpoint["network"], address), ("",))[0] == identity:
                    del self._owners[endpoint["network"], address]

    def forwards(self, identity: str) -> bool:
        """Whether this sandbox's other questions go to the machine's nameservers."""
        return bool(self._sandboxes.get(identity, {}).get("forward"))

    def nameservers(self, identity: str) -> tuple[str, ...]:
        """Where they go instead, if the sandbox has nameservers of its own."""
        return tuple(self._sandboxes.get(identity, {}).get("nameservers", ()))

    def find(self, asker: str, name: str) -> Found:
        """What a name means for a sandbox: its first network that knows it decides.

        A link is followed once, to a name that somebody has himself.
        """
        for endpoint in self._sandboxes.get(asker, {}).get("endpoints", ()):
            meant = _linked(endpoint).get(name, name)
            there = self._names.get((endpoint["network"], meant))
            if there:
                found = [address for addresses in there.values() for address in addresses]
                self._turn += 1
                cut = self._turn % len(found) if found else 0
                return Found(True, tuple(found[cut:] + found[:cut]))
        address = address_of(name)
        for endpoint in self._sandboxes.get(asker, {}).get("endpoints", ()) if address else ():
            owner = self._owners.get((endpoint["network"], address))
            if owner:
                return Found(True, (), owner[1])
        return Found(False)

    @staticmethod
    def _all_names(endpoint: dict[str, Any]) -> set[str]:
        plain = {name.lower().rstrip(".") for name in endpoint["names"]}
        return plain | {f"{name}.{endpoint['label'].lower()}" for name in plain}


def _linked(endpoint: dict[str, Any]) -> dict[str, str]:
    """A sandbox's own names for others on a network."""
    links = endpoint.get("links", {})
    return {mine.lower().rstrip("."): theirs.lower().rstrip(".") for mine, theirs in links.items()}
