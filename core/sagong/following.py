"""Following objects: one watch over restarts of its server, gaps in history and denials.

For everything that keeps a picture of API objects (controllers, schedulers, nodes, DNS)::

    async for batch in follow(objects, ObjectWatch(resource="v1/pods"), log=host.log):
        if batch.fresh: ...      # the whole set comes again: what is not in it is gone
        for change in batch.changes: ...
        if batch.synced: ...     # now it is complete

Who wants no more than to have all objects of a resource keeps them::

    services = Kept(objects, "v1/services", Service)
    host.spawn(services.run(host.log), "follow services")
    await services.synced.wait()
    services.items["default", "web"]

Who falls asleep has `Progress` note how far it has come, and is woken by what comes after that.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar, cast

import msgspec

from sagong.contracts.objects import ObjectBatch, ObjectChange, Objects, ObjectWatch
from sagong.errors import (
    Gone,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    SagongError,
    Unimplemented,
)

__all__ = ["Followed", "Kept", "Progress", "follow"]

T = TypeVar("T")

FIRST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 5.0
# What only an operator can change is asked for again, but seldom.
REFUSED_PAUSE: Final = 30.0
_REFUSALS: Final = (PermissionDenied, InvalidArgument, NotFound, Unimplemented)


@dataclass(frozen=True, slots=True)
class Followed:
    """Changes in order. `fresh`: the first part of a new whole; `synced`: the whole is complete.

    `refused`: the resource is not served or may not be read now; nothing is known of its objects.
    """

    changes: tuple[ObjectChange, ...]
    revision: int
    fresh: bool = False
    synced: bool = False
    refused: bool = False


class Progress:
    """How far each watch has come: what was dealt with. Of a refused resource nothing is known."""

    def __init__(self) -> None:
        self._watches: dict[str, ObjectWatch] = {}

    def note(self, watch: ObjectWatch, batch: Followed) -> None:
        """A batch was dealt with."""
        if batch.refused:
            self._watches.pop(watch.resource, None)
        elif batch.revision:
            self._watches[watch.resource] = msgspec.structs.replace(watch, revision=batch.revision)

    def drop(self, resource: str) -> None:
        """It is followed no more."""
        self._watches.pop(resource, None)

    def watches(self) -> tuple[ObjectWatch, ...]:
        """What would go on from there."""
        return tuple(self._watches.values())


async def follow(
    objects: Objects, watch: ObjectWatch, *, log: logging.Logger
) -> AsyncIterator[Followed]:
    """All changes of a resource, for ever; waits quietly while nobody serves `objects`."""
    revision, pause, refused = watch.revision, FIRST_PAUSE, ""
    while True:
        whole = revision == 0
        stream = objects.watch(msgspec.structs.replace(watch, revision=revision))
        try:
            async with aclosing(cast("AsyncGeneratorLike", stream)) as batches:
                async for batch in batches:
                    pause, refused = FIRST_PAUSE, ""
                    yield _followed(batch, fresh=whole)
                    whole = False
                    # A whole that was cut off before its end is begun anew.
                    revision = batch.revision if batch.synced or revision else 0
        except Gone:
            revision = 0
        except _REFUSALS as error:
            if refused != error.message:
                log.warning("can't follow %s: %s", watch.resource, error.message)
            revision, pause, refused = 0, REFUSED_PAUSE, error.message
            yield Followed((), 0, refused=True)
        except SagongError:
            pass
        await asyncio.sleep(pause * random.uniform(0.8, 1.2))
        pause = min(pause * 2, LONGEST_PAUSE)


def _followed(batch: ObjectBatch, *, fresh: bool) -> Followed:
    return Followed(batch.changes, batch.revision, fresh, batch.synced)


class AsyncGeneratorLike(AsyncIterator[ObjectBatch]):
    """What a stream is beside its contract: it can be closed."""

    async def aclose(self) -> None:
        """End it."""


class Kept(Generic[T]):
    """All objects of a resource by namespace and name, decoded as `kind` (which has `metadata`).

    `items` is replaced as one when the whole comes anew: until then the objects known before count.
    `changed` is called after each change of it. An object that can't be read is told and left out.
    """

    def __init__(
        self,
        objects: Objects,
        resource: str,
        kind: type[T],
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.items: dict[tuple[str, str], T] = {}
        self.synced = asyncio.Event()
        self.resource = resource
        self._objects = objects
        self._kind = kind
        self._changed = changed
        self._fresh: dict[tuple[str, str], T] | None = None
        # Not before there is work for it: it takes a millisecond, and a start waits for none.
        self._decoder: msgspec.json.Decoder[Any] | None = None

    async def run(self, log: logging.Logger) -> None:
        """Follow for ever."""
        async for batch in follow(self._objects, ObjectWatch(resource=self.resource), log=log):
            if batch.fresh:
                self._fresh = {}
            items = self.items if self._fresh is None else self._fresh
            for change in batch.changes:
                self._take(items, change, log)
            if batch.synced and self._fresh is not None:
                self.items, self._fresh = self._fresh, None
                self.synced.set()
            if self._fresh is None and (batch.changes or batch.synced):
                self._changed()

    def _take(
        self, items: dict[tuple[str, str], T], change: ObjectChange, log: logging.Logger
    ) -> None:
        self._decoder = self._decoder or msgspec.json.Decoder(self._kind)
        try:
            found = self._decoder.decode(change.body)
        except msgspec.DecodeError as error:
            log.warning("an object of %s can't be read: %s", self.resource, error)
            return
        key = (found.metadata.namespace, found.metadata.name)
        if change.kind == "DELETED":
            items.pop(key, None)
        else:
            items[key] = found
