"""Reading logs back, for clients that attach late: entries of this run, then the live stream."""

from __future__ import annotations

import contextlib
import json
import os
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

from sagong.logfiles import LogFile, open_files
from sagong.shim.logs import STREAMS, timestamp

__all__ = ["Entry", "Replay", "local_entries"]

_NUMBERS = {name: number for number, name in STREAMS.items()}
_READ_SIZE = 256 << 10
_BIG = struct.Struct(">I")
_LARGEST_ENTRY = 1 << 20


class Entry(NamedTuple):
    """Output as it once came: the time in RFC 3339, the stream, the bytes with their newline."""

    time: str
    stream: int
    text: bytes


Decode = Callable[[bytes], tuple[list[Entry], int]]


def _lines(data: bytes, decode: Callable[[bytes], Entry | None]) -> tuple[list[Entry], int]:
    end = data.rfind(b"\n") + 1
    found = (decode(line) for line in data[:end].split(b"\n") if line)
    return [entry for entry in found if entry is not None], end


def _json_line(line: bytes) -> Entry | None:
    try:
        entry = json.loads(line)
        return Entry(entry["time"], _NUMBERS[entry["stream"]], entry["log"].encode())
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _cri_line(line: bytes) -> Entry | None:
    try:
        moment, stream, mark, text = line.split(b" ", 3)
        end = b"\n" if mark == b"F" else b""
        return Entry(moment.decode(), _NUMBERS[stream.decode()], text + end)
    except (ValueError, KeyError):
        return None  # damaged, by a power cut


def local_entries(data: bytes) -> tuple[list[Entry], int]:
    """Whole entries of Docker's `local` driver, and where the first that is not begins."""
    entries: list[Entry] = []
    at = 0
    while at + 4 <= len(data):
        (length,) = _BIG.unpack_from(data, at)
        end = at + 4 + length + 4
        if length > _LARGEST_ENTRY:
            return entries, len(data)  # after a power cut: nothing behind can be read
        if end > len(data):
            break
        with contextlib.suppress(IndexError, UnicodeDecodeError, AssertionError):
            entries.append(_local_entry(data[at + 4 : end - 4]))
        at = end
    return entries, at


def _local_entry(raw: bytes) -> Entry:
    fields: dict[int, int | bytes] = {}
    at = 0
    while at < len(raw):
        key, at = _varint(raw, at)
        value, at = _varint(raw, at)
        if key & 7 == 2:
            fields[key >> 3] = raw[at : at + value]
            at += value
        else:
            fields[key >> 3] = value
    when, source, text = fields.get(2), fields.get(1, b"stdout"), fields.get(3, b"")
    assert isinstance(when, int)
    assert isinstance(source, bytes)
    assert isinstance(text, bytes)
    end = b"" if fields.get(4) else b"\n"
    return Entry(timestamp(when), _NUMBERS.get(source.decode(), 1), text + end)


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, at
        shift += 7


_DECODERS: dict[str, Decode] = {
    "json-file": lambda data: _lines(data, _json_line),
    "cri": lambda data: _lines(data, _cri_line),
    "local": local_entries,
}


class Replay:
    """Reads the log files of one run from the oldest on; `next` gives None at the present end."""

    def __init__(self, driver: str, path: str, since: str) -> None:
        self._decode = _DECODERS[driver]
        self._since = since
        self._path = path
        # At once, so that a rotation while we read loses nothing.
        self._files = open_files(path)
        self._rest = b""

    def next(self) -> list[tuple[int, bytes]] | None:
        """Some more output as (stream, bytes); None when all that is written has been read."""
        while self._files:
            data = self._files[0].read(_READ_SIZE)
            if not data:
                if len(self._files) == 1 and not self._rotated():
                    return None
                self._files.pop(0).close()
                continue
            entries, used = self._decode(self._rest + data)
            self._rest = (self._rest + data)[used:]
            found = [(e.stream, e.text) for e in entries if e.time >= self._since]
            if found:
                return found
        return None

    def _rotated(self) -> bool:
        """The file that was the newest got an older name meanwhile: go on in the present one."""
        ours = os.fstat(self._files[0].fileno())
        try:
            newest = os.stat(self._path)
        except FileNotFoundError:
            return False
        if (ours.st_dev, ours.st_ino) == (newest.st_dev, newest.st_ino):
            return False
        self._files.append(LogFile(os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)))
        return True

    def close(self) -> None:
        """Release the files."""
        for file in self._files:
            file.close()
        self._files.clear()

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """All that is there now."""
        while (found := self.next()) is not None:
            yield from found
