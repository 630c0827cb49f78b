"""Filters of cache records and of the history of builds, as BuildKit's clients write them. Pure.

A filter is fields with values, separated by commas, that must all hold: `type==regular,id~=^a`; of
several filters one must. Source: the package filters of containerd, solver/llbsolver/history of
BuildKit.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Generic, TypeVar

from sagong.errors import InvalidArgument
from sagong_builder.buildkit.messages import Timestamp, UsageRecord
from sagong_builder.buildkit.records import BuildRecord

__all__ = ["matching", "matching_records"]

R = TypeVar("R")

_TERM = re.compile(r"\s*([a-z_]+)\s*(?:(==|!=|~=)\s*(\"(?:[^\"\\]|\\.)*\"|[^,]*))?\s*(?:,|\Z)")
_LIMIT = 1000
_FIELDS: dict[str, Callable[[UsageRecord], str]] = {
    "id": lambda record: record.id,
    "description": lambda record: record.description,
    "type": lambda record: record.record_type,
    "inuse": lambda record: _yes(record.in_use),
    "mutable": lambda record: _yes(record.mutable),
    "immutable": lambda record: _yes(not record.mutable),
    "private": lambda record: _yes(True),
    "shared": lambda record: "",
    "parents": lambda record: "",
}


def _yes(value: object) -> str:
    return "true" if value else ""


def matching(records: Sequence[UsageRecord], filters: Sequence[str]) -> list[UsageRecord]:
    """Those cache records that fit one of the filters; all if there are none."""
    return _fitting(records, [_Fields(_terms(text), _FIELDS).fits for text in filters])


def matching_records(records: Sequence[BuildRecord], filters: Sequence[str]) -> list[BuildRecord]:
    """Those records of builds that fit one of the filters; all if there are none."""
    return _fitting(records, [_of_build(text) for text in filters])


def _fitting(records: Sequence[R], tests: Sequence[Callable[[R], bool]]) -> list[R]:
    return [r for r in records if not tests or any(test(r) for test in tests)]


# Fields.


def _terms(text: str) -> list[tuple[str, str, str]]:
    """Fields, operators and values."""
    found: list[tuple[str, str, str]] = []
    at = 0
    while at < len(text[:_LIMIT]):
        term = _TERM.match(text, at)
        if term is None:
            raise InvalidArgument(f"invalid filter: {text[:200]!r}")
        value = re.sub(r"\\(.)", r"\1", term[3][1:-1]) if (term[3] or "")[:1] == '"' else term[3]
        found.append((term[1], term[2] or "", (value or "").strip()))
        at = term.end()
    return found


class _Fields(Generic[R]):
    """Terms that must all hold; a field that is not known has no value."""

    def __init__(
        self, terms: Sequence[tuple[str, str, str]], fields: Mapping[str, Callable[[R], str]]
    ) -> None:
        self._terms = terms
        self._fields = fields

    def fits(self, record: R) -> bool:
        """Whether all hold."""
        return all(self._holds(*term, record) for term in self._terms)

    def _holds(self, field: str, operator: str, wanted: str, record: R) -> bool:
        known = self._fields.get(field)
        value = known(record) if known is not None else ""
        match operator:
            case "==":
                return known is not None and value == wanted
            case "!=":
                return value != wanted
            case "~=":
                # Clients mean a part of an id; patterns of strangers are not tried here.
                return known is not None and wanted.removeprefix("^").removesuffix("$") in value
        return bool(value)


# Of builds: fields, and times.

_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(h|ms|m|s|us|µs|ns)")
_TIMED = re.compile(r"\s*(startedAt|completedAt|duration)\s*(>=|<=|>|<)\s*(.*)\s*")


def _status(record: BuildRecord) -> str:
    if record.completed_at is None:
        return "running"
    if record.error is None:
        return "completed"
    return "canceled" if "context canceled" in record.error.message else "error"


def _repository(record: BuildRecord) -> str:
    source, context = record.frontend_attrs.get("vcs:source"), record.frontend_attrs.get("context")
    return source or (context or "").partition("#")[0]


_BUILD_FIELDS: dict[str, Callable[[BuildRecord], str]] = {
    "ref": lambda record: record.ref,
    "status": _status,
    "repository": _repository,
}


def _of_build(text: str) -> Callable[[BuildRecord], bool]:
    parts = [part for part in text[:_LIMIT].split(",") if part.strip()]
    timed = [found for part in parts if (found := _TIMED.fullmatch(part))]
    plain = ",".join(part for part in parts if _TIMED.fullmatch(part) is None)
    fields = _Fields(_terms(plain), _BUILD_FIELDS)
    tests = [_Timed(found[1], found[2], found[3]) for found in timed]
    return lambda record: fields.fits(record) and all(test.fits(record) for test in tests)


class _Timed:
    """A comparison of a time, or of how long a build took."""

    def __init__(self, field: str, operator: str, value: str) -> None:
        self._field = field
        self._operator = operator
        seconds = _duration(value)
        if field == "duration" and seconds is None:
            raise InvalidArgument(f"invalid duration {value[:50]}")
        if field == "duration":
            self._bound = seconds or 0.0
        else:
            self._bound = _moment(value) if seconds is None else time.time() - seconds

    def fits(self, record: BuildRecord) -> bool:
        """Whether it holds."""
        began, ended = _time(record.created_at), _time(record.completed_at)
        values = {
            "startedAt": began,
            "completedAt": ended,
            "duration": ended - began if ended else 0.0,
        }
        value, bound = values[self._field], self._bound
        match self._operator:
            case ">=":
                return value >= bound
            case "<=":
                return value <= bound
            case ">":
                return value > bound
        return value < bound


def _time(at: Timestamp | None) -> float:
    return at.seconds + at.nanos / 1e9 if at is not None else 0.0


def _duration(text: str) -> float | None:
    """Go's way to write one, as 1h30m, in seconds; None if it is none."""
    parts = _DURATION.findall(text)
    if not text or "".join(number + unit for number, unit in parts) != text:
        return None
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def _moment(text: str) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise InvalidArgument(f"invalid time {text[:50]}") from None
