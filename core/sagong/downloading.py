"""Fetches what a slot sends beside the bus as a whole (`Images.save`), though its provider is replaced.

It is asked for again then, and the beginning passed over, if it is what has come already.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Final

from isal import isal_zlib

from sagong.contracts.streams import Address
from sagong.errors import Unavailable
from sagong.streams import connected

__all__ = ["fetched"]

_TIMES: Final = 6
_PAUSE: Final = 0.05


async def fetched(ask: Callable[[], Awaitable[Address]]) -> AsyncGenerator[bytes, None]:
    """All bytes of what `ask` has the address of; Unavailable if they do not come to their end.

    So it is, too, when what is asked for again does not begin as before: a container may have written.
    """
    come = _Come()
    for left in reversed(range(_TIMES)):
        address = await ask()
        try:
            async with connected(address) as link:
                known = _Known(come.size, come.sum)
                while data := await link.read():
                    new = known.passed_over(data)
                    if new:
                        come.add(new)
                        yield new
                known.end()
                return
        except Unavailable as error:
            if isinstance(error, ChangedError) or not left:
                raise
            await asyncio.sleep(_PAUSE)


class ChangedError(Unavailable):
    """It is another one now."""

    def __init__(self) -> None:
        super().__init__("its sender was replaced, and what it sends has changed meanwhile")


class _Come:
    """How much of a stream has come, and its checksum."""

    def __init__(self) -> None:
        self.size = self.sum = 0

    def add(self, data: bytes) -> None:
        self.size += len(data)
        self.sum = isal_zlib.crc32(data, self.sum)


class _Known:
    """The beginning of a stream that came before: so many bytes, with that checksum."""

    def __init__(self, size: int, checksum: int) -> None:
        self._left = size
        self._sum = checksum
        self._come = _Come()

    def passed_over(self, data: bytes) -> bytes:
        """What of the next bytes is new."""
        if not self._left:
            return data
        known = data[: self._left]
        self._left -= len(known)
        self._come.add(known)
        if not self._left and self._come.sum != self._sum:
            raise ChangedError
        return data[len(known) :]

    def end(self) -> None:
        """Nothing comes behind what has come."""
        if self._left:
            raise ChangedError
