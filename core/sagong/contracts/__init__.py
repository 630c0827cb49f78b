"""The contracts of all slots, one module a slot; what a slot must do stands there.

A module (a package where the messages are many) may hold several versions of its contract, each a
class marked `@slot(NAME, version=N)`. A slot that somebody else invents has its module named by an
entry point of the group `sagong.contracts`: slot name to module.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import entry_points
from types import ModuleType

from sagong.errors import NotFound

__all__ = ["find", "protocols"]


def find(slot: str, version: int) -> type:
    """The contract of a slot in a version of it; `NotFound` says which versions there are."""
    known = {number: protocol for (_, number), protocol in _declared(_module(slot), slot)}
    if version not in known:
        versions = ", ".join(map(str, sorted(known))) or "no contract of that name"
        raise NotFound(f"contract {slot} has no version {version} here; there are: {versions}")
    return known[version]


def protocols() -> Iterator[type]:
    """Every contract in every version, by name."""
    for slot in sorted({m.name for m in pkgutil.iter_modules(__path__)} | set(_strangers())):
        for _, protocol in sorted(_declared(_module(slot), slot), key=lambda found: found[0]):
            yield protocol


def _module(slot: str) -> ModuleType:
    name = f"{__name__}.{slot}"
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
    try:
        return import_module(_strangers()[slot])
    except KeyError:
        raise NotFound(f"no contract {slot}; see `sagong contracts`") from None


def _strangers() -> dict[str, str]:
    return {point.name: point.value for point in entry_points(group=__name__)}


def _declared(module: ModuleType, slot: str) -> Iterator[tuple[tuple[str, int], type]]:
    for value in vars(module).values():
        declared = vars(value).get("__sagong_slot__") if isinstance(value, type) else None
        if declared and value.__module__ == module.__name__ and declared[0] == slot:
            yield declared[:2], value
