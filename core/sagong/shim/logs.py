"""Log drivers: output cut into lines, encoded, written without buffering, rotated by size."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import signal
import struct
import time
from collections.abc import Iterable
from typing import Any, NamedTuple, NoReturn, Protocol

from sagong import logfiles
from sagong.linux import process, syscalls
from sagong.shim import lean

__all__ = ["LINE_LIMIT", "STREAMS", "LogWriter", "Piece", "encoder", "open_log"]

STREAMS = {1: "stdout", 2: "stderr"}
# Docker's and containerd's limit of one entry; longer lines become several partial ones.
LINE_LIMIT = 16 << 10


class Piece(NamedTuple):
    """One entry: `whole` tells that the line ended here (the newline itself is not in `text`)."""

    stream: int
    text: bytes
    whole: bool


class Encoder(Protocol):
    """How a driver writes entries: one, or whole lines at once, which is thirty times faster.

    `by_lines` tells that each entry ends with the only newline in it, and `lines` may be used.
    """

    by_lines: bool

    def __call__(self, piece: Piece, now: int) -> bytes:
        """One entry."""
        ...

    def lines(self, stream: int, block: bytes, now: int) -> bytes:
        """An entry for each line of a block, which ends with a newline."""
        ...


_SPECIAL = re.compile('[\x00-\x1f"\\\\<>&\u2028\u2029]')
_SPECIAL_IN_LINE = re.compile('[\x00-\x09\x0b-\x1f"\\\\<>&\u2028\u2029]')
# Bytes that stand in JSON as they are, and the newline.
_PLAIN = b"\n" + bytes(set(range(0x20, 0x7F)) - set(b'"\\<>&'))
_SHORT = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r"}


def _escape(match: re.Match[str]) -> str:
    found = match[0]
    return _SHORT.get(found) or f"\\u{ord(found):04x}"


def _quoted(text: str) -> str:
    """A JSON string escaped as Docker's json-file does it (also < > & for HTML)."""
    return f'"{_SPECIAL.sub(_escape, text)}"'


def timestamp(nanoseconds: int) -> str:
    """RFC 3339 in UTC with nine decimals."""
    seconds, rest = divmod(nanoseconds, 10**9)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:09d}Z"


class _JsonEncoder:
    """Docker's json-file."""

    by_lines = True

    def __init__(self, attributes: Iterable[tuple[str, str]], tag: str) -> None:
        pairs = dict(attributes)
        if tag:
            pairs["tag"] = tag
        fields = ",".join(f"{_quoted(key)}:{_quoted(pairs[key])}" for key in sorted(pairs))
        self._attributes = f',"attrs":{{{fields}}}' if fields else ""

    def _tail(self, stream: int, now: int) -> bytes:
        text = f',"stream":"{STREAMS[stream]}"{self._attributes},"time":"{timestamp(now)}"}}\n'
        return text.encode()

    def __call__(self, piece: Piece, now: int) -> bytes:
        """One entry."""
        text = piece.text.decode("utf-8", "replace")
        line = _quoted(text + "\n" if piece.whole else text)
        return b'{"log":' + line.encode() + self._tail(piece.stream, now)

    def lines(self, stream: int, block: bytes, now: int) -> bytes:
        """What stands between two lines takes the place of the newline."""
        if block.translate(None, _PLAIN):
            text = block.decode("utf-8", "replace")
            block = _SPECIAL_IN_LINE.sub(_escape, text).encode()
        head, tail = b'{"log":"', b'\\n"' + self._tail(stream, now)
        return head + block[:-1].replace(b"\n", tail + head) + tail


class _CriEncoder:
    """containerd's."""

    by_lines = True

    def __call__(self, piece: Piece, now: int) -> bytes:
        """One entry."""
        return self._head(piece.stream, now, b"F" if piece.whole else b"P") + piece.text + b"\n"

    def _head(self, stream: int, now: int, mark: bytes) -> bytes:
        return b"%s %s %s " % (timestamp(now).encode(), STREAMS[stream].encode(), mark)

    def lines(self, stream: int, block: bytes, now: int) -> bytes:
        """Each line behind the same head."""
        head = self._head(stream, now, b"F")
        return head + block[:-1].replace(b"\n", b"\n" + head) + b"\n"


_BIG = struct.Struct(">I")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


class _LocalEncoder:
    """Docker's `local` driver: a protobuf LogEntry between its length twice, big-endian."""

    by_lines = False

    def __call__(self, piece: Piece, now: int) -> bytes:
        """One entry."""
        source = STREAMS[piece.stream].encode()
        entry = b"\x0a" + _varint(len(source)) + source + b"\x10" + _varint(now)
        entry += b"\x1a" + _varint(len(piece.text)) + piece.text
        if not piece.whole:
            entry += b"\x20\x01"
        length = _BIG.pack(len(entry))
        return length + entry + length

    def lines(self, stream: int, block: bytes, now: int) -> bytes:
        """One after the other: what is between two lines holds the length of each."""
        return b"".join(self(Piece(stream, line, True), now) for line in block[:-1].split(b"\n"))


def encoder(driver: str, attributes: Iterable[tuple[str, str]] = (), tag: str = "") -> Encoder:
    """How a driver writes entries; ValueError for an unknown driver."""
    match driver:
        case "json-file":
            return _JsonEncoder(attributes, tag)
        case "cri":
            return _CriEncoder()
        case "local":
            return _LocalEncoder()
    raise ValueError(f"log driver {driver!r} is unknown; known: json-file, cri, local, none")


class LogWriter:
    """Writes output to a file. Nothing is kept back but the line that has not ended yet.

    With `compress` a child packs what was rotated. It is ended before files are moved: the next one
    begins with what it left.
    """

    def __init__(
        self,
        path: str,
        encode: Encoder,
        *,
        max_size: int,
        max_files: int,
        compress: bool = False,
        begin: bool = True,
    ) -> None:
        self.path = path
        self._encode = encode
        self._max_size = max_size
        self._max_files = max(max_files, 1)
        self._compress = compress
        self._packer = -1
        self._partial: dict[int, bytearray] = {1: bytearray(), 2: bytearray()}
        self._file = -1
        self._size = 0
        self.lost = 0
        self._open(begin=begin)

    def _open(self, *, begin: bool = True) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | (os.O_CREAT if begin else 0)
        self._file = os.open(self.path, flags, 0o640)
        self._size = os.fstat(self._file).st_size

    def write(self, stream: int, data: bytes) -> None:
        """Take output of a stream; a full disk loses log lines, never the container."""
        if self._put_lines(stream, data):
            return
        pieces = self._cut(stream, data)
        if pieces:
            self._put(pieces)

    def _put_lines(self, stream: int, data: bytes) -> bool:
        """Write all lines at once; False where one is too long, or a new file must begin."""
        held = self._partial[stream]
        block, newline, rest = data.rpartition(b"\n")
        if not newline or not self._encode.by_lines:
            return False
        block = bytes(held) + block + newline
        if len(block) > LINE_LIMIT and max(map(len, block.split(b"\n"))) > LINE_LIMIT:
            return False
        entries = self._encode.lines(stream, block, time.time_ns())
        if len(rest) >= LINE_LIMIT or (
            self._max_size and self._size + len(entries) > self._max_size
        ):
            return False
        held[:] = rest
        self._append(entries)
        return True

    def _cut(self, stream: int, data: bytes) -> list[Piece]:
        held = self._partial[stream]
        held += data
        pieces: list[Piece] = []
        *lines, rest = bytes(held).split(b"\n")
        for line in lines:
            pieces += _split_long(stream, line, whole=True)
        while len(rest) >= LINE_LIMIT:
            pieces.append(Piece(stream, rest[:LINE_LIMIT], False))
            rest = rest[LINE_LIMIT:]
        held[:] = rest
        return pieces

    def _put(self, pieces: list[Piece]) -> None:
        now = time.time_ns()
        batch: list[bytes] = []
        size = 0
        for piece in pieces:
            entry = self._encode(piece, now)
            used = self._size + size
            if self._max_size and used and used + len(entry) > self._max_size:
                self._append(b"".join(batch), batch)
                batch, size = [], 0
                self._rotate()
            batch.append(entry)
            size += len(entry)
        self._append(b"".join(batch), batch)

    def _append(self, entries: bytes, batch: list[bytes] | None = None) -> None:
        """Write entries; without a batch of them each is a line."""
        began = self._size
        view = memoryview(entries)
        try:
            while view:
                count = os.write(self._file, view)
                self._size += count
                view = view[count:]
        except OSError:
            self.lost += len(view)
            if batch is None:
                batch = [line + b"\n" for line in entries.split(b"\n")[:-1]]
            self._take_back(began, batch)

    def _take_back(self, began: int, batch: list[bytes]) -> None:
        """Only whole entries stay: after half of one, the next could not be read either."""
        whole = began
        for entry in batch:
            if whole + len(entry) > self._size:
                break
            whole += len(entry)
        if whole < self._size:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, whole)
                self._size = whole

    def _rotate(self) -> None:
        """The file gets an older name, and begins anew; where none can be made it goes on."""
        self._end_packer()
        before = self._file
        try:
            logfiles.rotate(self.path, self._max_files)
            self._open(begin=False)
        except OSError:
            return
        os.close(before)
        if self._compress:
            self._begin_packer()

    def _begin_packer(self) -> None:
        """Where no process can be made the files stay as they are, until the next time."""
        with contextlib.suppress(OSError):
            child = lean.fork()
            if child == 0:
                _pack_and_exit(self.path, self._max_files)
            # Who collects our children may have done so already.
            self._packer = syscalls.pidfd_open(child)

    def _end_packer(self) -> None:
        """Surely: it must not move files while we do."""
        if self._packer < 0:
            return
        with contextlib.suppress(ProcessLookupError):
            syscalls.pidfd_send_signal(self._packer, signal.SIGKILL)
        process.wait_ended(self._packer, None)
        os.close(self._packer)
        self._packer = -1

    def partial(self, stream: int) -> bytes:
        """What came after the last newline and is not in the file yet."""
        return bytes(self._partial[stream])

    def finish(self) -> None:
        """Write the last lines that have no newline, and close."""
        for stream, held in self._partial.items():
            if held:
                self._put([Piece(stream, bytes(held), False)])
                held.clear()
        os.close(self._file)
        if self._packer >= 0:
            # It goes on alone.
            os.close(self._packer)
            self._packer = -1


def _pack_and_exit(path: str, keep: int) -> NoReturn:
    try:
        syscalls.close_range(3)
        os.nice(10)
        logfiles.pack(path, keep)
    finally:
        os._exit(0)


def _split_long(stream: int, line: bytes, *, whole: bool) -> list[Piece]:
    pieces = []
    while len(line) > LINE_LIMIT:
        pieces.append(Piece(stream, line[:LINE_LIMIT], False))
        line = line[LINE_LIMIT:]
    return [*pieces, Piece(stream, line, whole)]


def open_log(spec: dict[str, Any], *, begin: bool = True) -> LogWriter | None:
    """The writer that a LogSpec asks for; None for driver "none".

    Without `begin` a log that is not there stays so (None): whoever removed it has seen the end of
    its container, and nobody would remove it again.
    """
    if spec["driver"] == "none" or not spec["path"]:
        return None
    encode = encoder(spec["driver"], spec.get("attributes", ()), spec.get("tag", ""))
    opened = functools.partial(
        LogWriter,
        spec["path"],
        encode,
        max_size=spec.get("max_size", 0),
        max_files=spec.get("max_files", 1),
        compress=spec.get("compress", False),
        begin=begin,
    )
    try:
        return opened()
    except FileNotFoundError:
        if not begin:
            return None
    os.makedirs(os.path.dirname(spec["path"]), mode=0o710, exist_ok=True)
    return opened()
