"""The `filters` parameter: both JSON shapes, and how each kind of filter matches. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

import msgspec

from sagong.errors import InvalidArgument
from sagong.model.numbers import natural

__all__ = ["Filters"]

_TRUE = frozenset(("1", "true", "t"))
_FALSE = frozenset(("0", "false", "f"))


class Filters:
    """Filters by name, each with the values that were asked for."""

    def __init__(self, values: Mapping[str, tuple[str, ...]]) -> None:
        self.values = dict(values)

    @classmethod
    def parse(cls, text: str) -> Filters:
        """`{"label": {"a=b": true}}` of the CLI or `{"label": ["a=b"]}` of the SDKs."""
        if not text:
            return cls({})
        try:
            found = msgspec.json.decode(text)
            return cls({str(k): _values(v) for k, v in ({} if found is None else found).items()})
        except (msgspec.DecodeError, AttributeError, TypeError, RecursionError):
            raise InvalidArgument("invalid filter") from None

    def __bool__(self) -> bool:
        return any(self.values.values())

    def __getitem__(self, name: str) -> tuple[str, ...]:
        return self.values.get(name, ())

    def check(self, known: Iterable[str]) -> None:
        """Refuse filters that are not known."""
        unknown = sorted(set(self.values) - set(known))
        if unknown:
            raise InvalidArgument(f"invalid filter '{unknown[0]}'")

    def among(self, name: str, known: Iterable[str]) -> None:
        """Refuse values that do not exist."""
        for value in self[name]:
            if value not in known:
                raise InvalidArgument(f"invalid filter '{name}={value}'")

    def numbers(self, name: str) -> None:
        """Refuse values that are no whole numbers."""
        for value in self[name]:
            if natural(value.removeprefix("-")) is None:
                raise InvalidArgument(
                    f"invalid filter '{name}={value}': strconv.Atoi: parsing \"{value}\": "
                    "invalid syntax"
                )

    def boolean(self, name: str) -> bool | None:
        """A filter that is true or false; None when it isn't given."""
        values = {v.lower() for v in self[name]}
        if not values:
            return None
        if values <= _TRUE:
            return True
        if values <= _FALSE:
            return False
        raise InvalidArgument(f"invalid filter '{name}=[{' '.join(self[name])}]'")

    def exact(self, name: str, candidate: str) -> bool:
        """Whether one of the values is the candidate; no values match all."""
        return not self[name] or candidate in self[name]

    def any_exact(self, name: str, candidates: Iterable[str]) -> bool:
        """Whether one of the values is among the candidates."""
        return not self[name] or bool(set(self[name]).intersection(candidates))

    def prefix(self, name: str, candidate: str) -> bool:
        """Whether the candidate begins with one of the values (ids)."""
        return not self[name] or candidate.startswith(self[name])

    def pattern(self, name: str, candidates: Iterable[str]) -> bool:
        """Whether one of the values, as a regular expression, is found in a candidate (names)."""
        values = self[name]
        if not values:
            return True
        names = list(candidates)
        return any(_found(value, candidate) for value in values for candidate in names)

    def labels(self, labels: Mapping[str, str], name: str = "label") -> bool:
        """All of `key` and `key=value` hold."""
        return all(_has_label(labels, wanted) for wanted in self[name])

    def without_labels(self, labels: Mapping[str, str]) -> bool:
        """None of `label!` holds."""
        return not any(_has_label(labels, unwanted) for unwanted in self["label!"])

    def satisfied(self, name: str, test: Callable[[str], bool]) -> bool:
        """Whether a test holds for one of the values; no values match all."""
        return not self[name] or any(test(value) for value in self[name])


def _values(given: object) -> tuple[str, ...]:
    if given is None:
        return ()
    if isinstance(given, Mapping):
        if not all(wanted is None or isinstance(wanted, bool) for wanted in given.values()):
            raise TypeError
        return tuple(str(k) for k, wanted in given.items() if wanted)
    if isinstance(given, str):
        return (given,)
    if isinstance(given, bool):
        return ("true" if given else "false",)
    if isinstance(given, Iterable):
        return tuple(_text(v) for v in given)
    raise TypeError


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _found(value: str, candidate: str) -> bool:
    if value == candidate:
        return True
    try:
        return re.search(value, candidate) is not None
    except re.error:
        return value in candidate


def _has_label(labels: Mapping[str, str], wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)
