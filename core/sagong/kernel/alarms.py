"""Alarms: what a unit's life is told when a time is over, one of each kind for each unit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sagong.kernel.happenings import Event

__all__ = ["Alarms"]


class Alarms:
    """`ring` is told the unit and the event."""

    def __init__(self, ring: Callable[[str, Event], None]) -> None:
        self._ring = ring
        self._set: dict[tuple[str, type[Event]], asyncio.TimerHandle] = {}

    def set(self, unit: str, seconds: float, event: Event) -> None:
        """Tell that later, instead of when it was to be told before."""
        self.drop(unit, type(event))
        loop = asyncio.get_running_loop()
        self._set[unit, type(event)] = loop.call_later(seconds, self._ring, unit, event)

    def drop(self, unit: str, kind: type[Event]) -> None:
        """Don't tell it; unknown is no error."""
        alarm = self._set.pop((unit, kind), None)
        if alarm is not None:
            alarm.cancel()
