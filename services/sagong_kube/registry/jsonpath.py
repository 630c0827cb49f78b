"""The small part of JSONPath that custom columns, scale paths and selectable fields use."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["find", "steps"]

_STEP = re.compile(
    r"\.(?P<name>[^.\[\]]+)"
    r"|\[\?\(@\.(?P<field>[^=!\s]+)\s*(?P<op>==|!=)\s*(?P<quote>[\"'])(?P<value>.*?)(?P=quote)\)\]"
    r"|\[(?P<index>-?\d+)\]"
    r"|\[['\"](?P<quoted>[^'\"]+)['\"]\]"
    r"|\[(?P<all>\*)\]"
)


def find(document: Any, path: str) -> list[Any]:
    """All values at a path such as `.status.conditions[?(@.type=="Ready")].status`."""
    found, at = [document], 0
    text = path if path.startswith((".", "[")) else f".{path}"
    while at < len(text):
        match = _STEP.match(text, at)
        if match is None:
            return []
        at = match.end()
        found = [value for item in found for value in _next(item, match)]
    return [value for value in found if value is not None]


def _next(item: Any, match: re.Match[str]) -> list[Any]:
    name = match["name"] or match["quoted"]
    if name is not None:
        name = name.replace("\\.", ".")
        return [item[name]] if isinstance(item, dict) and name in item else []
    if not isinstance(item, list):
        return []
    if match["all"]:
        return item
    if match["index"] is not None:
        position = int(match["index"])
        return [item[position]] if -len(item) <= position < len(item) else []
    equal = match["op"] == "=="
    return [e for e in item if (find(e, match["field"]) == [match["value"]]) is equal]


def steps(path: str) -> tuple[str, ...]:
    """The names of a path without selections: `.spec.replicas`."""
    return tuple(step for step in path.strip(".").split(".") if step)
