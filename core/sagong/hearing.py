"""Hearing every provider of a slot: one stream of the events of all there are, and of later ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TypeVar

from sagong.contract import Message
from sagong.host import Host

__all__ = ["hear_every"]

M = TypeVar("M", bound=Message)
_WAITING = 1024


async def hear_every(
    host: Host, protocol: type, kind: type[M]
) -> AsyncIterator[tuple[str, M | None]]:
    """(instance, event); the event is None first of each, and whenever some may have been missed."""
    heard: asyncio.Queue[tuple[str, M | None]] = asyncio.Queue(_WAITING)
    listening: dict[str, asyncio.Task[None]] = {}

    async def listen(name: str) -> None:
        async for event in host.hear(protocol, kind, name):
            await heard.put((name, event))

    async def follow() -> None:
        async for names in host.providers(protocol).follow():
            for name in names:
                if name not in listening or listening[name].done():
                    listening[name] = host.spawn(listen(name), f"hear {name or 'the default'}")

    following = host.spawn(follow(), "follow providers")
    try:
        while True:
            yield await heard.get()
    finally:
        for task in (following, *listening.values()):
            task.cancel()
