"""Orders: what a life decides is told to a process, and what comes of it is an event again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Awaitable, Callable, Mapping

from sagong.errors import SagongError
from sagong.kernel import happenings
from sagong.kernel.cell import Cells
from sagong.kernel.happenings import Drain, Event
from sagong.kernel.life import Life
from sagong.kernel.population import Ended, Population, Process, Silent
from sagong.kernel.signs import may_not, sign, starves
from sagong.kernel.units import Unit

__all__ = ["ADOPT_SECONDS", "Orders", "hindered", "kill"]

_LOG = logging.getLogger("sagong.kernel")
# To attend again after the kernel's death.
ADOPT_SECONDS = 10.0
_HEALTH_SECONDS = 5.0
_HEALTH_EVERY = 0.5
_END_SECONDS = 5.0
# A process may take this much longer than its bound to say that it has drained.
_DRAIN_SLACK = 5.0


class Orders:
    """Gives orders and waits for their ends, each bounded.

    `feed` is told what came of them. `gate` waits until what a unit calls has come as far as it will.
    """

    def __init__(
        self,
        population: Population,
        cells: Cells,
        lives: Mapping[str, Life],
        *,
        feed: Callable[[str, Event], None],
        gate: Callable[[Unit], Awaitable[None]],
    ) -> None:
        self._population = population
        self._cells = cells
        self._lives = lives
        self._feed = feed
        self._gate = gate

    async def start(self, process: Process, state: bytes) -> None:
        """Let it take over `state` and serve."""
        name, generation = process.unit.name, process.generation
        await self._gate(process.unit)
        seconds = process.unit.manifest.restart.start_seconds
        try:
            await process.carry_out(self._population.order("start", state=state), seconds)
            self._cells.check_door(process.unit, process.record.bus)
            problem = await self._ask_health(process)
        except SagongError as error:
            problem = error
        if isinstance(problem, Ended):
            return  # that is told by itself, with how it ended
        if problem is not None:
            _LOG.error("unit does not start", extra={"unit": name, "problem": problem.message})
            self._feed(name, happenings.Failed(generation, problem.message))
        else:
            self._feed(name, happenings.Started(generation))

    async def watch(self, process: Process, seconds: float) -> None:
        """Ask one on trial how it is until the trial is over, one way or the other."""
        name, generation = process.unit.name, process.generation
        end = time.monotonic() + seconds
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ADOPT_SECONDS):
                await process.attended.wait()
        while (left := end - time.monotonic()) > 0:
            await asyncio.sleep(min(left, _HEALTH_EVERY))
            trial = self._lives[name].trial if name in self._lives else None
            if trial is None or trial.generation != generation:
                return
            problem = await self._ask_health(process)
            if problem is not None and not process.exited.is_set():
                hung = isinstance(problem, Silent)
                self._feed(name, happenings.Ill(generation, problem.message, hung))
        self._feed(name, happenings.TrialOver(generation))

    async def drain(self, process: Process, wanted: Drain) -> None:
        """Let it finish what it was asked, and hand over its state."""
        seconds = process.unit.manifest.restart.drain_seconds
        order = self._population.order(
            "drain", seconds=seconds, successor=wanted.successor, asleep=wanted.asleep
        )
        drained = happenings.Drained(process.generation)
        if process.held:
            carried = process.carry_out(order, seconds)
        else:
            carried = process.carry_out(order, seconds + _DRAIN_SLACK, hindered(process))
        try:
            done = await carried
            left = max(done.until - time.time(), 0.001) if done.until else 0.0
            drained = happenings.Drained(process.generation, done.state, True, left)
        except SagongError as error:
            # Its successor begins with what is on disk; better than nobody serving.
            _LOG.warning("drain failed: %s", error, extra={"unit": process.unit.name})
            if isinstance(error, Silent):
                kill(process)
        self._feed(process.unit.name, drained)

    async def end(self, process: Process) -> None:
        """Let it end by itself, or end it."""
        process.tell(self._population.order("stop"))
        try:
            async with asyncio.timeout(0 if process.held else _END_SECONDS):
                await process.exited.wait()
        except TimeoutError:
            kill(process)

    async def _ask_health(self, process: Process) -> SagongError | None:
        """What the process says is wrong with it, if anything, and if it knows such an order."""
        if not process.health:
            return None
        order = self._population.order("health")
        try:
            await process.carry_out(order, _HEALTH_SECONDS, hindered(process))
        except SagongError as error:
            return error
        return None


def hindered(process: Process) -> Callable[[], bool]:
    """What excuses one that is late: it waits for a disk, has to stand still, or had next to no
    processor time since it was asked; for as long as a start may take.
    """
    longest = process.unit.manifest.restart.start_seconds
    before, since = sign(process.record.pid), time.monotonic()

    def excused() -> bool:
        now, seconds = sign(process.record.pid), time.monotonic() - since
        if before is None or now is None or seconds > longest:
            return False
        return may_not(now) or starves(before, now, seconds)

    return excused


def kill(process: Process) -> None:
    """End a process at once."""
    if not process.exited.is_set():
        with contextlib.suppress(ProcessLookupError):  # it ended, and its pidfd says so soon
            signal.pidfd_send_signal(process.pidfd, signal.SIGKILL)
