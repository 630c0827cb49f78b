"""The one thread that writes: it gathers all that waits and commits it as one SQLite transaction.

One that has patience waits for others to come: theirs is the time at which it is written.

event loop ── Job ──▶ queue ──▶ thread: BEGIN, every job, COMMIT (one fsync) ── Commit ──▶ loop
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from sagong.contracts.state import Transaction, WatchEvent
from sagong.errors import ResourceExhausted, SagongError, Unavailable
from sagong_state_sqlite.batch import Batch, Counters, Due, read_counters, read_due
from sagong_state_sqlite.checkpoint import Checkpoint
from sagong_state_sqlite.database import translated

__all__ = ["Commit", "Writer"]

T = TypeVar("T")

BATCH_JOBS = 512
BATCH_BYTES = 8 << 20
# How old what is known of the file's size may be, in seconds.
SIZE_AGE = 0.1


@dataclass(slots=True, eq=False)
class Job(Generic[T]):
    """One action, and the caller that waits for what it gives; by `until` (monotonic) it is begun."""

    action: Callable[[Batch], T]
    future: asyncio.Future[T]
    weight: int
    transaction: Transaction | None
    until: float
    result: T | None = None
    error: SagongError | None = None


@dataclass(frozen=True, slots=True)
class Commit:
    """What one SQLite transaction made of its jobs; everything in it is on disk.

    `used` is the room in bytes that the file's content takes.
    """

    counters: Counters
    changes: list[tuple[int, tuple[WatchEvent, ...]]] = field(default_factory=list)
    remembered: bool = False
    due: Due = field(default_factory=Due)
    used: int = 0


class Writer:
    """Owns the writing connection; `published` is called in the loop before callers hear."""

    def __init__(
        self,
        database: sqlite3.Connection,
        path: Path,
        *,
        published: Callable[[Commit], None],
        waiting_bytes: int,
        history_seconds: float,
    ) -> None:
        self.counters = read_counters(database)
        self.due = read_due(database)
        (self._page,) = database.execute("PRAGMA page_size").fetchone()
        self._used, self._measured = 0, -math.inf
        self._history_seconds = history_seconds
        self._database = database
        self._path = path
        self._published = published
        self._limit = waiting_bytes
        self._waiting = 0
        self._closing = False
        self._checkpoint = Checkpoint(database, path)
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[Job[Any] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="state-writer", daemon=True)
        self._thread.start()

    async def do(
        self,
        action: Callable[[Batch], T],
        *,
        weight: int = 256,
        transaction: Transaction | None = None,
    ) -> T:
        """Run an action in the next batch; durable on return."""
        if self._closing:
            raise Unavailable(f"the store {self._path} is closed: send the call again")
        if self._waiting and self._waiting + weight > self._limit:
            raise ResourceExhausted(
                f"{self._waiting} bytes wait to be written to {self._path}: send fewer at once"
            )
        future: asyncio.Future[T] = self._loop.create_future()
        patience = 0.0 if transaction is None else transaction.patience
        until = time.monotonic() + patience if patience else 0.0
        job = Job(action, future, weight, transaction, until)
        self._waiting += weight
        self._queue.put(job)
        return await future

    async def close(self) -> None:
        """Finish what waits, then end the thread and close the file."""
        if not self._closing:
            self._closing = True
            self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    # Below: the thread

    def _run(self) -> None:
        with contextlib.closing(self._checkpoint), contextlib.closing(self._database):
            ending = False
            while not ending:
                jobs, ending = self._gather()
                if jobs:
                    self._serve(jobs)
                    self._checkpoint.wrote()

    def _gather(self) -> tuple[list[Job[Any]], bool]:
        job = self._queue.get()
        jobs: list[Job[Any]] = []
        size, until = 0, math.inf
        while job is not None:
            jobs.append(job)
            size += job.weight
            until = min(until, job.until)
            if len(jobs) >= BATCH_JOBS or size >= BATCH_BYTES:
                return jobs, False
            try:
                job = self._next(until)
            except queue.Empty:
                return jobs, False
        return jobs, True

    def _next(self, until: float) -> Job[Any] | None:
        """What else is to be written with those that wait until then; queue.Empty if nothing is."""
        left = until - time.monotonic() if until else 0.0
        return self._queue.get(timeout=left) if left > 0 else self._queue.get_nowait()

    def _serve(self, jobs: list[Job[Any]]) -> None:
        wanted = [job for job in jobs if not job.future.cancelled()]
        commit = self._attempt(wanted)
        if commit is None and len(wanted) > 1:
            for job in wanted:
                job.result, job.error = None, None
                self._answer([job], self._attempt([job]))
            self._answer([job for job in jobs if job not in wanted], None)
        else:
            self._answer(jobs, commit)

    def _attempt(self, jobs: Sequence[Job[Any]]) -> Commit | None:
        """Commit the jobs together; None, and nothing done, if that failed."""
        try:
            self._database.execute("BEGIN IMMEDIATE")
            now = time.time()
            batch = Batch(self._database, self.counters, now=now)
            batch.prefetch([job.transaction for job in jobs if job.transaction is not None])
            for job in jobs:
                self._act(job, batch)
            due = self._next_due(batch, now)
            batch.finish()
            used = self._measure(now=any(job.transaction is None for job in jobs))
            self._database.execute("COMMIT")
        except Exception as error:
            self._roll_back()
            for job in jobs:
                job.error = translated(error, self._path)
            return None
        self.counters, self.due = batch.counters, due
        return Commit(batch.counters, batch.changes, batch.remembered, due, used)

    def _next_due(self, batch: Batch, now: float) -> Due:
        """What is due once the batch is written: another revision, if the last one is old enough."""
        if not batch.changes or 0 <= now - self.due.time < self._history_seconds:
            return self.due
        due = Due(batch.counters.revision, now)
        batch.defer(due)
        return due

    def _measure(self, *, now: bool) -> int:
        """The room that the content takes, `now` (something may have been given back) or lately."""
        time_ = time.monotonic()
        if now or time_ - self._measured > SIZE_AGE:
            (pages,) = self._database.execute("PRAGMA page_count").fetchone()
            (free,) = self._database.execute("PRAGMA freelist_count").fetchone()
            self._used, self._measured = int(pages - free) * int(self._page), time_
        return self._used

    def _act(self, job: Job[Any], batch: Batch) -> None:
        try:
            job.result = job.action(batch)
        except SagongError as error:
            job.error = error

    def _roll_back(self) -> None:
        # SQLite rolls back by itself on some errors: then there is nothing left to roll back.
        with contextlib.suppress(sqlite3.Error):
            self._database.execute("ROLLBACK")

    def _answer(self, jobs: Sequence[Job[Any]], commit: Commit | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(self._deliver, jobs, commit)

    # Below: the loop again

    def _deliver(self, jobs: Sequence[Job[Any]], commit: Commit | None) -> None:
        if commit is not None:
            self._published(commit)
        for job in jobs:
            self._waiting -= job.weight
            if job.future.done():
                continue
            if job.error is not None:
                job.future.set_exception(job.error)
            else:
                job.future.set_result(job.result)
