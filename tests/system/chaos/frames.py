"""Docker's multiplexed output, and numbered lines with times in it."""

from __future__ import annotations

import datetime
import struct
from collections.abc import Callable, Iterator

from tests.system.chaos.history import Line

__all__ = ["Lines", "payloads", "text_of"]

_HEAD = struct.Struct(">BxxxI")


def payloads(read: Callable[[int], bytes]) -> Iterator[bytes]:
    """Payloads of the frames that `read` yields, until it has no more."""
    while len(head := read(_HEAD.size)) == _HEAD.size:
        yield read(_HEAD.unpack(head)[1])


def text_of(raw: bytes) -> str:
    """All output of a whole answer."""
    parts, at = [], 0
    while at + _HEAD.size <= len(raw):
        size = _HEAD.unpack_from(raw, at)[1]
        parts.append(raw[at + _HEAD.size : at + _HEAD.size + size])
        at += _HEAD.size + size
    return b"".join(parts).decode(errors="replace")


class Lines:
    """Collects `TIME NUMBER` lines from pieces of text."""

    def __init__(self) -> None:
        self.found: list[Line] = []
        self.garbage: list[str] = []
        self._rest = ""

    def feed(self, text: str) -> None:
        """More of the text."""
        *whole, self._rest = (self._rest + text).split("\n")
        for line in whole:
            self._take(line)

    def _take(self, line: str) -> None:
        stamp, _, number = line.strip().partition(" ")
        try:
            self.found.append(Line(int(number), _seconds(stamp)))
        except ValueError:
            self.garbage.append(line[:200])


def _seconds(stamp: str) -> float:
    """RFC 3339 with any number of decimals."""
    whole, _, decimals = stamp.rstrip("Z").partition(".")
    moment = datetime.datetime.fromisoformat(whole).replace(tzinfo=datetime.UTC)
    return moment.timestamp() + float(f"0.{decimals or 0}")
