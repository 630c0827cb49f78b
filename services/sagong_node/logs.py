"""Reads containers' logs (json-file and local of Docker, CRI of Kubernetes), rotated and growing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote_plus
from zlib import crc32

import msgspec

from sagong.contracts.node import LogsRequest
from sagong.errors import InvalidArgument
from sagong.frames import Frame, pack
from sagong.logfiles import LogFile, open_files
from sagong.model.times import parse_nanos
from sagong.shim.logs import LINE_LIMIT, STREAMS
from sagong.shim.replay import local_entries
from sagong.streams import send

__all__ = ["Line", "LogReader", "Place", "parse"]

_POLL = 0.05
_BLOCK = 1 << 16
_PLACE, _UNMARKED = struct.Struct(">QQI"), struct.Struct(">QQ")
# What a mark is made of holds a line's time, wherever in the line that stands.
_MARKED = LINE_LIMIT + 1024


class Line(msgspec.Struct, frozen=True):
    """A line (or part of one): when; which stream; its bytes."""

    stamp: str
    stream: str
    data: bytes
    attributes: Mapping[str, str] | None = None


class _Entry(msgspec.Struct):
    """A line of Docker's json-file."""

    log: str
    time: str
    stream: str = "stdout"
    attrs: dict[str, str] | None = None


_decode_entry = msgspec.json.Decoder(_Entry).decode


class Place(msgspec.Struct, frozen=True):
    """A byte of a log file; without a file it is the beginning of the oldest.

    Numbers of files that are gone are given to new ones: `mark` tells them apart. It is the checksum
    of what stands before the place; None is that of places which were told without.
    """

    inode: int = 0
    offset: int = 0
    mark: int | None = None

    def pack(self) -> bytes:
        """As a frame's payload."""
        if self.mark is None:
            return _UNMARKED.pack(self.inode, self.offset)
        return _PLACE.pack(self.inode, self.offset, self.mark)

    @classmethod
    def unpack(cls, raw: bytes) -> Place:
        """From a request; what is no place is the beginning."""
        form = {known.size: known for known in (_PLACE, _UNMARKED)}.get(len(raw))
        return cls(*form.unpack(raw)) if form else cls()


def parse(data: bytes, driver: str) -> tuple[list[Line], int]:
    """The whole lines of a piece of a log file, but for damaged ones (half-written by a power cut),
    and where the first that is not whole begins."""
    if driver == "local":
        entries, used = local_entries(data)
        return [Line(e.time, STREAMS[e.stream], e.text) for e in entries], used
    one = _parse_cri if driver == "cri" else _parse_json
    used = data.rfind(b"\n") + 1
    lines = []
    for raw in data[: used - 1].split(b"\n") if used else ():
        try:
            lines.append(one(raw))
        except (ValueError, msgspec.DecodeError):
            continue
    return lines, used


def _parse_json(raw: bytes) -> Line:
    entry = _decode_entry(raw)
    return Line(entry.time, entry.stream, entry.log.encode(), entry.attrs)


def _parse_cri(raw: bytes) -> Line:
    stamp, stream, tag, data = raw.split(b" ", 3)
    text = data + (b"" if tag == b"P" else b"\n")
    return Line(stamp.decode(), stream.decode(), text)


def _before(file: LogFile, offset: int) -> bytes:
    """What stands before a byte of a file, which is read on from there."""
    start = max(0, offset - _MARKED)
    file.seek(start)
    found = b""
    while (left := offset - start - len(found)) and (data := file.read(left)):
        found += data
    return found


def _holds(file: LogFile, place: Place) -> bool:
    """Whether a place is in this file."""
    if file.inode != place.inode:
        return False
    before = _before(file, place.offset)
    whole = len(before) == min(place.offset, _MARKED)
    return whole and place.mark in (None, crc32(before))


def _index(files: Sequence[LogFile], place: Place) -> int | None:
    """Which file a place is in, the newest where only the number tells; None if that is gone."""
    newest_first = range(len(files) - 1, -1, -1)
    return next((index for index in newest_first if _holds(files[index], place)), None)


class LogReader:
    """One reader of one container's log; `alive` tells whether more may come.

    It goes through the files from the oldest rotated one to the present one, and knows after each
    line at which byte of which file it stands.
    """

    def __init__(
        self, path: Path, driver: str, request: LogsRequest, alive: Callable[[], bool]
    ) -> None:
        self._path = path
        self._driver = driver
        self._request = request
        self._alive = alive
        self._left = request.limit or None
        self._streams = {
            name
            for name, wanted in (("stdout", request.stdout), ("stderr", request.stderr))
            if wanted
        }

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Send frames until the log, or the bound, is reached."""
        gone = asyncio.ensure_future(reader.read(1))
        try:
            async for lines, place in self._batches():
                await send(writer, b"".join(self._frames(lines)) + pack(Frame.PLACE, place.pack()))
                if gone.done():
                    return
                if self._left == 0:
                    break
            await send(writer, pack(Frame.EOF))
        finally:
            gone.cancel()
            # A reader that was killed is told by the cut of its connection, too.
            await asyncio.gather(gone, return_exceptions=True)

    def _frames(self, lines: Iterable[Line]) -> Iterator[bytes]:
        """Each line as a frame; the last is cut at the bound."""
        for line in lines:
            payload = self._payload(line)
            if self._left is not None:
                payload = payload[: self._left]
                self._left -= len(payload)
            yield pack(Frame.STDERR if line.stream == "stderr" else Frame.STDOUT, payload)
            if self._left == 0:
                return

    def _payload(self, line: Line) -> bytes:
        data = line.data
        if self._request.details:
            facts = sorted((line.attributes or {}).items())
            shown = ",".join(f"{quote_plus(k)}={quote_plus(v)}" for k, v in facts)
            data = f"{shown} ".encode() + data
        return line.stamp.encode() + b" " + data if self._request.timestamps else data

    async def _batches(self) -> AsyncIterator[tuple[list[Line], Place]]:
        """Lines, and the place where they end: what is there, then what comes."""
        place = Place.unpack(self._request.place)
        tail = self._request.tail if place == Place() else -1
        last: deque[Line] = deque(maxlen=tail if tail >= 0 else None)
        for lines, further in self._history(place):
            place = further
            if tail < 0:
                yield lines, place
            else:
                last.extend(lines)
            await asyncio.sleep(0)
        if last:
            yield list(last), place
        if self._request.follow:
            async for batch in self._follow(place):
                yield batch

    async def _follow(self, place: Place) -> AsyncIterator[tuple[list[Line], Place]]:
        """New lines as they come, until the container has ended and all is told.

        The file is held open: who removes the container removes its log, maybe with lines in it that
        nobody has read yet.
        """
        ending = False
        with contextlib.ExitStack() as stack:
            held: LogFile | None = None
            while True:
                before = place
                if held is None or held.inode != place.inode:
                    held = self._hold(stack, held)
                for lines, further in self._new(place, held):
                    place = further
                    yield lines, place
                if place != before:
                    continue
                if ending or self._past():
                    return
                ending = not self._alive()
                await asyncio.sleep(0.02 if ending else _POLL)

    def _hold(self, stack: contextlib.ExitStack, held: LogFile | None) -> LogFile | None:
        """The present file, open; the one that was, if there is none any more."""
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return held
        stack.pop_all().close()
        return stack.enter_context(contextlib.closing(LogFile(descriptor)))

    def _new(self, place: Place, held: LogFile | None) -> Iterator[tuple[list[Line], Place]]:
        """What came since: in the files, or in the one that was removed while we held it."""
        if self._path.exists():
            if self._grown(place):
                yield from self._history(place)
        elif held is not None:
            yield from self._rest(held, place.offset if _holds(held, place) else 0)

    def _grown(self, place: Place) -> bool:
        """Whether the present file goes on beyond the place, or is another one."""
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            return False
        return (found.st_ino, found.st_size) != (place.inode, place.offset)

    def _past(self) -> bool:
        until = self._request.until_nanos
        return bool(until) and time.time_ns() > until

    def _history(self, place: Place) -> Iterator[tuple[list[Line], Place]]:
        """What the files hold now from a place on, in batches."""
        with contextlib.ExitStack() as stack:
            files = [
                stack.enter_context(contextlib.closing(f)) for f in open_files(str(self._path))
            ]
            index, offset = _index(files, place), place.offset
            for file in files[index or 0 :]:
                yield from self._rest(file, 0 if index is None else offset)
                offset = 0

    def _rest(self, file: LogFile, offset: int) -> Iterator[tuple[list[Line], Place]]:
        """Lines of an open file from a byte on."""
        end, before = file.size(), _before(file, offset)
        held = b""
        # Not beyond what there is now: a file may grow as fast as it is read.
        while (left := _BLOCK if end is None else end - offset - len(held)) > 0 and (
            data := file.read(min(_BLOCK, left))
        ):
            # The last line may be half written.
            held += data
            lines, used = parse(held, self._driver)
            before, held = (before + held[:used])[-_MARKED:], held[used:]
            offset += used
            if used:
                place = Place(file.inode, offset, crc32(before))
                yield [line for line in lines if self._wanted(line)], place

    def _wanted(self, line: Line) -> bool:
        return line.stream in self._streams and self._in_time(line)

    def _in_time(self, line: Line) -> bool:
        """Whether it was written between the bounds; reading its time costs as much as the rest."""
        since, until = self._request.since_nanos, self._request.until_nanos
        if not since and not until:
            return True
        try:
            at = parse_nanos(line.stamp)
        except InvalidArgument:
            return False
        return since <= at and (not until or at <= until)
