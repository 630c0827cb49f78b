"""The pulse: whoever serves and answers nothing any more is found, also where nobody calls it.

Every process that serves is asked, now and then, for an answer and nothing else. One that gave none
for long is taken for hung: it is stopped, or waits for what does not come, or never comes back to its
loop. Not so one that had no chance: that is held back or traced, whose control group is frozen, that
waits for a disk, or had next to no processor time while others took it; nor where the kernel's own
process was away meanwhile. What follows is decided in `sagong.kernel.life`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from sagong.errors import SagongError
from sagong.kernel.happenings import Event, Ill
from sagong.kernel.life import Life
from sagong.kernel.population import Population, Process, Silent
from sagong.kernel.signs import Sign, may_not, sign, starves
from sagong.kernel.units import Unit

__all__ = ["Pulse"]

_LOG = logging.getLogger("sagong.kernel")
# The kernel's own process was away if it came so much later than it wanted.
_LATE = 2.0


class Frozen(Protocol):
    """Who knows of control groups."""

    def frozen(self, unit: Unit, generation: int) -> bool:
        """Whether all of a generation was made to stand still by its group."""
        ...


class Pulse:
    """Asks those who serve; `feed` is told of who is silent for `patience` seconds (0: of nobody)."""

    def __init__(
        self,
        population: Population,
        lives: Mapping[str, Life],
        groups: Frozen,
        feed: Callable[[str, Event], None],
        *,
        patience: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._population = population
        self._lives = lives
        self._groups = groups
        self._feed = feed
        self._patience = patience
        self._clock = clock
        self._asked: dict[int, asyncio.Task[None]] = {}

    async def watch(self) -> None:
        """Until cancelled."""
        try:
            while self._patience:
                await asyncio.sleep(self._patience)  # seldom: each has to wake up for it
                for process in self._population:
                    self._begin(process)
        finally:
            for task in self._asked.values():
                task.cancel()

    def _begin(self, process: Process) -> None:
        generation = process.generation
        if generation in self._asked or not self._serves(process) or not process.attended.is_set():
            return
        task = asyncio.get_running_loop().create_task(self._ask(process))
        self._asked[generation] = task
        task.add_done_callback(lambda _: self._asked.pop(generation, None))

    def _serves(self, process: Process) -> bool:
        life = self._lives.get(process.unit.name)
        return life is not None and life.serving == process.generation

    async def _ask(self, process: Process) -> None:
        """Until it has answered, or ended, or is hung beyond doubt."""
        before, since = self._sign(process), self._clock()
        while True:
            wanted = self._clock() + self._patience
            try:
                await process.carry_out(self._population.order("answer"), self._patience)
                return
            except Silent:
                pass
            except SagongError:
                return  # it ended, which is told by itself; or it answered that it can't
            now = self._sign(process)
            if before is None or now is None or not self._serves(process):
                return
            seconds = self._clock() - since
            if self._clock() - wanted > _LATE or process.held or may_not(now):
                before, since = now, self._clock()
            elif not starves(before, now, seconds):
                self._accuse(process, now, seconds)
                return

    def _accuse(self, process: Process, now: Sign, seconds: float) -> None:
        name, generation = process.unit.name, process.generation
        seen = "it is stopped" if now.state in "Tt" else "it hangs"
        error = f"generation {generation} did not answer for {seconds:.0f} s: {seen}"
        _LOG.error("unit hangs", extra={"unit": name, "problem": error})
        self._feed(name, Ill(generation, error, hung=True))

    def _sign(self, process: Process) -> Sign | None:
        frozen = self._groups.frozen(process.unit, process.generation)
        return sign(process.record.pid, frozen=frozen)
