"""What the plugin has of all containers: their records and files, and how to reach who watches them."""

from __future__ import annotations

import asyncio
from typing import Any

from sagong.contracts.streams import Address
from sagong.errors import NotFound, Unavailable
from sagong.shim.directory import RunDirectory
from sagong.shim.facts import HostFacts
from sagong.shim.links import Links
from sagong.shim.records import Record, Records

__all__ = ["Books"]


class Books:
    """Shared by the plugin's parts."""

    def __init__(self, directory: RunDirectory, links: Links) -> None:
        self.records: dict[str, Record] = {}
        self.files = Records(directory)
        self.links = links
        self._directory = directory

    @property
    def facts(self) -> HostFacts:
        """Of the machine, as the launcher told them."""
        if self.links.facts is None:
            raise Unavailable("the launcher has not been reached yet")
        return self.links.facts

    def find(self, container_id: str) -> Record:
        """A container that was started, and may have ended."""
        record = self.records.get(container_id)
        if record is None or record.starting:
            raise NotFound(f"No such container: {container_id}")
        return record

    def running(self, container_id: str) -> Record:
        """One that has not ended."""
        record = self.find(container_id)
        if record.exit is not None:
            raise NotFound(f"container {container_id} is not running")
        return record

    def address(self, record: Record, token: str) -> Address:
        """Where a client with this token is let in."""
        path = self._directory.monitor_socket(record.key)
        return Address(path=path, token=token, protocol="frames")

    async def job(self, record: Record, name: str, **arguments: Any) -> dict[str, Any]:
        """A short job on a container, with the launcher's rights."""
        request = {
            "job": name,
            "engine": record.made.engine,
            "maker": record.made.maker,
            "id": record.spec.id,
            "cgroup": record.cgroup,
            "pid": record.pid,
            "started": record.started,
            **arguments,
        }
        return await self.links.job(record.key, request)

    async def clear(self, record: Record) -> None:
        """After the end: wait until the monitor has cleaned, then remove what is left."""
        try:
            await asyncio.wait_for(record.cleaned.wait(), 5.0)
        except TimeoutError:
            await self.job(record, "sweep")
        self.files.remove(record.spec.id)
