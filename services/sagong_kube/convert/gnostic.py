"""Swagger 2.0 documents as protobuf, for clients that take nothing else.

Field numbers: https://github.com/google/gnostic-models, openapiv2/OpenAPIv2.proto.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from sagong.protobuf import BYTES, FIXED64, VARINT, varint

__all__ = ["encode"]

Node = Mapping[str, Any]
Encoder = Callable[[Any], bytes]


def _message(number: int, payload: bytes) -> bytes:
    return varint(number << 3 | BYTES) + varint(len(payload)) + payload


def _string(number: int, text: str) -> bytes:
    return _message(number, text.encode())


def _boolean(number: int, value: bool) -> bytes:
    return varint(number << 3 | VARINT) + b"\1" if value else b""


def _integer(number: int, value: int) -> bytes:
    return varint(number << 3 | VARINT) + varint(value & 0xFFFFFFFFFFFFFFFF)


def _double(number: int, value: float) -> bytes:
    return varint(number << 3 | FIXED64) + struct.pack("<d", value)


def _named(number: int, name: str, payload: bytes) -> bytes:
    return _message(number, _string(1, name) + _message(2, payload))


def _any(value: Any) -> bytes:
    """An Any as gnostic has it: the value's YAML, of which JSON is a part."""
    return _string(2, msgspec.json.encode(value).decode() + "\n")


def _extensions(number: int, node: Node) -> bytes:
    found = (item for item in node.items() if item[0].startswith("x-"))
    return b"".join(_named(number, name, _any(value)) for name, value in found)


def _strings(number: int, texts: Iterable[str]) -> bytes:
    return b"".join(_string(number, text) for text in texts)


# Scalar fields of a schema: name, number, how.
_SCALARS: tuple[tuple[str, int, Callable[[int, Any], bytes]], ...] = (
    ("$ref", 1, _string),
    ("format", 2, _string),
    ("title", 3, _string),
    ("description", 4, _string),
    ("maximum", 7, _double),
    ("exclusiveMaximum", 8, _boolean),
    ("minimum", 9, _double),
    ("exclusiveMinimum", 10, _boolean),
    ("maxLength", 11, _integer),
    ("minLength", 12, _integer),
    ("pattern", 13, _string),
    ("maxItems", 14, _integer),
    ("minItems", 15, _integer),
    ("uniqueItems", 16, _boolean),
    ("maxProperties", 17, _integer),
    ("minProperties", 18, _integer),
    ("readOnly", 27, _boolean),
)


def _schema(node: Node) -> bytes:
    parts = [write(number, node[name]) for name, number, write in _SCALARS if name in node]
    if "default" in node:
        parts.append(_message(5, _any(node["default"])))
    parts.append(_strings(19, node.get("required") or ()))
    parts += [_message(20, _any(value)) for value in node.get("enum") or ()]
    additional = node.get("additionalProperties")
    if isinstance(additional, bool):
        parts.append(_message(21, _boolean(2, additional)))
    elif additional is not None:
        parts.append(_message(21, _message(1, _schema(additional))))
    if "type" in node:
        kinds = node["type"]
        parts.append(_message(22, _strings(1, [kinds] if isinstance(kinds, str) else kinds)))
    if "items" in node:
        parts.append(_message(23, _message(1, _schema(node["items"]))))
    parts += [_message(24, _schema(part)) for part in node.get("allOf") or ()]
    if node.get("properties"):
        named = (_named(1, key, _schema(value)) for key, value in node["properties"].items())
        parts.append(_message(25, b"".join(named)))
    parts.append(_extensions(31, node))
    return b"".join(parts)


def _parameter(node: Node) -> bytes:
    if node.get("in") == "body":
        body = b"".join(
            (
                _string(1, node.get("description", "")),
                _string(2, node["name"]),
                _string(3, "body"),
                _boolean(4, bool(node.get("required"))),
                _message(5, _schema(node.get("schema") or {})),
            )
        )
        return _message(1, _message(1, body))
    place = {"header": 1, "formData": 2, "query": 3, "path": 4}[node["in"]]
    plain = b"".join(
        (
            _boolean(1, bool(node.get("required"))),
            _string(2, node["in"]),
            _string(3, node.get("description", "")),
            _string(4, node["name"]),
            # A path parameter has no allowEmptyValue, so its later numbers are one lower.
            _string(5 if place == 4 else 6, node.get("type", "string")),
        )
    )
    return _message(1, _message(2, _message(place, plain)))


def _response(node: Node) -> bytes:
    parts = [_string(1, node.get("description", ""))]
    if "schema" in node:
        parts.append(_message(2, _message(1, _schema(node["schema"]))))
    return _message(1, b"".join(parts))


def _operation(node: Node) -> bytes:
    responses = node.get("responses") or {}
    parts = [
        _strings(1, node.get("tags") or ()),
        _string(3, node.get("description", "")),
        _string(5, node.get("operationId", "")),
        _strings(6, node.get("produces") or ()),
        _strings(7, node.get("consumes") or ()),
        *(_message(8, _parameter(p)) for p in node.get("parameters") or () if "in" in p),
        _message(9, b"".join(_named(1, code, _response(r)) for code, r in responses.items())),
        _strings(10, node.get("schemes") or ()),
        _extensions(13, node),
    ]
    return b"".join(parts)


_METHODS = {"get": 2, "put": 3, "post": 4, "delete": 5, "options": 6, "head": 7, "patch": 8}


def _path(node: Node) -> bytes:
    parts = [
        _message(number, _operation(node[method]))
        for method, number in _METHODS.items()
        if method in node
    ]
    parts += [_message(9, _parameter(p)) for p in node.get("parameters") or () if "in" in p]
    return b"".join(parts) + _extensions(10, node)


def encode(document: bytes) -> bytes:
    """The protobuf form of a Swagger 2.0 document."""
    node: Node = msgspec.json.decode(document)
    info = node.get("info") or {}
    paths, definitions = node.get("paths") or {}, node.get("definitions") or {}
    return b"".join(
        (
            _string(1, node.get("swagger", "2.0")),
            _message(2, _string(1, info.get("title", "")) + _string(2, info.get("version", ""))),
            _message(8, b"".join(_named(2, path, _path(item)) for path, item in paths.items())),
            _message(
                9, b"".join(_named(1, name, _schema(body)) for name, body in definitions.items())
            ),
        )
    )
