"""The JSON paths that custom columns and selectable fields use."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

from sagong.errors import InvalidArgument

__all__ = ["find"]

Step = Callable[[Any], list[Any]]

_TOKEN = re.compile(
    r"""\.?(?P<name>(?:[^.\[\]\\]|\\.)+)
    |\[\s*'(?P<single>[^']*)'\s*\]
    |\[\s*"(?P<double>[^"]*)"\s*\]
    |\[\s*(?P<index>-?\d+)\s*\]
    |\[\s*(?P<all>\*)\s*\]
    |\[\?\(\s*@\.(?P<field>[^=!<>\s]+)\s*(?P<operator>==|!=)\s*(?P<value>'[^']*'|"[^"]*"|[^)\s]+)\s*\)\]
    """,
    re.VERBOSE,
)


def find(document: Any, path: str) -> list[Any]:
    """All values at a path such as `.status.conditions[?(@.type=="Ready")].status`."""
    values = [document]
    for step in _steps(path):
        values = [found for value in values for found in step(value)]
    return values


@functools.lru_cache(512)
def _steps(path: str) -> tuple[Step, ...]:
    text = path.strip().removeprefix("{").removesuffix("}").removeprefix("$")
    steps: list[Step] = []
    at = 0
    while at < len(text):
        token = _TOKEN.match(text, at)
        if token is None:
            raise InvalidArgument(f"json path {path!r} is not understood at {text[at:]!r}")
        steps.append(_step(token))
        at = token.end()
    return tuple(steps)


def _step(token: re.Match[str]) -> Step:
    if token["index"] is not None:
        return functools.partial(_index, int(token["index"]))
    if token["all"] is not None or token["name"] == "*":
        return _all
    if token["field"] is not None:
        wanted = token["value"].strip("'\"")
        return functools.partial(_filter, token["field"], token["operator"], wanted)
    name = next(n for n in (token["name"], token["single"], token["double"]) if n is not None)
    return functools.partial(_member, re.sub(r"\\(.)", r"\1", name))


def _member(name: str, value: Any) -> list[Any]:
    return [value[name]] if isinstance(value, dict) and name in value else []


def _index(at: int, value: Any) -> list[Any]:
    return [value[at]] if isinstance(value, list) and -len(value) <= at < len(value) else []


def _all(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return list(value) if isinstance(value, list) else []


def _filter(field: str, operator: str, wanted: str, value: Any) -> list[Any]:
    def holds(item: Any) -> bool:
        found = find(item, f".{field}")
        return bool(found) and (_shown(found[0]) == wanted) is (operator == "==")

    return [item for item in _all(value) if holds(item)]


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
