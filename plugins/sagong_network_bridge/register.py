"""Who there is: a record of each sandbox from the moment its caller is told, and one call at a time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from sagong.contracts.network import Sandbox
from sagong.errors import NotFound
from sagong_network_bridge.records import Records, SandboxRecord

__all__ = ["Register"]


class Register:
    """Records of all sandboxes of this machine, in memory and on the disk."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._known: dict[str, SandboxRecord] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    def adopt(self, record: SandboxRecord) -> None:
        """One that is on the disk already."""
        self._known[record.sandbox.id] = record

    def keep(self, record: SandboxRecord) -> Sandbox:
        """A new one, or as it is from now on; it is on the disk first."""
        self._records.keep_sandbox(record)
        self._known[record.sandbox.id] = record
        return record.sandbox

    def drop(self, identity: str) -> None:
        """One that leaves."""
        self._records.drop_sandbox(identity)
        del self._known[identity]

    def find(self, identity: str) -> SandboxRecord | None:
        """One, if there is."""
        return self._known.get(identity)

    def get(self, identity: str) -> SandboxRecord:
        """One; NotFound names it."""
        record = self._known.get(identity)
        if record is None:
            raise NotFound(f"network sandbox {identity} not found")
        return record

    def all(self) -> list[SandboxRecord]:
        """As they are now: others may come and go while one goes through them."""
        return list(self._known.values())

    def some(self, ids: tuple[str, ...]) -> list[SandboxRecord]:
        """Those of them that there are; () is all."""
        return [self._known[i] for i in ids if i in self._known] if ids else self.all()

    def users(self, network: str) -> list[str]:
        """Sandboxes on a network, by name where they have one."""
        return [
            next(iter(record.sandbox.names), record.sandbox.id[:12])
            for record in self._known.values()
            if any(endpoint.network == network for endpoint in record.sandbox.endpoints)
        ]

    @contextlib.asynccontextmanager
    async def alone(self, identity: str) -> AsyncIterator[None]:
        """One call at a time for a sandbox."""
        lock = self._locks.setdefault(identity, asyncio.Lock())
        async with lock:
            yield
        if identity not in self._known and not lock.locked():
            self._locks.pop(identity, None)
