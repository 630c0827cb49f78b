"""OpenAPI documents, versions 2 and 3: definitions of the kinds and paths of the resources.

The definitions of built-in kinds are read from the package when a document is first asked for.
"""

from __future__ import annotations

import functools
import gzip
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from sagong.model.objects import GroupVersionKind
from sagong_kube.convert.operations import operations, path_parameters
from sagong_kube.schema.resources import RESOURCES, ResourceSpec

__all__ = ["CustomKind", "v2", "v3"]

Document = dict[str, Any]

_PACKED: Final = Path(__file__).with_name("definitions.json.gz")
_META: Final = "io.k8s.apimachinery.pkg.apis.meta.v1"
_INT_OR_STRING: Final = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"
_QUANTITY: Final = "io.k8s.apimachinery.pkg.api.resource.Quantity"
_VERSION: Final = {"title": "Kubernetes", "version": "v1.32.0"}


class CustomKind(msgspec.Struct, frozen=True):
    """A custom resource in one version, with its openAPIV3Schema."""

    resource: ResourceSpec
    schema: Mapping[str, Any] = {}


@functools.lru_cache(1)
def _definitions() -> dict[str, Document]:
    """All definitions as Swagger 2.0 has them."""
    return msgspec.json.decode(
        gzip.decompress(_PACKED.read_bytes()), type=dict[str, dict[str, Any]]
    )


def _names(definitions: Mapping[str, Document]) -> dict[GroupVersionKind, str]:
    found = {}
    for name, body in definitions.items():
        for kind in body.get("x-kubernetes-group-version-kind") or ():
            found[GroupVersionKind(kind["group"], kind["version"], kind["kind"])] = name
    return found


# Custom kinds


def custom_name(kind: GroupVersionKind) -> str:
    """The definition's name of a custom kind: its group turned around."""
    return ".".join([*reversed(kind.group.split(".")), kind.version, kind.kind])


def _custom_definitions(custom: Iterable[CustomKind]) -> dict[str, Document]:
    found: dict[str, Document] = {}
    for each in custom:
        kind = each.resource.kind
        name = custom_name(kind)
        marked = {"group": kind.group, "kind": kind.kind, "version": kind.version}
        schema = dict(each.schema)
        properties = dict(schema.get("properties") or {})
        properties["apiVersion"] = {"type": "string", "description": "The version of this object."}
        properties["kind"] = {"type": "string", "description": "The kind of this object."}
        properties["metadata"] = {
            "$ref": f"#/definitions/{_META}.ObjectMeta",
            "description": "Standard object's metadata.",
        }
        schema.update(properties=properties, type="object")
        found[name] = {**schema, "x-kubernetes-group-version-kind": [marked]}
        listed = f"{name}List"
        found[listed] = {
            "description": f"{kind.kind}List is a list of {kind.kind}",
            "properties": {
                "apiVersion": properties["apiVersion"],
                "kind": properties["kind"],
                "items": {
                    "description": f"List of {each.resource.plural}",
                    "items": {"$ref": f"#/definitions/{name}"},
                    "type": "array",
                },
                "metadata": {"$ref": f"#/definitions/{_META}.ListMeta"},
            },
            "required": ["items"],
            "type": "object",
            "x-kubernetes-group-version-kind": [{**marked, "kind": f"{kind.kind}List"}],
        }
    return found


# Documents


def v3(group: str, version: str, custom: Sequence[CustomKind] = ()) -> bytes:
    """The OpenAPI 3.0 document of a group and version, its custom kinds included."""
    mine = [each for each in custom if _in(each.resource, group, version)]
    resources = [r for r in RESOURCES if _in(r, group, version)]
    resources += [each.resource for each in mine]
    definitions = {**_definitions(), **_custom_definitions(mine)}
    paths = _paths(resources, definitions, third=True)
    schemas = {
        name: _converted(name, definitions[name]) for name in sorted(_reached(paths, definitions))
    }
    document = {
        "openapi": "3.0.0",
        "info": _VERSION,
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": {"BearerToken": _BEARER}},
    }
    return msgspec.json.encode(document)


_BEARER: Final = {
    "type": "apiKey",
    "description": "Bearer Token authentication",
    "name": "authorization",
    "in": "header",
}


def _in(resource: ResourceSpec, group: str, version: str) -> bool:
    return (resource.kind.group, resource.kind.version) == (group, version)


def v2(custom: Sequence[CustomKind] = ()) -> bytes:
    """The Swagger 2.0 document of everything."""
    definitions = {**_definitions(), **_plain_definitions(custom)}
    resources = [*RESOURCES, *(each.resource for each in custom)]
    document = {
        "swagger": "2.0",
        "info": _VERSION,
        "paths": _paths(resources, definitions, third=False),
        "definitions": definitions,
        "securityDefinitions": {"BearerToken": _BEARER},
        "security": [{"BearerToken": []}],
    }
    return msgspec.json.encode(document)


def _paths(
    resources: Sequence[ResourceSpec], definitions: Mapping[str, Document], *, third: bool
) -> Document:
    found: Document = {}
    for operation in operations(resources, _names(definitions)):
        path = found.get(operation.path)
        if path is None:
            shared = path_parameters(operation.path, operation.kind.kind, v3=third)
            path = found[operation.path] = {"parameters": shared}
        path[operation.method] = operation.v3() if third else operation.v2()
    return found


def _reached(paths: Document, definitions: Mapping[str, Document]) -> set[str]:
    """The definitions that paths use, directly or through others."""
    found: set[str] = set()
    queue = [*_references(paths)]
    while queue:
        name = queue.pop()
        if name not in found and name in definitions:
            found.add(name)
            queue += _references(definitions[name])
    return found


def _references(node: Any) -> Iterable[str]:
    if isinstance(node, dict):
        reference = node.get("$ref")
        if isinstance(reference, str):
            yield reference.rpartition("/")[2]
        for item in node.values():
            yield from _references(item)
    elif isinstance(node, list):
        for item in node:
            yield from _references(item)


def _converted(name: str, body: Document) -> Document:
    """A definition as OpenAPI 3.0 has it."""
    if name == _INT_OR_STRING:
        kinds = [{"type": "integer"}, {"type": "string"}]
        return {**_without(body, "type"), "oneOf": kinds}
    if name == _QUANTITY:
        kinds = [{"type": "string"}, {"type": "number"}]
        return {**_without(body, "type"), "oneOf": kinds}
    found: Document = _third(body)
    return found


def _without(body: Document, key: str) -> Document:
    return {name: value for name, value in body.items() if name != key}


def _third(node: Any) -> Any:
    if isinstance(node, list):
        return [_third(item) for item in node]
    if not isinstance(node, dict):
        return node
    reference = node.get("$ref")
    if isinstance(reference, str) and reference.startswith("#/definitions/"):
        target = {"$ref": f"#/components/schemas/{reference.rpartition('/')[2]}"}
        rest = {key: _third(value) for key, value in node.items() if key != "$ref"}
        return {"allOf": [target], **rest} if rest else target
    return {key: _third(value) for key, value in node.items()}


# What structural schemas may have and Swagger 2.0 does not know.
_THIRD_ONLY: Final = frozenset(("oneOf", "anyOf", "not", "nullable", "x-kubernetes-validations"))


def _plain_definitions(custom: Iterable[CustomKind]) -> dict[str, Document]:
    return {name: _second(body) for name, body in _custom_definitions(custom).items()}


def _second(node: Any) -> Any:
    if isinstance(node, list):
        return [_second(item) for item in node]
    if not isinstance(node, dict):
        return node
    if node.get("x-kubernetes-preserve-unknown-fields") and "properties" not in node:
        kept = ("description", "x-kubernetes-preserve-unknown-fields")
        return {key: node[key] for key in kept if key in node}
    found = {key: _second(value) for key, value in node.items() if key not in _THIRD_ONLY}
    if node.get("x-kubernetes-int-or-string"):
        found.pop("type", None)
    return found
