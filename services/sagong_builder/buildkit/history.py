"""The history of builds: records of those that go on and of those that have ended, with their logs.

Of builds that have ended each has a directory below the unit's data, named by its ref::

    history/NAME/record   a BuildRecord
    history/NAME/DIGEST   the blobs that it names: log, error, provenance, trace

A directory comes and goes as a whole, by a rename from and to the process's own spool; so two
generations of the builder share them without a lock, and what one that was killed has begun is swept
with its spool. Builds that go on are known to their process alone.
Source: the package solver/llbsolver/history of BuildKit.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import secrets
import shutil
import struct
import time
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sagong.errors import InvalidArgument, NotFound
from sagong.model import oci
from sagong_builder.buildkit.filters import matching_records
from sagong_builder.buildkit.protobuf import decode, encode
from sagong_builder.buildkit.records import (
    COMPLETE,
    DELETED,
    STARTED,
    BuildEvent,
    BuildRecord,
    Descriptor,
    HistoryRequest,
)

__all__ = ["Blob", "Bounds", "History", "framed", "frames"]

_RECORD = "record"
_WAITING = 1000
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True)
class Blob:
    """What a record names by its digest."""

    media_type: str
    content: bytes
    predicate: str = ""

    @property
    def descriptor(self) -> Descriptor:
        """How it is named."""
        named = {"in-toto.io/predicate-type": self.predicate} if self.predicate else {}
        return Descriptor(
            self.media_type, oci.digest_of(self.content), len(self.content), annotations=named
        )


@dataclass(frozen=True)
class Bounds:
    """What is kept: the last `entries` records and those younger than `seconds`, and of all at most
    `size` bytes. Pinned ones stay, and don't count."""

    entries: int
    seconds: float
    size: int


@dataclass(frozen=True)
class _Kept:
    home: Path
    record: BuildRecord
    size: int

    @property
    def ended(self) -> float:
        """When, in seconds since 1970."""
        at = self.record.completed_at
        return at.seconds + at.nanos / 1e9 if at is not None else 0.0


class History:
    """All builds of the unit. `spool` is a directory of this process, on the same filesystem."""

    def __init__(self, directory: Path, spool: Path, bounds: Bounds) -> None:
        self._directory = directory
        self._spool = spool
        self._bounds = bounds
        self._active: dict[str, BuildRecord] = {}
        self._listeners: set[asyncio.Queue[BuildEvent | None]] = set()
        self._closing = False

    # Builds of this process.

    def begin(self, record: BuildRecord) -> None:
        """A build goes on."""
        self._active[record.ref] = record
        self._tell(BuildEvent(STARTED, record))

    def complete(self, record: BuildRecord, blobs: Sequence[Blob]) -> None:
        """A build has ended; its record is there for all when this returns.

        It is not yet on the disk: what a power cut leaves of it is recognized, and dropped.
        """
        self._active.pop(record.ref, None)
        self._write(record, blobs)
        self._tell(BuildEvent(COMPLETE, record))
        self._trim()
        if self._closing:
            self.close()

    def close(self) -> None:
        """No build begins here any more: who listens is let go when the last has ended."""
        self._closing = True
        if not self._active:
            for queue in self._listeners:
                _put(queue, None)

    def _tell(self, event: BuildEvent) -> None:
        for queue in self._listeners:
            _put(queue, event)

    def _write(self, record: BuildRecord, blobs: Sequence[Blob]) -> None:
        """A record that the disk doesn't take is lost, and the build's answer is not."""
        made, home = self._fresh(), self._home(record.ref)
        try:
            made.mkdir(mode=0o700)
            for blob in blobs:
                (made / _encoded(blob.descriptor.digest)).write_bytes(blob.content)
            (made / _RECORD).write_bytes(encode(record))
            self._directory.mkdir(mode=0o700, exist_ok=True)
            self._discard(home)
            os.rename(made, home)
        except OSError:
            shutil.rmtree(made, ignore_errors=True)

    def _fresh(self) -> Path:
        return self._spool / f"history-{secrets.token_hex(8)}"

    def _home(self, ref: str) -> Path:
        return self._directory / hashlib.sha256(ref.encode()).hexdigest()[:40]

    def _discard(self, home: Path) -> bool:
        """Away with it at once, for everybody; False if another was quicker."""
        gone = self._fresh()
        try:
            os.rename(home, gone)
        except FileNotFoundError:
            return False
        shutil.rmtree(gone, ignore_errors=True)
        return True

    # What is kept.

    def _all(self) -> Iterator[_Kept]:
        for home in self._directory.glob("*"):
            found = self._read(home)
            if found is not None:
                yield found

    def _read(self, home: Path) -> _Kept | None:
        """What a directory keeps; one that is damaged goes."""
        try:
            record = decode(BuildRecord, (home / _RECORD).read_bytes())
            size = sum(one.stat().st_size for one in home.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except InvalidArgument:
            record = BuildRecord()
        if self._home(record.ref) == home:
            return _Kept(home, record, size)
        self._discard(home)
        return None

    def _trim(self) -> None:
        """Away with what is beyond the bounds: as with BuildKit the last stay, and the young."""
        found = sorted(self._all(), key=lambda kept: -kept.ended)
        loose = [kept for kept in found if not kept.record.pinned]
        room, oldest = self._bounds.size, time.time() - self._bounds.seconds
        for number, kept in enumerate(loose):
            room -= kept.size
            old = number >= self._bounds.entries and kept.ended < oldest
            if (old or room < 0) and self._discard(kept.home):
                self._tell(_deleted(kept.record.ref))

    def find(self, ref: str) -> BuildRecord | None:
        """The record of a build that has ended."""
        kept = self._read(self._home(ref))
        return None if kept is None else kept.record

    def _known(self, ref: str) -> BuildRecord:
        record = self.find(ref)
        if record is None:
            raise NotFound(f"no record of a build {ref[:80]!r} is kept")
        return record

    def delete(self, ref: str) -> None:
        """Drop a record."""
        self._known(ref)
        self._discard(self._home(ref))
        self._tell(_deleted(ref))

    def pin(self, ref: str, *, pinned: bool) -> None:
        """Keep a record whatever the bounds, or no longer."""
        record = self._known(ref)
        record = replace(record, pinned=pinned, generation=record.generation + 1)
        new = self._home(ref) / f".{secrets.token_hex(4)}"
        new.write_bytes(encode(record))
        new.replace(self._home(ref) / _RECORD)
        self._tell(BuildEvent(COMPLETE, record))

    def blob(self, digest: str) -> Path:
        """Where a blob of any record lies."""
        name = _encoded(oci.check_digest(digest))
        for home in self._directory.glob("*"):
            if (home / name).is_file():
                return home / name
        raise NotFound(f"content {digest}: not found")

    def log(self, record: BuildRecord) -> Iterator[bytes]:
        """What a build that has ended told: StatusResponses."""
        if record.logs is not None:
            yield from frames(self.blob(record.logs.digest).read_bytes())

    # Listening.

    async def listen(self, request: HistoryRequest) -> AsyncGenerator[BuildEvent, None]:
        """Builds that go on, those that have ended, and then, unless that is enough, what happens."""
        queue: asyncio.Queue[BuildEvent | None] = asyncio.Queue(_WAITING)
        self._listeners.add(queue)
        try:
            for event in self._now(request):
                yield event
            while not request.early_exit and not (self._closing and not self._active):
                event_ = await queue.get()
                if event_ is None:
                    return
                if _concerns(event_, request.ref):
                    yield event_
        finally:
            self._listeners.discard(queue)

    def _now(self, request: HistoryRequest) -> list[BuildEvent]:
        wanted = [record for record in self._active.values() if request.ref in ("", record.ref)]
        events = [BuildEvent(STARTED, record) for record in wanted]
        if request.active_only:
            return events
        if request.ref:
            kept = [found] if (found := self.find(request.ref)) is not None else []
        else:
            kept = [one.record for one in self._all()]
        if request.limit < 0:
            raise InvalidArgument(f"invalid limit {request.limit}")
        fitting = sorted(matching_records(kept, request.filter), key=_begun, reverse=True)
        limited = fitting[: request.limit or len(fitting)]
        return events + [BuildEvent(COMPLETE, record) for record in limited]


def _begun(record: BuildRecord) -> tuple[int, int]:
    at = record.created_at
    return (at.seconds, at.nanos) if at is not None else (0, 0)


def _encoded(digest: str) -> str:
    return digest.partition(":")[2]


def _deleted(ref: str) -> BuildEvent:
    return BuildEvent(DELETED, BuildRecord(ref=ref))


def _concerns(event: BuildEvent, ref: str) -> bool:
    return event.record is not None and ref in ("", event.record.ref)


def _put(queue: asyncio.Queue[BuildEvent | None], event: BuildEvent | None) -> None:
    """Who doesn't take what is told for long is let go: a gap would be worse than an end."""
    with contextlib.suppress(asyncio.QueueFull):
        queue.put_nowait(event)
        return
    while not queue.empty():
        queue.get_nowait()
    queue.put_nowait(None)


# Logs as BuildKit keeps them: application/vnd.buildkit.status.v0.


def framed(messages: Iterable[bytes]) -> bytes:
    """Messages, each after its length."""
    return b"".join(_LENGTH.pack(len(raw)) + raw for raw in messages)


def frames(log: bytes) -> Iterator[bytes]:
    """The messages again; a torn one at the end is left out."""
    at = 0
    while at + _LENGTH.size <= len(log):
        (length,) = _LENGTH.unpack_from(log, at)
        at += _LENGTH.size
        if at + length > len(log):
            return
        yield log[at : at + length]
        at += length
