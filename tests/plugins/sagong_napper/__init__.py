"""Counts; what it has counted it exports, so that it goes on counting when it wakes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from nap_contract import Count, Counted

from sagong.host import Host

__all__ = ["Napper"]


class Napper:
    """Files in its data directory make it fail: `broken` at its start, `busy` it does not sleep."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._value = 0
        self._server: asyncio.Server | None = None

    async def restore(self, state: bytes) -> None:
        """Go on from there."""
        self._value = int(state)

    async def start(self) -> None:
        """Say hello at the door."""
        if (self._host.data / "broken").exists():
            raise ValueError("it does not want to get up")
        door = self._host.listener("door")
        self._server = await asyncio.start_unix_server(self._greet, sock=door)

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello\n")
        writer.close()

    def busy(self) -> bool:
        """What a file says."""
        return (self._host.data / "busy").exists()

    async def export(self) -> bytes:
        """How far it came."""
        return str(self._value).encode()

    async def stop(self) -> None:
        """Leave the door."""
        if self._server is not None:
            self._server.close()

    async def count(self) -> Count:
        """One more."""
        self._value += 1
        self._host.emit(Counted(value=self._value))
        return Count(value=self._value)

    async def counts(self) -> AsyncIterator[Count]:
        """One more, again and again."""
        while True:
            yield await self.count()
            await asyncio.sleep(0.05)
