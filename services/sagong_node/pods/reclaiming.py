"""Persistent volumes of slot `volume`: what they hold outlives pods, and goes with the object.

Before a volume is made here, its PersistentVolume gets a finalizer of this node. When the object is
to be deleted, the volume goes first (if its policy is Delete), then the finalizer; so whoever dies in
between leaves nothing behind, and nobody deletes what a claim still has.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from typing import Final

import msgspec

from sagong.contracts.objects import (
    Commit,
    GetRequest,
    ObjectChange,
    Objects,
    ObjectWatch,
    Verb,
    Write,
)
from sagong.contracts.volume import VolumeRef
from sagong.drivers import EveryVolume
from sagong.errors import Conflict, NotFound, SagongError, Unavailable
from sagong.following import follow
from sagong.model.k8s.core_v1 import PersistentVolume
from sagong.model.k8s.meta_v1 import ObjectMeta
from sagong_node.pods.claims import attributes_of

__all__ = ["Reclaimer", "finalizer_of"]

_VOLUMES: Final = "v1/persistentvolumes"
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 60.0
_TRIES = 5


def finalizer_of(node: str) -> str:
    """What says that a volume is on this node."""
    return f"{node}.node.sagong.io/volume"


class _Head(msgspec.Struct):
    """What of a volume tells whether it is to go."""

    metadata: ObjectMeta


class Reclaimer:
    """`hold` before a volume is made; `run` deletes volumes whose objects are to go."""

    def __init__(
        self, objects: Objects, volumes: EveryVolume, log: logging.Logger, *, node: str
    ) -> None:
        self._objects = objects
        self._volumes = volumes
        self._log = log
        self._mark = finalizer_of(node)

    async def hold(self, volume: PersistentVolume) -> None:
        """Make sure that the object outlives what will be made for it."""
        mark, name = self._mark, volume.metadata.name
        for _ in range(_TRIES):
            if mark in volume.metadata.finalizers:
                return
            try:
                await self._write(volume, [*volume.metadata.finalizers, mark])
                return
            except Conflict:
                volume = await self._read(name)
        raise Conflict(f"persistentvolume {name} changes all the time")

    async def run(self) -> None:
        """Follow volumes for ever."""
        watch, going = ObjectWatch(resource=_VOLUMES), set[str]()
        async with asyncio.TaskGroup() as group:
            async for batch in follow(self._objects, watch, log=self._log):
                for change in batch.changes:
                    found = self._to_reclaim(change) - going
                    going |= found
                    for name in found:
                        group.create_task(self._reclaim(name, going))

    def _to_reclaim(self, change: ObjectChange) -> set[str]:
        """The name of the volume, if it is to go and is this node's."""
        if change.kind == "DELETED":
            return set()
        try:
            metadata = msgspec.json.decode(change.body, type=_Head).metadata
        except msgspec.DecodeError as error:
            self._log.warning("a persistentvolume can't be read: %s", error)
            return set()
        ours = metadata.deletion_timestamp and self._mark in metadata.finalizers
        return {metadata.name} if ours else set()

    async def _reclaim(self, name: str, going: set[str]) -> None:
        try:
            await self._carry_out(name)
        finally:
            going.discard(name)

    async def _carry_out(self, name: str) -> None:
        """Until it is done; what is still published to a pod that ends is waited for."""
        pause = _FIRST_PAUSE
        while True:
            try:
                volume = await self._read(name)
                csi = volume.spec.csi
                if csi and volume.spec.persistent_volume_reclaim_policy == "Delete":
                    await self._delete(csi.volume_handle, attributes_of(csi.driver))
                await self._write(
                    volume, [f for f in volume.metadata.finalizers if f != self._mark]
                )
                return
            except NotFound:
                return
            except SagongError as error:
                self._log.info("persistentvolume %s stays for now: %s", name, error.message)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _delete(self, handle: str, driver: str) -> None:
        if driver not in self._volumes.drivers:
            raise Unavailable(f"no instance {driver} of slot volume serves now")
        await self._volumes.delete(VolumeRef(name=handle))

    async def _read(self, name: str) -> PersistentVolume:
        found = await self._objects.get(GetRequest(resource=_VOLUMES, name=name))
        return msgspec.json.decode(found.body, type=PersistentVolume)

    async def _write(self, volume: PersistentVolume, finalizers: list[str]) -> None:
        """Conflict if it has changed since it was read."""
        metadata = {
            "finalizers": finalizers or None,
            "resourceVersion": volume.metadata.resource_version,
        }
        write = Write(
            verb=Verb.PATCH,
            resource=_VOLUMES,
            name=volume.metadata.name,
            uid=volume.metadata.uid,
            body=msgspec.json.encode({"metadata": metadata}),
        )
        commit = Commit(id=uuid.uuid4().hex, writes=(write,), manager="kubelet")
        (outcome,) = (await self._objects.commit(commit)).outcomes
        if outcome.error == Conflict.code:
            raise Conflict(outcome.message)
        if outcome.error == NotFound.code:
            raise NotFound(outcome.message)
        if outcome.error:
            raise SagongError(f"persistentvolume {volume.metadata.name}: {outcome.message}")
