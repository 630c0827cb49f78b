"""Watchers: bounded queues of events; triggers find those that an event may concern."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator

from sagong_kube.storage.change import ADDED, DELETED, MODIFIED, Event
from sagong_kube.storage.collection import Collection, Selection
from sagong_kube.storage.record import Record

__all__ = ["QUEUE_LIMIT", "Notice", "Watcher", "Watchers"]

QUEUE_LIMIT = 16384

Notice = tuple[str, Event]
_Trigger = tuple[str, str, str]


class Watcher:
    """One reader of a collection's changes; `ended` says why when nothing more will come."""

    def __init__(self, collection: Collection, selection: Selection) -> None:
        self.collection = collection
        self.selection = selection
        self.ended = ""
        self.revision = 0
        self._test = collection.test(selection)
        self._pending: list[Notice] = []
        self._wake: asyncio.Future[None] | None = None

    def judge(self, event: Event) -> str:
        """The kind of event that this watcher sees, "" for none."""
        now = event.record is not None and self._test(event.record)
        was = event.previous is not None and self._test(event.previous)
        if now:
            return MODIFIED if was else ADDED
        return DELETED if was else ""

    def offer(self, event: Event) -> None:
        """Queue an event if it concerns this watcher; a queue that is full ends it."""
        kind = self.judge(event)
        if not kind or self.ended:
            return
        if len(self._pending) >= QUEUE_LIMIT:
            self.end("too slow: resume from the last event")
            return
        self._pending.append((kind, event))
        self.wake()

    def show(self, records: Iterable[Record], revision: int) -> None:
        """Queue present objects as added."""
        storage = self.collection.storage
        self._pending += [(ADDED, Event(storage, revision, r, None)) for r in records]

    def end(self, reason: str) -> None:
        """Let the reader finish: what is queued is dropped, nothing more comes."""
        self.ended = reason
        self._pending = []
        self.wake()

    def wake(self) -> None:
        """Let the reader look at its queue in this tick."""
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def wait_pending(self, seconds: float) -> list[Notice]:
        """What is queued; waits until there is something, the end, or `seconds` have passed."""
        if not self._pending and not self.ended:
            loop = asyncio.get_running_loop()
            self._wake = loop.create_future()
            timer = loop.call_later(seconds, self.wake)
            try:
                await self._wake
            finally:
                timer.cancel()
                self._wake = None
        taken, self._pending = self._pending, []
        return taken


class Watchers:
    """All watchers, by what can trigger them."""

    def __init__(self) -> None:
        self._by_trigger: dict[_Trigger, set[Watcher]] = {}
        self._triggers: dict[Watcher, _Trigger] = {}

    def __len__(self) -> int:
        return len(self._triggers)

    def __iter__(self) -> Iterator[Watcher]:
        return iter(list(self._triggers))

    def add(self, watcher: Watcher) -> None:
        """Begin to offer events to a watcher."""
        trigger = _trigger(watcher)
        self._triggers[watcher] = trigger
        self._by_trigger.setdefault(trigger, set()).add(watcher)

    def remove(self, watcher: Watcher) -> None:
        """Stop; unknown is no error."""
        trigger = self._triggers.pop(watcher, None)
        if trigger is not None:
            group = self._by_trigger[trigger]
            group.discard(watcher)
            if not group:
                del self._by_trigger[trigger]

    def offer(self, event: Event, collection: Collection) -> None:
        """Offer an event to all whom it may concern."""
        for trigger in _touched(event, collection):
            for watcher in self._by_trigger.get(trigger, ()):
                watcher.offer(event)

    def end(self, storage: str, reason: str) -> None:
        """End all watchers of a storage (its definition is gone)."""
        for watcher in self:
            if watcher.collection.storage == storage:
                watcher.end(reason)


def _trigger(watcher: Watcher) -> _Trigger:
    storage = watcher.collection.storage
    for term in watcher.selection.fields.terms:
        if not term.negated and term.field == "metadata.name":
            return storage, "name", term.value
        if not term.negated and term.field == "spec.nodeName":
            return storage, "node", term.value
    if watcher.selection.namespace:
        return storage, "namespace", watcher.selection.namespace
    return storage, "all", ""


def _touched(event: Event, collection: Collection) -> set[_Trigger]:
    storage = event.storage
    touched: set[_Trigger] = {(storage, "all", "")}
    position = collection.position("spec.nodeName")
    for record in (event.record, event.previous):
        if record is not None:
            touched.add((storage, "name", record.name))
            touched.add((storage, "namespace", record.namespace))
            if position is not None:
                touched.add((storage, "node", record.fields[position]))
    return touched
