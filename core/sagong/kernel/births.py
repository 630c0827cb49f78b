"""Births: a unit's new generation is forked into its cell, with all that has to be there before it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping

import msgspec

from sagong.errors import Unavailable
from sagong.kernel.cell import Cells
from sagong.kernel.companions import Companions
from sagong.kernel.journal import ProcessRecord
from sagong.kernel.listeners import Listeners
from sagong.kernel.population import Process
from sagong.kernel.spawner import Spawner
from sagong.kernel.units import Unit
from sagong.kernel.zygote import SpawnRequest
from sagong.linux.process import start_time
from sagong.process import Launch

__all__ = ["Births"]

# A zygote may die, and its successor with what it forks first.
_TRIES = 3


class Births:
    """Directories, companion, listeners, log and sandbox come before the fork.

    `units` are those that there are now, by name: who may be called is in the sandbox.
    """

    def __init__(
        self,
        cells: Cells,
        companions: Companions,
        listeners: Listeners,
        spawner: Spawner,
        units: Callable[[], Mapping[str, Unit]],
    ) -> None:
        self._cells = cells
        self._companions = companions
        self._listeners = listeners
        self._spawner = spawner
        self._units = units

    async def fork(self, generation: int, unit: Unit) -> Process:
        """Fork a new generation of a unit; it attends, but does not serve yet."""
        launch = self._cells.launch(unit, generation)
        if unit.manifest.companion is not None:
            self._companions.ensure(unit)
        names, descriptors = self._listeners.of(unit)
        launch = msgspec.structs.replace(launch, listeners=dict.fromkeys(names, -1))
        log = self._cells.open_log(unit.name)
        try:
            spoken = os.fstat(log).st_size
            pid, pidfd = await self._spawn(unit, launch, [log, *descriptors])
        finally:
            os.close(log)
        record = ProcessRecord(
            unit=unit.name,
            identity=unit.identity,
            plugin=unit.manifest.plugin.name,
            generation=generation,
            pid=pid,
            started=_started(pid),
            since=time.time(),
            state="launching",
            bus=launch.bus,
        )
        parent = self._spawner.pid
        return Process(record, unit, pidfd, "launching", parent=parent, spoken=spoken)

    async def _spawn(self, unit: Unit, launch: Launch, descriptors: list[int]) -> tuple[int, int]:
        request = SpawnRequest(
            0,
            msgspec.json.encode(launch),
            f"sagong-{unit.name}",
            self._cells.plan(unit, launch, {**self._units(), unit.name: unit}),
            self._cells.programs.command(unit),
        )
        for attempt in range(_TRIES):
            try:
                return await self._spawner.spawn(request, descriptors)
            except Unavailable:
                if attempt == _TRIES - 1:
                    raise
        raise Unavailable("the zygote does not come up")


def _started(pid: int) -> int:
    try:
        return start_time(pid)
    except OSError:
        return 0  # it ended already; its pidfd says so in a moment
