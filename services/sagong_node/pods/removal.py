"""Removes what a pod has on this machine: containers, sandbox, volumes, logs."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Sequence

from sagong.contracts.node import Ref, RemoveRequest
from sagong.errors import NotFound
from sagong_node.pods.naming import OWNER
from sagong_node.pods.surroundings import Surroundings
from sagong_node.pods.volumes import remove_tree
from sagong_node.records import SandboxRecord

__all__ = ["UID_LABEL", "box_of", "remove_pod"]

UID_LABEL = "io.kubernetes.pod.uid"


def box_of(around: Surroundings, uid: str) -> SandboxRecord | None:
    """The pod's sandbox, if there is one."""
    for record in around.registry.sandboxes.values():
        if record.spec.owner == OWNER and (UID_LABEL, uid) in record.spec.labels:
            return record
    return None


async def remove_pod(around: Surroundings, uid: str, volumes: Sequence[str] = ()) -> None:
    """Kill and remove everything; what is not there is no error. `volumes` were made for the pod."""
    for record in list(around.registry.containers.values()):
        if (UID_LABEL, uid) in record.spec.labels:
            with contextlib.suppress(NotFound):
                await around.node.remove(RemoveRequest(id=record.spec.id, force=True, volumes=True))
    box = box_of(around, uid)
    if box is not None:
        await around.node.remove_sandbox(Ref(id=box.spec.id))
    await around.volumes.remove(uid, list(volumes))
    loop = asyncio.get_running_loop()
    # Not by a pattern: each would be compiled, for one use.
    for name in os.listdir(around.logs) if around.logs.is_dir() else ():
        if name.endswith(f"_{uid}"):
            await loop.run_in_executor(None, remove_tree, around.logs / name)
