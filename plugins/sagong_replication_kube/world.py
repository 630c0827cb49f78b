"""The world: all followed objects, with indexes by owner, namespace and uid.

It is fed by watches and by the outcomes of our own writes, whichever comes first: an older form of
an object never replaces a newer one, so nothing is decided twice because a watch is late.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from sagong.model.selectors import LabelSelector
from sagong_replication_kube.item import Item
from sagong_replication_kube.resources import BY_KIND, Kind
from sagong_replication_kube.scaling import Memory
from sagong_replication_kube.usage import Usage

__all__ = ["Change", "World"]

Key = tuple[str, str]
REMEMBERED = 4096


class Change(NamedTuple):
    """What became of an object: None before means new, None after gone."""

    before: Item | None
    after: Item | None

    @property
    def item(self) -> Item:
        """The present form, or the last one."""
        found = self.after or self.before
        assert found is not None
        return found


class World:
    """A snapshot to decide on. `now` and `chance` are set by who asks."""

    def __init__(self, *, now: float = 0.0, chance: random.Random | None = None) -> None:
        self.now = now
        self.chance = chance or random.Random()
        # A closed world has everything that exists; of an open one some must be asked for.
        self.closed = False
        self.told = 0
        self.kinds = dict(BY_KIND)
        # Answers: owners that don't exist, by uid; unfollowed resources of which a namespace has none.
        self.absent: set[str] = set()
        self.emptied: set[tuple[str, str]] = set()
        self.usage = Usage()
        self.scaling: dict[str, Memory] = {}
        # When something (a node's last sign of life, a missing node) was first seen so here.
        self._seen: dict[tuple[str, str], tuple[str, float]] = {}
        # Why objects that someone (by uid) should have could not be created, until they could.
        self.failures: dict[str, str] = {}
        self._tables: dict[str, dict[Key, Item]] = {}
        self._spaces: dict[tuple[str, str], dict[str, Item]] = {}
        self._uids: dict[str, Item] = {}
        self._owned: dict[str, dict[tuple[str, Key], Item]] = {}
        self._loose: dict[tuple[str, str], dict[str, Item]] = {}
        # When objects ended of which a watch, or an answer that is on its way, may still tell.
        self._graves: dict[tuple[str, Key], int] = {}
        self._told: set[tuple[str, Key]] = set()
        self._on_node: dict[str, dict[Key, Item]] = {}
        self._ended: OrderedDict[Key, float] = OrderedDict()

    # feeding

    def put(self, item: Item) -> Change | None:
        """An object appeared or changed; None if what we have is as new."""
        table = self._tables.setdefault(item.resource, {})
        before = table.get(item.key)
        if before is not None and before.revision > item.revision > 0:
            return None
        # A lease's renewal comes under an unchanged revision: only then its bytes tell.
        if before is not None and before.revision == item.revision > 0 and before.raw == item.raw:
            return None
        if item.gone:
            return self.remove(item.kind, item.key, item.revision)
        if 0 < item.revision <= self._graves.get((item.resource, item.key), 0):
            return None
        if before is not None:
            self._unlink(before)
        table[item.key] = item
        self._link(item)
        return Change(before, item)

    def remove(self, kind: Kind, key: Key, revision: int = 0) -> Change | None:
        """An object is gone as of `revision` (0: just now); None if we don't have it."""
        before = self._tables.get(kind.resource, {}).get(key)
        if before is not None and 0 < revision < before.revision:
            return None  # the end of a namesake that lived before
        if revision:
            self._graves[kind.resource, key] = revision
            self._told.discard((kind.resource, key))
        if before is None:
            return None
        del self._tables[kind.resource][key]
        self._unlink(before)
        controller = before.meta.controller
        if controller is not None and controller.kind == "StatefulSet" and not self.closed:
            self._ended[key] = self.now
            if len(self._ended) > REMEMBERED:
                self._ended.popitem(last=False)
        return Change(before, None)

    def ended(self, key: Key) -> float:
        """When a stateful pod of this name ended; 0.0 if none is remembered."""
        return self._ended.get(key, 0.0)

    def bury(self, kind: Kind, key: Key, revision: int) -> Change | None:
        """The watch tells of an object's end: no older form comes from there any more."""
        change = self.remove(kind, key, revision)
        self._told.add((kind.resource, key))
        return change

    def settle(self) -> None:
        """No answer is on its way: of ends that the watches have told nobody tells anything older."""
        for name in self._told:
            self._graves.pop(name, None)
        self._told.clear()

    def _link(self, item: Item) -> None:
        namespace, name = item.key
        self._spaces.setdefault((item.resource, namespace), {})[name] = item
        self._uids[item.uid] = item
        for owner in item.meta.owner_references or ():
            self._owned.setdefault(owner.uid, {})[item.resource, item.key] = item
        if item.meta.controller is None:
            self._loose.setdefault((item.resource, namespace), {})[name] = item
        if item.spec.node_name:
            self._on_node.setdefault(item.spec.node_name, {})[item.key] = item

    def _unlink(self, item: Item) -> None:
        namespace, name = item.key
        _drop(self._spaces, (item.resource, namespace), name)
        if self._uids.get(item.uid) is item:
            del self._uids[item.uid]
        for owner in item.meta.owner_references or ():
            _drop(self._owned, owner.uid, (item.resource, item.key))
        if item.meta.controller is None:
            _drop(self._loose, (item.resource, namespace), name)
        if item.spec.node_name:
            _drop(self._on_node, item.spec.node_name, item.key)

    # reading

    def get(self, resource: str, key: Key) -> Item | None:
        """An object by its name."""
        return self._tables.get(resource, {}).get(key)

    def all(self, resource: str) -> Iterable[Item]:
        """All objects of a resource."""
        return self._tables.get(resource, {}).values()

    def keys(self, resource: str) -> set[Key]:
        """Names of all objects of a resource."""
        return set(self._tables.get(resource, {}))

    def within(self, resource: str, namespace: str) -> Iterable[Item]:
        """Objects of a namespace."""
        return self._spaces.get((resource, namespace), {}).values()

    def by_uid(self, uid: str) -> Item | None:
        """An object by its uid."""
        return self._uids.get(uid)

    def dependents(self, uid: str) -> list[Item]:
        """All objects that name this owner."""
        return list(self._owned.get(uid, {}).values())

    def controlled(self, uid: str, resource: str) -> list[Item]:
        """Objects of a resource that this owner controls, by name."""
        found = [
            item
            for (of, _), item in self._owned.get(uid, {}).items()
            if of == resource and item.owned_by(uid)
        ]
        return sorted(found, key=lambda item: item.key)

    def loose(self, resource: str, namespace: str) -> Iterable[Item]:
        """Objects of a namespace that nobody controls."""
        return self._loose.get((resource, namespace), {}).values()

    def selected(self, resource: str, namespace: str, selector: LabelSelector) -> Iterator[Item]:
        """Objects of a namespace whose labels match."""
        for item in self.within(resource, namespace):
            if selector.matches(item.labels):
                yield item

    def on_node(self, name: str) -> list[Item]:
        """Pods of a node, by name."""
        found = self._on_node.get(name, {})
        return [found[key] for key in sorted(found)]

    def seen_since(self, what: str, name: str, state: str, otherwise: float) -> float:
        """Since when this state has been seen here; `otherwise` in a closed world.

        Clocks of machines differ, and after a pause everything looks old: so it is our own clock,
        from the moment when we first saw it, that counts.
        """
        if self.closed:
            return otherwise
        known = self._seen.get((what, name))
        if known is None or known[0] != state:
            known = self._seen[what, name] = (state, self.now)
        return known[1]

    def forget_seen(self, what: str, name: str) -> None:
        """It is not so any more."""
        self._seen.pop((what, name), None)

    def kind_of(self, api_version: str, kind: str) -> Kind | None:
        """A kind by how references write it; another version of the group will do."""
        found = self.kinds.get((api_version, kind))
        if found is None:
            group = api_version.rpartition("/")[0]
            for (other, name), candidate in self.kinds.items():
                if name == kind and other.rpartition("/")[0] == group:
                    return candidate
        return found

    def resources(self) -> Iterable[str]:
        """Resources of which there are objects."""
        return tuple(self._tables)


def _drop(index: dict, key: object, entry: object) -> None:  # type: ignore[type-arg]
    found = index.get(key)
    if found is not None:
        found.pop(entry, None)
        if not found:
            del index[key]
