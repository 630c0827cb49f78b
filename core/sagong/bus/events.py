"""Events of a slot: a stream method `slot/version/events` that every provider has of itself.

Each listener has a bounded queue; one that overflows ends with `Gone`, and the listener reads the
whole state anew. The first item has number 0 and no event: from it on nothing is missed. What a new
process emits at first is kept for those who heard its predecessor, and are still on their way to it.

A listener that falls asleep leaves word: `slot/version/word`, with the position it has come to. It is
woken by the next event, which is kept for it.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterable

import msgspec

from sagong.call import current
from sagong.contract import Mark, Message, MethodSpec, SlotSpec
from sagong.errors import Gone

__all__ = ["ASLEEP", "Emitter", "EventItem", "Word", "events_of", "events_spec", "word_of"]

# The name in the first item of one who answers for a provider that is asleep, and emits nothing.
ASLEEP = "asleep"
_QUEUE = 8192
_EARLY = 1024


class EventItem(Message):
    """An event on the wire: its number, the name of its type, and itself.

    The first item has the `position` from which on events come, one by one; no two processes share any.
    """

    number: int
    name: str = ""
    position: int = 0
    body: msgspec.Raw = msgspec.Raw(b"\xc0")


class Word(Message):
    """Wake the caller at the next event after this position."""

    position: int


def events_spec(slot: SlotSpec) -> MethodSpec:
    """The built-in stream method of a slot's events."""
    return events_of(slot.name, slot.version)


def events_of(slot: str, version: int) -> MethodSpec:
    """The same of a slot whose contract is not at hand."""
    mark = Mark(idempotent=True, raises=(Gone,), seconds=30.0)
    return MethodSpec(slot, version, "events", None, type(None), EventItem, stream=True, mark=mark)


def word_of(slot: str, version: int) -> MethodSpec:
    """The built-in method of a slot by which a listener leaves word."""
    mark = Mark(idempotent=True, raises=(), seconds=10.0)
    return MethodSpec(slot, version, "word", "word", Word, type(None), stream=False, mark=mark)


class Emitter:
    """Hands events to all listeners of one slot; encodes each event once.

    `summon` is told which units are to be woken: who left word, of what has just happened.
    """

    def __init__(self, summon: Callable[[Iterable[str]], None] = lambda units: None) -> None:
        self._summon = summon
        self._base = secrets.randbits(56)
        self._number = 0
        # Units that left word, and what came since.
        self._left: dict[str, list[EventItem]] = {}
        self._queues: set[asyncio.Queue[EventItem]] = set()
        self._early: list[EventItem] | None = None

    def hold(self) -> None:
        """Keep what is emitted from now on for listeners that come later, a bounded number."""
        self._early = []

    def release(self) -> None:
        """Who comes now has heard nobody before."""
        self._early = None

    def word(self, word: Word) -> None:
        """Summon the caller at the next event; at once if it has not heard all there were."""
        unit = current().caller
        self._left[unit] = []
        if word.position != self._base + self._number:
            self._summon((unit,))

    def emit(self, event: Message) -> None:
        """Queue for everybody; whoever is too slow is cut off."""
        self._number += 1
        body = msgspec.Raw(msgspec.msgpack.encode(event))
        item = EventItem(number=self._number, name=type(event).__name__, body=body)
        if self._early is not None and len(self._early) < _EARLY:
            self._early.append(item)
        if self._left:
            self._keep(item)
        for queue in list(self._queues):
            if queue.qsize() >= _QUEUE:
                self._queues.discard(queue)
                queue.put_nowait(EventItem(number=-1))
            else:
                queue.put_nowait(item)

    def _keep(self, item: EventItem) -> None:
        """For who is asleep or on its way; one who does not come is to read all anew."""
        self._summon([unit for unit, kept in self._left.items() if not kept])
        for kept in self._left.values():
            kept.append(item)
        self._left = {unit: kept for unit, kept in self._left.items() if len(kept) < _EARLY}

    async def listen(self) -> AsyncIterator[EventItem]:
        """One listener's stream."""
        queue: asyncio.Queue[EventItem] = asyncio.Queue()
        for early in self._left.pop(current().caller, self._early or ()):
            queue.put_nowait(early)
        self._queues.add(queue)
        try:
            yield EventItem(number=0, position=self._base + self._number - queue.qsize())
            while True:
                item = await queue.get()
                if item.number < 0:
                    raise Gone("events were missed: the listener was too slow; read all anew")
                yield item
        finally:
            self._queues.discard(queue)
