"""Byte streams beside the bus: a Unix socket where one-time tokens fetch or bring bytes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from sagong.contracts.streams import Address
from sagong.errors import InvalidArgument, ResourceExhausted, SagongError
from sagong_image_overlay.room import CHECK_EVERY, check_room

__all__ = ["Streams", "Upload", "in_thread"]

T = TypeVar("T")
Serve = Callable[[socket.socket], Awaitable[None]]
_TOKEN_SECONDS = 30.0
_UPLOAD_SECONDS = 60.0
_LINE = 256
_TOKEN = 32
_CHUNK = 1 << 18
_MOST = 256


@dataclass(slots=True)
class Upload:
    """Bytes that were sent here: a file, and what went wrong with it, when `done`."""

    path: Path
    begun: asyncio.Event
    done: asyncio.Future[None] = field(repr=False)
    timer: asyncio.TimerHandle | None = None


class Streams:
    """Listens; hands out tokens; spools uploads to files."""

    def __init__(self, path: Path, spool: Path, reserve: int) -> None:
        self._path = path
        self._spool = spool
        self._reserve = reserve
        self._socket: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._offers: dict[str, tuple[Serve, asyncio.TimerHandle]] = {}
        self._uploads: dict[str, Upload] = {}

    def start(self) -> None:
        """Listen. The directory decides who gets here, the token what they get."""
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
        for token in list(self._uploads):
            self._drop(token)
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
        return bool(self._offers or self._uploads) or len(self._tasks) > 1

    def _own(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def offer(self, serve: Serve) -> Address:
        """An address whose connection is given to `serve`, which may block on it in a child."""
        if len(self._offers) >= _MOST:
            raise ResourceExhausted(f"{_MOST} streams wait to be fetched already")
        token = secrets.token_urlsafe(24)
        loop = asyncio.get_running_loop()
        timer = loop.call_later(_TOKEN_SECONDS, self._offers.pop, token, None)
        self._offers[token] = (serve, timer)
        return Address(path=str(self._path), token=token)

    def new_file(self) -> Path:
        """A path for something that comes otherwise; who asks deletes it."""
        return self._spool / f"file-{secrets.token_hex(8)}"

    def new_upload(self) -> Address:
        """An address to send bytes to."""
        loop = asyncio.get_running_loop()
        path = self._spool / f"upload-{secrets.token_hex(8)}"
        upload = Upload(path, asyncio.Event(), loop.create_future())
        # An error that nobody waits for is no fault.
        upload.done.add_done_callback(lambda future: future.cancelled() or future.exception())
        address = self.offer(lambda peer: self._receive(address.token, upload, peer))
        upload.timer = loop.call_later(_UPLOAD_SECONDS, self._drop, address.token)
        self._uploads[address.token] = upload
        return address

    @contextlib.asynccontextmanager
    async def taken(self, token: str) -> AsyncIterator[Path]:
        """The file of an upload, when it is complete; it is deleted afterwards."""
        upload = self._uploads.pop(token, None)
        if upload is None:
            raise InvalidArgument("there is no such upload: it was taken or dropped already")
        if upload.timer is not None:
            upload.timer.cancel()
        try:
            async with asyncio.timeout(_TOKEN_SECONDS):
                await upload.begun.wait()
            await asyncio.shield(upload.done)
            yield upload.path
        except TimeoutError:
            raise InvalidArgument("nobody sent the upload's bytes within 30 seconds") from None
        finally:
            upload.done.cancel()
            upload.path.unlink(missing_ok=True)

    def _drop(self, token: str) -> None:
        upload = self._uploads.pop(token, None)
        if upload is not None:
            if upload.timer is not None:
                upload.timer.cancel()
            upload.done.cancel()
            upload.path.unlink(missing_ok=True)

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            peer, _ = await loop.sock_accept(listening)
            peer.setblocking(False)
            self._own(self._greet(peer))

    async def _greet(self, peer: socket.socket) -> None:
        with peer:
            try:
                async with asyncio.timeout(_TOKEN_SECONDS):
                    token = await _line(peer)
                found = self._offers.pop(token, None)
                if found is None:
                    return
                serve, timer = found
                timer.cancel()
                await serve(peer)
            except (OSError, TimeoutError, SagongError):
                # The peer went away or sent rubbish: the cut stream tells it enough.
                return

    async def _receive(self, token: str, upload: Upload, peer: socket.socket) -> None:
        upload.begun.set()
        if upload.timer is not None:
            upload.timer.cancel()
        try:
            with upload.path.open("wb", buffering=0) as file:
                await self._spooled(upload, file.fileno(), peer)
        except (OSError, ResourceExhausted) as error:
            text = error.message if isinstance(error, SagongError) else error.strerror
            if not upload.done.done():
                reason = ResourceExhausted(f"the upload can't be kept: {text}")
                upload.done.set_exception(reason)
            # What has come makes room; who sends first and asks then is told when it asks.
            upload.path.unlink(missing_ok=True)
            await _discarded(peer)
        if not upload.done.done():
            upload.done.set_result(None)
        if token in self._uploads:
            loop = asyncio.get_running_loop()
            upload.timer = loop.call_later(_UPLOAD_SECONDS, self._drop, token)

    async def _spooled(self, upload: Upload, target: int, peer: socket.socket) -> None:
        loop, unchecked = asyncio.get_running_loop(), 0
        buffer = bytearray(_CHUNK)
        view = memoryview(buffer)
        while count := await loop.sock_recv_into(peer, buffer):
            if upload.done.cancelled():
                return
            _write_all(target, view[:count])
            unchecked += count
            if unchecked > CHECK_EVERY:
                unchecked = 0
                check_room(target, self._reserve)


async def in_thread(function: Callable[..., T], *arguments: Any) -> T:
    """`to_thread` for work that must not go on behind its caller: a cancelled one waits for its end."""
    task = asyncio.ensure_future(asyncio.to_thread(function, *arguments))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


async def _discarded(peer: socket.socket) -> None:
    buffer = bytearray(_CHUNK)
    with contextlib.suppress(OSError):
        while await asyncio.get_running_loop().sock_recv_into(peer, buffer):
            continue


def _write_all(target: int, data: memoryview) -> None:
    while data:
        data = data[os.write(target, data) :]


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
