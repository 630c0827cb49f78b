"""Routing by a table of (method, pattern, handler).

A pattern's segments are literals, `{name}` (one segment) or `{name*}` (one or more: image names have
slashes)::

    ROUTES = (
        ("GET", "/containers/{id}/json", inspect_container),
        ("GET", "/images/{name*}/json", inspect_image),
    )

Literals win over `{name}`, and that over `{name*}`; among greedy ones the longest pattern wins.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

import msgspec

__all__ = ["Match", "Router"]

H = TypeVar("H")


class Match(msgspec.Struct, Generic[H], frozen=True):
    """What a path led to, and the pattern's parts."""

    handler: H
    parts: dict[str, str]
    pattern: str


class _Pattern(msgspec.Struct, Generic[H], frozen=True):
    text: str
    handler: H
    segments: tuple[str, ...]
    greedy: int  # index of the greedy segment, -1 without one
    literals: tuple[tuple[int, str], ...]
    names: tuple[tuple[int, str], ...]  # but the greedy one

    @property
    def rank(self) -> tuple[int, ...]:
        """Sorts literals before names before greedy names, longer before shorter."""
        kinds = tuple(
            0 if not s.startswith("{") else 2 if s.endswith("*}") else 1 for s in self.segments
        )
        return (int(self.greedy >= 0), -len(kinds) if self.greedy >= 0 else 0, *kinds)

    def match(self, path: tuple[str, ...]) -> dict[str, str] | None:
        extra, greedy = len(path) - len(self.segments), self.greedy
        if extra and (greedy < 0 or extra < 0):
            return None
        for index, literal in self.literals:
            if path[index + extra if index > greedy else index] != literal:
                return None
        parts = {n: path[i + extra if i > greedy else i] for i, n in self.names}
        if greedy >= 0:
            parts[self.segments[greedy][1:-2]] = "/".join(path[greedy : greedy + 1 + extra])
        return parts


class Router(Generic[H]):
    """Finds the handler of a method and path."""

    def __init__(self, routes: Iterable[tuple[str, str, H]]) -> None:
        self._by_first: dict[tuple[str, str], list[_Pattern[H]]] = {}
        self._methods: dict[str, None] = {}
        for method, text, handler in routes:
            pattern = _compile(text, handler)
            first = pattern.segments[0] if pattern.segments else ""
            key = (method, "" if first.startswith("{") else first)
            self._by_first.setdefault(key, []).append(pattern)
            self._methods[method] = None
        for patterns in self._by_first.values():
            patterns.sort(key=lambda p: p.rank)

    def find(self, method: str, path: tuple[str, ...]) -> Match[H] | None:
        """The best pattern for decoded segments; None when there is none."""
        for first in (path[0] if path else "", ""):
            for pattern in self._by_first.get((method, first), ()):
                parts = pattern.match(path)
                if parts is not None:
                    return Match(pattern.handler, parts, pattern.text)
            if not first:
                break
        return None

    def methods(self, path: tuple[str, ...]) -> tuple[str, ...]:
        """Which methods the path knows, for 405 and OPTIONS."""
        return tuple(m for m in self._methods if self.find(m, path) is not None)


def _compile(text: str, handler: H) -> _Pattern[H]:
    segments = tuple(part for part in text.strip("/").split("/") if part)
    greedy = [i for i, segment in enumerate(segments) if segment.endswith("*}")]
    if len(greedy) > 1:
        raise ValueError(f"route {text} has more than one greedy segment")
    single = [(i, s) for i, s in enumerate(segments) if i not in greedy]
    return _Pattern(
        text,
        handler,
        segments,
        greedy[0] if greedy else -1,
        tuple((i, s) for i, s in single if not s.startswith("{")),
        tuple((i, s[1:-1]) for i, s in single if s.startswith("{")),
    )
