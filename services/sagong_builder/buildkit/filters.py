"""Filters of cache records, as BuildKit's clients write them. Pure.

A filter is fields with values, separated by commas, that must all hold: `type==regular,id~=^a`; of
several filters one must. Source: the package filters of containerd.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from sagong.errors import InvalidArgument
from sagong_builder.buildkit.messages import UsageRecord

__all__ = ["matching"]

_TERM = re.compile(r"\s*([a-z]+)\s*(?:(==|!=|~=)\s*(\"(?:[^\"\\]|\\.)*\"|[^,]*))?\s*(?:,|\Z)")
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
Term = tuple[Callable[[UsageRecord], str], str, str]


def _yes(value: object) -> str:
    return "true" if value else ""


def matching(records: Sequence[UsageRecord], filters: Sequence[str]) -> list[UsageRecord]:
    """Those that fit one of the filters; all if there are none."""
    if not filters:
        return list(records)
    read = [_terms(text) for text in filters]
    return [r for r in records if any(all(_holds(term, r) for term in terms) for terms in read)]


def _terms(text: str) -> list[Term]:
    found: list[Term] = []
    at = 0
    while at < len(text[:_LIMIT]):
        term = _TERM.match(text, at)
        if term is None or term[1] not in _FIELDS:
            raise InvalidArgument(f"invalid filter of cache records: {text[:200]!r}")
        value = re.sub(r"\\(.)", r"\1", term[3][1:-1]) if (term[3] or "")[:1] == '"' else term[3]
        found.append((_FIELDS[term[1]], term[2] or "", (value or "").strip()))
        at = term.end()
    return found


def _holds(term: Term, record: UsageRecord) -> bool:
    field, operator, wanted = term
    value = field(record)
    match operator:
        case "==":
            return value == wanted
        case "!=":
            return value != wanted
        case "~=":
            # Clients mean a part of an id; patterns of strangers are not tried here.
            return wanted.removeprefix("^").removesuffix("$") in value
    return bool(value)
