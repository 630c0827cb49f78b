"""Carries bytes between a Docker client and a container's streams beside the bus.

Towards the container everything is in frames of `sagong.frames`; towards the client it is raw with
a terminal, and Docker's stdcopy framing without (the same header, types 0 to 3).
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
from collections.abc import AsyncIterator, Iterable

from sagong.frames import FRAME_LIMIT, Frame, FrameReader, pack
from sagong.http import RawStream
from sagong.streams import Link
from sagong_docker.detach import DetachKeys

__all__ = ["Ending", "carry", "output", "shown"]

_PIECE = min(FRAME_LIMIT, 1 << 16)


def shown(frames: Iterable[tuple[int, bytes]], wanted: Iterable[int], *, raw: bool) -> bytes:
    """Frames of a log in the client's form."""
    return b"".join(
        payload if raw else pack(kind, payload) for kind, payload in frames if kind in wanted
    )


async def output(link: Link, wanted: Iterable[int], *, raw: bool) -> AsyncIterator[bytes]:
    """Output in the client's form, until the container's end."""
    kinds = frozenset((*wanted, Frame.ERROR))
    frames = FrameReader()
    while data := await link.read():
        pieces = []
        ended = False
        for kind, payload in frames.feed(data):
            if kind in kinds:
                pieces.append(payload if raw else pack(kind, payload))
            elif kind == Frame.EXIT:
                ended = True
        if pieces:
            yield b"".join(pieces)
        if ended:
            return


class Ending(enum.Enum):
    """What ended a session: the container's output, its client (or his input), his detach keys."""

    OUTPUT = "output"
    CLIENT = "client"
    DETACHED = "detached"


async def carry(
    client: RawStream,
    link: Link,
    *,
    wanted: Iterable[int],
    raw: bool,
    stdin: bool,
    closes: bool,
    keys: bytes,
) -> Ending:
    """Both ways until the container's end, or the session's before.

    The end of the client's input is the program's if that `closes` with it; else, and where no
    output is wanted, it ends the session, as in Docker. `keys` are those to detach with: none where
    there is no terminal, since other input may hold any bytes.
    """
    lasts = not stdin or (closes and bool(tuple(wanted)))
    send = asyncio.ensure_future(_send(client, link, stdin=stdin, closes=closes, keys=keys))
    receive = asyncio.ensure_future(_receive(client, link, wanted, raw=raw))
    gone = asyncio.ensure_future(client.wait_lost())
    try:
        waiting = {send, receive, gone}
        while receive in waiting and gone in waiting:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if send in done and send.result():
                return Ending.DETACHED
            if send in done and not lasts:
                return Ending.CLIENT
        ended = receive.done() and receive.result()
        return Ending.OUTPUT if ended else Ending.CLIENT
    finally:
        for task in (send, receive, gone):
            task.cancel()
        await asyncio.gather(send, receive, gone, return_exceptions=True)


async def _receive(client: RawStream, link: Link, wanted: Iterable[int], *, raw: bool) -> bool:
    """Output until its end; False when its client has gone before."""
    with contextlib.suppress(ConnectionError):
        async for piece in output(link, wanted, raw=raw):
            client.write(piece)
            await client.drain()
        return True
    return False


async def _send(client: RawStream, link: Link, *, stdin: bool, closes: bool, keys: bytes) -> bool:
    """Input until its end; True when the detach keys came. Without stdin it is read and dropped."""
    watched = DetachKeys(keys) if keys else None
    while data := await client.read():
        if not stdin:
            continue
        passed, detached = watched.feed(data) if watched else (data, False)
        for start in range(0, len(passed), _PIECE):
            await link.write(pack(Frame.STDIN, passed[start : start + _PIECE]))
        if detached:
            return True
    if stdin and closes:
        await link.write(pack(Frame.EOF))
    return False
