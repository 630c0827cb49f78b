"""The switchboard: all ways of a process to the slots that it may call, as the kernel tells them.

Of a slot with one provider there is one route, which waits while nobody serves. Of a slot whose
every instance is granted (`instance = "*"`) there is a route for each instance; they come and go.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

import zmq

from sagong.bus.route import Route
from sagong.contract import SlotSpec
from sagong.contracts.kernel import DownEntry, RouteEntry
from sagong.errors import NotFound
from sagong.manifest import EVERY

__all__ = ["Branches", "Switchboard"]

Wish = tuple[str, int, str]


class Branches:
    """The instances of one slot, as they are now (`sagong.host.Providers`)."""

    def __init__(self, context: zmq.Context[Any], slot: str) -> None:
        self._context = context
        self._slot = slot
        self._default = Route(context, slot)
        self._routes: dict[str, Route] = {}
        self._names: tuple[str, ...] = ()
        self._changed = asyncio.Event()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the instances there are; "" is the one without a name."""
        return self._names

    async def follow(self) -> AsyncIterator[tuple[str, ...]]:
        """The names now, and again whenever they change."""
        told: tuple[str, ...] | None = None
        while True:
            changed = self._changed
            if self._names != told:
                told = self._names
                yield told
            else:
                await changed.wait()

    def route(self, name: str) -> Route:
        """The way to an instance, "" to the default one; `NotFound` says which there are."""
        if not name:
            return self._default
        if name not in self._names:
            known = ", ".join(n or "the one without a name" for n in self._names) or "none"
            raise NotFound(f"no provider {name!r} of slot {self._slot}; there are: {known}")
        return self._routes[name]

    def take(self, entries: Iterable[RouteEntry]) -> None:
        """The whole table of the slot's instances."""
        found = {entry.instance: entry for entry in entries}
        for name, entry in found.items():
            self._own(name).switch(entry.generation, entry.path)
            if entry.default and name:
                self._default.switch(entry.generation, entry.path)
        for name in set(self._names) - set(found):
            self._own(name).withdraw()
        if not any(entry.default for entry in found.values()):
            self._default.withdraw()
        self._names = tuple(sorted(found))
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def routes(self) -> list[Route]:
        """All of them."""
        return [self._default, *self._routes.values()]

    def _own(self, name: str) -> Route:
        if not name:
            return self._default
        if name not in self._routes:
            self._routes[name] = Route(self._context, f"{self._slot} {name}")
        return self._routes[name]


class Switchboard:
    """Routes by (slot, version, instance); `known` are some that exist already."""

    def __init__(
        self, context: zmq.Context[Any], wishes: Iterable[Wish], known: Mapping[Wish, Route]
    ) -> None:
        self._single: dict[Wish, Route] = {}
        self._branches: dict[tuple[str, int], Branches] = {}
        for slot, version, instance in wishes:
            if instance == EVERY:
                self._branches[slot, version] = Branches(context, slot)
            else:
                wish = (slot, version, instance)
                found = known.get(wish)
                self._single[wish] = found or Route(context, f"{slot} {instance}".strip())

    def take(self, entries: tuple[RouteEntry, ...]) -> None:
        """The whole table, as the kernel told it."""
        for entry in entries:
            route = self._single.get((entry.slot, entry.version, entry.instance))
            if route is not None and not entry.every:
                route.switch(entry.generation, entry.path)
        for (slot, version), branches in self._branches.items():
            branches.take(e for e in entries if e.every and (e.slot, e.version) == (slot, version))

    def mark_down(self, entries: tuple[DownEntry, ...]) -> None:
        """The whole table of slots that nobody serves for now, with the reasons."""
        reasons = {(e.slot, e.version, e.instance): e.reason for e in entries}
        for wish, route in self._single.items():
            route.down = reasons.get(wish, "")
        for slot, branches in self._branches.items():
            for name in branches.names:
                branches.route(name).down = reasons.get((*slot, name), "")

    def bury(self, path: str, *, executed: bool = True) -> None:
        """The provider at `path` is dead; not `executed`: it has done nothing that it was asked."""
        for route in self._all():
            route.bury(path, executed=executed)

    def find(self, slot: SlotSpec, instance: str) -> Route | None:
        """The way to a slot's instance; None if it was not asked for, `NotFound` if it is not there."""
        single = self._single.get((slot.name, slot.version, instance))
        if single is not None:
            return single
        branches = self.branches(slot)
        return branches.route(instance) if branches is not None else None

    def branches(self, slot: SlotSpec) -> Branches | None:
        """All instances of a slot; None if not all were asked for."""
        return self._branches.get((slot.name, slot.version))

    def close(self) -> None:
        """Close every route."""
        for route in self._all():
            route.close()

    def _all(self) -> list[Route]:
        return [*self._single.values(), *(r for b in self._branches.values() for r in b.routes())]
