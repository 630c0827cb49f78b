"""Wrong fields: their paths, reasons and messages, worded as upstream words them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

__all__ = ["FieldError", "Findings", "Literal"]


class FieldError(msgspec.Struct, frozen=True):
    """One wrong field; `reason` and `message` as `details.causes` of a Status has them."""

    path: str
    reason: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


class Literal(str):
    """A value that messages show as it stands, without quotes."""


def _shown(value: Any) -> str:
    """A value as upstream's messages print it."""
    if isinstance(value, Literal):
        return str(value)
    if value is None:
        return "null"
    if isinstance(value, str | bool | int | float):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return "[]string{" + ", ".join(map(_shown, value)) + "}"
    if isinstance(value, dict):
        return _shown_map(value)
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _shown_map(value: dict[str, Any]) -> str:
    if value and set(value) <= {"matchLabels", "matchExpressions"}:
        labels = value.get("matchLabels")
        shown = "map[string]string(nil)" if labels is None else _shown_map(labels)
        terms = value.get("matchExpressions")
        listed = (
            "[]v1.LabelSelectorRequirement(nil)"
            if not terms
            else "[]v1.LabelSelectorRequirement{" + ", ".join(map(_shown_term, terms)) + "}"
        )
        return f"v1.LabelSelector{{MatchLabels:{shown}, MatchExpressions:{listed}}}"
    if all(isinstance(item, str) for item in value.values()):
        pairs = (f"{_shown(key)}:{_shown(item)}" for key, item in sorted(value.items()))
        return "map[string]string{" + ", ".join(pairs) + "}"
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _shown_term(term: dict[str, Any]) -> str:
    values = term.get("values")
    listed = "[]string(nil)" if values is None else _shown(values)
    key, operator = _shown(term.get("key", "")), _shown(term.get("operator", ""))
    return f"v1.LabelSelectorRequirement{{Key:{key}, Operator:{operator}, Values:{listed}}}"


class Findings:
    """Collects the errors of one object, in the order of its checks."""

    def __init__(self) -> None:
        self.errors: list[FieldError] = []

    def _add(self, path: str, reason: str, said: str, detail: str) -> None:
        self.errors.append(FieldError(path, reason, f"{said}: {detail}" if detail else said))

    def required(self, path: str, detail: str = "") -> None:
        """The field must have a value."""
        self._add(path, "FieldValueRequired", "Required value", detail)

    def invalid(self, path: str, value: Any, detail: str) -> None:
        """The value is malformed."""
        self._add(path, "FieldValueInvalid", f"Invalid value: {_shown(value)}", detail)

    def each(self, path: str, value: Any, details: Iterable[str]) -> None:
        """The value is malformed in several ways."""
        for detail in details:
            self.invalid(path, value, detail)

    def duplicate(self, path: str, value: Any) -> None:
        """The value stands twice."""
        self._add(path, "FieldValueDuplicate", f"Duplicate value: {_shown(value)}", "")

    def missing(self, path: str, value: Any) -> None:
        """What the value names does not exist."""
        self._add(path, "FieldValueNotFound", f"Not found: {_shown(value)}", "")

    def forbidden(self, path: str, detail: str) -> None:
        """The field may not be set, or not be changed."""
        self._add(path, "FieldValueForbidden", "Forbidden", detail)

    def unsupported(self, path: str, value: Any, supported: Sequence[str]) -> None:
        """The value is none of the known ones."""
        known = ", ".join(f'"{each}"' for each in supported)
        said = f"Unsupported value: {_shown(value)}"
        detail = f"supported values: {known}" if supported else ""
        self._add(path, "FieldValueNotSupported", said, detail)

    def too_long(self, path: str, limit: int) -> None:
        """More bytes than may be."""
        detail = f"may not be more than {limit} bytes"
        self._add(path, "FieldValueTooLong", "Too long", detail)

    def too_many(self, path: str, count: int, limit: int) -> None:
        """More items than may be."""
        self._add(
            path, "FieldValueTooMany", f"Too many: {count}", f"must have at most {limit} items"
        )

    # Small checks that every kind needs

    def one_of(self, path: str, value: Any, supported: Sequence[str]) -> None:
        """A required word out of a list."""
        if not value:
            self.required(path)
        elif value not in supported:
            self.unsupported(path, value, supported)

    def nonnegative(self, path: str, value: Any) -> None:
        """A number that may not be negative."""
        if value is not None and value < 0:
            self.invalid(path, value, "must be greater than or equal to 0")

    def immutable(self, path: str, new: Any, old: Any) -> None:
        """A field that keeps its value."""
        if (new or None) != (old or None):
            self.invalid(path, new, "field is immutable")
