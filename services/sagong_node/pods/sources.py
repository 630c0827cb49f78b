"""Objects that pods refer to (config maps, secrets, accounts, claims), each followed while needed.

One watch for each object, shared by all pods that need it, so that a change reaches volumes at once
and nothing else of the namespace is ever read.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from sagong.contracts.objects import Objects, ObjectWatch
from sagong.errors import Unavailable
from sagong.following import follow
from sagong.model.k8s.core_v1 import (
    ConfigMap,
    PersistentVolume,
    PersistentVolumeClaim,
    Secret,
    ServiceAccount,
)

__all__ = ["Reference", "Sources"]

T = TypeVar("T")
Spawn = Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]]
_LINGER = 30.0
_PATIENCE = 10.0
KINDS: Final[dict[str, tuple[str, type]]] = {
    "configmaps": ("v1/configmaps", ConfigMap),
    "secrets": ("v1/secrets", Secret),
    "serviceaccounts": ("v1/serviceaccounts", ServiceAccount),
    "persistentvolumeclaims": ("v1/persistentvolumeclaims", PersistentVolumeClaim),
    "persistentvolumes": ("v1/persistentvolumes", PersistentVolume),
}


class Reference(NamedTuple):
    """An object by its resource, namespace and name."""

    resource: str
    namespace: str
    name: str


class _Followed:
    """One object: its present value once it is known, and who needs it."""

    def __init__(self) -> None:
        self.value: Any = None
        self.known = asyncio.Event()
        self.users: set[str] = set()
        self.task: asyncio.Task[None] | None = None
        self.end: asyncio.TimerHandle | None = None


class Sources:
    """`changed` is called with a user's name when one of its objects has changed."""

    def __init__(
        self,
        objects: Objects,
        spawn: Spawn,
        changed: Callable[[str], None],
        log: logging.Logger,
    ) -> None:
        self._objects = objects
        self._spawn = spawn
        self._changed = changed
        self._log = log
        self._followed: dict[Reference, _Followed] = {}
        self._of: dict[str, set[Reference]] = {}

    def need(self, user: str, wanted: set[Reference]) -> None:
        """What `user` needs from now on; what it no longer does is given up after a while."""
        for reference in self._of.get(user, set()) - wanted:
            self._leave(reference, user)
        for reference in wanted:
            self._enter(reference, user)
        if wanted:
            self._of[user] = set(wanted)
        else:
            self._of.pop(user, None)

    def peek(self, reference: Reference) -> Any:
        """The object as far as known; None if it does not exist."""
        found = self._followed.get(reference)
        return found.value if found is not None else None

    async def wait_known(self, wanted: set[Reference]) -> None:
        """Wait until it is known of all whether they exist; Unavailable if nobody tells."""
        try:
            async with asyncio.timeout(_PATIENCE):
                for reference in wanted:
                    found = self._followed.get(reference)
                    if found is not None:
                        await found.known.wait()
        except TimeoutError:
            names = ", ".join(f"{r.resource} {r.name}" for r in sorted(wanted))
            raise Unavailable(
                f"failed to sync {names}: timed out waiting for the API server"
            ) from None

    def _enter(self, reference: Reference, user: str) -> None:
        found = self._followed.get(reference)
        if found is None:
            found = self._followed[reference] = _Followed()
            work = self._follow(reference, found)
            found.task = self._spawn(work, f"follow {reference.resource} {reference.name}")
        if found.end is not None:
            found.end.cancel()
            found.end = None
        found.users.add(user)

    def _leave(self, reference: Reference, user: str) -> None:
        found = self._followed.get(reference)
        if found is None:
            return
        found.users.discard(user)
        if not found.users and found.end is None:
            loop = asyncio.get_running_loop()
            found.end = loop.call_later(_LINGER, self._drop, reference)

    def _drop(self, reference: Reference) -> None:
        found = self._followed.get(reference)
        if found is not None and not found.users:
            del self._followed[reference]
            if found.task is not None:
                found.task.cancel()

    async def _follow(self, reference: Reference, found: _Followed) -> None:
        resource, kind = KINDS[reference.resource]
        watch = ObjectWatch(
            resource=resource,
            namespace=reference.namespace,
            fields=f"metadata.name={reference.name}",
        )
        decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(kind)
        async for batch in follow(self._objects, watch, log=self._log):
            value = None if batch.fresh else found.value
            for change in batch.changes:
                value = None if change.kind == "DELETED" else self._decoded(decoder, change.body)
            self._take(found, value, complete=batch.synced or not batch.fresh)

    def _decoded(self, decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:
        try:
            return decoder.decode(body)
        except msgspec.DecodeError as error:
            self._log.warning("an object that pods refer to can't be read: %s", error)
            return None

    def _take(self, found: _Followed, value: Any, *, complete: bool) -> None:
        if value is None and not complete:
            return
        before, was_known = found.value, found.known.is_set()
        found.value = value
        found.known.set()
        if was_known and before != value:
            for user in list(found.users):
                self._changed(user)
