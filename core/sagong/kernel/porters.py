"""Porters answer for units that are asleep: whoever calls or connects to one wakes it.

To callers a porter is a generation of the unit like any other, at a path of its own. Who hears its
events hears nothing, but for the first time that he may have missed some. A call that the unit would
take is told to ask the next generation, by a GOAWAY, so callers need not know that there is such a
thing as sleep. Connections wait in the queues of the listeners, which are open all the time. A porter
goes when all callers have gone on to the process that woke.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import zmq

from sagong.bus import Access, Provider
from sagong.bus.events import ASLEEP, EventItem, Word, events_of, word_of
from sagong.errors import SagongError
from sagong.kernel import directory
from sagong.kernel.directory import Serving
from sagong.kernel.life import Life
from sagong.kernel.listeners import Listeners
from sagong.kernel.units import Unit

__all__ = ["Porters"]

_LOG = logging.getLogger("sagong.kernel")
_DESERTED_SECONDS = 3.0


@dataclass
class _Porter:
    """`number` is the generation that callers know; `provider` is None where no slot is filled."""

    unit: Unit
    number: int
    provider: Provider | None
    watched: set[int] = field(default_factory=set)


class Porters:
    """All porters; `knocked` is told a unit's name as soon as somebody wants something of it.

    `buried` is told a path where callers may still be, and nobody answers any more.
    """

    def __init__(
        self,
        context: zmq.Context[Any],
        slots: Path,
        listeners: Listeners,
        *,
        knocked: Callable[[str], None],
        buried: Callable[[str], None],
    ) -> None:
        self._context = context
        self._slots = slots
        self._listeners = listeners
        self._knocked = knocked
        self._buried = buried
        self._posted: dict[str, _Porter] = {}
        self._leaving: set[asyncio.Task[None]] = set()

    def follow(self, name: str, life: Life) -> None:
        """Stand in for a unit from its falling asleep until it serves, or never will."""
        if life.asleep:
            self._post(life.what, life.asleep)
        elif life.serving or life.leaving:
            self.dismiss(name)
        elif life.down:
            self.dismiss(name, at_once=True)
        else:
            self._unwatch(name)

    def _post(self, unit: Unit, number: int) -> None:
        """Let a porter answer for a unit from now on, unless it does already."""
        known = self._posted.get(unit.name)
        if known is not None and known.number == number:
            return
        try:
            porter = _Porter(unit, number, self._open(unit, number))
            self._posted[unit.name] = porter
            _, descriptors = self._listeners.of(unit)
        except (SagongError, OSError) as error:
            # Who starts says it again, and is tried again.
            _LOG.warning("can't listen for one that is asleep: %s", error)
            asyncio.get_running_loop().call_soon(self._knocked, unit.name)
            return
        self._listeners.settle(unit)
        for descriptor in descriptors:
            porter.watched.add(descriptor)
            asyncio.get_running_loop().add_reader(descriptor, self._knock, unit.name)

    def serving(self, unit: str) -> Serving | None:
        """Where a unit's porter is called."""
        porter = self._posted.get(unit)
        if porter is None or porter.provider is None:
            return None
        return Serving(porter.number, porter.provider.path)

    def paths(self) -> tuple[str, ...]:
        """Where they are called."""
        found = (porter.provider for porter in self._posted.values())
        return tuple(provider.path for provider in found if provider is not None)

    def inform(self, units: Mapping[str, Unit], uids: Mapping[str, int]) -> None:
        """Who may call them: whoever may call the unit."""
        for porter in self._posted.values():
            if porter.provider is not None:
                entries = directory.access_of(porter.unit, units.values(), units, uids)
                porter.provider.grant(
                    {e.uid: Access(e.name, frozenset(e.methods)) for e in entries}
                )

    def _unwatch(self, unit: str) -> None:
        """Leave the listeners to the unit's own process, before that begins to accept."""
        porter = self._posted.get(unit)
        for descriptor in porter.watched if porter is not None else ():
            asyncio.get_running_loop().remove_reader(descriptor)
        if porter is not None:
            porter.watched.clear()

    def dismiss(self, unit: str, *, at_once: bool = False) -> None:
        """Send a unit's porter away when its callers have left it.

        With `at_once` nobody follows: whoever still asks there is to hear that.
        """
        self._unwatch(unit)
        porter = self._posted.pop(unit, None)
        if porter is None or porter.provider is None:
            return
        seconds = 0.0 if at_once else _DESERTED_SECONDS
        leave = self._leave(porter.provider, seconds)
        task = asyncio.get_running_loop().create_task(leave)
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def close(self) -> None:
        """Send all away."""
        for unit in list(self._posted):
            self.dismiss(unit, at_once=True)
        await asyncio.gather(*self._leaving, return_exceptions=True)

    def _open(self, unit: Unit, number: int) -> Provider | None:
        slots = list(unit.manifest.provided())
        if not slots:
            return None
        bus = self._slots / unit.name / "bus" / str(number)
        bus.mkdir(parents=True, exist_ok=True)
        bus.chmod(0o711)
        knock = partial(self._knock, unit.name)
        provider = Provider(self._context, str(bus / "s"), absent=knock)
        for slot, version in slots:
            provider.add(events_of(slot, version), _silence)
            provider.add(word_of(slot, version), _ignore)
        provider.bind()
        return provider

    def _knock(self, unit: str) -> None:
        self._unwatch(unit)  # a connection that nobody takes would be told again and again
        self._knocked(unit)

    async def _leave(self, provider: Provider, seconds: float) -> None:
        await provider.drain(0.0)
        deserted = await provider.wait_deserted(seconds)
        await provider.close()
        with contextlib.suppress(OSError):
            shutil.rmtree(Path(provider.path).parent)
        if not deserted:
            self._buried(provider.path)


def _ignore(word: Word) -> None:
    """Nothing is emitted as long as this one answers; who comes then wakes all that listen."""


async def _silence() -> AsyncIterator[EventItem]:
    yield EventItem(number=0, name=ASLEEP)
    await asyncio.Event().wait()
