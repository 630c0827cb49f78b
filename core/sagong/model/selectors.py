"""Label and field selectors: their string and object forms, what they match, upstream's errors.

A selector is a value; `matches` is a plain loop over its terms. Sources:
https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/ and …/field-selectors/
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from sagong.errors import InvalidArgument
from sagong.model.names import check_label_value, check_qualified_name

__all__ = [
    "EVERYTHING",
    "NOTHING",
    "FieldSelector",
    "FieldTerm",
    "LabelSelector",
    "LabelTerm",
    "from_labels",
    "from_object",
    "parse_fields",
    "parse_labels",
]

_TOKEN = re.compile(r"\s*(==|!=|[=!<>(),]|[^\s=!<>(),]+)")
_SPECIAL: Final = frozenset(("==", "!=", "=", "!", "<", ">", "(", ")", ",", ""))
_OPERATORS: Final = {
    "in": "in",
    "notin": "notin",
    "=": "in",
    "==": "in",
    "!=": "notin",
    ">": "gt",
    "<": "lt",
}
_KNOWN: Final = "in, notin, =, ==, !=, gt, lt"
_INTEGER = re.compile(r"[+-]?\d+\Z", re.ASCII)


class LabelTerm(msgspec.Struct, frozen=True, order=True):
    """One requirement; `operator`: in, notin, exists, !, gt, lt."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether an object with these labels passes."""
        value = labels.get(self.key)
        match self.operator:
            case "in":
                return value in self.values
            case "notin":
                return value is None or value not in self.values
            case "exists":
                return value is not None
            case "!":
                return value is None
        return value is not None and _compares(value, self.operator, self.values[0])

    def __str__(self) -> str:
        match self.operator:
            case "exists":
                return self.key
            case "!":
                return f"!{self.key}"
            case "gt" | "lt":
                return f"{self.key}{'>' if self.operator == 'gt' else '<'}{self.values[0]}"
        if len(self.values) == 1:
            return f"{self.key}{'=' if self.operator == 'in' else '!='}{self.values[0]}"
        return f"{self.key} {self.operator} ({','.join(sorted(self.values))})"


def _compares(value: str, operator: str, bound: str) -> bool:
    if not _INTEGER.match(value):
        return False
    return int(value) > int(bound) if operator == "gt" else int(value) < int(bound)


class LabelSelector(msgspec.Struct, frozen=True):
    """Requirements that must all hold; with `nothing` it matches no object."""

    terms: tuple[LabelTerm, ...] = ()
    nothing: bool = False

    def matches(self, labels: Mapping[str, str] | None) -> bool:
        """Whether an object with these labels is selected."""
        if self.nothing:
            return False
        found = labels or {}
        return all(term.matches(found) for term in self.terms)

    @property
    def empty(self) -> bool:
        """Whether it selects everything."""
        return not self.terms and not self.nothing

    def __str__(self) -> str:
        return ",".join(str(term) for term in self.terms)


EVERYTHING: Final = LabelSelector()
NOTHING: Final = LabelSelector(nothing=True)


def from_labels(labels: Mapping[str, str] | None) -> LabelSelector:
    """The selector of a plain map (a service's, a replication controller's)."""
    return LabelSelector(tuple(LabelTerm(k, "in", (v,)) for k, v in sorted((labels or {}).items())))


_OBJECT_OPERATORS: Final = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "!"}


def from_object(selector: object) -> LabelSelector:
    """The selector of a LabelSelector, a mapping or a generated Struct; None selects nothing."""
    if selector is None:
        return NOTHING
    if not isinstance(selector, Mapping):
        selector = msgspec.to_builtins(selector)
    document: Mapping[str, Any] = selector  # type: ignore[assignment]
    terms = [LabelTerm(k, "in", (v,)) for k, v in (document.get("matchLabels") or {}).items()]
    for expression in document.get("matchExpressions") or ():
        operator = _OBJECT_OPERATORS.get(expression.get("operator", ""))
        if operator is None:
            said = expression.get("operator", "")
            raise InvalidArgument(f'"{said}" is not a valid label selector operator')
        values = tuple(sorted(expression.get("values") or ()))
        terms.append(_term(expression.get("key", ""), operator, values))
    return LabelSelector(tuple(sorted(terms)))


def _term(key: str, operator: str, values: Sequence[str]) -> LabelTerm:
    """A checked requirement; all that is wrong stands in one message."""
    wrong = [f'key: Invalid value: "{key}": {"; ".join(said)}' for said in [check_key(key)] if said]
    if operator in ("in", "notin") and not values:
        wrong.append(
            "values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty"
        )
    elif operator in ("exists", "!") and values:
        wrong.append(
            f"values: Invalid value: {_listed(values)}: "
            "values set must be empty for exists and does not exist"
        )
    elif operator in ("gt", "lt") and not _INTEGER.match(values[0]):
        wrong.append(
            f'values[0]: Invalid value: "{values[0]}": '
            "for 'Gt', 'Lt' operators, the value must be an integer"
        )
    for at, value in enumerate(values):
        said = check_label_value(value)
        if said:
            wrong.append(f'values[{at}][{key}]: Invalid value: "{value}": {"; ".join(said)}')
    if wrong:
        raise InvalidArgument(wrong[0] if len(wrong) == 1 else f"[{', '.join(wrong)}]")
    return LabelTerm(key, operator, tuple(values))


def _listed(values: Iterable[str]) -> str:
    return "[]string{" + ", ".join(f'"{value}"' for value in values) + "}"


check_key = check_qualified_name


def parse_labels(text: str) -> LabelSelector:
    """A label selector's string form (`app=web,tier in (a, b),!old,generation>3`)."""
    return LabelSelector(tuple(sorted(_Parser(text).terms()))) if text.strip() else EVERYTHING


class _Parser:
    """Recursive descent over the tokens of a label selector."""

    def __init__(self, text: str) -> None:
        self._tokens = _TOKEN.findall(text)
        self._at = 0

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _next(self) -> str:
        token = self._peek()
        self._at += 1
        return token

    def terms(self) -> list[LabelTerm]:
        found: list[LabelTerm] = []
        while token := self._peek():
            if token in _SPECIAL and token != "!":
                said = f"found '{token}', expected: !, identifier, or 'end of string'"
                raise InvalidArgument(said)
            found.append(self._requirement())
            self._separator()
        return found

    def _separator(self) -> None:
        token = self._next()
        if token == ",":
            following = self._peek()
            if following in _SPECIAL and following != "!":
                raise InvalidArgument(f"found '{following}', expected: identifier after ','")
        elif token:
            raise InvalidArgument(f"found '{token}', expected: ',' or 'end of string'")

    def _requirement(self) -> LabelTerm:
        try:
            return self._term()
        except InvalidArgument as error:
            raise InvalidArgument(f"unable to parse requirement: {error.message}") from None

    def _term(self) -> LabelTerm:
        key = self._next()
        absent = key == "!"
        if absent:
            key = self._next()
        if key in _SPECIAL:
            raise InvalidArgument(f"found '{key}', expected: identifier")
        said = check_key(key)
        if said:
            raise InvalidArgument(f'<nil>: Invalid value: "{key}": {"; ".join(said)}')
        if absent or self._peek() in ("", ","):
            return _term(key, "!" if absent else "exists", ())
        token = self._next()
        operator = _OPERATORS.get(token, "")
        if not operator:
            raise InvalidArgument(f"found '{token}', expected: {_KNOWN}")
        values = self._values() if token in ("in", "notin") else self._exact()
        return _term(key, operator, sorted(set(values)))

    def _exact(self) -> list[str]:
        if self._peek() in ("", ","):
            return [""]
        token = self._next()
        if token in _SPECIAL:
            raise InvalidArgument(f"found '{token}', expected: identifier")
        return [token]

    def _values(self) -> list[str]:
        token = self._next()
        if token != "(":
            raise InvalidArgument(f"found '{token}' expected: '('")
        found: list[str] = []
        expects = True
        while (token := self._next()) != ")":
            if token == ",":
                if expects:
                    found.append("")
                expects = True
            elif token in _SPECIAL:
                raise InvalidArgument(f"found '{token}', expected: ',', or identifier")
            elif not expects:
                raise InvalidArgument(f"found '{token}', expected: ',' or ')'")
            else:
                found.append(token)
                expects = False
        return [*found, ""] if expects else found


class FieldTerm(msgspec.Struct, frozen=True, order=True):
    """One term of a field selector."""

    field: str
    value: str
    negated: bool = False

    def matches(self, fields: Mapping[str, str]) -> bool:
        """Whether an object with these selectable fields passes."""
        return (fields.get(self.field, "") == self.value) is not self.negated

    def __str__(self) -> str:
        value = re.sub(r"([\\,=])", r"\\\1", self.value)
        return f"{self.field}{'!=' if self.negated else '='}{value}"


class FieldSelector(msgspec.Struct, frozen=True):
    """Terms that must all hold."""

    terms: tuple[FieldTerm, ...] = ()

    def matches(self, fields: Mapping[str, str]) -> bool:
        """Whether an object with these selectable fields is selected."""
        return all(term.matches(fields) for term in self.terms)

    def required(self, field: str) -> str | None:
        """The value that the field must have, None if any may do."""
        return next((t.value for t in self.terms if t.field == field and not t.negated), None)

    def __str__(self) -> str:
        return ",".join(str(term) for term in self.terms)


_FIELD_TERM = re.compile(r"(.*?)(!=|==|=)(.*)\Z", re.DOTALL)


def parse_fields(text: str) -> FieldSelector:
    """A field selector's string form (`metadata.name=a,status.phase!=Failed`)."""
    terms: list[FieldTerm] = []
    for part in sorted(_split(text)):
        if not part:
            continue
        found = _FIELD_TERM.match(part)
        if found is None:
            raise InvalidArgument(f"invalid selector: '{text}'; can't understand '{part}'")
        field, operator, value = found.groups()
        terms.append(FieldTerm(field, _unescaped(value), operator == "!="))
    return FieldSelector(tuple(terms))


def _split(text: str) -> list[str]:
    return re.findall(r"(?:\\.|[^,])+", text, re.DOTALL)


def _unescaped(value: str) -> str:
    parts: list[str] = []
    marks = iter(value)
    for mark in marks:
        if mark == "\\":
            follows = next(marks, "")
            if follows not in ("\\", ",", "="):
                raise InvalidArgument(
                    f'invalid field selector: invalid escape sequence: "\\{follows}"'
                )
            parts.append(follows)
        elif mark in ",=":
            raise InvalidArgument(f"invalid field selector: unescaped character in value: '{mark}'")
        else:
            parts.append(mark)
    return "".join(parts)
