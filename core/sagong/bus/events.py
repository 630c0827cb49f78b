"""Events of a slot: a stream method `slot/version/events` that every provider has of itself.

Each listener has a bounded queue; one that overflows ends with `Gone`, and the listener reads the
whole state anew. The first item has number 0 and no event: from it on nothing is missed. What a new
process emits at first is kept for those who heard its predecessor, and are still on their way to it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec

from sagong.contract import Mark, Message, MethodSpec, SlotSpec
from sagong.errors import Gone

__all__ = ["ASLEEP", "Emitter", "EventItem", "events_of", "events_spec"]

# The name in the first item of one who answers for a provider that is asleep, and emits nothing.
ASLEEP = "asleep"
_QUEUE = 8192
_EARLY = 1024


class EventItem(Message):
    """An event on the wire: its number, the name of its type, and itself."""

    number: int
    name: str = ""
    body: msgspec.Raw = msgspec.Raw(b"\xc0")


def events_spec(slot: SlotSpec) -> MethodSpec:
    """The built-in stream method of a slot's events."""
    return events_of(slot.name, slot.version)


def events_of(slot: str, version: int) -> MethodSpec:
    """The same of a slot whose contract is not at hand."""
    mark = Mark(idempotent=True, raises=(Gone,), seconds=30.0)
    return MethodSpec(slot, version, "events", None, type(None), EventItem, stream=True, mark=mark)


class Emitter:
    """Hands events to all listeners of one slot; encodes each event once."""

    def __init__(self) -> None:
        self._number = 0
        self._queues: set[asyncio.Queue[EventItem]] = set()
        self._early: list[EventItem] | None = None

    def hold(self) -> None:
        """Keep what is emitted from now on for listeners that come later, a bounded number."""
        self._early = []

    def release(self) -> None:
        """Who comes now has heard nobody before."""
        self._early = None

    def emit(self, event: Message) -> None:
        """Queue for everybody; whoever is too slow is cut off."""
        self._number += 1
        body = msgspec.Raw(msgspec.msgpack.encode(event))
        item = EventItem(number=self._number, name=type(event).__name__, body=body)
        if self._early is not None and len(self._early) < _EARLY:
            self._early.append(item)
        for queue in list(self._queues):
            if queue.qsize() >= _QUEUE:
                self._queues.discard(queue)
                queue.put_nowait(EventItem(number=-1))
            else:
                queue.put_nowait(item)

    async def listen(self) -> AsyncIterator[EventItem]:
        """One listener's stream."""
        queue: asyncio.Queue[EventItem] = asyncio.Queue()
        for early in self._early or ():
            queue.put_nowait(early)
        self._queues.add(queue)
        try:
            yield EventItem(number=0)
            while True:
                item = await queue.get()
                if item.number < 0:
                    raise Gone("events were missed: the listener was too slow; read all anew")
                yield item
        finally:
            self._queues.discard(queue)
