"""A scheduler that fails as the file `mood` in its data directory says, for tests of the supervisor."""

from __future__ import annotations

import asyncio
import os
import time

from sagong_scheduler_first import FirstNode

from sagong.host import Host

_SOON = 0.3


class Moody(FirstNode):
    """Right answers, bad manners."""

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self._host = host
        self._inherited = b""

    @property
    def _mood(self) -> str:
        try:
            return (self._host.data / "mood").read_text()
        except FileNotFoundError:
            return "well"

    async def start(self) -> None:
        """Some never come up."""
        mood = self._mood
        if mood == "refuses":
            raise ValueError("not today")
        if mood == "exits":
            os._exit(7)
        while self._mood == "slow":
            await asyncio.sleep(0.05)
        if mood in ("dies", "blocks"):
            self._host.spawn(self._fail_soon(mood), mood)

    async def _fail_soon(self, mood: str) -> None:
        await asyncio.sleep(_SOON)
        if mood == "dies":
            os._exit(9)
        time.sleep(3600)

    async def health(self) -> None:
        """Says what is wrong."""
        if self._mood == "ill":
            raise ValueError("a headache")

    async def drain(self) -> None:
        """Some never end."""
        if self._mood == "clings":
            time.sleep(3600)

    async def export(self) -> bytes:
        """One letter more with each generation."""
        return self._inherited + b"x"

    async def restore(self, state: bytes) -> None:
        """Note what came."""
        self._inherited = state
        (self._host.data / "inherited").write_bytes(state)
