"""What a request is about: its path and method as group, resource, name, subresource and verb."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import unquote

import msgspec

__all__ = ["Target", "parse"]

_VERBS = {
    "POST": "create",
    "GET": "get",
    "HEAD": "get",
    "PUT": "update",
    "PATCH": "patch",
    "DELETE": "delete",
}
_NAMESPACE_SUBRESOURCES = ("status", "finalize")


class Target(msgspec.Struct, frozen=True):
    """A request as authorization sees it; `resource` is empty for other paths than objects'.

    `rest` is what follows a proxy subresource, with its leading slash.
    """

    path: str
    verb: str
    group: str = ""
    version: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    rest: str = ""

    @property
    def is_object(self) -> bool:
        """Whether it concerns API objects."""
        return bool(self.resource)


def parse(method: str, raw_path: str, query: Mapping[str, str]) -> Target:
    """Read a request line; a path that is no object's keeps its method as the verb."""
    path = raw_path.partition("?")[0]
    parts = [unquote(part) for part in path.split("/") if part]
    plain = Target(path=unquote(path), verb=method.lower())
    if len(parts) >= 3 and parts[0] == "api":
        return _object(method, plain.path, "", parts[1], parts[2:], query)
    if len(parts) >= 4 and parts[0] == "apis":
        return _object(method, plain.path, parts[1], parts[2], parts[3:], query)
    return plain


def _object(
    method: str, path: str, group: str, version: str, parts: list[str], query: Mapping[str, str]
) -> Target:
    watching = parts[0] == "watch" and len(parts) > 1
    if watching:
        parts = parts[1:]
    namespace = ""
    if parts[0] == "namespaces" and len(parts) > 2 and parts[2] not in _NAMESPACE_SUBRESOURCES:
        namespace, parts = parts[1], parts[2:]
    elif parts[0] == "namespaces" and len(parts) > 1 and not group:
        namespace = parts[1]
    resource = parts[0]
    name = parts[1] if len(parts) > 1 else ""
    subresource = parts[2] if len(parts) > 2 else ""
    return Target(
        path=path,
        verb="watch" if watching else _verb(method, name, query),
        group=group,
        version=version,
        resource=resource,
        subresource=subresource,
        namespace="" if resource == "namespaces" and not group else namespace,
        name=name,
        rest="/" + "/".join(parts[3:]) + ("/" if path.endswith("/") and len(parts) > 3 else ""),
    )


def _verb(method: str, name: str, query: Mapping[str, str]) -> str:
    verb = _VERBS.get(method, method.lower())
    if verb == "get" and not name:
        return "watch" if query.get("watch", "") in ("1", "true", "True", "t") else "list"
    if verb == "get" and query.get("watch", "") in ("1", "true", "True", "t"):
        return "watch"
    return "deletecollection" if verb == "delete" and not name else verb
