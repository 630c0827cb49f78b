"""Keeps the Node object true and its Lease alive."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from typing import Any

import msgspec

from sagong.contracts.objects import (
    Commit,
    GetRequest,
    Objects,
    ObjectWatch,
    Outcome,
    Verb,
    Write,
)
from sagong.errors import AlreadyExists, NotFound, SagongError, Unavailable
from sagong.following import follow
from sagong.model.k8s.core_v1 import Node
from sagong_node.pods.machine import Facts, Load, load
from sagong_node.pods.registration import lease_document, node_document, node_labels, node_status
from sagong_node.pods.settings import PodSettings
from sagong_node.pods.surroundings import Surroundings

__all__ = ["Heartbeat"]

_NODES, _LEASES, _LEASE_NAMESPACE = "v1/nodes", "coordination.k8s.io/v1/leases", "kube-node-lease"
_AGAIN = 1.0


class Heartbeat:
    """`run` follows the Node object; `beat` renews the lease and looks at the machine.

    `reached`: somebody serves `objects`; before that nothing else need ask.
    """

    def __init__(self, around: Surroundings, facts: Facts) -> None:
        self._objects: Objects = around.objects
        self._settings: PodSettings = around.settings
        self._log: logging.Logger = around.log
        self._data = around.pods
        self._facts = facts
        self._node: Node | None = None
        self._lease: dict[str, Any] | None = None
        self.reached = asyncio.Event()
        self._known = asyncio.Event()
        self._told: dict[str, Any] = {}
        self._told_at = 0.0

    async def run(self) -> None:
        """Follow the object; where it is missing it is registered."""
        watch = ObjectWatch(resource=_NODES, fields=f"metadata.name={self._settings.name}")
        found: Node | None = None
        async for batch in follow(self._objects, watch, log=self._log):
            if batch.fresh:
                found = None
            for change in batch.changes:
                found = None
                if change.kind != "DELETED":
                    found = msgspec.json.decode(change.body, type=Node)
            if batch.fresh and not batch.synced:
                continue
            self._node = found
            if found is not None and _given_up(found):
                self._told = {}  # tell it anew: whoever wrote that has not heard of us for a while
            self.reached.set()
            if found is None and self._settings.register:
                await self._register()
            elif found is not None:
                self._known.set()

    async def beat(self) -> None:
        """Every ten seconds the lease; the status when it has changed, and every five minutes."""
        await self._known.wait()
        while True:
            pause = self._settings.renew_seconds
            try:
                await self._renew()
                await self._tell_status()
            except SagongError as error:
                self._log.info("heartbeat of node %s: %s", self._settings.name, error.message)
                pause = min(pause, _AGAIN)
            await asyncio.sleep(pause)

    async def _commit(self, *writes: Write) -> tuple[Outcome, ...]:
        commit = Commit(id=uuid.uuid4().hex, writes=writes, manager="kubelet")
        return (await self._objects.commit(commit)).outcomes

    async def _register(self) -> None:
        name = self._settings.name
        document = node_document(self._facts, self._settings, self._load(), time.time())
        status = msgspec.json.encode({"status": document["status"]})
        try:
            created, told = await self._commit(
                Write(
                    verb=Verb.CREATE,
                    resource=_NODES,
                    name=name,
                    body=msgspec.json.encode(document),
                ),
                Write(
                    verb=Verb.PATCH, resource=_NODES, name=name, subresource="status", body=status
                ),
            )
        except SagongError as error:
            self._log.warning("can't register node %s: %s", name, error.message)
            return
        if created.error and created.error != AlreadyExists.code:
            self._log.warning("can't register node %s: %s", name, created.message)
            return
        self._node = msgspec.json.decode(told.body or created.body, type=Node)
        if not told.error:
            self._told, self._told_at = _steady(document["status"]), time.monotonic()
        self._log.info("registered node %s", name)
        self._known.set()

    def _load(self) -> Load:
        return load(self._data)

    async def _tell_status(self) -> None:
        known = self._node
        if known is None:
            return
        status = node_status(known, self._facts, self._settings, self._load(), time.time())
        steady = _steady(status)
        due = time.monotonic() - self._told_at >= self._settings.heartbeat_seconds
        wanted = node_labels(self._facts, self._settings)
        labels = {k: v for k, v in wanted.items() if known.metadata.labels.get(k) != v}
        writes = []
        if labels:
            body = msgspec.json.encode({"metadata": {"labels": labels}})
            writes.append(
                Write(verb=Verb.PATCH, resource=_NODES, name=self._settings.name, body=body)
            )
        if steady != self._told or due:
            body = msgspec.json.encode({"status": status})
            writes.append(
                Write(
                    verb=Verb.PATCH,
                    resource=_NODES,
                    name=self._settings.name,
                    subresource="status",
                    body=body,
                )
            )
        if not writes:
            return
        outcomes = await self._commit(*writes)
        if not any(outcome.error for outcome in outcomes):
            self._told, self._told_at = steady, time.monotonic()

    async def _renew(self) -> None:
        settings = self._settings
        uid = self._node.metadata.uid if self._node else ""
        if self._lease is None:
            self._lease = await self._read_lease()
        document = lease_document(
            settings.name, uid, settings.lease_seconds, time.time(), known=self._lease
        )
        verb = Verb.UPDATE if self._lease else Verb.CREATE
        (outcome,) = await self._commit(
            Write(
                verb=verb,
                resource=_LEASES,
                namespace=_LEASE_NAMESPACE,
                name=settings.name,
                body=msgspec.json.encode(document),
            )
        )
        self._lease = None
        if outcome.error:
            raise Unavailable(f"its lease: {outcome.message}")
        self._lease = msgspec.json.decode(outcome.body) if outcome.body else None

    async def _read_lease(self) -> dict[str, Any] | None:
        request = GetRequest(resource=_LEASES, namespace=_LEASE_NAMESPACE, name=self._settings.name)
        try:
            found: dict[str, Any] = msgspec.json.decode((await self._objects.get(request)).body)
        except NotFound:
            return None
        return found


def _given_up(node: Node) -> bool:
    """Whether somebody has marked the node as silent."""
    conditions = node.status.conditions or ()
    return any(c.type == "Ready" and c.status == "Unknown" for c in conditions)


def _steady(status: dict[str, Any]) -> dict[str, Any]:
    """The status without the times of the heartbeat."""
    conditions = [
        (c["type"], c["status"], c["reason"])
        for c in status["conditions"]
        if c["type"] in ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")
    ]
    return {**status, "conditions": conditions}
