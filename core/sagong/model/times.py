"""Times and durations of the API: RFC 3339, micro time, Go durations, ages as kubectl shows them."""

from __future__ import annotations

import datetime
import re
from typing import Final

from sagong.errors import InvalidArgument

__all__ = [
    "age",
    "duration",
    "duration_text",
    "micro_time",
    "normalized",
    "normalized_micro",
    "parse_nanos",
    "parse_time",
    "time_text",
]

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_SECOND = datetime.timedelta(seconds=1)
_FIRST, _LAST = (
    (moment.replace(tzinfo=datetime.UTC) - _EPOCH) // _SECOND
    for moment in (datetime.datetime.min, datetime.datetime.max)
)
_FORM = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)\Z", re.ASCII
)
_PLAIN = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\Z", re.ASCII)
_UNITS: Final = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "μs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_LAYOUT = "2006-01-02T15:04:05Z07:00"


def parse_nanos(text: str) -> int:
    """Nanoseconds since the epoch of an RFC 3339 time; InvalidArgument in Go's words."""
    found = _FORM.match(text)
    if found is None:
        raise InvalidArgument(
            f'parsing time "{text}" as "{_LAYOUT}": cannot parse "{text}" as "2006"'
        )
    try:
        moment = datetime.datetime(*(int(found[at]) for at in range(1, 7)), tzinfo=datetime.UTC)  # type: ignore[arg-type,misc]
    except ValueError:
        raise InvalidArgument(f'parsing time "{text}": day out of range') from None
    seconds = (moment - _EPOCH) // _SECOND - _offset(found[8])
    if not _FIRST <= seconds <= _LAST:
        raise InvalidArgument(f'parsing time "{text}": year outside of range [0,9999]')
    return seconds * 10**9 + int((found[7] or "").ljust(9, "0")[:9])


def parse_time(text: str) -> float:
    """The same in seconds, as exact as a float is (a quarter of a microsecond in our days)."""
    return parse_nanos(text) / 1e9


def _offset(zone: str) -> int:
    if zone == "Z":
        return 0
    size = int(zone[1:3]) * 3600 + int(zone[4:6]) * 60
    return -size if zone[0] == "-" else size


def time_text(seconds: float) -> str:
    """RFC 3339 in UTC and whole seconds, as metav1.Time writes; of the years 1 to 9999."""
    whole = min(max(int(seconds // 1), _FIRST), _LAST)
    moment = _EPOCH + datetime.timedelta(seconds=whole)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ").rjust(20, "0")


def micro_time(seconds: float) -> str:
    """RFC 3339 with six decimals, as metav1.MicroTime writes."""
    micros = round(seconds * 1e6)
    return f"{time_text(micros // 10**6)[:-1]}.{micros % 10**6:06d}Z"


def normalized(text: str) -> str:
    """A time as the API shows it: UTC, whole seconds."""
    return text if _PLAIN.match(text) else time_text(parse_time(text))


def normalized_micro(text: str) -> str:
    """A micro time as the API shows it."""
    found = _FORM.match(text)
    if found is not None and found[8] == "Z" and len(found[7] or "") == 6:
        return text
    return micro_time(parse_time(text))


def duration(text: str) -> float:
    """Seconds of a Go duration (`1h30m`, `-1.5s`); InvalidArgument in Go's words."""
    rest, sign = (text[1:], text[0]) if text[:1] in ("+", "-") else (text, "")
    if rest == "0":
        return 0.0
    parts = _PART.findall(rest)
    if not parts or "".join(number + unit for number, unit in parts) != rest:
        raise InvalidArgument(f'time: invalid duration "{text}"')
    total = sum(float(number) * _UNITS[unit] for number, unit in parts)
    return -total if sign == "-" else total


def duration_text(seconds: float) -> str:
    """As Go writes durations: `1h30m0s`, `1.5s`, `20ms`, `0s`."""
    nanos = round(abs(seconds) * 1e9)
    sign = "-" if seconds < 0 and nanos else ""
    if nanos < 10**9:
        for unit, size in (("ms", 10**6), ("µs", 10**3), ("ns", 1)):
            if nanos >= size:
                return f"{sign}{_trimmed(nanos, size)}{unit}"
        return "0s"
    minutes, rest = divmod(nanos, 60 * 10**9)
    text = f"{_trimmed(rest, 10**9)}s"
    if minutes:
        hours, minutes = divmod(minutes, 60)
        text = f"{hours}h{minutes}m{text}" if hours else f"{minutes}m{text}"
    return sign + text


def _trimmed(amount: int, size: int) -> str:
    whole, part = divmod(amount, size)
    if not part:
        return str(whole)
    return f"{whole}.{part:0{len(str(size)) - 1}d}".rstrip("0")


def age(seconds: float) -> str:
    """A duration as tables show it: `5s`, `3m20s`, `5h`, `3d4h`, `400d`, `2y30d`."""
    total = int(seconds)
    if total < -1:
        return "<invalid>"
    if total <= 0:
        return "0s"
    minutes, hours, days = total // 60, total // 3600, total // 86400
    if total < 120:
        return f"{total}s"
    if minutes < 10:
        return _two(minutes, "m", total % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if hours < 192:
        return _two(days, "d", hours % 24, "h")
    if days < 730:
        return f"{days}d"
    if days < 2920:
        return _two(days // 365, "y", days % 365, "d")
    return f"{days // 365}y"


def _two(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large}{large_unit}{small}{small_unit}" if small else f"{large}{large_unit}"
