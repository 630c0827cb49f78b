"""Live swap as the operator sees it; what happens is decided in `sagong.kernel.life`.

Overlapping::   launch v2 → start v2 → publish v2 → drain v1 → stop v1
Exclusive::     launch v2 → drain v1 (exports, lets go) → start v2 (restores) → publish v2 → stop v1

Callers of a draining provider are told that their call was not executed and ask the next
generation. If v2 does not start or is not well, v1 serves on; in the exclusive case a new v1 takes
its state back. If v2 dies or falls ill within its trial, v1 comes back by itself.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

from sagong.contracts.kernel import SwapStep
from sagong.errors import FailedPrecondition
from sagong.kernel.happenings import Finish, Reset, Say, Settle, Swap
from sagong.kernel.life import Life, refusal
from sagong.kernel.supervisor import Supervisor
from sagong.kernel.units import Unit

__all__ = ["restart", "swap"]


async def swap(
    supervisor: Supervisor, unit: Unit, *, trial: float, wait: bool
) -> AsyncIterator[SwapStep]:
    """Replace the serving process of `unit.name`; it goes on even if nobody listens any more."""
    problem = refusal(supervisor.lives[unit.name])
    if problem:
        raise FailedPrecondition(f"{unit.name} {problem}")
    began = time.monotonic()
    generation = 0
    with supervisor.listening(unit.name) as told:
        supervisor.feed(unit.name, Swap(unit, trial))
        while True:
            life, actions = await told.get()
            for action in actions:
                if isinstance(action, Say):
                    yield SwapStep(text=action.text)
                elif isinstance(action, Finish | Settle) and not action.ok:
                    raise FailedPrecondition(action.text)
                elif isinstance(action, Finish):
                    generation = action.generation
                    yield _served(life, generation, began, last=not wait)
                    if not wait:
                        return
                elif isinstance(action, Settle) and generation:  # else that of an earlier swap
                    yield SwapStep(text=action.text, finished=True, generation=generation)
                    return


async def restart(supervisor: Supervisor, unit: Unit) -> None:
    """Replace the process by a new one of the same, start one that is asleep, or end the rest of one
    that was given up.
    """
    life = supervisor.lives[unit.name]
    if life.serving or life.asleep:
        trial = max(life.trial.until - time.monotonic(), 0.1) if life.trial else 0.0
        async for _ in swap(supervisor, unit, trial=trial, wait=False):
            pass
        supervisor.feed(unit.name, Reset())
        return
    # What failed before may have been mended since this one began: its failure is not the answer.
    earlier = life.coming is not None
    with supervisor.listening(unit.name) as told:
        supervisor.feed(unit.name, Reset())
        while True:
            heard, _ = await told.get()
            life = supervisor.lives.get(unit.name, heard)
            if life.serving:
                return
            if life.resting and earlier:
                earlier = False
                supervisor.feed(unit.name, Reset())
            elif life.resting or life.leaving:
                raise FailedPrecondition(f"{unit.name} does not serve: {life.problem}")


def _served(life: Life, generation: int, began: float, *, last: bool) -> SwapStep:
    text = f"generation {generation} serves after {(time.monotonic() - began) * 1000:.0f} ms"
    if life.trial is not None:
        back = life.trial.back.manifest.plugin.name
        seconds = life.trial.until - time.monotonic()
        text += f"; if it fails in its trial of {seconds:.1f} s, {back} comes back"
    return SwapStep(text=text, finished=last, generation=generation)
