"""The parts of rows that many kinds share: names, ages, labels, containers, values at paths."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from sagong.errors import InvalidArgument
from sagong.model import selectors, times

__all__ = [
    "NONE",
    "UNKNOWN",
    "UNSET",
    "Row",
    "age_of",
    "containers_of",
    "counted",
    "elapsed",
    "labels_text",
    "name_of",
    "plain",
    "selector_text",
    "spec_of",
    "status_of",
    "text_of",
    "value_at",
]

Document = dict[str, Any]
Row = Callable[[Document, float], list[Any]]

NONE: Final = "<none>"
UNKNOWN: Final = "<unknown>"
UNSET: Final = "<unset>"


def elapsed(stamp: str | None, now: float) -> str:
    """How long ago a time was."""
    if not stamp:
        return UNKNOWN
    try:
        return times.age(now - times.parse_time(stamp))
    except InvalidArgument:
        return UNKNOWN


def age_of(document: Document, now: float) -> str:
    """The age of an object."""
    return elapsed(document["metadata"].get("creationTimestamp"), now)


def spec_of(document: Document) -> Document:
    return document.get("spec") or {}


def status_of(document: Document) -> Document:
    return document.get("status") or {}


def name_of(document: Document) -> str:
    name: str = document["metadata"].get("name", "")
    return name


def labels_text(labels: Mapping[str, str] | None) -> str:
    """Labels as a list of pairs."""
    return ",".join(f"{k}={v}" for k, v in sorted((labels or {}).items())) or NONE


def selector_text(selector: Document | None) -> str:
    if selector is None:
        return NONE
    try:
        return str(selectors.from_object(selector)) or NONE
    except InvalidArgument:
        return "<error>"


def containers_of(template: Document | None) -> list[str]:
    containers = ((template or {}).get("spec") or {}).get("containers") or ()
    return [
        ",".join(container.get("name", "") for container in containers),
        ",".join(container.get("image", "") for container in containers),
    ]


def plain(*paths: str) -> Row:
    """Name, the values at paths, age; absent values are empty."""

    def row(document: Document, now: float) -> list[Any]:
        return [
            name_of(document),
            *(text_of(value_at(document, path)) for path in paths),
            age_of(document, now),
        ]

    return row


def value_at(document: Document, path: str) -> Any:
    value: Any = document
    for step in path.split("."):
        value = (value or {}).get(step)
    return value


def text_of(value: Any) -> Any:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else value


def counted(field: str) -> Row:
    def row(document: Document, now: float) -> list[Any]:
        return [name_of(document), len(value_at(document, field) or ()), age_of(document, now)]

    return row
