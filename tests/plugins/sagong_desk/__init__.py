"""Calls and hears every provider of `greeting` that there is."""

from __future__ import annotations

import asyncio

from greeting_contract import Greeted, Greeting, Inquiry, Names, Words

from sagong.host import Host


class FrontDesk:
    """Follows the greeters as they come and go."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._greeters = host.providers(Greeting)
        self._heard: list[str] = []
        self._listening: dict[str, asyncio.Task[None]] = {}

    async def start(self) -> None:
        """Open the day's book, and begin to listen."""
        (self._host.data / "book").write_text("opened\n")
        self._host.spawn(self._follow(), "greeters")

    async def _follow(self) -> None:
        async for names in self._greeters.follow():
            for name in names:
                if name not in self._listening or self._listening[name].done():
                    self._listening[name] = self._host.spawn(self._hear(name), f"hear {name}")

    async def _hear(self, name: str) -> None:
        async for event in self._host.hear(Greeting, Greeted, name):
            if event is not None:
                self._heard.append(f"{name}:{event.name}")

    async def ask(self, inquiry: Inquiry) -> Words:
        """Send the guest there."""
        return await self._host.use(Greeting, inquiry.instance).greet(inquiry.guest)

    def greeters(self) -> Names:
        """Who is there."""
        return Names(names=self._greeters.names)

    def heard(self) -> Names:
        """What was heard."""
        return Names(names=tuple(self._heard))
