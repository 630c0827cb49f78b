"""Static pods as an API server would hold them: in memory, for the same workers that serve an API's.

The part of contract `objects` that a worker of a pod needs. What an API server would keep is only
told: events become lines of the log. A pod whose file has changed ends first; its successor, which has
the same name, comes when nothing of it is left. ::

    file there ──► ADDED ──► file gone or changed ──► deletion asked for ──► DELETED ──► ADDED (changed)
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec

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
    Write,
)
from sagong.errors import NotFound
from sagong.model.times import time_text
from sagong_node.pods.manifests import StaticPod

__all__ = ["Key", "Roster"]

Key = tuple[str, str]
Document = dict[str, Any]
_PODS, _EVENTS, _RUNTIMES = "v1/pods", "v1/events", "node.k8s.io/v1/runtimeclasses"


class Roster:
    """`assign` says which pods there shall be; `changes` tells a kubelet what to do about it."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._wanted: dict[Key, StaticPod] = {}
        self._there: dict[Key, Document] = {}
        self._revision = 0
        self._changes: asyncio.Queue[ObjectChange] = asyncio.Queue()

    def assign(self, wanted: Mapping[Key, StaticPod], now: float) -> None:
        """These pods and no others."""
        self._wanted = dict(wanted)
        for key, document in list(self._there.items()):
            metadata = document["metadata"]
            pod = wanted.get(key)
            if (pod is None or pod.uid != metadata["uid"]) and "deletionTimestamp" not in metadata:
                metadata["deletionTimestamp"] = time_text(now)
                seconds = document["spec"]["terminationGracePeriodSeconds"]
                metadata["deletionGracePeriodSeconds"] = seconds
                self._tell("MODIFIED", document)
        for key in wanted:
            self._add(key)

    async def changes(self) -> AsyncIterator[ObjectChange]:
        """What happens, for ever."""
        while True:
            yield await self._changes.get()

    def pods(self) -> list[Document]:
        """The pods that there are, with their status."""
        return list(self._there.values())

    def _add(self, key: Key) -> None:
        if key in self._there or key not in self._wanted:
            return
        document: Document = msgspec.json.decode(self._wanted[key].body)
        self._there[key] = document
        document["status"] = {"phase": "Pending"}
        self._tell("ADDED", document)

    def _tell(self, kind: str, document: Document) -> None:
        self._changes.put_nowait(ObjectChange(kind=kind, body=self._body(document)))

    def _body(self, document: Document) -> bytes:
        """The object in a version of its own."""
        self._revision += 1
        document["metadata"]["resourceVersion"] = str(self._revision)
        return msgspec.json.encode(document)

    # The contract, as far as a pod's worker uses it

    async def get(self, request: GetRequest) -> Object:
        """A pod; or a RuntimeClass, whose name is the handler's where nobody has defined any."""
        if request.resource == _RUNTIMES:
            body = {"metadata": {"name": request.name}, "handler": request.name}
            return Object(body=msgspec.json.encode(body), revision=self._revision)
        document = self._there.get((request.namespace, request.name))
        if request.resource != _PODS or document is None:
            raise NotFound(f'{request.resource} "{request.name}" not found: there is no API server')
        return Object(body=msgspec.json.encode(document), revision=self._revision)

    async def list(self, request: ListRequest) -> ListResult:
        """The pods; of all else there is nothing."""
        there = self._there.values() if request.resource == _PODS else ()
        return ListResult(
            items=tuple(msgspec.json.encode(document) for document in there),
            revision=self._revision,
        )

    async def watch(self, request: ObjectWatch) -> AsyncIterator[ObjectBatch]:
        """Of nothing but pods: a static pod can't refer to other objects."""
        raise NotFound(f"{request.resource} can't be watched: there is no API server")
        yield

    async def remind(self, reminder: Reminder) -> None:
        """Nobody sleeps who follows this."""
        raise NotFound("nobody can be woken: there is no API server")

    async def commit(self, commit: Commit) -> CommitResult:
        """Never waits, so that the writer has its answer before anybody hears of the change."""
        outcomes = tuple(self._write(write) for write in commit.writes)
        return CommitResult(outcomes=outcomes, revision=self._revision)

    def _write(self, write: Write) -> Outcome:
        if write.resource == _EVENTS:
            return self._log_event(write)
        document = self._there.get((write.namespace, write.name))
        if document is None or write.uid not in ("", document["metadata"]["uid"]):
            return Outcome(error=NotFound.code, message=f'pods "{write.name}" not found')
        if write.verb is Verb.DELETE:
            return self._remove((write.namespace, write.name), document)
        change = msgspec.json.decode(write.body)
        known = change["metadata"].get("resourceVersion", "")
        if known not in ("", document["metadata"]["resourceVersion"]):
            return Outcome(error="conflict", message="the pod has been changed")
        self._take_status(document, change["status"])
        return Outcome(body=self._body(document), revision=self._revision)

    def _remove(self, key: Key, document: Document) -> Outcome:
        del self._there[key]
        self._log.info("static pod %s/%s has ended", *key)
        self._tell("DELETED", document)
        self._add(key)
        return Outcome(revision=self._revision)

    def _take_status(self, document: Document, status: Document) -> None:
        before = document["status"]
        merged = {**before, **status}  # a merge patch: null takes a field away
        document["status"] = {key: value for key, value in merged.items() if value is not None}
        if before.get("phase") != document["status"].get("phase"):
            metadata = document["metadata"]
            name = f"{metadata['namespace']}/{metadata['name']}"
            self._log.info("static pod %s is %s", name, document["status"].get("phase"))

    def _log_event(self, write: Write) -> Outcome:
        """Once; an event that comes again is the same line."""
        if write.verb is Verb.CREATE:
            event = msgspec.json.decode(write.body)
            who = event["involvedObject"]
            level = logging.WARNING if event["type"] == "Warning" else logging.INFO
            name = f"{who.get('namespace', '')}/{who['name']}"
            self._log.log(level, "static pod %s: %s: %s", name, event["reason"], event["message"])
        return Outcome()
