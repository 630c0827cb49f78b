"""Cron schedules: the five fields, names, steps, `@daily` and `@every`, and the next time.

Source: https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/#schedule-syntax
"""

from __future__ import annotations

import datetime
import functools
from typing import Final, NamedTuple

from sagong.errors import InvalidArgument
from sagong.model.numbers import natural
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
_EVERY: Final = "@every "


class _Field(NamedTuple):
    """Its numbers, and names that stand for them from `low` on."""

    low: int
    high: int
    names: tuple[str, ...] = ()


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
_FIELDS: Final = (
    _Field(0, 59),
    _Field(0, 23),
    _Field(1, 31),
    _Field(1, 12, _MONTHS),
    _Field(0, 6, _DAYS),
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
        zone = _zone(self.zone)
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

    def _times(self, day: datetime.date, zone: datetime.tzinfo) -> list[float]:
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
    """A schedule from its text; InvalidArgument in the words of the parser that upstream uses."""
    text = text.strip()
    if text.startswith(("TZ=", "CRON_TZ=")):
        said, _, text = text.partition(" ")
        zone = said.partition("=")[2]
    _zone(zone)
    text = text.strip()
    if text.startswith(_EVERY):
        return _every(text, zone)
    if text.startswith("@") and text not in _MACROS:
        raise InvalidArgument(f"unrecognized descriptor: {text}")
    fields = _MACROS.get(text, text).split()
    if len(fields) != len(_FIELDS):
        found = f"found {len(fields)}: [{' '.join(fields)}]"
        raise InvalidArgument(f"expected exactly {len(_FIELDS)} fields, {found}")
    minutes, hours, days, months, weekdays = (
        _values(said, field) for said, field in zip(fields, _FIELDS, strict=True)
    )
    either = not (days.open or weekdays.open)
    return Schedule(
        minutes.numbers,
        hours.numbers,
        days.numbers,
        months.numbers,
        weekdays.numbers,
        either,
        zone,
    )


def _zone(name: str) -> datetime.tzinfo:
    # Imported late: with what it asks of the interpreter's build it takes 0.8 MB, of `kube`, too.
    import zoneinfo

    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidArgument(f"unknown time zone {name}") from None


def _every(text: str, zone: str) -> Schedule:
    try:
        seconds = duration(text.removeprefix(_EVERY).strip())
    except InvalidArgument as error:
        raise InvalidArgument(f"failed to parse duration {text}: {error.message}") from None
    nothing: frozenset[int] = frozenset()
    every = max(1.0, seconds // 1)
    return Schedule(nothing, nothing, nothing, nothing, nothing, False, zone, every)


class _Values(NamedTuple):
    """What a field says; `open` if it is not restricted: `*`, or one with a step of 1."""

    numbers: frozenset[int]
    open: bool


def _values(said: str, field: _Field) -> _Values:
    parts = [_part(part, field) for part in said.split(",") if part]
    numbers = frozenset(number for part in parts for number in part.numbers)
    return _Values(numbers, any(part.open for part in parts))


def _part(part: str, field: _Field) -> _Values:
    """`*`, `N`, `N-M`, each perhaps with `/STEP`; `N/STEP` goes on to the field's end."""
    span, slash, step = part.partition("/")
    first, *others = span.split("-")
    everything = first in ("*", "?")
    if everything:
        start, stop = field.low, field.high
    elif len(others) > 1:
        raise InvalidArgument(f"too many hyphens: {part}")
    else:
        start = _number(first, field)
        stop = _number(others[0], field) if others else start
    if "/" in step:
        raise InvalidArgument(f"too many slashes: {part}")
    stride = _integer(step) if slash else 1
    if slash and not others:
        stop = field.high
    _check_range(start, stop, field, part)
    if stride == 0:
        raise InvalidArgument(f"step of range should be a positive number: {part}")
    return _Values(frozenset(range(start, stop + 1, stride)), everything and stride == 1)


def _check_range(start: int, stop: int, field: _Field, part: str) -> None:
    if start < field.low:
        problem = f"beginning of range ({start}) below minimum ({field.low})"
    elif stop > field.high:
        problem = f"end of range ({stop}) above maximum ({field.high})"
    elif start > stop:
        problem = f"beginning of range ({start}) beyond end of range ({stop})"
    else:
        return
    raise InvalidArgument(f"{problem}: {part}")


def _number(said: str, field: _Field) -> int:
    name = said.lower()
    return field.names.index(name) + field.low if name in field.names else _integer(said)


def _integer(said: str) -> int:
    number = natural(said)
    if number is None:
        problem = f'strconv.Atoi: parsing "{said}": invalid syntax'
        raise InvalidArgument(f"failed to parse int from {said}: {problem}")
    return number
