"""Whose network a sandbox is on: its own, or, in a row of sandboxes that share, that of the last."""

from __future__ import annotations

from collections.abc import Iterator

from sagong.contracts.network import Sandbox
from sagong.contracts.node import SandboxSpec
from sagong.errors import FailedPrecondition, NotFound
from sagong_node.records import ContainerRecord, SandboxRecord
from sagong_node.registry import Registry

__all__ = ["Sharing"]


class Sharing:
    """Reads the records alone."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def root(self, sandbox: SandboxSpec) -> SandboxSpec:
        """Whose network, and so whose user namespace, it is in."""
        *_, last = (sandbox, *(other.spec for other in self._others(sandbox)))
        return last

    def last(self, sandbox: SandboxRecord) -> SandboxRecord:
        """The same as a record; who is at the end of the row may name one that is not there."""
        *_, last = (sandbox, *self._others(sandbox.spec))
        return last

    def lender(self, sandbox: SandboxRecord) -> ContainerRecord | None:
        """The container whose names and files go with the network, if that is another one's."""
        found = self._registry.containers.get(self._lending(sandbox).spec.id)
        return found if sandbox.spec.share_with and found and found.hosts_path else None

    def network(self, sandbox: SandboxRecord) -> Sandbox:
        """What it shares; FailedPrecondition while that is not joined."""
        other = self._lending(sandbox)
        if other.network is None:
            raise FailedPrecondition(
                f"cannot join network of a non running container: {sandbox.spec.share_with}"
            )
        return other.network

    def _lending(self, sandbox: SandboxRecord) -> SandboxRecord:
        """Who has the network; an error in Docker's words where nobody does."""
        last = self.last(sandbox)
        if not last.spec.share_with:
            return last
        wanted = sandbox.spec.share_with
        if self._other(last.spec) is None:
            raise NotFound(f"No such container: {last.spec.share_with}")
        if self._other(sandbox.spec) is sandbox:
            raise FailedPrecondition("cannot join own network")
        raise FailedPrecondition(f"cannot join network of a non running container: {wanted}")

    def _others(self, sandbox: SandboxSpec) -> Iterator[SandboxRecord]:
        """Whose network it shares, whose that one shares, …: each once, as names may lead back."""
        seen = {sandbox.id}
        while (other := self._other(sandbox)) is not None and other.spec.id not in seen:
            seen.add(other.spec.id)
            yield other
            sandbox = other.spec

    def _other(self, sandbox: SandboxSpec) -> SandboxRecord | None:
        """Whose network it shares, if that one is there."""
        wanted = sandbox.share_with
        found = self._registry.sandboxes.get(wanted)
        if found is None and wanted:
            named = (r.spec for r in self._registry.containers.values() if r.spec.name == wanted)
            places = (self._registry.sandboxes.get(spec.sandbox) for spec in named)
            alike = (p for p in places if p is not None and p.spec.owner == sandbox.owner)
            found = next(alike, None)
        return found
