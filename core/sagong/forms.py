"""Tables as people write them, held against the struct that they are to become: all mistakes at once.

msgspec stops at the first mistake and names no entry of a table (`$.units[...]`); what people write by
hand is read with every mistake, by its key, with what may stand there. Manifests, `sagong.toml` and
the settings of plugins are read so.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import msgspec

__all__ = ["about", "decode", "meant"]

T = TypeVar("T")
_WORDS = {str: "a text in quotes", bool: "true or false", int: "a whole number", float: "a number"}
_STANDINS: dict[Any, Any] = {str: "unsaid", bool: False, int: 1, float: 1.0, dict: {}}
# What was meant by a value is not known.
_NOTHING = object()


def decode(tables: Any, kind: type[T], key: str = "") -> tuple[T | None, list[str]]:
    """What was written, and each mistake in a line that begins with its key, below `key`.

    With mistakes it is what was probably meant, so that what else is wrong can be looked for: a key
    that nobody knows is the one like it, what is wrong or missing stands at its default. None if that
    is not possible.
    """
    try:
        return msgspec.convert(tables, kind), []
    except msgspec.ValidationError as error:
        first = str(error)
    said: list[str] = []
    meant = _value(tables, kind, key, said)
    try:
        return msgspec.convert(meant, kind), said or [f"{key}: {first}".removeprefix(": ")]
    except msgspec.ValidationError:
        return None, said or [f"{key}: {first}".removeprefix(": ")]


def meant(tables: dict[str, Any], kind: type[msgspec.Struct]) -> tuple[dict[str, Any], list[str]]:
    """The tables as they were probably meant, without what nothing was meant by, and each mistake."""
    said: list[str] = []
    return _table(tables, kind, "", said), said


def about(line: str, mistakes: list[str]) -> bool:
    """Whether a line is about a key, or a part of it, of which a mistake is told already."""
    key = _key(line)
    told = [_key(mistake) for mistake in mistakes]
    return any(f"{t}.".startswith(f"{key}.") or f"{key}.".startswith(f"{t}.") for t in told)


def _key(line: str) -> str:
    return line.partition(" ")[0].rstrip(":").replace("[", ".")


def _value(raw: Any, kind: Any, key: str, said: list[str]) -> Any:
    """What was meant, for msgspec to decode; mistakes go to `said`."""
    before = len(said)
    meant = _inside(raw, _inner(kind), key, said)
    if len(said) > before:
        return meant
    try:
        msgspec.convert(raw, kind)
    except msgspec.ValidationError:
        said.append(
            f"{key} {json.dumps(raw, default=str)}: {_wish(kind)}{_mend(raw, kind)}".lstrip()
        )
        return _NOTHING
    return raw


def _inside(raw: Any, kind: Any, key: str, said: list[str]) -> Any:
    """The same of what has parts, each part looked at by itself; all else as it is."""
    origin, parts = get_origin(kind) or kind, get_args(kind)
    if isinstance(raw, dict) and isinstance(origin, type) and issubclass(origin, msgspec.Struct):
        return _table(raw, origin, key, said)
    if isinstance(raw, dict) and origin is dict and parts:
        return {n: _meant(part, parts[1], _below(key, n), said) for n, part in raw.items()}
    if isinstance(raw, list) and (origin is list or Ellipsis in parts) and parts:
        return [_meant(part, parts[0], f"{key}[{n}]", said) for n, part in enumerate(raw)]
    return raw


def _meant(raw: Any, kind: Any, key: str, said: list[str]) -> Any:
    """What was meant by an entry that has no default."""
    value = _value(raw, kind, key, said)
    return _standin(_inner(kind)) if value is _NOTHING else value


def _table(
    raw: Mapping[str, Any], kind: type[msgspec.Struct], key: str, said: list[str]
) -> dict[str, Any]:
    """A struct's table: its keys by the names that are known, each value as it was meant."""
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    given = dict(raw)
    if kind.__struct_config__.forbid_unknown_fields:
        _rename(given, fields, key, said)
    meant = {}
    for name, field in fields.items():
        if name in given:
            value = _value(given[name], field.type, _below(key, name), said)
        elif field.required:
            value = _NOTHING
            said.append(f"{_below(key, name)} is missing: {_wish(field.type)}")
        else:
            continue
        if field.required and value is _NOTHING:
            value = _standin(_inner(field.type))
        if value is not _NOTHING:
            meant[name] = value
    return meant


def _rename(given: dict[str, Any], known: Collection[str], key: str, said: list[str]) -> None:
    """Give each key that nobody knows the name that was meant, or none."""
    for name in [name for name in given if name not in known]:
        near = difflib.get_close_matches(name, known, n=1)
        meant = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
        said.append(f"{_below(key, name)}: no such key; {meant}")
        value = given.pop(name)
        if near:
            given.setdefault(near[0], value)


def _below(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _inner(kind: Any) -> Any:
    """A kind without its bounds, and without the None that no file can say."""
    if get_origin(kind) is Annotated:
        return _inner(get_args(kind)[0])
    if get_origin(kind) in (UnionType, Union):
        parts = [part for part in get_args(kind) if part is not type(None)]
        return _inner(parts[0]) if len(parts) == 1 else kind
    return kind


def _standin(kind: Any) -> Any:
    """What stands for a value that is wrong or missing, until all else is looked at."""
    if get_origin(kind) is Literal:
        return get_args(kind)[0]
    if get_origin(kind) in (tuple, list):
        return []
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return _table({}, kind, "", [])
    if get_origin(kind) in (UnionType, Union):
        return _standin(get_args(kind)[0])
    return _STANDINS.get(get_origin(kind) or kind)


def _wish(kind: Any) -> str:
    """What may stand there, in words."""
    if get_origin(kind) is Annotated:
        base, *notes = get_args(kind)
        return ", ".join([_wish(base), *(b for note in notes for b in _bounds(note))])
    if get_origin(kind) in (UnionType, Union):
        return ", or ".join(_wish(part) for part in get_args(kind) if part is not type(None))
    if get_origin(kind) is Literal:
        return f"say {' or '.join(map(str, get_args(kind)))}"
    if get_origin(kind) in (tuple, list):
        return "a list"
    if kind in _WORDS:
        return _WORDS[kind]
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        fields = msgspec.structs.fields(kind)
        needed = [f.encode_name for f in fields if f.required] or [f.encode_name for f in fields]
        return f"a table with {', '.join(needed)}"
    return "a table"


def _mend(raw: Any, kind: Any) -> str:
    """How a value is probably meant, where one of another kind is wanted."""
    inner = _inner(kind)
    if isinstance(raw, str) and inner in (int, float, bool):
        return ", without quotes"
    if isinstance(raw, int | float) and inner is str:
        return f', such as "{raw}"'
    if isinstance(raw, str) and get_origin(inner) in (tuple, list):
        words = raw.split() if get_args(inner)[:1] == (str,) else []
        return f", such as {json.dumps(words)}" if words else ""
    return ""


def _bounds(note: Any) -> Iterator[str]:
    if isinstance(note, msgspec.Meta):
        if note.min_length:
            yield "not empty"
        if note.ge is not None:
            yield f"at least {note.ge:g}"
        if note.le is not None:
            yield f"at most {note.le}"
