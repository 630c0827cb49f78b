"""Restraint: who floods is held back, so that what it does costs itself and nobody else.

Refusing costs whoever refuses, often more than it costs whoever asks; on a machine with few cores all
others wait for that. Next to no processor time for a moment, longer each time, takes the flood away at
its source. Who only computes does nothing wrong: it gives way to others, and has all that they leave.
Who is held back gives way, too: what little it has of a period comes at once (ADR 340).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from sagong.bus.refusals import Refusals
from sagong.bus.terms import TERM_MOST, Terms
from sagong.kernel.cell import Cells
from sagong.kernel.directory import reached
from sagong.kernel.population import Population, Process
from sagong.kernel.units import Unit
from sagong.kernel.usage import Stance

__all__ = ["Restraint"]

Units = Mapping[str, Unit]

_LOG = logging.getLogger("sagong.kernel")
# What was refused to it, it wants again as soon as it can; and until that is noticed it has its cores.
_OFFENCE_SECONDS = 4.0


class Restraint:
    """Who is held back, and until when. `units` are those that are known now, by name."""

    def __init__(self, population: Population, cells: Cells, units: Callable[[], Units]) -> None:
        self._population = population
        self._cells = cells
        self._units = units
        self._refusals = Refusals(_LOG)
        self._terms = Terms(_OFFENCE_SECONDS)
        self._ends: dict[int, asyncio.TimerHandle] = {}

    def begin(self) -> None:
        """An earlier kernel may have died while it held some of those back that live."""
        for process in self._population:
            process.held, process.stance = False, Stance()
            self._settle(process)

    def flooded(self, uid: int, seconds: float) -> None:
        """The kernel itself was flooded, and shut a uid out."""
        for process in self._population:
            if self._cells.uid(process.unit) == uid:
                self._hold(process, seconds, "it flooded the kernel")

    def accused(self, by: int, uid: int, seconds: float) -> None:
        """A uid says that another one floods it: believed of its own callers that have a bound."""
        units = self._units()
        accusers = {unit.name for unit in units.values() if self._cells.uid(unit) == by}
        for process in self._population:
            unit = process.unit
            if self._cells.uid(unit) == uid and unit.manifest.limits.cpu:
                for name in sorted(accusers & reached(unit, units)):
                    self._hold(process, seconds, f"it flooded {name}")

    def offends(self, name: str, generation: int, why: str) -> None:
        """A process of a unit did what nobody does by itself: longer each time."""
        process = self._population.find(name, generation)
        if process is not None and generation not in self._ends:
            self._hold(process, self._terms.next(name), why)

    def computes(self, name: str, generation: int, stance: Stance) -> None:
        """A process of a unit began to use most of a core all the time, or has ended that."""
        process = self._population.find(name, generation)
        if process is not None:
            process.stance = stance
            self._settle(process)

    def gone(self, process: Process) -> None:
        """It ended; what it left behind stays held back until it is ended, too."""
        timer = self._ends.pop(process.generation, None)
        if timer is not None:
            timer.cancel()

    def _release(self, process: Process) -> None:
        del self._ends[process.generation]
        process.held = False
        self._settle(process)

    def _hold(self, process: Process, seconds: float, why: str) -> None:
        """From now on for some seconds, at most as long as any term is."""
        name, generation = process.unit.name, process.generation
        earlier = self._ends.pop(generation, None)
        if earlier is not None:
            earlier.cancel()
        process.held = True
        process.held = self._settle(process)
        if process.held:
            self._refusals.say("unit held back for a moment", (name, why), unit=name, why=why)
            loop, seconds = asyncio.get_running_loop(), max(0.0, min(seconds, TERM_MOST))
            self._ends[generation] = loop.call_later(seconds, self._release, process)

    def _settle(self, process: Process) -> bool:
        """Let it have what is its due now, by weight, quota and turns; false if it can't be held."""
        stance = Stance(computes=True) if process.held else process.stance or Stance()
        done = self._allot(process, stance)
        if stance.computes != process.light and (done or not process.held):
            process.light = stance.computes
            self._cells.set_turns(process.unit, process.generation, computes=stance.computes)
        return done

    def _allot(self, process: Process, stance: Stance) -> bool:
        unit, generation = process.unit, process.generation
        try:
            return self._cells.allot(unit, generation, held=process.held, stance=stance)
        except (OSError, ValueError) as error:
            self._refusals.say("a unit can't be held back", "", problem=str(error))
            return False
