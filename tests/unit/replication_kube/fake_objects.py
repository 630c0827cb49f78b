"""Contract `objects` over the closed cluster of the replication suite, with watches, for loops."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

from sagong.conformance.replication_lab import Cluster, Json
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
    Outcome,
    Reminder,
    Verb,
)
from sagong.contracts.replication import Plan, Situation
from sagong.errors import NotFound, Unavailable
from sagong.model.selectors import parse_fields


class _Nobody:
    async def reconcile(self, situation: Situation) -> Plan:
        return Plan()


class FakeObjects:
    """Stores by a `Cluster`; every change is told to watchers, in order.

    `lag` delays watches behind commits, `late` the answers of commits; `lose` answers are lost after
    the commit was done.
    """

    def __init__(self, *objects: Json, lag: float = 0.0, late: float = 0.0) -> None:
        self.cluster = Cluster(_Nobody(), heard=self._heard)
        self.commits: list[Commit] = []
        self.reminders: list[Reminder] = []
        self.lose = 0
        self.lag = lag
        self.late = late
        self._done: dict[str, CommitResult] = {}
        self._log: list[tuple[int, str, str, bytes]] = []
        self._grown = asyncio.Event()
        for one in objects:
            self.cluster.add(one)

    def _heard(self, kind: str, resource: str, document: Json) -> None:
        body = json.dumps(document).encode()
        self._log.append((self.cluster.revision, kind, resource, body))
        self._grown.set()
        self._grown = asyncio.Event()

    async def get(self, request: GetRequest) -> Object:
        """See the contract."""
        found = self.cluster.find(request.resource, request.name, request.namespace)
        if found is None:
            raise NotFound(f"{request.resource} {request.name} not found")
        body = json.dumps(found).encode()
        return Object(body=body, revision=int(found["metadata"]["resourceVersion"]))

    async def list(self, request: ListRequest) -> ListResult:
        """See the contract."""
        found = self.cluster.all(request.resource, request.namespace)
        items = tuple(json.dumps(one).encode() for one in found)
        return ListResult(items=items, revision=self.cluster.revision)

    async def watch(self, request: ObjectWatch) -> AsyncIterator[ObjectBatch]:
        """See the contract."""
        at = len(self._log)
        changes = tuple(
            ObjectChange(kind="ADDED", body=json.dumps(one).encode())
            for one in self.cluster.all(request.resource, "")
            if _matches(request, one)
        )
        yield ObjectBatch(revision=self.cluster.revision, changes=changes, synced=True)
        while True:
            grown = self._grown
            while at < len(self._log):
                revision, kind, resource, body = self._log[at]
                at += 1
                if resource == request.resource:
                    if self.lag:
                        await asyncio.sleep(self.lag)
                    kind = kind if _matches(request, json.loads(body)) else "DELETED"
                    change = ObjectChange(kind=kind, body=body)
                    yield ObjectBatch(revision=revision, changes=(change,))
                grown = self._grown
            await grown.wait()

    async def remind(self, reminder: Reminder) -> None:
        """Kept in `reminders`."""
        self.reminders.append(reminder)

    async def commit(self, commit: Commit) -> CommitResult:
        """See the contract."""
        if commit.id not in self._done:
            self.commits.append(commit)
            outcomes = []
            for write in commit.writes:
                if write.resource == "v1/events" and write.verb is Verb.CREATE:
                    outcomes.append(Outcome())
                else:
                    outcomes.append(self.cluster.outcome(write))
            self._done[commit.id] = CommitResult(
                outcomes=tuple(outcomes), revision=self.cluster.revision
            )
        await asyncio.sleep(self.late)
        if self.lose:
            self.lose -= 1
            raise Unavailable("the answer was lost", maybe_executed=True)
        return self._done[commit.id]


def _matches(request: ObjectWatch, document: Json) -> bool:
    phase = document.get("status", {}).get("phase", "")
    return parse_fields(request.fields).matches({"status.phase": phase})
