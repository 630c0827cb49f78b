"""What the node writes: statuses, events, deletions, collected into few commits.

A status waits a moment, unless it is urgent, for what comes next: a pod that starts quickly is
written once, as running. Events wait longer and are dropped rather than queued without bound.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Callable

import msgspec

from sagong.contracts.objects import Commit, Objects, Outcome, Write
from sagong.errors import SagongError, Unavailable

__all__ = ["Entry", "Ledger"]

_BATCH = 200
_MOST_EVENTS = 1000
_EVENT_DELAY = 0.5
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0

Answer = Callable[[tuple[Outcome, ...]], None]
Prepare = Callable[[], tuple[Write, ...]]


class Entry(msgspec.Struct):
    """Writes about one object, made when they are sent; `answer` hears what became of them."""

    due: float
    prepare: Prepare
    answer: Answer | None = None


class _Sent(msgspec.Struct):
    entry: Entry
    writes: tuple[Write, ...]

    def tell(self, outcomes: tuple[Outcome, ...]) -> None:
        """What became of its writes, one for each; who had none to send hears nothing."""
        if self.entry.answer is not None and self.writes:
            self.entry.answer(outcomes)


class Ledger:
    """One commit at a time; what comes meanwhile goes into the next."""

    def __init__(self, objects: Objects, log: logging.Logger, *, manager: str) -> None:
        self._objects = objects
        self._log = log
        self._manager = manager
        self._entries: dict[str, Entry] = {}
        self._events: list[tuple[float, Write]] = []
        self._sending: tuple[Write, ...] = ()
        self._wake = asyncio.Event()
        self._statuses = False
        self._settled = asyncio.Event()
        self.commits = 0

    def put(self, key: str, entry: Entry) -> None:
        """Write this, in place of what waits under the same key; it is not sent later than that."""
        known = self._entries.get(key)
        if known is not None:
            entry.due = min(entry.due, known.due)
        self._entries[key] = entry
        self._wake.set()

    def event(self, write: Write) -> None:
        """Write an event soon; with too many waiting it is dropped."""
        if len(self._events) >= _MOST_EVENTS:
            return
        self._events.append((asyncio.get_running_loop().time() + _EVENT_DELAY, write))
        self._wake.set()

    def drop(self, key: str) -> None:
        """Nothing more about this object."""
        self._entries.pop(key, None)

    async def hurry(self) -> None:
        """Write what waits now, not when it is due, and wait for that."""
        for entry in self._entries.values():
            entry.due = 0.0
        self._wake.set()
        while self._entries or self._statuses:
            self._settled.clear()
            await self._settled.wait()

    def hand_over(self) -> tuple[Write, ...]:
        """Events that are not surely written, for a successor, who alone writes them now.

        Those that are on their way may be written by both: for the API twice the same is one.
        """
        events, self._events = self._events, []
        return self._sending + tuple(write for _, write in events)

    def inherit(self, events: tuple[Write, ...]) -> None:
        """Write what a predecessor had not."""
        for write in events:
            self.event(write)

    async def write_out(self) -> None:
        """Write the rest now, once: nobody comes after this process."""
        sent, events = self._take()
        writes = tuple(w for item in sent for w in item.writes) + events
        if writes:
            with contextlib.suppress(SagongError):
                await self._objects.commit(self._batch(writes))

    async def run(self) -> None:
        """Write for ever."""
        while True:
            await self._wait_due()
            sent, events = self._take()
            writes = tuple(w for item in sent for w in item.writes) + events
            if writes:
                self._sending, self._statuses = events, len(writes) > len(events)
                await self._commit(sent, writes)
                self._sending, self._statuses = (), False
            self._settled.set()

    async def _wait_due(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            dues = [entry.due for entry in self._entries.values()]
            dues += [self._events[0][0]] if self._events else []
            if dues and min(dues) <= loop.time():
                # One turn of the loop, so that what is decided in the same tick goes along.
                await asyncio.sleep(0)
                return
            try:
                async with asyncio.timeout(min(dues) - loop.time() if dues else None):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def _take(self) -> tuple[list[_Sent], tuple[Write, ...]]:
        """What is due, and with it all that waits: a further commit would cost more."""
        keys = sorted(self._entries, key=lambda key: self._entries[key].due)[:_BATCH]
        sent = []
        for key in keys:
            entry = self._entries.pop(key)
            sent.append(_Sent(entry, self._prepared(entry)))
        events = tuple(write for _, write in self._events[:_BATCH])
        del self._events[:_BATCH]
        return sent, events

    def _prepared(self, entry: Entry) -> tuple[Write, ...]:
        """A defect in one object's status must not keep the others' from being written."""
        try:
            return entry.prepare()
        except Exception:
            self._log.exception("a status can't be computed")
            return ()

    async def _commit(self, sent: list[_Sent], writes: tuple[Write, ...]) -> None:
        commit = self._batch(writes)
        pause = _FIRST_PAUSE
        while True:
            try:
                result = await self._objects.commit(commit)
                break
            except Unavailable:
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
            except SagongError as error:
                self._log.warning("can't write %d changes: %s", len(writes), error.message)
                await asyncio.sleep(pause)
                self._answer_all(sent, error)
                return
        self.commits += 1
        position = 0
        for item in sent:
            outcomes = result.outcomes[position : position + len(item.writes)]
            position += len(item.writes)
            item.tell(outcomes)

    def _batch(self, writes: tuple[Write, ...]) -> Commit:
        return Commit(id=uuid.uuid4().hex, writes=writes, manager=self._manager)

    def _answer_all(self, sent: list[_Sent], error: SagongError) -> None:
        for item in sent:
            item.tell(tuple(Outcome(error=error.code, message=error.message) for _ in item.writes))
