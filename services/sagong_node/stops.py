"""How somebody brings containers to their ends: signals, the wait, and the kill after it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import MutableMapping
from typing import Protocol

from sagong.call import PassedOn
from sagong.contracts.node import StatusState
from sagong.contracts.runtime import ContainerRef, SignalRequest
from sagong.errors import FailedPrecondition, NotFound
from sagong_node import signals
from sagong_node.ends import KILL, is_final, stop_signal, wakes
from sagong_node.records import ContainerRecord
from sagong_node.registry import Registry
from sagong_node.restarts import Restarts
from sagong_node.runtimes import Runtimes

__all__ = ["Note", "Stops"]


class Note(Protocol):
    """Tells an event of a container, and wakes whoever waits for that container."""

    def __call__(self, record: ContainerRecord, action: str, **facts: str) -> None:
        """Told."""
        ...


class Stops:
    """Stops, kills and signals; `changed` has an event for each container that somebody waits for."""

    def __init__(
        self,
        registry: Registry,
        runtimes: Runtimes,
        restarts: Restarts,
        note: Note,
        changed: MutableMapping[str, asyncio.Event],
    ) -> None:
        self._registry = registry
        self._runtimes = runtimes
        self._restarts = restarts
        self._note = note
        self._changed = changed
        self._leaving = False

    def leave(self) -> None:
        """Whoever waits for an end asks the successor of this process again."""
        self._leaving = True
        for event in self._changed.values():
            event.set()
        self._changed.clear()

    async def stop(self, record: ContainerRecord, seconds: float | None, signal: str) -> None:
        """Signal, wait, kill; the restart policy does not apply afterwards."""
        unwished = self.unwish(record)
        if record.alive:
            await self._stop(record, seconds, signal)
        await self._registry.patiently(unwished)

    async def _stop(self, record: ContainerRecord, seconds: float | None, signal: str) -> None:
        number = signals.number(signal or stop_signal(record) or "SIGTERM")
        bound = record.spec.stop_timeout if seconds is None else seconds
        signalled = await self._signalled(record, number, bound)
        try:
            left = signalled + bound - time.monotonic()
            if bound >= 0 and not await self.ended_within(record, max(0.0, left)):
                await self.signal(record, KILL)
            await self.ended_within(record, None)
        except PassedOn:
            record.stopping = number, signalled
            self._registry.keep(record)
            raise
        self._note(record, "stop")

    async def _signalled(self, record: ContainerRecord, number: int, bound: float) -> float:
        """When it got the signal that begins a stop: now, unless the stop began in another process.

        That one's caller may have gone, and this be another's: then only while it waits for the end.
        """
        begun, record.stopping = record.stopping, None
        if begun is not None and begun[0] == number and time.monotonic() < begun[1] + bound:
            return begun[1]
        await self.signal(record, number)
        return time.monotonic()

    async def signal(self, record: ContainerRecord, number: int) -> None:
        """Send a signal; one that has just ended is no error.

        It is told before: its end may be heard of before the signal's answer.
        """
        if record.alive:
            self._note(record, "kill", signal=str(number))
        with contextlib.suppress(NotFound):
            runtime = self._runtimes.of(record)
            await runtime.signal(SignalRequest(id=record.spec.id, signal=number))
        if record.state is StatusState.PAUSED and wakes(record, number):
            with contextlib.suppress(NotFound, FailedPrecondition):
                await self.resume(record)

    async def resume(self, record: ContainerRecord) -> None:
        """Thaw."""
        await self._runtimes.of(record).resume(ContainerRef(id=record.spec.id))
        if record.state is not StatusState.PAUSED:
            return  # it has ended meanwhile: of the signal that it was woken for
        record.state = StatusState.RUNNING
        self._registry.keep(record)
        self._note(record, "unpause")

    async def kill(self, record: ContainerRecord, signal: str) -> None:
        """A signal by the user's wish; SIGKILL and its own stop signal count as a stop.

        One that waits for its next start needs no signal to stay as it is.
        """
        waits = record.state is StatusState.RESTARTING
        if not (record.alive or waits):
            raise FailedPrecondition(f"container {record.spec.id} is not running")
        number = signals.number(signal)
        unwished = self.unwish(record) if is_final(record, number) else 0
        if waits:
            return
        await self.signal(record, number)
        if number != KILL:
            return
        # Not passed on: a second kill would be refused, since nothing runs any more.
        await self.ended_within(record, 10.0, passing=False)
        await self._registry.patiently(unwished)

    def unwish(self, record: ContainerRecord) -> int:
        """It shall not run any more; the number of the change, 0 if nobody needs it durable."""
        record.wanted = False
        self._restarts.cancel(record.spec.id)
        if record.state is StatusState.RESTARTING:
            record.state = StatusState.EXITED
        restarts = record.spec.restart.name not in ("", "no")
        change = self._registry.keep(record, later=not restarts)
        return change if restarts else 0

    async def ended_within(
        self, record: ContainerRecord, seconds: float | None, *, passing: bool = True
    ) -> bool:
        """Wait until the record says that it ended, not only the runtime."""
        try:
            async with asyncio.timeout(seconds):
                while record.alive:
                    if self._leaving and passing:
                        raise PassedOn(f"this node ends before container {record.spec.id}")
                    await self._changed[record.spec.id].wait()
        except TimeoutError:
            return False
        return True
