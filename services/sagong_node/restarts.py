"""Restarts by policy: whether, and after which pause, as Docker counts both."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from sagong.host import Host
from sagong_node.records import ContainerRecord

__all__ = ["Restarts", "is_wanted", "pause"]

_FIRST_DELAY, _LONGEST_DELAY = 0.1, 60.0
# More than the longest needs; after a night of failures the number would be none any more.
_DOUBLINGS = 16
# Who ran for so long begins with the shortest pause again.
_SETTLED = 10.0


def is_wanted(record: ContainerRecord) -> bool:
    """Whether a run that has ended has another one after it. Pure."""
    policy = record.spec.restart
    if not record.wanted:
        return False
    if policy.name == "on-failure":
        left = not policy.maximum or record.restart_count < policy.maximum
        return record.code != 0 and left
    return policy.name in ("always", "unless-stopped")


def pause(record: ContainerRecord) -> float:
    """Seconds until its next start, twice as many each time. Pure."""
    doubled: int = 2 ** min(record.failures, _DOUBLINGS)
    return min(_FIRST_DELAY * doubled, _LONGEST_DELAY)


class Restarts:
    """One pause a container; `start` is called at its end."""

    def __init__(self, host: Host, start: Callable[[str], Awaitable[None]]) -> None:
        self._host = host
        self._start = start
        self._waiting: dict[str, asyncio.Task[None]] = {}

    def later(self, record: ContainerRecord) -> None:
        """It has ended, and is started again in a while."""
        if record.finished_at - record.started_at > _SETTLED:
            record.failures = 0
        work = self._after(pause(record), record.spec.id)
        record.failures += 1
        self._waiting[record.spec.id] = self._host.spawn(work, f"restart {record.spec.id[:12]}")

    def cancel(self, id_: str) -> None:
        """It is not, or at once by somebody else."""
        task = self._waiting.pop(id_, None)
        if task is not None and not task.done():
            task.cancel()

    async def _after(self, seconds: float, id_: str) -> None:
        await asyncio.sleep(seconds)
        await self._start(id_)
