"""Names of kinds, resources and objects: value types and the forms in which they are written."""

from __future__ import annotations

import msgspec

__all__ = [
    "GroupVersion",
    "GroupVersionKind",
    "GroupVersionResource",
    "ObjectKey",
    "parse_api_version",
    "parse_resource",
]


class GroupVersion(msgspec.Struct, frozen=True, order=True):
    """A group and a version; the core group is ""."""

    group: str
    version: str

    def __str__(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version


class GroupVersionKind(msgspec.Struct, frozen=True, order=True):
    """What an object says of itself by apiVersion and kind."""

    group: str
    version: str
    kind: str

    @property
    def api_version(self) -> str:
        """As objects write it: `v1`, `apps/v1`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def __str__(self) -> str:
        return f"{self.api_version}, Kind={self.kind}"


class GroupVersionResource(msgspec.Struct, frozen=True, order=True):
    """What a path names: group, version and plural."""

    group: str
    version: str
    resource: str

    def __str__(self) -> str:
        head = f"{self.group}/{self.version}" if self.group else self.version
        return f"{head}/{self.resource}"

    @property
    def qualified(self) -> str:
        """As messages write it: `pods`, `deployments.apps`."""
        return f"{self.resource}.{self.group}" if self.group else self.resource


class ObjectKey(msgspec.Struct, frozen=True, order=True):
    """An object's namespace ("" for cluster-scoped ones) and name."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


def parse_api_version(api_version: str) -> GroupVersion:
    """`apps/v1` or `v1`."""
    group, _, version = api_version.rpartition("/")
    return GroupVersion(group, version)


def parse_resource(text: str) -> GroupVersionResource:
    """`apps/v1/deployments` or `v1/pods`, as contract `objects` writes resources."""
    head, _, resource = text.rpartition("/")
    at = parse_api_version(head)
    return GroupVersionResource(at.group, at.version, resource)
