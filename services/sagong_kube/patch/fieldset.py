"""Sets of field paths and their encoding, `fieldsV1`.

A path is a tuple of elements as fieldsV1 writes them: `f:name`, `k:{"name":"web"}` for an item of
a list by its keys, `v:"x"` for an item of a set, `i:0` for an index.
Source: https://kubernetes.io/docs/reference/using-api/server-side-apply/
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from sagong.errors import InvalidArgument

__all__ = ["FieldSet", "Path", "decode", "encode", "field", "key", "shown", "value", "within"]

Path = tuple[str, ...]
FieldSet = frozenset[Path]

_KINDS = ("f:", "k:", "v:", "i:")


def field(name: str) -> str:
    """The element of a named field or a map's key."""
    return f"f:{name}"


def value(item: Any) -> str:
    """The element of an item of a set."""
    return f"v:{_json(item)}"


def key(keys: Mapping[str, Any]) -> str:
    """The element of a list's item by its keys."""
    return f"k:{_json(dict(sorted(keys.items())))}"


def _json(item: Any) -> str:
    return msgspec.json.encode(item).decode()


def encode(paths: Iterable[Path]) -> dict[str, Any]:
    """A set as fieldsV1 shows it: nested objects, `.` for a member that has members below."""
    root: dict[str, Any] = {}
    for path in sorted(paths):
        node = root
        for element in path:
            node = node.setdefault(element, {})
        node["."] = {}
    return _compact(root)


def _compact(node: dict[str, Any]) -> dict[str, Any]:
    found = {}
    for element, below in node.items():
        found[element] = {} if element == "." or below.keys() == {"."} else _compact(below)
    return found


def decode(fields: Any) -> FieldSet:
    """The set of a fieldsV1 object."""
    found: list[Path] = []
    _collect(fields, (), found)
    return frozenset(found)


def _collect(node: Any, path: Path, found: list[Path]) -> None:
    if not isinstance(node, dict):
        raise InvalidArgument("a field set is not made of objects")
    for element, below in node.items():
        if element == ".":
            found.append(path)
        elif element[:2] not in _KINDS:
            raise InvalidArgument(f"missing colon: {element}")
        elif not below:
            found.append((*path, element))
        else:
            _collect(below, (*path, element), found)


def within(path: Path, prefixes: Iterable[Path]) -> bool:
    """Whether a path is one of these or below one."""
    return any(path[: len(prefix)] == prefix for prefix in prefixes)


def shown(path: Path) -> str:
    """A path as messages write it: `.spec.containers[name="web"].image`."""
    return "".join(_shown(element) for element in path)


def _shown(element: str) -> str:
    kind, text = element[:2], element[2:]
    if kind == "f:":
        return f".{text}"
    if kind == "k:":
        keys = json.loads(text)
        return "[" + ",".join(f"{name}={_json(item)}" for name, item in keys.items()) + "]"
    return f"[={text}]" if kind == "v:" else f"[{text}]"
