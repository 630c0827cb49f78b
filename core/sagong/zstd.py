"""Reading zstd to its very end: the library takes a stream that was cut for one that has ended."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import IO, cast

__all__ = ["CutShort", "decompressed"]

_CHUNK = 1 << 18
_TOKEN, _TIMES = 16, 8
_MARK = _TOKEN * _TIMES
# A window above this is refused: it is memory that the data's author chooses.
_WINDOW = 1 << 27


class CutShort(Exception):
    """The data ends within a frame."""


def decompressed(read: Callable[[int], bytes]) -> Iterator[bytes]:
    """The plain bytes of all frames that `read` gives, in bounded pieces; CutShort at last, if they are
    not whole, and the library's own errors.

    A frame is added behind them: what it holds comes out last if, and only if, all before it was whole.
    It repeats itself, so that it is longer than its frame: a block that was cut takes the frame's bytes
    for its own, and tells them as they are if it is not compressed.
    """
    import zstandard

    mark = os.urandom(_TOKEN) * _TIMES
    source = cast(IO[bytes], _Ended(read, zstandard.ZstdCompressor().compress(mark)))
    decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
    held = b""
    with decompressor.stream_reader(source, read_across_frames=True) as stream:
        while plain := stream.read(_CHUNK):
            held += plain
            if len(held) > _MARK:
                yield held[:-_MARK]
                held = held[-_MARK:]
    if held != mark:
        raise CutShort("the data ends too early")


class _Ended:
    """A reader with an ending of ours."""

    def __init__(self, read: Callable[[int], bytes], ending: bytes) -> None:
        self._read = read
        self._ending = ending
        self._left = b""

    def read(self, size: int = _CHUNK) -> bytes:
        self._left = self._left or self._read(size)
        if not self._left:
            self._left, self._ending = self._ending, b""
        data, self._left = self._left[:size], self._left[size:]
        return data
