"""From a request's bytes to a document as upstream's Go types would give it back.

A document that fits its types takes the fast way through a Struct; only what that refuses is
walked to name the fields that are wrong.
"""

from __future__ import annotations

import base64
import binascii
import functools
import json
from collections.abc import Callable
from typing import Any, Final

import msgspec

from sagong.errors import InvalidArgument
from sagong.model import quantity, times
from sagong.model.objects import GroupVersionKind, parse_api_version
from sagong_kube.schema.inspection import Inspection
from sagong_kube.schema.structure import struct_of
from sagong_kube.schema.traversal import Traversal
from sagong_kube.schema.types import METADATA, type_of

__all__ = ["Decoded", "conform", "decode", "parsed_yaml", "strict_error"]

Document = dict[str, Any]


class Decoded(msgspec.Struct, frozen=True):
    """A document, and what is wrong with it that Strict mode refuses and Warn mode warns of."""

    document: Document
    problems: tuple[str, ...] = ()


def decode(
    body: bytes, kind: GroupVersionKind, *, validation: str = "Strict", media: str = "json"
) -> Decoded:
    """An object of a kind; apiVersion and kind are filled in when absent, else must be right."""
    document, doubled = _parsed(body, media, check=validation != "Ignore")
    if not isinstance(document, dict):
        raise InvalidArgument(
            "couldn't get version/kind; json parse error: json: cannot unmarshal "
            f"{_json_name(document)} into Go value of type struct {{ APIVersion string "
            '"json:\\"apiVersion,omitempty\\""; Kind string "json:\\"kind,omitempty\\"" }'
        )
    _check_kind(document, kind)
    decoded = conform(document, kind, validation=validation)
    problems = (*(f'duplicate field "{path}"' for path in doubled), *decoded.problems)
    return Decoded(decoded.document, problems)


def conform(document: Document, kind: GroupVersionKind, *, validation: str = "Strict") -> Decoded:
    """A decoded document as its Go types would give it; custom kinds only in their metadata."""
    name = type_of(kind)
    try:
        decoded = _conform_custom(document) if name is None else _conform_typed(document, name)
    except InvalidArgument as error:
        raise _unusable(kind, error.message) from None
    head = {"apiVersion": kind.api_version, "kind": kind.kind}
    whole = {**head, **decoded.document, **head}
    return Decoded(whole, decoded.problems if validation != "Ignore" else ())


def strict_error(kind: GroupVersionKind, problems: tuple[str, ...]) -> str:
    """The refusal of a document with problems in Strict mode."""
    return _unusable(kind, f"strict decoding error: {', '.join(problems)}").message


def _unusable(kind: GroupVersionKind, why: str) -> InvalidArgument:
    text = f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: {why}'
    return InvalidArgument(text)


def _check_kind(document: Document, kind: GroupVersionKind) -> None:
    api_version, said = document.get("apiVersion"), document.get("kind")
    if isinstance(said, str) and said and said != kind.kind:
        at = parse_api_version(api_version if isinstance(api_version, str) else kind.api_version)
        raise InvalidArgument(
            f'{said} in version "{at.version}" cannot be handled as a {kind.kind}: '
            f"converting ({at.version}.{said}) to ({kind.version}.{kind.kind}): unknown conversion"
        )
    if isinstance(api_version, str) and api_version and api_version != kind.api_version:
        raise InvalidArgument(
            f"the API version in the data ({api_version}) does not match the expected API version "
            f"({kind.api_version})"
        )


def _conform_typed(document: Document, name: str) -> Decoded:
    struct = struct_of(name)
    unknown: list[str] = []
    try:
        if struct is None:
            raise msgspec.ValidationError
        found: Document = msgspec.to_builtins(msgspec.convert(document, struct))
    except msgspec.ValidationError:
        inspection = Inspection()
        found = inspection.typed(document, name)
        unknown = inspection.unknown
    _canonical().walk(name, found)
    return Decoded(found, tuple(f'unknown field "{path}"' for path in unknown))


def _conform_custom(document: Document) -> Decoded:
    metadata = document.get("metadata")
    if metadata is None:
        return Decoded({**document, "metadata": {}})
    inspection = Inspection()
    found = inspection.typed(metadata, METADATA, "metadata", "")
    _canonical().walk(METADATA, found)
    problems = tuple(f'unknown field "{path}"' for path in inspection.unknown)
    return Decoded({**document, "metadata": found}, problems)


@functools.cache
def _canonical() -> Traversal:
    hooks: dict[str, Callable[[Any], Any]] = {
        "quantity": quantity.canonical,
        "time": times.normalized,
        "microtime": times.normalized_micro,
        "bytes": _base64,
    }
    return Traversal(scalars=hooks)


def _base64(text: str) -> str:
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidArgument(f"illegal base64 data at input byte {_bad_byte(text)}") from None
    return text


def _bad_byte(text: str) -> int:
    wrong = (at for at, mark in enumerate(text) if not (mark.isalnum() or mark in "+/"))
    return next(wrong, len(text) - len(text) % 4)


# Parsing

_COMPACT: Final = msgspec.json.Encoder()


def _parsed(body: bytes, media: str, *, check: bool) -> tuple[Any, list[str]]:
    if media == "yaml":
        document, doubled = parsed_yaml(body)
        return document, doubled if check else []
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        said = f"couldn't get version/kind; json parse error: {error}"
        raise InvalidArgument(said) from None
    if not check or len(_COMPACT.encode(document)) == len(body.strip()):
        return document, []
    return document, _duplicates(body)


def _duplicates(body: bytes) -> list[str]:
    """Paths of keys that stand twice in one object."""
    found: list[str] = []
    tree = json.loads(body, object_pairs_hook=_Pairs)
    if _any_doubled(tree):
        _collect(tree, "", found)
    return found


class _Pairs(list[tuple[str, Any]]):
    """An object's members as they stand; tells apart objects from arrays."""


def _any_doubled(tree: Any) -> bool:
    """Whether any object of the tree has a key twice."""
    if isinstance(tree, _Pairs):
        keys = {key for key, _ in tree}
        return len(keys) != len(tree) or any(_any_doubled(value) for _, value in tree)
    return isinstance(tree, list) and any(_any_doubled(item) for item in tree)


def _collect(tree: Any, path: str, found: list[str]) -> None:
    if isinstance(tree, _Pairs):
        seen: set[str] = set()
        for key, value in tree:
            where = f"{path}.{key}" if path else key
            if key in seen and where not in found:
                found.append(where)
            seen.add(key)
            _collect(value, where, found)
    elif isinstance(tree, list):
        for at, item in enumerate(tree):
            _collect(item, f"{path}[{at}]", found)


def parsed_yaml(body: bytes) -> tuple[Any, list[str]]:
    """A document, and the keys that stand twice in it; InvalidArgument in upstream's words."""
    import yaml

    from sagong.yaml_loader import Loader

    loader = Loader(body)
    try:
        document = loader.get_single_data()
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        said = f"error converting YAML to JSON: yaml: {str(error).splitlines()[0]}"
        raise InvalidArgument(said) from None
    finally:
        loader.dispose()
    return document, loader.doubled


def _json_name(value: Any) -> str:
    names = {list: "array", str: "string", bool: "bool", int: "number", float: "number"}
    return names.get(type(value), "null")
