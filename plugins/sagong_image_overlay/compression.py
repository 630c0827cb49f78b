"""Decompression of archives by their first bytes, and gzip for what is sent or committed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

from sagong.errors import InvalidArgument, ResourceExhausted, SagongError
from sagong.zstd import decompressed

__all__ = ["Decompressor", "compression_of", "gzip_compressor", "preload"]

CHUNK = 1 << 18
PIECE = 1 << 20
_FREE = 1 << 30
_MAGIC = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
)
# Memory that the archive's author chooses.
_WINDOW = 1 << 27


def compression_of(head: bytes) -> str:
    """The compression that an archive begins with; "" is none."""
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    # Skippable frames may come first in zstd (RFC 8878, 3.1.2).
    if len(head) >= 4 and head[1:4] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50:
        return "zstd"
    return ""


def preload() -> None:
    """Import all codecs: what parses has no files to import from."""
    import bz2  # noqa: F401
    import lzma  # noqa: F401

    import zstandard  # noqa: F401
    from isal import isal_zlib  # noqa: F401


def gzip_compressor() -> Any:
    """A gzip stream compressor (no name, no time: the same bytes for the same content)."""
    from isal import isal_zlib

    return isal_zlib.compressobj(1, isal_zlib.DEFLATED, 31)


class Decompressor:
    """Reads a descriptor and yields plain bytes in bounded pieces; `consumed` counts what was read.

    Pieces are bounded because an archive of a few bytes can hold gigabytes; `ratio`, if not 0, bounds
    how many times its size it may unpack to, once that is above 1 GiB.
    """

    def __init__(self, descriptor: int, ratio: int = 0) -> None:
        self._descriptor = descriptor
        self._ratio = ratio
        self.consumed = 0

    def read(self, size: int = CHUNK) -> bytes:
        """Compressed bytes; the zstd reader calls it, too."""
        data = os.read(self._descriptor, size)
        self.consumed += len(data)
        return data

    def __iter__(self) -> Iterator[bytes]:
        head = self.read()
        while head and len(head) < 8 and (more := self.read()):
            head += more
        name = compression_of(head)
        unpack = {"gzip": self._gzip, "zstd": self._zstd, "bzip2": self._bzip2, "xz": self._xz}
        return self._guarded(name, unpack[name](head)) if name else self._plain(head)

    def _guarded(self, name: str, pieces: Iterator[bytes]) -> Iterator[bytes]:
        produced = 0
        try:
            for piece in pieces:
                produced += len(piece)
                if self._ratio and produced > max(_FREE, self._ratio * self.consumed):
                    raise ResourceExhausted(
                        f"the {name} data unpacks to more than {self._ratio} times its size; "
                        "raise max_layer_ratio if it is no bomb"
                    )
                yield piece
        except SagongError:
            raise
        except Exception as error:  # each codec has an error class of its own
            raise InvalidArgument(f"the {name} data is broken: {error}") from None

    def _plain(self, data: bytes) -> Iterator[bytes]:
        while data:
            yield data
            data = self.read()

    def _gzip(self, data: bytes) -> Iterator[bytes]:
        from isal import isal_zlib

        stream = isal_zlib.decompressobj(31)
        while data:
            plain = stream.decompress(data, PIECE)
            if plain:
                yield plain
            data = stream.unconsumed_tail
            if stream.eof:
                # Several members may follow each other; zero padding may end the last.
                data = (stream.unused_data or self.read()).lstrip(b"\0")
                if not data:
                    return
                stream = isal_zlib.decompressobj(31)
            data = data or self.read()
        raise InvalidArgument("the gzip data ends too early")

    def _zstd(self, head: bytes) -> Iterator[bytes]:
        return decompressed(_Prefixed(head, self).read)

    def _bzip2(self, data: bytes) -> Iterator[bytes]:
        import bz2

        return self._standard(bz2.BZ2Decompressor, data)

    def _xz(self, data: bytes) -> Iterator[bytes]:
        import lzma

        return self._standard(lambda: lzma.LZMADecompressor(memlimit=_WINDOW), data)

    def _standard(self, make: Callable[[], Any], data: bytes) -> Iterator[bytes]:
        stream = make()
        while data or not stream.needs_input:
            plain = stream.decompress(data, PIECE)
            if plain:
                yield plain
            data = b""
            if stream.eof:
                data = stream.unused_data or self.read()
                if not data.lstrip(b"\0"):
                    return
                stream = make()
            elif stream.needs_input:
                data = self.read()
        raise InvalidArgument("the compressed data ends too early")


class _Prefixed:
    """A reader whose first bytes were read already."""

    def __init__(self, head: bytes, rest: Decompressor) -> None:
        self._head = head
        self._rest = rest

    def read(self, size: int) -> bytes:
        head, self._head = self._head[:size], self._head[size:]
        return head or self._rest.read(size)
