"""Label and field selectors: their string forms, their object form, and what they match."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from sagong.errors import InvalidArgument

__all__ = [
    "EVERYTHING",
    "FieldTerm",
    "Requirement",
    "label_selector",
    "matches_labels",
    "parse_fields",
    "parse_labels",
]

_NAME = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]\Z")
_TOKEN = re.compile(r"\s*(==|!=|[=!<>(),]|[^\s=!<>(),]+)")
_WORDS = {"in", "notin"}


class Requirement(msgspec.Struct, frozen=True):
    """One term of a label selector; `operator`: in, notin, exists, !, gt, lt."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Whether an object with these labels passes."""
        value = labels.get(self.key)
        match self.operator:
            case "in":
                return value is not None and value in self.values
            case "notin":
                return value is None or value not in self.values
            case "exists":
                return value is not None
            case "!":
                return value is None
        return value is not None and _compares(value, self.operator, self.values[0])


class FieldTerm(msgspec.Struct, frozen=True):
    """One term of a field selector."""

    field: str
    value: str
    negated: bool = False


EVERYTHING: tuple[Requirement, ...] = ()


def _compares(value: str, operator: str, bound: str) -> bool:
    try:
        return int(value) > int(bound) if operator == "gt" else int(value) < int(bound)
    except ValueError:
        return False


def matches_labels(terms: Sequence[Requirement], labels: Mapping[str, str]) -> bool:
    """Whether all terms hold."""
    return all(term.holds(labels) for term in terms)


class _Parser:
    """Recursive descent over the string form of label selectors."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = _TOKEN.findall(text)
        self._at = 0

    def peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def next(self) -> str:
        token = self.peek()
        self._at += 1
        return token

    def parse(self) -> tuple[Requirement, ...]:
        terms = []
        while self.peek():
            terms.append(self._term())
            if self.peek() == ",":
                self.next()
                if not self.peek():
                    raise self._wrong("found '', expected: identifier after ','")
            elif self.peek():
                raise self._wrong(f"found '{self.peek()}', expected: ',' or 'end of string'")
        return tuple(terms)

    def _term(self) -> Requirement:
        if self.peek() == "!":
            self.next()
            return Requirement(self._key(), "!")
        key = self._key()
        operator = self.peek()
        if operator in ("", ","):
            return Requirement(key, "exists")
        self.next()
        if operator in ("=", "==", "!="):
            value = "" if self.peek() in ("", ",") else self.next()
            return Requirement(key, "notin" if operator == "!=" else "in", (self._value(value),))
        if operator in ("<", ">"):
            return Requirement(key, "gt" if operator == ">" else "lt", (self._number(key),))
        if operator in _WORDS:
            return Requirement(key, operator, self._values())
        raise self._wrong(f"found '{operator}', expected: in, notin, =, ==, !=, gt, lt")

    def _key(self) -> str:
        key = self.next()
        prefix, slash, name = key.rpartition("/")
        if not _NAME.match(name) or len(name) > 63 or (slash and not _NAME.match(prefix)):
            raise self._wrong(f"found '{key}', expected: !, identifier, or 'end of string'")
        return key

    def _value(self, value: str) -> str:
        if value and (len(value) > 63 or not _NAME.match(value)):
            raise InvalidArgument(
                f'values[0][{value}]: Invalid value: "{value}": a valid label must be an empty '
                "string or consist of alphanumeric characters, '-', '_' or '.', and must start "
                "and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or "
                "'12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?"
                "[A-Za-z0-9])?')"
            )
        return value

    def _number(self, key: str) -> str:
        value = self.next()
        if not value.lstrip("-").isdigit():
            raise InvalidArgument(
                f'values[0][{key}]: Invalid value: "{value}": '
                "for 'Gt', 'Lt' operators, the value must be an integer"
            )
        return value

    def _values(self) -> tuple[str, ...]:
        if self.next() != "(":
            raise self._wrong(f"found '{self._tokens[self._at - 1]}', expected: '('")
        values: list[str] = []
        while (token := self.next()) != ")":
            if token == "":
                raise self._wrong("found '', expected: ',' or ')'")
            if token != ",":
                values.append(self._value(token))
        return tuple(values) or ("",)

    def _wrong(self, what: str) -> InvalidArgument:
        return InvalidArgument(f"unable to parse requirement: {what}")


def parse_labels(text: str) -> tuple[Requirement, ...]:
    """A label selector's string form (`app=web,tier in (a, b),!old`)."""
    return _Parser(text).parse() if text.strip() else ()


_OPERATORS = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "!"}


def label_selector(selector: Mapping[str, Any] | None) -> tuple[Requirement, ...] | None:
    """A LabelSelector object's terms; None if it is absent (and so matches nothing)."""
    if selector is None:
        return None
    terms = [Requirement(k, "in", (v,)) for k, v in (selector.get("matchLabels") or {}).items()]
    for term in selector.get("matchExpressions") or ():
        operator = _OPERATORS.get(term["operator"])
        if operator is None:
            raise InvalidArgument(f'"{term["operator"]}" is not a valid label selector operator')
        terms.append(Requirement(term["key"], operator, tuple(term.get("values") or ())))
    return tuple(terms)


def parse_fields(text: str) -> tuple[FieldTerm, ...]:
    """A field selector's string form (`metadata.name=a,status.phase!=Failed`)."""
    terms = []
    for part in _unescaped_split(text):
        if not part:
            continue
        match = re.match(r"([^=!]*)(!=|==|=)(.*)\Z", part, re.DOTALL)
        if match is None:
            raise InvalidArgument(f"invalid selector: '{text}'; can't understand '{part}'")
        field, operator, value = match.groups()
        terms.append(FieldTerm(field, _unescape(value), operator == "!="))
    return tuple(terms)


def _unescaped_split(text: str) -> list[str]:
    return re.split(r"(?<!\\),", text)


def _unescape(value: str) -> str:
    return re.sub(r"\\([\\,=])", r"\1", value)
