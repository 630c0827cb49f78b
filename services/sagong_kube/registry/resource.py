"""A served resource: its names, scope, verbs and subresources, and where its objects are stored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from sagong.model.objects import GroupVersionKind
from sagong_kube.refusal import no_such_path, qualified
from sagong_kube.schema.resources import SubresourceSpec

__all__ = ["Catalogue", "Resource"]


class Resource(msgspec.Struct, frozen=True, eq=False):
    """A resource in one version. `custom` marks those that definitions made.

    `schema_tag` changes when a custom resource's definition does; `columns` are its
    additionalPrinterColumns.

    Objects of all versions of a resource share the storage `group/plural` and are kept in
    `stored_version`.
    """

    kind: GroupVersionKind
    plural: str
    singular: str
    namespaced: bool
    verbs: tuple[str, ...]
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: Mapping[str, SubresourceSpec] = {}
    storage: str = ""
    stored_kind: GroupVersionKind = GroupVersionKind("", "", "")
    virtual: bool = False
    custom: bool = False
    schema_tag: str = ""
    columns: tuple[Mapping[str, Any], ...] = ()

    @property
    def group(self) -> str:
        """The API group; "" for core."""
        return self.kind.group

    @property
    def qualified(self) -> str:
        """`pods`, `deployments.apps`."""
        return qualified(self.plural, self.kind.group)

    def key(self, namespace: str, name: str) -> str:
        """The key within the collection."""
        return f"{namespace}/{name}" if self.namespaced else name


class Catalogue:
    """All resources served, by group, version and plural; definitions add and remove some."""

    def __init__(self, resources: Iterable[Resource]) -> None:
        self._resources: dict[tuple[str, str, str], Resource] = {}
        self.generation = 0
        for resource in resources:
            self.add(resource)

    def __iter__(self) -> Iterator[Resource]:
        return iter(self._resources.values())

    def add(self, resource: Resource) -> None:
        """Serve a resource; one of the same name is replaced."""
        kind = resource.kind
        self._resources[kind.group, kind.version, resource.plural] = resource
        self.generation += 1

    def remove(self, group: str, plural: str) -> None:
        """Serve none of a resource's versions any more."""
        for key in [key for key in self._resources if (key[0], key[2]) == (group, plural)]:
            del self._resources[key]
            self.generation += 1

    def find(self, group: str, version: str, plural: str) -> Resource:
        """The resource; NotFound in upstream's words."""
        found = self._resources.get((group, version, plural))
        if found is None:
            raise no_such_path()
        return found

    def stored(self, storage: str) -> Resource | None:
        """Some version of the resource that a storage belongs to, the stored one if it is served."""
        found = [r for r in self if r.storage == storage and not r.virtual]
        return next((r for r in found if r.kind == r.stored_kind), found[0] if found else None)

    def of_kind(self, group: str, version: str, kind: str) -> Resource | None:
        """The resource whose objects are of this kind."""
        wanted = GroupVersionKind(group, version, kind)
        return next((r for r in self if r.kind == wanted and not r.virtual), None)

    def groups(self) -> dict[str, list[str]]:
        """Groups and their versions, as added."""
        found: dict[str, list[str]] = {}
        for group, version, _ in self._resources:
            versions = found.setdefault(group, [])
            if version not in versions:
                versions.append(version)
        return found
