"""Byte streams that node itself gives: logs and forwarded ports, over its own Unix socket."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path

from sagong.contracts.streams import Address
from sagong.errors import ResourceExhausted, SagongError

__all__ = ["Serve", "StreamServer"]

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
_TOKEN_SECONDS = 30.0
_WAITING = 4096


class StreamServer:
    """Tokens are good once, and for thirty seconds.

    Each process listens at a path of its own, so that what a predecessor has offered is still fetched
    there while it is tidied up beside its successor.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path = directory / f"streams-{secrets.token_hex(4)}.sock"
        self._waiting: dict[str, tuple[Serve, asyncio.TimerHandle, bool]] = {}
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._lasting: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen; directories decide who can connect, tokens who may."""
        self._server = await asyncio.start_unix_server(self._accept, str(self._path), limit=1 << 18)
        os.chmod(self._path, 0o666)

    async def sweep(self) -> None:
        """Remove the sockets of processes that died."""
        for path in self._directory.glob("streams*.sock"):
            if path == self._path:
                continue
            try:
                _, writer = await asyncio.open_unix_connection(str(path))
                writer.close()
            except FileNotFoundError:
                continue
            except OSError:
                path.unlink(missing_ok=True)

    async def stop(self) -> None:
        """Close; streams that run are ended."""
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def wait_idle(self, seconds: float) -> None:
        """Wait until no stream runs but those whose readers go on with a successor."""
        if ending := self._tasks - self._lasting:
            await asyncio.wait(ending, timeout=seconds)

    def offer(self, serve: Serve, protocol: str, *, lasting: bool = False) -> Address:
        """An address at which `serve` will be called with the connection.

        `lasting` streams have no end of their own and can be cut: their readers know how to go on.
        """
        if len(self._waiting) >= _WAITING:
            raise ResourceExhausted(f"{_WAITING} streams wait to be fetched; fetch some first")
        token = secrets.token_hex(16)
        timer = asyncio.get_running_loop().call_later(_TOKEN_SECONDS, self._waiting.pop, token)
        self._waiting[token] = (serve, timer, lasting)
        return Address(path=str(self._path), token=token, protocol=protocol)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            async with asyncio.timeout(_TOKEN_SECONDS):
                line = await reader.readline()
            found = self._waiting.pop(line.decode(errors="replace").strip(), None)
            if found is not None:
                serve, timer, lasting = found
                timer.cancel()
                if lasting:
                    self._lasting.add(task)
                await serve(reader, writer)
        except (OSError, ValueError, SagongError, asyncio.CancelledError):
            pass  # the client is gone, or never said who it is, or is told enough by the cut
        finally:
            self._tasks.discard(task)
            self._lasting.discard(task)
            writer.close()
