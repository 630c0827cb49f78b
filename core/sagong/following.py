"""Following objects: one watch over restarts of its server, gaps in history and denials.

For everything that keeps a picture of API objects (controllers, schedulers, nodes, DNS)::

    async for batch in follow(objects, ObjectWatch(resource="v1/pods"), log=host.log):
        if batch.fresh: ...      # the whole set comes again: what is not in it is gone
        for change in batch.changes: ...
        if batch.synced: ...     # now it is complete

Who falls asleep has `Progress` note how far it has come, and is woken by what comes after that.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, cast

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

__all__ = ["Followed", "Progress", "follow"]

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
