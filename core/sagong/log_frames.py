"""Reads a container's log from `node` as frames, over restarts and swaps of the node.

The node's stream says now and then where it stands (PLACE) and that it has told all (EOF). One that
ends without EOF was cut: the log is asked for again from the last place, so no line is lost and
none comes twice.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import msgspec

from sagong.contracts.node import LogsRequest, Node
from sagong.contracts.streams import Address
from sagong.errors import NotFound, Unavailable
from sagong.frames import Frame
from sagong.streams import framed

__all__ = ["log_frames"]

_PAUSE, _PATIENCE = 0.05, 30.0


async def log_frames(
    node: Node, request: LogsRequest, address: Address
) -> AsyncIterator[list[tuple[int, bytes]]]:
    """Batches of (STDOUT or STDERR, payload); `address` is the node's first answer to `request`.

    Unavailable when no node answers for half a minute. A container that is removed meanwhile ends it.
    """
    place = request.place
    waited = 0.0
    while True:
        batch: list[tuple[int, bytes]] = []
        async for kind, payload in _frames(address):
            if kind in (Frame.STDOUT, Frame.STDERR):
                batch.append((kind, payload))
                continue
            if batch:
                yield batch
                batch = []
            waited = 0.0
            if kind in (Frame.EOF, Frame.EXIT):
                return
            if kind == Frame.PLACE:
                place = payload
        if waited > _PATIENCE:
            raise Unavailable(f"the node does not tell the log of {request.id}; try again")
        await asyncio.sleep(_PAUSE)
        waited += _PAUSE
        try:
            address = await node.logs(msgspec.structs.replace(request, place=place))
        except NotFound:
            return


async def _frames(address: Address) -> AsyncIterator[tuple[int, bytes]]:
    """Frames until the other side closes; none when nobody is there any more."""
    with contextlib.suppress(Unavailable):
        async with framed(address) as frames:
            async for frame in frames:
                yield frame
