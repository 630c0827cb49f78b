"""Reads containers' logs: Docker's json-file and Kubernetes' CRI format, with rotation and follow."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import msgspec

from sagong.contracts.node import LogsRequest
from sagong.frames import Frame, pack

__all__ = ["Line", "LogReader", "parse_line"]

_POLL = 0.05
_BLOCK = 1 << 16
# Lines sent at once: a system call each would cost more than all else that is done with them.
_BATCH = 256


@dataclass(frozen=True, slots=True)
class Line:
    """A line (or part of one): when; which stream; its bytes."""

    stamp: str
    stream: str
    data: bytes


class _Entry(msgspec.Struct):
    """A line of Docker's json-file."""

    log: str
    time: str
    stream: str = "stdout"


_decode_entry = msgspec.json.Decoder(_Entry).decode


def parse_line(raw: bytes, driver: str) -> Line | None:
    """One line of a log file, or None if it is damaged (half-written by a power cut)."""
    try:
        return _parse_cri(raw) if driver == "cri" else _parse_json(raw)
    except (ValueError, msgspec.DecodeError):
        return None


def _parse_json(raw: bytes) -> Line:
    entry = _decode_entry(raw)
    return Line(entry.time, entry.stream, entry.log.encode())


def _parse_cri(raw: bytes) -> Line:
    stamp, stream, tag, data = raw.rstrip(b"\n").split(b" ", 3)
    text = data + (b"" if tag == b"P" else b"\n")
    return Line(stamp.decode(), stream.decode(), text)


def _seconds(stamp: str) -> float:
    """RFC 3339 with nanoseconds; Python takes microseconds at most."""
    head, dot, tail = stamp.partition(".")
    if not dot:
        return datetime.fromisoformat(stamp).timestamp()
    digits = tail.rstrip("Z").partition("+")[0].partition("-")[0]
    zone = tail[len(digits) :] or "Z"
    return datetime.fromisoformat(head + zone).timestamp() + float(f"0.{digits}")


class LogReader:
    """One reader of one container's log; `alive` tells whether more may come."""

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
            async for lines in self._batches():
                writer.write(b"".join(self._frames(lines)))
                await writer.drain()
                if self._left == 0 or gone.done():
                    return
        finally:
            gone.cancel()

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
        if not self._request.timestamps:
            return line.data
        return line.stamp.encode() + b" " + line.data

    async def _batches(self) -> AsyncIterator[list[Line]]:
        request = self._request
        selected = self._history()
        if request.tail >= 0:
            selected = iter(deque(selected, maxlen=request.tail)) if request.tail else iter(())
        position = self._snapshot()
        while lines := list(islice(selected, _BATCH)):
            yield lines
            await asyncio.sleep(0)
        if request.follow:
            async for lines in self._follow(*position):
                yield lines

    def _snapshot(self) -> tuple[int, int]:
        """Inode and size of the present file, before history is read."""
        try:
            found = os.stat(self._path)
            return found.st_ino, found.st_size
        except FileNotFoundError:
            return 0, 0

    def _history(self) -> Iterator[Line]:
        """What is in the files now, the oldest rotated one first, up to the snapshot's size."""
        inode, size = self._snapshot()
        rotated = sorted(
            self._path.parent.glob(self._path.name + ".[0-9]*"),
            key=lambda p: int(p.name.rpartition(".")[2]),
            reverse=True,
        )
        for path in rotated:
            yield from self._file(path, None)
        if inode:
            yield from self._file(self._path, size)

    def _file(self, path: Path, limit: int | None) -> Iterator[Line]:
        try:
            with open(path, "rb") as file:
                read = 0
                for raw in file:
                    read += len(raw)
                    if limit is not None and read > limit:
                        return
                    line = self._select(raw)
                    if line is not None:
                        yield line
        except FileNotFoundError:
            return  # rotated away while we looked

    def _select(self, raw: bytes) -> Line | None:
        line = parse_line(raw, self._driver)
        if line is None or line.stream not in self._streams or not self._in_time(line):
            return None
        return line

    def _in_time(self, line: Line) -> bool:
        """Whether it was written between the bounds; reading its time costs as much as the rest."""
        since, until = self._request.since, self._request.until
        if not since and not until:
            return True
        try:
            time = _seconds(line.stamp)
        except ValueError:
            return False
        return since <= time and (not until or time <= until)

    async def _follow(self, inode: int, offset: int) -> AsyncIterator[list[Line]]:
        """New lines as they come, into the next file when the present one is rotated."""
        rest = b""
        file: BinaryIO | None = open(self._path, "rb") if inode else None  # noqa: SIM115
        try:
            if file is not None:
                file.seek(offset)
            ending = False
            while True:
                block = file.read(_BLOCK) if file is not None else b""
                if block:
                    *whole, rest = (rest + block).split(b"\n")
                    found = (self._select(raw + b"\n") for raw in whole)
                    if lines := [line for line in found if line is not None]:
                        yield lines
                    continue
                file, changed = self._reopened(file)
                if changed:
                    rest = b""
                    continue
                if ending or self._past():
                    return
                ending = not self._alive()
                await asyncio.sleep(_POLL if not ending else 0.02)
        finally:
            if file is not None:
                file.close()

    def _past(self) -> bool:
        import time

        return bool(self._request.until) and time.time() > self._request.until

    def _reopened(self, file: BinaryIO | None) -> tuple[BinaryIO | None, bool]:
        """The present file, if it is another one than that which has been read to its end."""
        try:
            now = os.stat(self._path)
        except FileNotFoundError:
            return file, False
        if file is not None:
            held = os.fstat(file.fileno())
            if held.st_ino == now.st_ino and now.st_size >= file.tell():
                return file, False
            file.close()
        return open(self._path, "rb"), True
