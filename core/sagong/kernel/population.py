"""The processes that live: records in memory, pidfds watched, a journal kept."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from sagong.contracts.kernel import AccessEntry, Done, DownEntry, Order, RouteEntry
from sagong.errors import Unavailable
from sagong.kernel.journal import Journal, ProcessRecord
from sagong.kernel.units import Unit
from sagong.kernel.usage import Stance
from sagong.linux.process import ProcessId, open_identified

__all__ = ["Ended", "Population", "Process", "Silent"]

# The zygote reaps what it forked in less than a millisecond where there is a core for it; whether it
# lives still is looked at that often.
_STATUS_SECONDS, _LOOK_SECONDS = 5.0, 0.05
# Orders that a process has not read: one that is stopped reads none.
_UNREAD = 1024


def _never() -> bool:
    """Nothing excuses who is late."""
    return False


class Silent(Unavailable):
    """A process that lives did not carry out an order in time."""


class Ended(Unavailable):
    """A process ended before it had carried out an order."""


@dataclass(eq=False)
class Process:
    """A living process of a unit; `state` is its stage (see `sagong.kernel.life`).

    `health` tells whether it knows the order of that name, `held` whether it is held back: then it
    has not the processor time to end well; `stance` how it stands to the processor, None if nobody has
    looked; `light` whether it gives way to others, None if that is not known. `parent` is whoever reaps
    it and tells its exit `status`, 0 for nobody that we hear of; `spoken` how many bytes its log had
    when it was forked.
    """

    record: ProcessRecord
    unit: Unit
    pidfd: int
    state: str
    # None in the queue: it has missed some, and is to attend anew.
    orders: asyncio.Queue[Order | None] | None = None
    routes: tuple[RouteEntry, ...] | None = None
    access: tuple[AccessEntry, ...] | None = None
    down: tuple[DownEntry, ...] = ()
    health: bool = False
    held: bool = False
    stance: Stance | None = None
    light: bool | None = None
    reach: frozenset[str] | None = None
    done: dict[int, asyncio.Future[Done]] = field(default_factory=dict)
    pending: dict[int, Order] = field(default_factory=dict)
    exited: asyncio.Event = field(default_factory=asyncio.Event)
    attended: asyncio.Event = field(default_factory=asyncio.Event)
    # Whose death it could not be told, as it has not attended.
    missed: Order = field(default_factory=lambda: Order(id=0))
    parent: int = 0
    spoken: int = 0
    status: int | None = None

    @property
    def generation(self) -> int:
        """Its generation, unique in the system."""
        return self.record.generation

    def tell(self, order: Order) -> None:
        """Give an order; one with an action is given again if the process has to attend anew."""
        if order.action:
            self.pending[order.id] = order
        if self.orders is None:
            return
        if self.orders.qsize() < _UNREAD:
            self.orders.put_nowait(order)
        else:
            self.orders.put_nowait(None)
            self.orders = None

    async def carry_out(
        self, order: Order, seconds: float, excused: Callable[[], bool] = _never
    ) -> Done:
        """Give an order and wait for its end; `Ended` if the process ends, `Silent` if it is late.

        Whenever it is late, `excused` says whether it has as many seconds again.
        """
        future: asyncio.Future[Done] = asyncio.get_running_loop().create_future()
        self.done[order.id] = future
        self.tell(order)
        ended = asyncio.ensure_future(self.exited.wait())
        try:
            waiting: set[asyncio.Future[Any]] = {future, ended}
            began = time.monotonic()
            while True:
                await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
                if future.done():
                    return future.result()
                who = f"{self.unit.name} generation {self.generation}"
                if self.exited.is_set():
                    raise Ended(f"{who} ended")
                if not excused():
                    waited = time.monotonic() - began
                    raise Silent(f"{who} did not answer in {waited:.0f} s")
        finally:
            ended.cancel()
            self.done.pop(order.id, None)
            self.pending.pop(order.id, None)


class Population:
    """All living processes, by pid and by (unit, generation).

    `ended` is told of each that ended, as soon as it is known how, if `reaper()` is its parent.
    """

    def __init__(self, ended: Callable[[Process], None], reaper: Callable[[], int]) -> None:
        self._ended = ended
        self._reaper = reaper
        self._loop = asyncio.get_running_loop()
        self._by_pid: dict[int, Process] = {}
        self._unreaped: dict[int, Process] = {}
        self._order_ids = itertools.count(time.time_ns())

    def __iter__(self) -> Iterator[Process]:
        return iter(list(self._by_pid.values()))

    def order(self, action: str, **fields: Any) -> Order:
        """An order to do something; its number is unique also over restarts of the kernel."""
        return Order(id=next(self._order_ids), action=action, **fields)

    def add(self, process: Process) -> None:
        """Watch a process that has just been started or adopted."""
        self._by_pid[process.record.pid] = process
        self._loop.add_reader(process.pidfd, self._gone, process)

    def find(self, unit: str, generation: int) -> Process | None:
        """The process that claims to be this."""
        for process in self._by_pid.values():
            if process.unit.name == unit and process.generation == generation:
                return process
        return None

    def of(self, unit: str) -> list[Process]:
        """A unit's processes, oldest first."""
        found = [p for p in self._by_pid.values() if p.unit.name == unit]
        return sorted(found, key=lambda p: p.generation)

    def note_status(self, pid: int, status: int) -> None:
        """The zygote reaped a process: remember how it ended."""
        process = self._unreaped.get(pid) or self._by_pid.get(pid)
        if process is not None:
            process.status = status
            self._known(process)

    def records(self) -> tuple[ProcessRecord, ...]:
        """For the journal; with those whose end is not told yet."""
        everybody = (*self._by_pid.values(), *self._unreaped.values())
        return tuple(msgspec.structs.replace(p.record, state=p.state) for p in everybody)

    def _gone(self, process: Process) -> None:
        self._loop.remove_reader(process.pidfd)
        os.close(process.pidfd)
        pid = process.record.pid
        self._by_pid.pop(pid, None)
        process.exited.set()
        self._unreaped[pid] = process
        if process.status is not None or not process.parent or process.parent != self._reaper():
            self._known(process)
        else:
            self._await_status(process, self._loop.time() + _STATUS_SECONDS)

    def _await_status(self, process: Process, until: float) -> None:
        """The zygote tells it as soon as it gets a core; one that died meanwhile never does."""
        if self._unreaped.get(process.record.pid) is not process:
            return
        if process.parent != self._reaper() or self._loop.time() >= until:
            self._known(process)
        else:
            self._loop.call_later(_LOOK_SECONDS, self._await_status, process, until)

    def _known(self, process: Process) -> None:
        """All that will be known of its end is known; told once, and not before it ended."""
        if self._unreaped.get(process.record.pid) is process:
            del self._unreaped[process.record.pid]
            self._ended(process)

    @staticmethod
    def reopen(journal: Journal) -> Iterator[tuple[ProcessRecord, int]]:
        """Processes of a journal that still live, with a pidfd each."""
        for record in journal.processes:
            pidfd = open_identified(ProcessId(record.pid, record.started))
            if pidfd is not None:
                yield record, pidfd
