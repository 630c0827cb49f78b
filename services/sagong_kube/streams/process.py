"""The bridge between a client's session and a container's process: exec and attach."""

from __future__ import annotations

import asyncio
import struct

from sagong.contracts.streams import Address
from sagong.frames import Frame
from sagong.streams import FrameLink, framed
from sagong_kube.streams.session import (
    BROKEN,
    Channel,
    Session,
    broken_status,
    exit_status,
    plain_exit,
    terminal_size,
)

__all__ = ["bridge"]

_CHANNELS = {Frame.STDOUT: Channel.STDOUT, Frame.STDERR: Channel.STDERR}


async def bridge(session: Session, address: Address) -> None:
    """Carry bytes until the process ends or the client goes, then end the session."""
    async with framed(address) as process:
        inward = asyncio.ensure_future(_inward(session, process))
        outward = asyncio.ensure_future(_outward(session, process))
        try:
            # The client's end leaves the process alone; its own end is what is waited for.
            await asyncio.wait({inward, outward}, return_when=asyncio.FIRST_COMPLETED)
            if outward.done():
                outward.result()
                await session.finish()
        finally:
            for task in (inward, outward):
                task.cancel()
            await asyncio.gather(inward, outward, return_exceptions=True)


async def _inward(session: Session, process: FrameLink) -> None:
    while (message := await session.receive()) is not None:
        match message.channel:
            case Channel.STDIN if message.closed:
                await process.write(Frame.EOF)
            case Channel.STDIN if message.data:
                await process.write(Frame.STDIN, message.data)
            case Channel.RESIZE:
                size = terminal_size(message.data)
                if size is not None:
                    await process.write(Frame.RESIZE, struct.pack(">HH", *_bounded(size)))


def _bounded(size: tuple[int, int]) -> tuple[int, int]:
    return max(0, min(size[0], 0xFFFF)), max(0, min(size[1], 0xFFFF))


async def _outward(session: Session, process: FrameLink) -> None:
    code: int | None = None
    await session.wait_reader()
    async for kind, payload in process:
        if kind in (Frame.STDOUT, Frame.STDERR):
            await session.send(_CHANNELS[Frame(kind)], payload)
        elif kind == Frame.ERROR:
            await session.send(Channel.ERROR, payload)
            return
        elif kind == Frame.EXIT:
            (code,) = struct.unpack(">i", payload)
            break
    if code is None:
        said = BROKEN.encode() if session.plain_errors else broken_status()
    else:
        said = plain_exit(code) if session.plain_errors else exit_status(code)
    if said:
        await session.send(Channel.ERROR, said)
