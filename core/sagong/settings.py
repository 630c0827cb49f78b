"""A unit's settings as its plugin's own struct, and the instance's places in them.

`{run}`, `{data}`, `{etc}`, `{cgroup}`, `{prefix}` and `{hostname}` stand for these: in what is
configured, in a manifest's paths, and in the defaults of a struct.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from sagong.errors import InvalidArgument

__all__ = ["PLACES", "decoded", "filled"]

PLACES = ("run", "data", "etc", "cgroup", "prefix", "hostname")

C = TypeVar("C", bound=msgspec.Struct)


def decoded(kind: type[C], told: Mapping[str, Any], unit: str, places: Mapping[str, str]) -> C:
    """The struct, its defaults filled in too; InvalidArgument tells all mistakes by their keys."""
    try:
        found = msgspec.convert(told, kind)
        return msgspec.convert(filled(msgspec.to_builtins(found), places), kind)
    except msgspec.ValidationError as error:
        from sagong import forms  # what is right needs none of it

        mistakes = forms.decode(dict(told), kind, f"units.{unit}.settings")[1]
        raise InvalidArgument("; ".join(mistakes)) from error


def filled(value: Any, places: Mapping[str, str]) -> Any:
    """A value with its places filled in, wherever they stand."""
    if isinstance(value, str):
        for name, place in places.items() if "{" in value else ():
            value = value.replace("{" + name + "}", place)
        return value
    if isinstance(value, dict):
        return {key: filled(item, places) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [filled(item, places) for item in value]
    return value
