"""The parser: turns an archive into checked records, in a process without any right.

It holds two descriptors, the archive and the pipe to the writer; it has no files, no capabilities
and a seccomp filter of little more than read and write.
"""

from __future__ import annotations

import os

from sagong.errors import InvalidArgument, SagongError
from sagong_image_overlay.compression import Decompressor
from sagong_image_overlay.confine import PARSER, confine
from sagong_image_overlay.entry import Entry, Kind, encode
from sagong_image_overlay.tarstream import Bounds, TarStream

__all__ = ["parse", "run"]

_BATCH = 1 << 18
_PROGRESS = 4 << 20


class Pipe:
    """Collects small records and writes them in one piece."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._parts: list[bytes] = []
        self._size = 0

    def put(self, data: bytes) -> None:
        """Append; written when enough has come together."""
        self._parts.append(data)
        self._size += len(data)
        if self._size >= _BATCH:
            self.flush()

    def put_large(self, data: memoryview) -> None:
        """Write now, without a copy."""
        self.flush()
        self._write(data)

    def flush(self) -> None:
        """Write what was collected."""
        if self._parts:
            self._write(memoryview(b"".join(self._parts)))
            self._parts, self._size = [], 0

    def _write(self, data: memoryview) -> None:
        while data:
            data = data[os.write(self._descriptor, data) :]


def parse(
    source: int, target: int, *, whiteouts: bool, bounds: Bounds, errors: int | None = None
) -> None:
    """Read the archive `source`, write records to `target`; the last one is END or ERROR.

    ERROR is written to `errors`, too: in the middle of a file it would be taken for content.
    """
    pipe = Pipe(target)
    problem: SagongError | None = None
    try:
        _parse(source, pipe, whiteouts=whiteouts, bounds=bounds)
    except SagongError as error:
        problem = error
    except (MemoryError, RecursionError, OverflowError) as error:
        problem = InvalidArgument(f"the archive can't be read: {type(error).__name__}")
    if problem is not None:
        message = problem.message.encode("utf-8", "replace")[:3000]
        record = encode(Entry(Kind.ERROR, problem.code.encode(), message))
        if errors is not None:
            os.write(errors, record)
        pipe.put(record)
    pipe.flush()


def _parse(source: int, pipe: Pipe, *, whiteouts: bool, bounds: Bounds) -> None:
    reader = Decompressor(source, bounds.ratio)
    stream = TarStream(iter(reader), whiteouts=whiteouts, bounds=bounds)
    told = 0
    while (entry := stream.next()) is not None:
        if reader.consumed - told >= _PROGRESS:
            told = reader.consumed
            pipe.put(encode(Entry(Kind.PROGRESS, size=told)))
        pipe.put(encode(entry))
        if entry.kind != Kind.FILE or not entry.stored:
            continue
        if entry.stored < _BATCH:
            pipe.put(stream.content())
        else:
            for piece in stream.pieces():
                pipe.put_large(piece)
    if not stream.entries and not stream.total and reader.consumed == 0:
        raise InvalidArgument("the archive is empty: no byte was sent")
    digest = stream.finish()
    pipe.put(encode(Entry(Kind.END, digest.encode(), size=reader.consumed)))


def run(
    source: int, target: int, errors: int, *, whiteouts: bool, bounds: Bounds, jail: str
) -> None:
    """Give up all rights, parse, and end the process."""
    try:
        confine(PARSER, jail)
        parse(source, target, whiteouts=whiteouts, bounds=bounds, errors=errors)
    finally:
        os._exit(0)
