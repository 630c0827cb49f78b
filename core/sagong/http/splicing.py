"""Bytes from one socket to another inside of the kernel (splice(2)): pages move, nothing is copied.

For bodies that another process holds: it sends a file into a Unix socket, and the pages go on to the
client from there without passing through Python.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import os
import select
import socket
from collections.abc import Callable

__all__ = ["send_file", "splice", "wait_readable"]

_PIECE = 1 << 20
_SENT = 32 << 20
_PAUSE = 2
# os.SPLICE_F_MOVE and SPLICE_F_NONBLOCK (fcntl.h); Python has them since 3.10.
_FLAGS = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK


async def splice(source: socket.socket, target: int, length: int) -> int:
    """Move at most `length` bytes; fewer when the source ends. Both descriptors are non-blocking.

    OSError tells of the target alone: what the source breaks off with is its end.
    """
    outlet, inlet = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        with contextlib.suppress(PermissionError):  # many pipes: those that come last stay small
            fcntl.fcntl(inlet, fcntl.F_SETPIPE_SZ, _PIECE)
        moved = 0
        while moved < length:
            count = await _fill(source, inlet, min(_PIECE, length - moved))
            if not count:
                break
            await _drain(outlet, target, count)
            moved += count
        return moved
    finally:
        os.close(outlet)
        os.close(inlet)


async def send_file(source: int, offset: int, target: int, length: int) -> int:
    """Send at most `length` bytes of a file from `offset` on to a non-blocking socket.

    Fewer when the file ends. It is done in a thread, since the file may have to come from the disk;
    a client that keeps up is served there without a way back to the loop for each buffer.
    """
    loop, moved = asyncio.get_running_loop(), 0
    while moved < length:
        count = min(_SENT, length - moved)
        sent, ended = await asyncio.to_thread(_burst, target, source, offset + moved, count)
        moved += sent
        if ended:
            break
        if sent < count:
            await _ready(target, loop.add_writer, loop.remove_writer)
    return moved


def _burst(target: int, source: int, offset: int, count: int) -> tuple[int, bool]:
    """What the socket takes without a pause of milliseconds; and whether the file ended."""
    room, moved = select.poll(), 0
    room.register(target, select.POLLOUT)
    while moved < count:
        try:
            sent = os.sendfile(target, source, offset + moved, count - moved)
        except BlockingIOError:
            if not room.poll(_PAUSE):
                break
            continue
        if not sent:
            return moved, True
        moved += sent
    return moved, False


async def _fill(source: socket.socket, inlet: int, count: int) -> int:
    """Some bytes from the source into the pipe."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            return os.splice(source.fileno(), inlet, count, flags=_FLAGS)
        except BlockingIOError:
            await _ready(source.fileno(), loop.add_reader, loop.remove_reader)
        except ConnectionError:
            return 0


async def _drain(outlet: int, target: int, count: int) -> None:
    """All that is in the pipe to the target."""
    loop = asyncio.get_running_loop()
    while count:
        try:
            count -= os.splice(outlet, target, count, flags=_FLAGS)
        except BlockingIOError:
            await _ready(target, loop.add_writer, loop.remove_writer)


async def wait_readable(descriptor: int) -> None:
    """Wait until the descriptor can be read."""
    loop = asyncio.get_running_loop()
    await _ready(descriptor, loop.add_reader, loop.remove_reader)


async def _ready(
    descriptor: int,
    watch: Callable[[int, Callable[[], object]], None],
    unwatch: Callable[[int], bool],
) -> None:
    """Wait until the descriptor can be read, or written."""
    ready = asyncio.get_running_loop().create_future()
    watch(descriptor, functools.partial(_wake, ready))
    try:
        await ready
    finally:
        unwatch(descriptor)


def _wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
