"""Fills `greeting` in version 1; its word is a setting."""

from __future__ import annotations

import asyncio

import msgspec
from greeting_contract import Greeted, Guest, Words

from sagong.host import Host


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`word` comes before the name."""

    word: str = "hello"


class Greeter:
    """Greets, and tells of it."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._word = host.config(Settings).word

    async def greet(self, guest: Guest) -> Words:
        """Say it."""
        await asyncio.sleep(guest.seconds)
        self._host.emit(Greeted(name=guest.name))
        return Words(text=f"{self._word} {guest.name}")
