"""A node without containers: processes of the test's own machine behind the streams of slot `node`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from sagong.contract import slot_of
from sagong.contracts.node import (
    AttachSpec,
    DialRequest,
    ExecSpec,
    ExecState,
    LogsRequest,
    Node,
    Ref,
)
from sagong.contracts.streams import Address
from sagong.errors import NotFound, Unimplemented
from sagong.frames import Frame, FrameReader, pack

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
CONTAINER = "c" * 64


class FakeNode:
    """One container that exists, whose execs are local processes and whose ports are ours."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._servers: list[asyncio.AbstractServer] = []
        self.log_lines = [(Frame.STDOUT, b"one\n"), (Frame.STDERR, b"two\n")]
        self.logs_asked: list[LogsRequest] = []
        self.sizes: list[tuple[int, int]] = []

    async def _address(self, serve: Serve, protocol: str) -> Address:
        path = str(self._directory / f"{uuid.uuid4().hex[:12]}.sock")
        token = uuid.uuid4().hex

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                if await reader.readline() == token.encode() + b"\n":
                    await serve(reader, writer)
            except ConnectionError:
                pass
            finally:
                writer.close()

        self._servers.append(await asyncio.start_unix_server(handle, path))
        return Address(path=path, token=token, protocol=protocol)

    def __getattr__(self, name: str) -> Any:
        """The slot's other methods are there, and nobody may call them."""
        if name not in slot_of(Node).methods:
            raise AttributeError(name)

        async def refuse(request: Any = None) -> Any:
            raise Unimplemented(f"the API server has no business with node.{name}")

        return refuse

    def close(self) -> None:
        for server in self._servers:
            server.close()

    def _check(self, id: str) -> None:
        if id != CONTAINER:
            raise NotFound(f"No such container: {id}")

    async def inspect(self, ref: Ref) -> Any:
        self._check(ref.id)
        return SimpleNamespace(spec=SimpleNamespace(sandbox="sandbox"))

    async def exec(self, spec: ExecSpec) -> ExecState:
        self._check(spec.id)
        process = await asyncio.create_subprocess_exec(
            *spec.args,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=dict(os.environ),
        )

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._carry(process, reader, writer)

        stream = await self._address(serve, "frames")
        return ExecState(exec_id=spec.exec_id, running=True, pid=process.pid, stream=stream)

    async def _carry(
        self,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        assert process.stdin and process.stdout and process.stderr
        inward = asyncio.ensure_future(self._inward(process.stdin, reader))
        await asyncio.gather(
            _pump(process.stdout, Frame.STDOUT, writer),
            _pump(process.stderr, Frame.STDERR, writer),
        )
        writer.write(pack(Frame.EXIT, struct.pack(">i", await process.wait())))
        await writer.drain()
        inward.cancel()

    async def _inward(self, stdin: asyncio.StreamWriter, reader: asyncio.StreamReader) -> None:
        frames = FrameReader()
        while data := await reader.read(65536):
            for kind, payload in frames.feed(data):
                if kind == Frame.STDIN:
                    stdin.write(payload)
                    with contextlib.suppress(ConnectionError):
                        await stdin.drain()
                elif kind == Frame.EOF:
                    stdin.close()
                elif kind == Frame.RESIZE:
                    self.sizes.append(struct.unpack(">HH", payload))
        stdin.close()

    async def attach(self, spec: AttachSpec) -> Address:
        self._check(spec.id)

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(pack(Frame.STDOUT, b"attached\n"))
            writer.write(pack(Frame.EXIT, struct.pack(">i", 0)))
            await writer.drain()

        return await self._address(serve, "frames")

    async def logs(self, request: LogsRequest) -> Address:
        self._check(request.id)
        self.logs_asked.append(request)

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            for kind, line in self.log_lines:
                writer.write(pack(kind, line))
            writer.write(pack(Frame.EOF))
            await writer.drain()

        return await self._address(serve, "frames")

    async def dial(self, request: DialRequest) -> Address:
        if request.id != "sandbox":
            raise NotFound(f"No such sandbox: {request.id}")

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(65536):
                writer.write(data.upper())
                await writer.drain()
            writer.write(b"BYE")
            await writer.drain()

        return await self._address(serve, "raw")


async def _pump(source: asyncio.StreamReader, kind: Frame, writer: asyncio.StreamWriter) -> None:
    while data := await source.read(65536):
        writer.write(pack(kind, data))
        await writer.drain()


@contextlib.asynccontextmanager
async def fake_node(directory: Path) -> AsyncIterator[FakeNode]:
    node = FakeNode(directory)
    try:
        yield node
    finally:
        node.close()
