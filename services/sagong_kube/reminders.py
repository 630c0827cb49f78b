"""Reminders: what units that are asleep wait for, until the first of it happens."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from sagong.errors import SagongError
from sagong_kube.storage.store import Store
from sagong_kube.storage.watcher import Watcher

__all__ = ["Change", "Reminders", "Silent", "Spawn", "Wait", "Wake"]

_DAY = 86_400.0

Spawn = Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]]
Wake = Callable[[str], Awaitable[None]]


@dataclass(frozen=True)
class Change:
    """The first event of these kinds that a watcher is told after a revision."""

    watcher: Watcher
    revision: int
    kinds: frozenset[str]

    async def begin(self, store: Store) -> None:
        """From now on nothing is missed; `Gone` if something may have been before."""
        await store.watch(self.watcher, self.revision)

    async def wait(self) -> None:
        """Until it happens."""
        while not self.watcher.ended:
            notices = await self.watcher.wait_pending(_DAY)
            if any(kind in self.kinds for kind, _ in notices):
                return


@dataclass(frozen=True)
class Silent:
    """A watcher that is told nothing, a first time for `first` seconds, later for `seconds`."""

    watcher: Watcher
    first: float
    seconds: float

    async def begin(self, store: Store) -> None:
        """Nothing of what was counts."""
        store.watchers.add(self.watcher)

    async def wait(self) -> None:
        """Until it happens."""
        left = self.first
        while await self.watcher.wait_pending(left):
            left = self.seconds


Wait = Change | Silent


class Reminders:
    """One for each unit; `wake` is told whose is due."""

    def __init__(self, store: Store, wake: Wake, spawn: Spawn) -> None:
        self._store = store
        self._wake = wake
        self._spawn = spawn
        self._left: dict[str, asyncio.Task[None]] = {}

    async def leave(self, unit: str, waits: Sequence[Wait]) -> None:
        """Remind a unit of the first of these, instead of what it waited for before."""
        earlier = self._left.pop(unit, None)
        if earlier is not None:
            earlier.cancel()
        try:
            for wait in waits:
                await wait.begin(self._store)
        except SagongError:
            self._drop(waits)
            raise
        task = self._left[unit] = self._spawn(self._remind(unit, waits), f"remind {unit}")
        task.add_done_callback(lambda task: self._forget(unit, task, waits))

    def _forget(self, unit: str, task: asyncio.Task[None], waits: Sequence[Wait]) -> None:
        # A task that is cancelled before its first step has no chance to do it itself.
        self._drop(waits)
        if self._left.get(unit) is task:
            del self._left[unit]

    async def _remind(self, unit: str, waits: Sequence[Wait]) -> None:
        tasks = [asyncio.ensure_future(wait.wait()) for wait in waits]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
        await self._wake(unit)

    def _drop(self, waits: Sequence[Wait]) -> None:
        for wait in waits:
            self._store.watchers.remove(wait.watcher)
