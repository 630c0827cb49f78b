"""Times as the Docker API writes and reads them. Pure."""

from __future__ import annotations

import re
import time

from sagong.errors import InvalidArgument
from sagong.model.times import duration, parse_nanos

__all__ = ["NEVER", "moment_text", "nanos_text", "parse_instant", "parse_moment", "parse_until"]

NEVER = "0001-01-01T00:00:00Z"
_SECONDS = re.compile(r"([+-]?)([0-9]+)(?:\.([0-9]+))?")
# Beyond the year 9999 no time is written.
_LAST_SECOND = 253_402_300_799


def nanos_text(nanos: int) -> str:
    """RFC 3339 with nanoseconds, without trailing zeros, in UTC; 0 is never."""
    if nanos <= 0:
        return NEVER
    seconds, rest = divmod(nanos, 10**9)
    head = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    return f"{head}{fraction}Z"


def moment_text(seconds: float) -> str:
    """The same of seconds since the epoch (a float has microseconds and little more)."""
    return nanos_text(round(seconds * 1e6) * 1000)


def parse_instant(text: str) -> int:
    """Nanoseconds since the epoch of `1700000000.123456789`, an RFC 3339 time, or "" (none: 0)."""
    found = _SECONDS.fullmatch(text or "0")
    if found is None:
        return _parse_written(text)
    sign, seconds, fraction = found[1], int(found[2]), int((found[3] or "").ljust(9, "0")[:9])
    if seconds > _LAST_SECOND:
        raise InvalidArgument(f'strconv.ParseInt: parsing "{text}": value out of range')
    return (-1 if sign == "-" else 1) * (seconds * 10**9 + fraction)


def _parse_written(text: str) -> int:
    try:
        return parse_nanos(text)
    except InvalidArgument:
        raise InvalidArgument(f'failed to parse value as time or duration: "{text}"') from None


def parse_moment(text: str) -> float:
    """The same in seconds."""
    return parse_instant(text) / 1e9


def parse_until(text: str, now: float) -> float:
    """A moment, or a duration before now (`24h`)."""
    try:
        return now - duration(text)
    except InvalidArgument:
        return parse_moment(text)
