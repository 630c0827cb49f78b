"""Files that come in by raw streams: uploads of contexts, and what is fetched for a build.

An upload is begun by its token. Files lie in one directory, which is emptied at the start.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sagong.contracts.streams import Address
from sagong.errors import InvalidArgument, ResourceExhausted

__all__ = ["Spool", "room"]

_TOKEN_SECONDS = 30.0
_KEPT_SECONDS = 60.0
_MOST = 256
_READ = 1 << 18
_LINE = 200

# What a disk says that takes no more.
_FULL = frozenset((errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOSPC, errno.EROFS))
Converse = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.contextmanager
def room() -> Iterator[None]:
    """ResourceExhausted where the disk of contexts and archives takes no more."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        reason = os.strerror(error.errno or 0)
        raise ResourceExhausted(f"the builder can't write what it needs: {reason}") from None


@dataclass
class _Upload:
    path: Path
    done: asyncio.Future[None]
    timer: asyncio.TimerHandle
    begun: bool = False


@dataclass
class Spool:
    """`limit` bounds the bytes of one upload."""

    socket: Path
    directory: Path
    limit: int
    _uploads: dict[str, _Upload] = field(default_factory=dict)
    _talks: dict[str, tuple[Converse, asyncio.TimerHandle]] = field(default_factory=dict)
    _server: asyncio.Server | None = None
    _busy: int = 0
    _idle: asyncio.Event = field(default_factory=asyncio.Event)

    async def start(self) -> None:
        """Listen. The directory decides who gets here, the token what they get."""
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(mode=0o700, parents=True)
        self.socket.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._greet, self.socket, limit=_READ)
        os.chmod(self.socket, 0o666)

    async def stop(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()
            self.socket.unlink(missing_ok=True)
        for token in list(self._uploads):
            self._drop(token)

    def new_upload(self) -> Address:
        """An address to send a context to."""
        token = self._token()
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        # An error that nobody waits for is no fault.
        done.add_done_callback(lambda future: future.cancelled() or future.exception())
        timer = loop.call_later(_TOKEN_SECONDS, self._drop, token)
        self._uploads[token] = _Upload(self.new_file(), done, timer)
        return Address(path=str(self.socket), token=token)

    def new_talk(self, converse: Converse) -> Address:
        """An address whose connection is given to `converse`."""
        token = self._token()
        timer = asyncio.get_running_loop().call_later(_TOKEN_SECONDS, self._forget, token)
        self._talks[token] = (converse, timer)
        return Address(path=str(self.socket), token=token)

    def _forget(self, token: str) -> None:
        self._talks.pop(token, None)
        self._idle.set()

    def _token(self) -> str:
        if len(self._uploads) + len(self._talks) >= _MOST:
            raise ResourceExhausted(f"{_MOST} uploads wait to be built already; try again")
        return secrets.token_urlsafe(24)

    def new_file(self) -> Path:
        """A name for a new file."""
        return self.directory / secrets.token_hex(8)

    @contextlib.contextmanager
    def file(self) -> Iterator[Path]:
        """A name for a file that is deleted with the block."""
        path = self.new_file()
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    @contextlib.asynccontextmanager
    async def taken(self, token: str) -> AsyncIterator[Path]:
        """The file of an upload when it is complete; it is deleted afterwards."""
        upload = self._uploads.get(token)
        if upload is None:
            raise InvalidArgument("there is no such upload: it was taken or dropped already")
        try:
            await asyncio.shield(upload.done)
            self._uploads.pop(token, None)
            upload.timer.cancel()
            yield upload.path
        except asyncio.CancelledError:
            if upload.done.cancelled():
                raise InvalidArgument("nobody sent the context's bytes in time") from None
            raise
        finally:
            self._uploads.pop(token, None)
            self._discard(upload)

    def _drop(self, token: str) -> None:
        upload = self._uploads.pop(token, None)
        if upload is not None:
            self._discard(upload)

    def _discard(self, upload: _Upload) -> None:
        upload.timer.cancel()
        upload.done.cancel()
        upload.path.unlink(missing_ok=True)

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_TOKEN_SECONDS):
                line = await reader.readline()
            token = line[:_LINE].strip().decode("ascii", "replace")
            talk = self._talks.pop(token, None)
            upload = self._uploads.get(token)
            if talk is not None:
                talk[1].cancel()
                await self._talk(talk[0], reader, writer)
            elif upload is not None and not upload.begun:
                await self._receive(token, upload, reader)
        except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError):
            # The peer went away or sent rubbish: the cut stream tells it enough.
            pass
        finally:
            writer.close()

    async def _talk(
        self, converse: Converse, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._busy += 1
        try:
            await converse(reader, writer)
        finally:
            self._busy -= 1
            self._idle.set()

    @property
    def used(self) -> bool:
        """Whether somebody is talked to, or sends a context, or is about to."""
        return bool(self._busy or self._talks or self._uploads)

    async def wait_idle(self) -> None:
        """Until no connection is talked on, and nobody is about to."""
        while self._busy or self._talks:
            self._idle.clear()
            await self._idle.wait()

    async def _receive(self, token: str, upload: _Upload, reader: asyncio.StreamReader) -> None:
        upload.begun = True
        upload.timer.cancel()
        size = 0
        try:
            with upload.path.open("wb", buffering=0) as file:
                while data := await reader.read(_READ):
                    size += len(data)
                    if size > self.limit:
                        raise OSError(0, f"it has more than {self.limit} bytes")
                    file.write(data)
        except OSError as error:
            if not upload.done.done():
                reason = f"the context can't be kept: {error.strerror}"
                upload.done.set_exception(ResourceExhausted(reason))
            return
        if upload.done.cancelled():
            upload.path.unlink(missing_ok=True)
        elif not upload.done.done():
            upload.done.set_result(None)
            loop = asyncio.get_running_loop()
            upload.timer = loop.call_later(_KEPT_SECONDS, self._drop, token)
