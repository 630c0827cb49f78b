"""A node that runs nothing but says it does: for tests of what happens above nodes."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from typing import Any

from sagong.contracts.objects import Commit, Objects, ObjectWatch, Verb, Write
from sagong.following import follow
from sagong.model.times import micro_time, time_text

Json = dict[str, Any]
LOG = logging.getLogger("simulated-node")


class SimulatedNode:
    """Registers itself, starts pods that are bound to it, ends those that are deleted."""

    def __init__(self, objects: Objects, name: str = "node-1") -> None:
        self._objects = objects
        self._name = name
        self._number = 0
        self._address = 10
        # Pods whose containers end at once, with this code (by label `ends`).
        self.failing: set[str] = set()

    async def run(self) -> None:
        """For ever."""
        await self._register()
        watch = ObjectWatch(resource="v1/pods", fields=f"spec.nodeName={self._name}")
        async for batch in follow(self._objects, watch, log=LOG):
            writes = []
            for change in batch.changes:
                if change.kind != "DELETED":
                    writes += self._writes(json.loads(change.body))
            await self._commit(writes)

    async def _commit(self, writes: list[Write]) -> None:
        if not writes:
            return
        self._number += 1
        commit = Commit(id=f"{self._name}-{time.time_ns()}", writes=tuple(writes))
        for write, outcome in zip(writes, (await self._objects.commit(commit)).outcomes):
            if outcome.error not in ("", "conflict", "not_found"):
                raise AssertionError(f"{write}: {outcome.message}")

    async def _register(self) -> None:
        offered = {"cpu": "8", "memory": "16Gi", "pods": "110"}
        now = time_text(time.time())
        conditions = [
            {
                "type": "Ready",
                "status": "True",
                "reason": "KubeletReady",
                "lastHeartbeatTime": now,
                "lastTransitionTime": now,
            }
        ]
        node = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self._name, "labels": {"kubernetes.io/hostname": self._name}},
        }
        status = {"allocatable": offered, "capacity": offered, "conditions": conditions}
        lease = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._name, "namespace": "kube-node-lease"},
            "spec": {"holderIdentity": self._name, "renewTime": micro_time(time.time())},
        }
        await self._commit(
            [
                Write(
                    verb=Verb.CREATE,
                    resource="v1/nodes",
                    name=self._name,
                    body=json.dumps(node).encode(),
                ),
                Write(
                    verb=Verb.PATCH,
                    resource="v1/nodes",
                    name=self._name,
                    subresource="status",
                    body=json.dumps({"status": status}).encode(),
                ),
                Write(
                    verb=Verb.CREATE,
                    resource="coordination.k8s.io/v1/leases",
                    name=self._name,
                    namespace="kube-node-lease",
                    body=json.dumps(lease).encode(),
                ),
            ]
        )

    def _writes(self, pod: Json) -> list[Write]:
        meta, status = pod["metadata"], pod.get("status", {})
        if "deletionTimestamp" in meta:
            if status.get("phase") in ("Succeeded", "Failed") or not meta.get("finalizers"):
                return [self._delete(meta)]
            return [self._status(pod, "Succeeded")]
        if status.get("phase", "Pending") == "Pending":
            ends = (meta.get("labels") or {}).get("ends")
            if ends is not None:
                return [self._status(pod, "Succeeded" if ends == "0" else "Failed", int(ends))]
            return [self._status(pod, "Running")]
        return []

    def _delete(self, meta: Json) -> Write:
        return Write(
            verb=Verb.DELETE,
            resource="v1/pods",
            name=meta["name"],
            namespace=meta["namespace"],
            uid=meta["uid"],
            grace_seconds=0,
        )

    def _status(self, pod: Json, phase: str, code: int = 0) -> Write:
        now = time_text(time.time())
        self._address += 1
        address = f"10.1.{self._address >> 8}.{self._address & 255}"
        running = phase == "Running"
        state: Json = {"running": {"startedAt": now}}
        if not running:
            state = {"terminated": {"exitCode": code, "finishedAt": now, "startedAt": now}}
        conditions = [c for c in pod["status"].get("conditions", []) if c["type"] != "Ready"]
        ready = {
            "type": "Ready",
            "status": "True" if running else "False",
            "lastTransitionTime": now,
        }
        status = {
            "phase": phase,
            "podIP": address,
            "podIPs": [{"ip": address}],
            "startTime": now,
            "conditions": [*conditions, ready],
            "containerStatuses": [
                {
                    "name": container["name"],
                    "image": container["image"],
                    "imageID": "",
                    "ready": running,
                    "restartCount": 0,
                    "state": state,
                }
                for container in pod["spec"]["containers"]
            ],
        }
        return Write(
            verb=Verb.PATCH,
            resource="v1/pods",
            name=pod["metadata"]["name"],
            namespace=pod["metadata"]["namespace"],
            uid=pod["metadata"]["uid"],
            subresource="status",
            body=json.dumps({"status": status}).encode(),
        )


async def wait_until(holds: Any, seconds: float = 60.0) -> None:
    """Until an asynchronous question is answered yes."""
    async with asyncio.timeout(seconds):
        while not await holds():
            await asyncio.sleep(0.02)
