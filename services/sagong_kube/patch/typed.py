"""Documents seen through their shape: which fields they have, how two differ, how they merge."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from sagong.errors import InvalidArgument
from sagong_kube.patch import fieldset
from sagong_kube.patch.document import copied
from sagong_kube.patch.fieldset import FieldSet, Path
from sagong_kube.patch.shapes import DEDUCED, LEAF, Shape

__all__ = ["Comparison", "compared", "field_set", "merged", "owned_containers", "removed"]

_ABSENT = object()


class Comparison(msgspec.Struct, frozen=True):
    """How a new document differs from an old one."""

    added: FieldSet
    modified: FieldSet
    removed: FieldSet

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        return not (self.added or self.modified or self.removed)


def _form(shape: Shape, value: Any) -> str:
    """How a value is treated: by its shape, as a leaf where value and shape don't fit."""
    if shape.kind == "object":
        return "object" if isinstance(value, dict) else "leaf"
    if shape.kind in ("list", "set"):
        return shape.kind if isinstance(value, list) else "leaf"
    return "leaf"


def _element(shape: Shape, item: Any) -> str:
    if shape.kind == "set":
        return fieldset.value(item)
    if not isinstance(item, dict):
        raise InvalidArgument("associative list with keys may not have non-map elements")
    keys = {}
    for name in shape.keys:
        found = item.get(name)
        if found is None:
            found = shape.element().default_key(name)
        if found is None:
            raise InvalidArgument(
                f'associative list with keys has an element that omits key field "{name}" '
                "(and doesn't have default value)"
            )
        keys[name] = found
    return fieldset.key(keys)


def _indexed(shape: Shape, items: list[Any]) -> dict[str, Any]:
    """Items by their elements; of several with the same the first counts."""
    found: dict[str, Any] = {}
    for item in items:
        found.setdefault(_element(shape, item), item)
    return found


# The fields of a document


def field_set(document: Any, shape: Shape) -> FieldSet:
    """All fields that a document says something about."""
    found: list[Path] = []
    _visit(document, shape, (), found)
    return frozenset(found)


def _visit(value: Any, shape: Shape, path: Path, found: list[Path]) -> None:
    match _form(shape, value):
        case "object":
            for name, item in value.items():
                below = (*path, fieldset.field(name))
                _visit(item, shape.member(name), below, found)
                empty = item is None or item == {}
                if (empty or not shape.named(name)) and (not found or found[-1] != below):
                    found.append(below)
        case "list" | "set":
            held = shape.element()
            for element, item in _indexed(shape, value).items():
                below = (*path, element)
                if isinstance(item, dict | list):
                    _visit(item, held, below, found)
                found.append(below)
        case _:
            found.append(path)


# Differences


def compared(old: Any, new: Any, shape: Shape) -> Comparison:
    """The fields added, modified and removed; containers count as added or removed too."""
    walk = _Comparing()
    walk.visit(old, new, shape, ())
    return Comparison(frozenset(walk.added), frozenset(walk.modified), frozenset(walk.removed))


class _Comparing:
    def __init__(self) -> None:
        self.added: list[Path] = []
        self.modified: list[Path] = []
        self.removed: list[Path] = []

    def visit(self, old: Any, new: Any, shape: Shape, path: Path) -> None:
        if old is new or (old is not _ABSENT and new is not _ABSENT and old == new):
            return
        old_form = "" if old is _ABSENT else _form(shape, old)
        new_form = "" if new is _ABSENT else _form(shape, new)
        form = new_form or old_form
        if form == "leaf" or (old_form and new_form and old_form != new_form):
            self._leaf(old, new, path)
            return
        if form == "object":
            self._objects(old, new, shape, path)
        else:
            self._lists(old, new, shape, path)
        if old is _ABSENT:
            self.added.append(path)
        elif new is _ABSENT:
            self.removed.append(path)

    def _leaf(self, old: Any, new: Any, path: Path) -> None:
        if old is _ABSENT:
            self.added.append(path)
        elif new is _ABSENT:
            self.removed.append(path)
        else:
            self.modified.append(path)

    def _objects(self, old: Any, new: Any, shape: Shape, path: Path) -> None:
        left = {} if old is _ABSENT else old
        right = {} if new is _ABSENT else new
        for name in left.keys() | right.keys():
            self.visit(
                left.get(name, _ABSENT),
                right.get(name, _ABSENT),
                shape.member(name),
                (*path, fieldset.field(name)),
            )

    def _lists(self, old: Any, new: Any, shape: Shape, path: Path) -> None:
        left = {} if old is _ABSENT else _indexed(shape, old)
        right = {} if new is _ABSENT else _indexed(shape, new)
        held = shape.element()
        for element in left.keys() | right.keys():
            before, after = left.get(element, _ABSENT), right.get(element, _ABSENT)
            self.visit(before, after, held, (*path, element))


# Merging


def merged(live: Any, applied: Any, shape: Shape) -> Any:
    """The live document with what is applied over it; nothing is removed."""
    form = _form(shape, applied)
    if form == "leaf" or _form(shape, live) != form:
        return copied(applied)
    if form == "object":
        found = dict(live)
        for name, item in applied.items():
            found[name] = merged(live.get(name), item, shape.member(name))
        return found
    return _merged_lists(live, applied, shape)


def _merged_lists(live: list[Any], applied: list[Any], shape: Shape) -> list[Any]:
    """Items of both: the applied ones in their order, the others where they stood."""
    left, right = _indexed(shape, live), _indexed(shape, applied)
    shared = [element for element in right if element in left]
    held = shape.element()

    def joined(element: str) -> Any:
        if element in left and element in right:
            return merged(left[element], right[element], held)
        return copied(right[element]) if element in right else left[element]

    olds, news = list(left), list(right)
    out: list[str] = []
    taken: set[str] = set()
    while olds or news:
        if olds and olds[0] in taken:
            olds.pop(0)
        elif olds and olds[0] not in right:
            out.append(olds.pop(0))
        elif olds and news and olds[0] != news[0] and shared and shared[0] != olds[0]:
            # A shared item whose turn comes later, in the applied order.
            olds.pop(0)
        elif news:
            element = news.pop(0)
            taken.add(element)
            out.append(element)
            if shared and shared[0] == element:
                shared.pop(0)
        else:
            olds.pop(0)
    return [joined(element) for element in out]


# Removing


def owned_containers(paths: Iterable[Path], shape: Shape) -> set[Path]:
    """A set with the declared fields above its members: who owns a.b.c owns a and a.b."""
    found: set[Path] = set()
    for path in paths:
        found.add(path)
        node = shape
        for at, element in enumerate(path):
            if not element.startswith("f:"):
                node = node.element()
                continue
            name = element[2:]
            if node.named(name):
                found.add(path[: at + 1])
            node = node.member(name) if node.kind == "object" else DEDUCED
    return found


def removed(document: Any, gone: set[Path], shape: Shape, path: Path = ()) -> Any:
    """The document without the fields and items of these paths."""
    match _form(shape, document):
        case "object":
            return {
                name: removed(item, gone, shape.member(name), below)
                for name, item in document.items()
                if (below := (*path, fieldset.field(name))) not in gone
            }
        case "list" | "set":
            held = shape.element() if shape.kind == "list" else LEAF
            return [
                removed(item, gone, held, below)
                for item in document
                if (below := (*path, _element(shape, item))) not in gone
            ]
    return document
