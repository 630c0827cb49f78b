"""JSON bodies as Go's decoder reads them, guided by the struct that they are meant for. Pure.

A name is found in any case (https://pkg.go.dev/encoding/json#Unmarshal), a null is not given, and what
no struct has is left out. Keys of maps (labels, ports, networks) are the client's own and stay.
"""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any, Union, cast

import msgspec

__all__ = ["read"]

Reader = Callable[[Any], Any]


def read(document: dict[str, Any], kind: type[msgspec.Struct]) -> dict[str, Any]:
    """A document with the names of a struct, without nulls and without what the struct has not.

    What has another shape than the struct stays, for the conversion to complain of.
    """
    return cast(dict[str, Any], _struct(kind)(document))


@functools.cache
def _struct(kind: type[msgspec.Struct]) -> Reader:
    """The reader of objects of a struct."""
    known = {field.encode_name: _reader(field.type) for field in msgspec.structs.fields(kind)}
    folded = {name.casefold(): name for name in known}

    def object_(value: Any) -> Any:
        if type(value) is not dict:
            return value
        made = {}
        for given, inner in value.items():
            if inner is None:
                continue
            name = given if given in known else folded.get(given.casefold())
            if name is not None:
                reader = known[name]
                made[name] = inner if reader is None else reader(inner)
        return made

    return object_


def _reader(hint: Any) -> Reader | None:
    """The reader of a type's values; None for those that are taken as they are."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _reader(arguments[0])
    if origin in (Union, types.UnionType):
        if str in arguments and tuple[str, ...] in arguments:
            return _words
        readers = filter(None, map(_reader, arguments))
        return next(readers, None)
    if origin in (list, tuple):
        return _items(_reader(arguments[0]), "" if arguments[0] is str else None)
    if origin is dict:
        return _map(_reader(arguments[1]), "" if arguments[1] is str else None)
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return _struct(hint)
    return None


def _words(value: Any) -> Any:
    """Words of which a single one need be no list (Docker's StrSlice)."""
    return [value] if isinstance(value, str) else _items(None, "")(value)


def _items(reader: Reader | None, zero: str | None) -> Reader:
    """A list's items; null is the empty text in a list of texts."""

    def items(value: Any) -> Any:
        if type(value) is not list:
            return value
        plain = reader is None and None not in value
        return value if plain else [_one(reader, item, zero) for item in value]

    return items


def _map(reader: Reader | None, zero: str | None) -> Reader:
    """A map's values; null is the empty text in a map of texts, and nothing else where it may be."""

    def entries(value: Any) -> Any:
        if type(value) is not dict:
            return value
        return {key: _one(reader, inner, zero) for key, inner in value.items()}

    return entries


def _one(reader: Reader | None, value: Any, zero: str | None) -> Any:
    if value is None:
        return zero
    return value if reader is None else reader(value)
