"""Live swap: replace what fills a unit while everybody goes on calling it.

Overlapping::   launch v2 → start v2 → publish v2 → drain v1 → stop v1
Exclusive::     launch v2 → drain v1 (exports, lets go) → start v2 (restores) → publish v2 → stop v1

Callers of a draining provider are told that their call was not executed and ask the next
generation. If v2 does not start, v1 serves on; in the exclusive case a new v1 takes its state back.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

from sagong.contracts.kernel import SwapStep
from sagong.errors import FailedPrecondition, SagongError
from sagong.kernel.population import Process
from sagong.kernel.supervisor import Supervisor
from sagong.kernel.units import Unit

__all__ = ["swap"]


async def swap(supervisor: Supervisor, unit: Unit) -> AsyncIterator[SwapStep]:
    """Replace the serving process of `unit.name` by a new one of `unit`."""
    state = supervisor.states[unit.name]
    if state.swapping:
        raise FailedPrecondition(f"{unit.name} is being swapped; wait until that has finished")
    old = state.serving
    if old is None:
        raise FailedPrecondition(
            f"{unit.name} does not serve now ({state.problem or 'starting'}); "
            f"use `sagong restart {unit.name}`"
        )
    state.swapping = True
    began = time.monotonic()
    try:
        yield _step(f"starting {unit.manifest.plugin.name} beside generation {old.generation}")
        new = await supervisor.launch(unit)
        overlap = unit.manifest.restart.overlap and old.unit.manifest.restart.overlap
        path = _overlapping(supervisor, old, new) if overlap else _exclusive(supervisor, old, new)
        async for step in path:
            yield step
        yield SwapStep(
            text=f"generation {new.generation} serves after "
            f"{(time.monotonic() - began) * 1000:.0f} ms",
            finished=True,
            generation=new.generation,
        )
    finally:
        state.swapping = False


async def _overlapping(
    supervisor: Supervisor, old: Process, new: Process
) -> AsyncIterator[SwapStep]:
    try:
        await supervisor.start(new)
    except SagongError as error:
        raise _refused(old, new, error) from error
    _install(supervisor, new)
    yield _step(f"new calls go to generation {new.generation}; draining the old one")
    supervisor.retire_later(old)


async def _exclusive(supervisor: Supervisor, old: Process, new: Process) -> AsyncIterator[SwapStep]:
    try:
        # Forked, confined and imported: nobody waits for that.
        await supervisor.wait_attending(new)
    except SagongError as error:
        raise _refused(old, new, error) from error
    yield _step(f"draining generation {old.generation}, which holds state that can't be shared")
    supervisor.states[old.unit.name].serving = None
    state = await supervisor.drain(old, successor=True)
    try:
        await supervisor.start(new, state)
    except SagongError as error:
        yield _step(f"{new.unit.manifest.plugin.name} does not start; going back")
        back = await supervisor.launch(old.unit)
        await supervisor.start(back, state)
        supervisor.publish(back)
        raise FailedPrecondition(
            f"{new.unit.manifest.plugin.name} does not start: {error.message}; "
            f"{old.unit.manifest.plugin.name} serves again as generation {back.generation}"
        ) from error
    finally:
        supervisor.end_later(old)
    _install(supervisor, new)


def _refused(old: Process, new: Process, error: SagongError) -> FailedPrecondition:
    return FailedPrecondition(
        f"{new.unit.manifest.plugin.name} does not start: {error.message}; "
        f"generation {old.generation} serves on"
    )


def _install(supervisor: Supervisor, new: Process) -> None:
    supervisor.units[new.unit.name] = new.unit
    supervisor.publish(new)


def _step(text: str) -> SwapStep:
    return SwapStep(text=text)
