"""Byte streams beside the bus: a Unix socket where one-time tokens fetch or bring bytes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from sagong.call import carried
from sagong.contracts.streams import KEPT, Address
from sagong.errors import InvalidArgument, ResourceExhausted, SagongError
from sagong_image_overlay.uploads import Uploads

__all__ = ["Streams", "in_thread"]

T = TypeVar("T")
Serve = Callable[[socket.socket], Awaitable[None]]
_TOKEN_SECONDS = 30.0
_LINE = 256
_TOKEN = 32
_MOST = 256
_EXHAUSTED_SECONDS = 0.1


class Streams:
    """Listens; hands out tokens, gives connections to who offered them or waits for an upload."""

    def __init__(self, path: Path, spool: Path, uploads: Uploads) -> None:
        self._path = path
        self._spool = spool
        self.uploads = uploads
        self._socket: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._offers: dict[str, tuple[Serve, asyncio.TimerHandle]] = {}

    def start(self) -> None:
        """Listen. The directory decides who gets here, the token what they get."""
        self.uploads.start()
        self._path.unlink(missing_ok=True)
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(self._path))
        os.chmod(self._path, 0o666)
        listening.listen(64)
        listening.setblocking(False)
        self._socket = listening
        self._own(self._accept(listening))

    async def stop(self) -> None:
        """Close everything, cut what is being sent."""
        for _, timer in self._offers.values():
            timer.cancel()
        self.uploads.stop()
        tasks, self._tasks = self._tasks, set()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._socket is not None:
            self._socket.close()
            self._path.unlink(missing_ok=True)

    @property
    def used(self) -> bool:
        """Whether something is sent, or may be: one task is the acceptor's."""
        return bool(self._offers or self.uploads) or len(self._tasks) > 1

    def _own(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def offer(self, serve: Serve, protocol: str = "raw") -> Address:
        """An address whose connection is given to `serve`, which may block on it in a child.

        What is "whole" comes to its end with `serve`; where that fails, the connection is reset.
        """
        if len(self._offers) >= _MOST:
            raise ResourceExhausted(f"{_MOST} streams wait to be fetched already")
        token = secrets.token_urlsafe(24)
        loop = asyncio.get_running_loop()
        timer = loop.call_later(_TOKEN_SECONDS, self._offers.pop, token, None)
        self._offers[token] = (serve, timer)
        return Address(path=str(self._path), token=token, protocol=protocol)

    def new_file(self) -> Path:
        """A path for something that comes otherwise; who asks deletes it."""
        return self._spool / f"file-{secrets.token_hex(8)}"

    def new_upload(self) -> Address:
        """An address to send bytes to, more than once if need be."""
        token = secrets.token_urlsafe(24)
        self.uploads.new(token)
        return Address(path=str(self._path), token=token, protocol="upload")

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                peer, _ = await loop.sock_accept(listening)
            except OSError:
                # No descriptor is free; or who came has gone again. The others wait in the queue.
                await asyncio.sleep(_EXHAUSTED_SECONDS)
                continue
            peer.setblocking(False)
            self._own(self._greet(peer))

    async def _greet(self, peer: socket.socket) -> None:
        with peer:
            try:
                async with asyncio.timeout(_TOKEN_SECONDS):
                    token = await _line(peer)
                if self.uploads.expects(token):
                    await self.uploads.receive(token, peer)
                    return
                if self.uploads.has(token):
                    await asyncio.get_running_loop().sock_sendall(peer, KEPT)
                    return
                found = self._offers.pop(token, None)
                if found is not None:
                    serve, timer = found
                    timer.cancel()
                    await serve(peer)
                    _take_last(peer)
            except (OSError, TimeoutError, SagongError):
                # The peer went away or sent rubbish: the cut stream tells it enough.
                return


async def in_thread(function: Callable[..., T], *arguments: Any) -> T:
    """`to_thread` for work that must not go on behind its caller: a cancelled one waits for its end."""
    task = asyncio.ensure_future(asyncio.to_thread(function, *arguments))
    try:
        return await carried(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


def _take_last(peer: socket.socket) -> None:
    """The byte that came with the token of what is to be whole."""
    peer.setblocking(False)
    with contextlib.suppress(OSError):
        peer.recv(1)


async def _line(peer: socket.socket) -> str:
    """The first line, and not a byte more."""
    loop = asyncio.get_running_loop()
    raw = b""
    while not raw.endswith(b"\n"):
        if len(raw) > _LINE:
            raise InvalidArgument("the first line is no token")
        byte = await loop.sock_recv(peer, max(1, _TOKEN - len(raw)))
        if not byte:
            raise InvalidArgument("the peer closed before it sent a token")
        raw += byte
    return raw[:-1].decode("ascii", "replace")
