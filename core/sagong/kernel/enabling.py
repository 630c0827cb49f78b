"""Units added and taken away while everything runs.

Added::       make room → launch → start → publish → remember
Taken away::  remember → nobody is sent there any more → drain → stop → its sockets go; its data stays
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec

from sagong.config import UnitConfig
from sagong.contracts.kernel import SwapStep, UnitSpec
from sagong.errors import FailedPrecondition, InvalidArgument
from sagong.kernel import directory
from sagong.kernel.supervisor import Supervisor
from sagong.kernel.units import Unit, check_room

__all__ = ["as_before", "check_unused", "disable", "enable", "wish"]

# Beyond the bound of its drain: to say so, and to end.
_SLACK = 10.0


def wish(spec: UnitSpec) -> UnitConfig:
    """What is asked of a unit to be added, alone: what is configured of it may still change. Pure."""
    try:
        own = msgspec.json.decode(spec.settings, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise InvalidArgument(f"settings of {spec.unit}: {error}") from None
    return UnitConfig(
        plugin=spec.plugin, instance=spec.instance, settings=own, listens=dict(spec.listens)
    )


def as_before(name: str, before: UnitConfig) -> str:
    """What a unit is given again, in words: names alone, as settings may be secret. Pure."""
    given = [
        *([f"plugin {before.plugin}"] if before.plugin else []),
        *([f"instance {before.instance}"] if before.instance else []),
        *(f"setting {key}" for key in before.settings),
        *(f"listener {key}" for key in before.listens),
    ]
    return f"given before: {', '.join(given)}; `sagong disable --forget {name}` forgets that"


async def enable(
    supervisor: Supervisor, unit: Unit, remember: Callable[[], None]
) -> AsyncIterator[SwapStep]:
    """Add a unit, and `remember` it when it serves; what has begun is finished in any case."""
    _check_room(unit, supervisor)
    for lack in directory.lacks_of(unit, {**supervisor.units, unit.name: unit}):
        yield SwapStep(text=lack)
    yield SwapStep(text=f"starting {unit.manifest.plugin.name}")
    generation = await supervisor.see_through(_add(supervisor, unit, remember))
    yield SwapStep(text=f"serves as generation {generation}", finished=True, generation=generation)


async def _add(supervisor: Supervisor, unit: Unit, remember: Callable[[], None]) -> int:
    """The generation that serves; a unit that does not start at once is taken away again."""
    _check_room(unit, supervisor)
    name, plugin = unit.name, unit.manifest.plugin.name
    with supervisor.listening(name) as told:
        supervisor.add(unit)
        life = supervisor.lives[name]
        while not (life.serving or life.problem or life.leaving):
            life, _ = await told.get()
    if life.leaving:
        raise FailedPrecondition(f"{name} was taken away before it served")
    if not life.serving:
        await supervisor.remove(name, unit.manifest.restart.drain_seconds)
        see = "" if "sagong logs" in life.problem else f", see `sagong logs {name}`"
        raise FailedPrecondition(
            f"{plugin} does not start: {life.problem}; {name} is not enabled{see}"
        )
    remember()
    return life.serving


def _check_room(unit: Unit, supervisor: Supervisor) -> None:
    """Beside what there is, and what is on its way out: that has its name and its data still."""
    check_room(unit, supervisor.units)
    if unit.name in supervisor.lives:
        raise FailedPrecondition(f"{unit.name} is being taken away; wait until it is gone")


def check_unused(supervisor: Supervisor, unit: Unit) -> None:
    """Refuse to take away what others use."""
    users = directory.dependents(unit, supervisor.units)
    if users:
        names = ", ".join(
            f"{user} ({', '.join(f'{slot}/{version}' for slot, version in uses)})"
            for user, uses in sorted(users.items())
        )
        raise FailedPrecondition(
            f"{unit.name} is used by {names}; disable them first, or give --force to let them "
            "wait until something else provides it"
        )


async def disable(supervisor: Supervisor, unit: Unit) -> AsyncIterator[SwapStep]:
    """Take a unit away; what has begun is finished in any case."""
    seconds = unit.manifest.restart.drain_seconds + _SLACK
    yield SwapStep(text="no new calls go there; draining it")
    await supervisor.see_through(supervisor.remove(unit.name, seconds))
    yield SwapStep(text="is disabled; its data stays", finished=True)
