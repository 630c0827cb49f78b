"""Host processes whose output is kept, replayed and followed, for the fake node."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import secrets
import signal
import struct
import termios
from collections.abc import Awaitable, Callable
from pathlib import Path

from sagong.contracts.streams import Address
from sagong.errors import NotFound
from sagong.frames import Frame, FrameReader, pack

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Doors:
    """Addresses with tokens, on one Unix socket."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.waiting: dict[str, Serve] = {}
        self.server: asyncio.Server | None = None
        self.tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self.server = await asyncio.start_unix_server(self.accept, str(self.path))

    async def stop(self) -> None:
        if self.server is not None:
            self.server.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    def offer(self, serve: Serve) -> Address:
        token = secrets.token_hex(8)
        self.waiting[token] = serve
        return Address(path=str(self.path), token=token, protocol="frames")

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        try:
            token = (await reader.readline()).decode().strip()
            with contextlib.suppress(ConnectionError, KeyError):
                await self.waiting.pop(token)(reader, writer)
        finally:
            self.tasks.discard(task)
            writer.close()


class FakeProcess:
    """One run of a program."""

    def __init__(self, *, tty: bool, stdin: bool) -> None:
        self.tty = tty
        self.stdin = stdin
        self.output: list[tuple[int, bytes]] = []
        self.changed = asyncio.Event()
        self.code: int | None = None
        self.pid = 0
        self.ended = asyncio.Event()
        self.size = (0, 0)
        self.held = False
        self._process: asyncio.subprocess.Process | None = None
        self._master = -1

    async def run(self, args: tuple[str, ...], env: tuple[str, ...], cwd: str) -> None:
        """Start it; errors in the runtime's words."""
        slave = -1
        if self.tty:
            self._master, slave = pty.openpty()
        pipe = asyncio.subprocess.PIPE
        try:
            self._process = await asyncio.create_subprocess_exec(
                *args,
                stdin=slave if self.tty else pipe if self.stdin else asyncio.subprocess.DEVNULL,
                stdout=slave if self.tty else pipe,
                stderr=slave if self.tty else pipe,
                env={"PATH": os.environ["PATH"], **dict(e.partition("=")[::2] for e in env)},
                cwd=cwd if os.path.isdir(cwd) else "/",
                start_new_session=True,
            )
        except FileNotFoundError:
            raise NotFound(f'exec: "{args[0]}": executable file not found in $PATH') from None
        finally:
            if slave >= 0:
                os.close(slave)
        self.pid = self._process.pid
        self.reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self._process is not None
        if self.tty:
            loop = asyncio.get_running_loop()
            while True:
                try:
                    data = await loop.run_in_executor(None, os.read, self._master, 4096)
                except OSError:
                    break
                if not data:
                    break
                self._put(Frame.STDOUT, data)
        else:
            await asyncio.gather(
                self._pump(Frame.STDOUT, self._process.stdout),
                self._pump(Frame.STDERR, self._process.stderr),
            )
        code = await self._process.wait()
        self.code = 128 - code if code < 0 else code
        self.ended.set()
        self._put(Frame.EXIT, struct.pack(">i", self.code))

    async def _pump(self, kind: int, reader: asyncio.StreamReader | None) -> None:
        assert reader is not None
        while data := await reader.read(4096):
            self._put(kind, data)

    def _put(self, kind: int, data: bytes) -> None:
        self.output.append((kind, data))
        self.changed.set()
        self.changed = asyncio.Event()

    def signal(self, number: int) -> None:
        if self._process is not None and self.code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def kill(self) -> None:
        self.signal(signal.SIGKILL)
        await self.ended.wait()

    def resize(self, rows: int, columns: int) -> None:
        self.size = (rows, columns)
        if self._master >= 0:
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def attach(self, *, stdin: bool, replay: bool, places: bool = False) -> Serve:
        """A server of one attachment; a log tells its `places`, too."""
        position = 0 if replay or self.held else len(self.output)
        self.held = False

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            sending = asyncio.create_task(self._take(reader, stdin))
            at = position
            try:
                while True:
                    while at < len(self.output):
                        kind, data = self.output[at]
                        at += 1
                        writer.write(pack(kind, data))
                        if places:
                            writer.write(pack(Frame.PLACE, str(at).encode()))
                        await writer.drain()
                        if kind == Frame.EXIT:
                            return
                    await self.changed.wait()
            finally:
                sending.cancel()

        return serve

    async def _take(self, reader: asyncio.StreamReader, stdin: bool) -> None:
        frames = FrameReader()
        while data := await reader.read(4096):
            for kind, payload in frames.feed(data):
                if stdin and kind == Frame.STDIN:
                    self._write(payload)
                elif stdin and kind == Frame.EOF and self._process and self._process.stdin:
                    self._process.stdin.close()

    def _write(self, payload: bytes) -> None:
        if self._master >= 0:
            os.write(self._master, payload)
        elif self._process is not None and self._process.stdin is not None:
            self._process.stdin.write(payload)
