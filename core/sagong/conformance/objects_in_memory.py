"""Slot `objects` as far as others' suites need it: kept in memory, watched, or served by nobody."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from sagong.contracts.objects import (
    Commit,
    CommitResult,
    GetRequest,
    ListRequest,
    ListResult,
    Object,
    ObjectBatch,
    ObjectChange,
    ObjectWatch,
    Reminder,
)
from sagong.errors import InvalidArgument, NotFound, Unavailable

__all__ = ["NoObjects", "ObjectsInMemory"]


class NoObjects:
    """Where no API server runs."""

    async def watch(self, request: object) -> Any:
        """As the bus answers for a slot that nobody fills."""
        raise Unavailable("nothing serves objects now")
        yield  # an async generator

    get = list = commit = remind = watch


class ObjectsInMemory:
    """Objects in memory, with watches; what the plugin asks of `objects`."""

    def __init__(self) -> None:
        self._objects: dict[tuple[str, str, str], bytes] = {}
        self._queues: list[tuple[str, asyncio.Queue[ObjectBatch]]] = []
        self.reminders: list[Reminder] = []
        self._revision = 1

    async def put(self, resource: str, value: dict[str, Any]) -> None:
        """Make or change one, and let watchers see it."""
        meta = value["metadata"]
        self._objects[resource, meta.get("namespace", ""), meta["name"]] = json.dumps(
            value
        ).encode()
        await self._tell(resource, "MODIFIED", json.dumps(value).encode())

    async def drop(self, resource: str, namespace: str, name: str) -> None:
        """Delete one."""
        await self._tell(resource, "DELETED", self._objects.pop((resource, namespace, name)))

    async def wait_watched(self) -> None:
        """Let a plugin that has just started begin its watches."""
        before = -1
        while len(self._queues) > before:
            before = len(self._queues)
            await asyncio.sleep(0.01)

    async def _tell(self, resource: str, kind: str, body: bytes) -> None:
        self._revision += 1
        batch = ObjectBatch(revision=self._revision, changes=(ObjectChange(kind=kind, body=body),))
        for watched, queue in self._queues:
            if watched == resource:
                queue.put_nowait(batch)
        for _ in range(5):
            await asyncio.sleep(0)

    async def get(self, request: GetRequest) -> Object:
        """One object."""
        try:
            body = self._objects[request.resource, request.namespace, request.name]
        except KeyError:
            raise NotFound(f"{request.resource} {request.name} not found") from None
        return Object(body=body, revision=self._revision)

    async def list(self, request: ListRequest) -> ListResult:
        """All of a resource."""
        items = tuple(b for (r, _, _), b in self._objects.items() if r == request.resource)
        return ListResult(items=items, revision=self._revision)

    async def watch(self, request: ObjectWatch) -> AsyncIterator[ObjectBatch]:
        """What is, then what changes."""
        queue: asyncio.Queue[ObjectBatch] = asyncio.Queue()
        self._queues.append((request.resource, queue))
        found = (await self.list(ListRequest(resource=request.resource))).items
        changes = tuple(ObjectChange(kind="ADDED", body=body) for body in found)
        yield ObjectBatch(revision=self._revision, changes=changes, synced=True)
        while True:
            yield await queue.get()

    async def remind(self, reminder: Reminder) -> None:
        """Kept in `reminders`."""
        self.reminders.append(reminder)

    async def commit(self, commit: Commit) -> CommitResult:
        """Nobody here writes."""
        raise InvalidArgument(f"commit {commit.id}: this fake is read by the plugin only")
