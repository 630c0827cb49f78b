"""The paths of OpenAPI documents: an operation for each verb of each served resource."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from sagong.model.objects import GroupVersionKind
from sagong_kube.schema.resources import ResourceSpec

__all__ = ["Operation", "operations"]

Document = dict[str, Any]

_STRING: Final = {"type": "string"}
_INTEGER: Final = {"type": "integer"}
_BOOLEAN: Final = {"type": "boolean"}

# Query parameters: name to (schema, description).
_PARAMETERS: Final[dict[str, tuple[Document, str]]] = {
    "pretty": (_STRING, "If 'true', then the output is pretty printed."),
    "dryRun": (_STRING, "When present, modifications are not persisted. The valid value is All."),
    "fieldManager": (_STRING, "The name of the actor that makes these changes."),
    "fieldValidation": (
        _STRING,
        "What is done about unknown or duplicate fields: Ignore, Warn or Strict.",
    ),
    "force": (_BOOLEAN, "Take over fields that other managers own; apply requests only."),
    "gracePeriodSeconds": (_INTEGER, "The seconds before the object is deleted."),
    "orphanDependents": (_BOOLEAN, "Deprecated: use propagationPolicy."),
    "propagationPolicy": (_STRING, "Orphan, Background or Foreground."),
    "ignoreStoreReadErrorWithClusterBreakingPotential": (
        _BOOLEAN,
        "Delete an object that can't be read from the store.",
    ),
    "allowWatchBookmarks": (_BOOLEAN, "Asks for events of type BOOKMARK."),
    "continue": (_STRING, "The token that the last, cut answer gave."),
    "fieldSelector": (_STRING, "Restricts the objects by their fields."),
    "labelSelector": (_STRING, "Restricts the objects by their labels."),
    "limit": (_INTEGER, "The most objects of one answer."),
    "resourceVersion": (_STRING, "Which resource versions an answer may come from."),
    "resourceVersionMatch": (_STRING, "How resourceVersion is applied: Exact or NotOlderThan."),
    "sendInitialEvents": (_BOOLEAN, "The watch begins with all present objects."),
    "timeoutSeconds": (_INTEGER, "The longest duration of the call."),
    "watch": (_BOOLEAN, "Follow changes instead of listing."),
}
_LIST: Final = (
    "allowWatchBookmarks",
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeoutSeconds",
    "watch",
)
_WRITE: Final = ("dryRun", "fieldManager", "fieldValidation")
_DELETE: Final = (
    "dryRun",
    "gracePeriodSeconds",
    "ignoreStoreReadErrorWithClusterBreakingPotential",
    "orphanDependents",
    "propagationPolicy",
)
_PATCHES: Final = (
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
)
_MEDIA: Final = ("application/json", "application/yaml", "application/vnd.kubernetes.protobuf")
_META: Final = "io.k8s.apimachinery.pkg.apis.meta.v1"
_WORDS: Final = {"get": "read", "update": "replace", "deletecollection": "delete"}
_CONNECTED: Final = frozenset(("attach", "exec", "portforward", "proxy"))


class Operation(msgspec.Struct, frozen=True):
    """One operation: where, how, what it takes and gives (definitions' names)."""

    path: str
    method: str
    action: str
    id: str
    description: str
    tag: str
    kind: GroupVersionKind
    parameters: tuple[str, ...]
    body: str = ""
    answer: str = ""

    def v2(self) -> Document:
        """As Swagger 2.0 writes it."""
        listed = [_v2_parameter(name) for name in self.parameters]
        if self.body:
            schema = _reference("#/definitions/", self.body)
            listed.insert(0, {"in": "body", "name": "body", "required": True, "schema": schema})
        return {
            "consumes": list(_PATCHES if self.action == "patch" else ("*/*",)),
            "description": self.description,
            "operationId": self.id,
            "parameters": listed,
            "produces": list(_MEDIA),
            "responses": self._responses("#/definitions/", v3=False),
            "schemes": ["https"],
            "tags": [self.tag],
            **self._extensions(),
        }

    def v3(self) -> Document:
        """As OpenAPI 3.0 writes it."""
        found: Document = {
            "description": self.description,
            "operationId": self.id,
            "parameters": [_v3_parameter(name) for name in self.parameters],
            "responses": self._responses("#/components/schemas/", v3=True),
            "tags": [self.tag],
            **self._extensions(),
        }
        if self.body:
            schema = {"schema": _reference("#/components/schemas/", self.body)}
            media = _PATCHES if self.action == "patch" else ("*/*",)
            content = dict.fromkeys(media, schema)
            found["requestBody"] = {"content": content, "required": True}
        return found

    def _extensions(self) -> Document:
        kind = {"group": self.kind.group, "kind": self.kind.kind, "version": self.kind.version}
        return {"x-kubernetes-action": self.action, "x-kubernetes-group-version-kind": kind}

    def _responses(self, prefix: str, *, v3: bool) -> Document:
        codes = {"200": "OK"}
        if self.method in ("post", "put", "patch"):
            codes["201"] = "Created"
        if self.method == "post":
            codes["202"] = "Accepted"
        schema = _reference(prefix, self.answer) if self.answer else _STRING
        if v3:
            shown: Document = {"content": {name: {"schema": schema} for name in _MEDIA}}
        else:
            shown = {"schema": schema}
        answers = {code: {"description": said, **shown} for code, said in codes.items()}
        return {**answers, "401": {"description": "Unauthorized"}}


def _reference(prefix: str, name: str) -> Document:
    return {"$ref": f"{prefix}{name}"}


def _v2_parameter(name: str) -> Document:
    schema, said = _PARAMETERS[name]
    return {"description": said, "in": "query", "name": name, **schema, "uniqueItems": True}


def _v3_parameter(name: str) -> Document:
    schema, said = _PARAMETERS[name]
    return {
        "description": said,
        "in": "query",
        "name": name,
        "schema": {**schema, "uniqueItems": True},
    }


def path_parameters(path: str, kind: str, *, v3: bool) -> list[Document]:
    """Parameters that all operations of a path share."""
    found = []
    for name, said in (
        ("name", f"name of the {kind}"),
        ("namespace", "object name and auth scope, such as for teams and projects"),
        ("path", "path to the resource"),
    ):
        if f"{{{name}}}" in path:
            shown = {"schema": {**_STRING, "uniqueItems": True}} if v3 else dict(_STRING)
            found.append(
                {"description": said, "in": "path", "name": name, "required": True, **shown}
            )
    found.append((_v3_parameter if v3 else _v2_parameter)("pretty"))
    return found


def operations(
    resources: Sequence[ResourceSpec], names: dict[GroupVersionKind, str]
) -> Iterator[Operation]:
    """All operations of resources; `names`: the definitions of kinds."""
    for resource in resources:
        yield from _of_resource(resource, names)


def _base(resource: ResourceSpec) -> tuple[str, str]:
    kind = resource.kind
    root = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
    inside = f"{root}/namespaces/{{namespace}}" if resource.namespaced else root
    return root, f"{inside}/{resource.plural}"


def _title(kind: GroupVersionKind) -> str:
    """The start of operation ids: `CoreV1`, `RbacAuthorizationV1`."""
    group = kind.group.removesuffix(".k8s.io") or "core"
    words = "".join(part[0].upper() + part[1:] for part in group.split("."))
    return words + kind.version[0].upper() + kind.version[1:]


def _of_resource(resource: ResourceSpec, names: dict[GroupVersionKind, str]) -> Iterator[Operation]:
    root, base = _base(resource)
    kind, scope = resource.kind, "Namespaced" if resource.namespaced else ""
    definition = names.get(kind, "")
    listed = names.get(GroupVersionKind(kind.group, kind.version, resource.list_kind), "")
    tag = f"{(kind.group.partition('.')[0] or 'core')}_{kind.version}"
    prefix, suffix = _title(kind), f"{scope}{kind.kind}"

    def make(path: str, verb: str, *, name: str = suffix) -> Operation:
        action, method, said, takes, gives, query = _verb(verb, kind.kind, definition, listed)
        word = _WORDS.get(verb, verb)
        collected = "Collection" if verb == "deletecollection" else ""
        made = f"{word}{prefix}{collected}{name}"
        return Operation(path, method, action, made, said, tag, kind, query, takes, gives)

    for verb in ("list", "create", "deletecollection"):
        if verb in resource.verbs:
            yield make(base, verb)
    for verb in ("get", "update", "patch", "delete"):
        if verb in resource.verbs:
            yield make(f"{base}/{{name}}", verb)
    if resource.namespaced and "list" in resource.verbs:
        everywhere = f"{kind.kind}ForAllNamespaces"
        yield make(f"{root}/{resource.plural}", "list", name=everywhere)
    yield from _of_subresources(resource, base, suffix, tag, names)


def _of_subresources(
    resource: ResourceSpec, base: str, suffix: str, tag: str, names: dict[GroupVersionKind, str]
) -> Iterator[Operation]:
    prefix = _title(resource.kind)
    for part in resource.subresources:
        definition = names.get(part.kind, "")
        title = suffix + part.name[0].upper() + part.name[1:]
        for verb in part.verbs:
            action, method, said, takes, gives, query = _verb(verb, part.kind.kind, definition, "")
            made = f"{_WORDS.get(verb, verb)}{prefix}{title}"
            said = said.replace("the specified", f"{part.name} of the specified")
            if part.name in _CONNECTED:
                action, takes, gives, query = "connect", "", "", ()
                said = f"connect {method.upper()} requests to {part.name} of {resource.kind.kind}"
                made = f"connect{prefix}{method.title()}{title}"
            elif part.name == "log":
                gives = ""
            where = f"{base}/{{name}}/{part.name}"
            yield Operation(where, method, action, made, said, tag, part.kind, query, takes, gives)


def _verb(
    verb: str, kind: str, definition: str, listed: str
) -> tuple[str, str, str, str, str, tuple[str, ...]]:
    """(action, method, description, body, answer, query parameters) of a verb."""
    match verb:
        case "list":
            return "list", "get", f"list or watch objects of kind {kind}", "", listed, _LIST
        case "get":
            return "get", "get", f"read the specified {kind}", "", definition, ()
        case "create":
            return "post", "post", f"create a {kind}", definition, definition, _WRITE
        case "update":
            said = f"replace the specified {kind}"
            return "put", "put", said, definition, definition, _WRITE
        case "patch":
            said = f"partially update the specified {kind}"
            return "patch", "patch", said, f"{_META}.Patch", definition, (*_WRITE, "force")
        case "delete":
            said, options = f"delete a {kind}", f"{_META}.DeleteOptions"
            return "delete", "delete", said, options, f"{_META}.Status", _DELETE
    options, query = f"{_META}.DeleteOptions", tuple(dict.fromkeys((*_LIST, *_DELETE)))
    said = f"delete collection of {kind}"
    return "deletecollection", "delete", said, options, f"{_META}.Status", query
