"""Cron schedules: the five fields, names, steps, `@daily` and `@every`, and the next time.

Source: https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/#schedule-syntax
"""

from __future__ import annotations

import datetime
import functools
import zoneinfo
from typing import Final, NamedTuple

from sagong.errors import InvalidArgument
from sagong.model.times import duration

__all__ = ["Schedule", "parse"]

_MACROS: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_MONTHS: Final = (
    "jan",
    "feb",
    "mar",
    "apr",
    "may",
    "jun",
    "jul",
    "aug",
    "sep",
    "oct",
    "nov",
    "dec",
)
_DAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS: Final[tuple[tuple[str, int, int, tuple[str, ...]], ...]] = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of month", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("day of week", 0, 7, _DAYS),
)
# A schedule that has no time within five years (30 February) never has one.
_HORIZON: Final = datetime.timedelta(days=5 * 366)
_DAY: Final = datetime.timedelta(days=1)


class Schedule(NamedTuple):
    """When it is due; with `every` (seconds) the fields don't count."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    # Both day fields restricted: one of them is enough, as cron has always had it.
    either: bool
    zone: str
    every: float = 0.0

    def after(self, moment: float) -> float | None:
        """The first due time after `moment` (seconds since the epoch); None if there is none."""
        if self.every:
            return moment + self.every - moment % 1
        zone = zoneinfo.ZoneInfo(self.zone)
        start = datetime.datetime.fromtimestamp(moment, zone)
        day = start.date()
        last = (start + _HORIZON).date()
        while day <= last:
            if self._due_on(day):
                for found in self._times(day, zone):
                    if found > moment:
                        return found
            day += _DAY
        return None

    def _due_on(self, day: datetime.date) -> bool:
        if day.month not in self.months:
            return False
        in_month, in_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return (in_month or in_week) if self.either else (in_month and in_week)

    def _times(self, day: datetime.date, zone: zoneinfo.ZoneInfo) -> list[float]:
        """Due times of a day, in order; times that the clock skips don't come."""
        found = set()
        for hour in self.hours:
            for minute in self.minutes:
                wall = datetime.datetime(day.year, day.month, day.day, hour, minute, tzinfo=zone)
                stamp = wall.timestamp()
                back = datetime.datetime.fromtimestamp(stamp, zone)
                if (back.hour, back.minute) == (hour, minute):
                    found.add(stamp)
        return sorted(found)


@functools.lru_cache(1024)
def parse(text: str, zone: str = "UTC") -> Schedule:
    """A schedule from its text; InvalidArgument says which field is wrong."""
    text = text.strip()
    if text.startswith(("TZ=", "CRON_TZ=")):
        said, _, text = text.partition(" ")
        zone = said.partition("=")[2]
    _check_zone(zone)
    text = text.strip()
    if text.startswith("@every "):
        every = duration(text.removeprefix("@every ").strip())
        nothing: frozenset[int] = frozenset()
        seconds = max(1.0, every // 1)
        return Schedule(nothing, nothing, nothing, nothing, nothing, False, zone, seconds)
    fields = _MACROS.get(text, text).split()
    if len(fields) != 5:
        raise InvalidArgument(f"schedule {text!r}: expected exactly 5 fields, found {len(fields)}")
    sets = [_field(said, *bounds) for said, bounds in zip(fields, _FIELDS)]
    weekdays = frozenset(day % 7 for day in sets[4])
    either = not (fields[2].startswith(("*", "?")) or fields[4].startswith(("*", "?")))
    return Schedule(sets[0], sets[1], sets[2], sets[3], weekdays, either, zone)


def _check_zone(zone: str) -> None:
    try:
        zoneinfo.ZoneInfo(zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidArgument(f"time zone {zone!r} is unknown") from None


def _field(said: str, name: str, low: int, high: int, words: tuple[str, ...]) -> frozenset[int]:
    found: set[int] = set()
    for part in said.split(","):
        span, slash, step = part.partition("/")
        first, dash, last = span.partition("-")
        if first in ("*", "?"):
            start, stop = low, high if name != "day of week" else 6
        else:
            start = _number(first, name, words)
            stop = _number(last, name, words) if dash else (high if slash else start)
        stride = _number(step, name, ()) if slash else 1
        if not (low <= start <= stop <= high) or stride < 1:
            raise InvalidArgument(f"{name} {part!r}: not within {low} to {high}")
        found.update(range(start, stop + 1, stride))
    return frozenset(found)


def _number(said: str, name: str, words: tuple[str, ...]) -> int:
    if said.isdigit():
        return int(said)
    if said.lower() in words:
        return words.index(said.lower()) + (1 if name == "month" else 0)
    raise InvalidArgument(f"{name} {said!r}: not a number" + (" or name" if words else ""))
