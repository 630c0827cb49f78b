"""Times as the Docker API writes and reads them. Pure."""

from __future__ import annotations

import time

from sagong.errors import InvalidArgument
from sagong.model.times import duration, parse_time

__all__ = ["NEVER", "moment_text", "nanos_text", "parse_moment", "parse_until"]

NEVER = "0001-01-01T00:00:00Z"


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


def parse_moment(text: str) -> float:
    """Seconds since the epoch of `1700000000.123`, an RFC 3339 time, or "" and "0" (none: 0)."""
    if text in ("", "0"):
        return 0.0
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return parse_time(text)
    except InvalidArgument:
        raise InvalidArgument(f'failed to parse value as time or duration: "{text}"') from None


def parse_until(text: str, now: float) -> float:
    """A moment, or a duration before now (`24h`)."""
    try:
        return now - duration(text)
    except InvalidArgument:
        return parse_moment(text)
