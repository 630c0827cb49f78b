"""Port forwarding: pairs of SPDY streams, each carried to a port inside the pod."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable

from sagong.contracts.streams import Address
from sagong.errors import SagongError
from sagong.model.numbers import natural
from sagong.streams import Link, connected
from sagong_kube.streams.pipe import Pipe
from sagong_kube.streams.session import MessageSocket
from sagong_kube.streams.spdy import DataCame, GoneAway, Spdy, StreamOpened, StreamReset

__all__ = ["PROTOCOL", "TUNNEL", "Dial", "Forwarding", "SocketForwarding", "TunnelPipe"]

PROTOCOL = "portforward.k8s.io"
TUNNEL = "SPDY/3.1+portforward.k8s.io"
_BACKLOG = 64

Dial = Callable[[int], Awaitable[Address]]


class TunnelPipe:
    """SPDY bytes in binary messages of a WebSocket."""

    def __init__(self, socket: MessageSocket) -> None:
        self._socket = socket

    async def read(self) -> bytes:
        """The next message's bytes; empty messages are passed over."""
        while (message := await self._socket.receive()) is not None:
            if message:
                return message.encode() if isinstance(message, str) else message
        return b""

    async def write(self, data: bytes) -> None:
        """One binary message."""
        await self._socket.send(data)

    async def close(self) -> None:
        """Close the WebSocket."""
        await self._socket.close()


class _Pair:
    """One forwarded connection: its data and error streams and what waits to be written."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.data = 0
        self.error = 0
        self.inbox: asyncio.Queue[bytes | None] = asyncio.Queue(_BACKLOG)
        self.task: asyncio.Task[None] | None = None


class Forwarding:
    """All forwarded connections of one client."""

    def __init__(self, pipe: Pipe, dial: Dial) -> None:
        self._pipe = pipe
        self._dial = dial
        self._spdy = Spdy()
        self._pairs: dict[str, _Pair] = {}
        self._by_stream: dict[int, _Pair] = {}
        self._last = 0

    async def run(self) -> None:
        """Serve until the client goes."""
        try:
            while data := await self._pipe.read():
                replies = bytearray()
                for event in self._spdy.feed(data):
                    await self._handle(event, replies)
                replies += self._spdy.answers()
                if replies:
                    await self._pipe.write(bytes(replies))
        finally:
            tasks = [pair.task for pair in self._pairs.values() if pair.task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._pipe.close()

    async def _handle(self, event: object, replies: bytearray) -> None:
        match event:
            case StreamOpened():
                self._open(event, replies)
            case DataCame() if event.stream in self._by_stream:
                await self._data(self._by_stream[event.stream], event)
            case StreamReset() if event.stream in self._by_stream:
                self._end(self._by_stream[event.stream])
            case GoneAway():
                return

    def _open(self, event: StreamOpened, replies: bytearray) -> None:
        kind, port = event.headers.get("streamtype", ""), natural(event.headers.get("port", ""))
        if kind not in ("data", "error") or port is None or not 0 < port < 65536:
            replies += self._spdy.reset(event.stream, 3)
            return
        self._last = max(self._last, event.stream)
        # Clients before 1.5 send no request id; then a data stream follows its error stream.
        request = event.headers.get("requestid") or str((event.stream - 1) // 4)
        pair = self._pairs.setdefault(request, _Pair(port))
        self._by_stream[event.stream] = pair
        replies += self._spdy.reply(event.stream)
        if kind == "error":
            pair.error = event.stream
        else:
            pair.data = event.stream
        if pair.data and pair.error and pair.task is None:
            pair.task = asyncio.ensure_future(self._forward(request, pair))

    async def _data(self, pair: _Pair, event: DataCame) -> None:
        if event.stream == pair.data:
            if event.data:
                await pair.inbox.put(event.data)
            if event.fin:
                await pair.inbox.put(None)

    def _end(self, pair: _Pair) -> None:
        if pair.task is not None:
            pair.task.cancel()

    async def _forward(self, request: str, pair: _Pair) -> None:
        try:
            address = await self._dial(pair.port)
            async with connected(address) as target:
                await self._carry(pair, target)
            await self._pipe.write(self._spdy.data(pair.error, b"", fin=True))
        except SagongError as error:
            text = f"error forwarding port {pair.port} to pod: {error.message}".encode()
            await self._pipe.write(self._spdy.data(pair.error, text, fin=True))
            await self._pipe.write(self._spdy.reset(pair.data))
        finally:
            self._forget(request, pair)

    def _forget(self, request: str, pair: _Pair) -> None:
        self._pairs.pop(request, None)
        self._by_stream.pop(pair.data, None)
        self._by_stream.pop(pair.error, None)
        # The reader may be waiting for room in this inbox.
        while not pair.inbox.empty():
            pair.inbox.get_nowait()

    async def _carry(self, pair: _Pair, target: Link) -> None:
        inward = asyncio.ensure_future(self._inward(pair, target))
        try:
            while data := await target.read():
                await self._pipe.write(self._spdy.data(pair.data, data))
            await self._pipe.write(self._spdy.data(pair.data, b"", fin=True))
        finally:
            inward.cancel()
            await asyncio.gather(inward, return_exceptions=True)

    @staticmethod
    async def _inward(pair: _Pair, target: Link) -> None:
        while (data := await pair.inbox.get()) is not None:
            await target.write(data)
        target.end()


class SocketForwarding:
    """The older WebSocket form: two channels a port, numbered in the query's order."""

    def __init__(self, socket: MessageSocket, ports: list[int], dial: Dial) -> None:
        self._socket = socket
        self._ports = ports
        self._dial = dial

    async def run(self) -> None:
        """Serve until the client goes or every port has ended."""
        inboxes: list[asyncio.Queue[bytes]] = [asyncio.Queue(_BACKLOG) for _ in self._ports]
        for at, port in enumerate(self._ports):
            head = struct.pack("<H", port)
            await self._socket.send(bytes((2 * at,)) + head)
            await self._socket.send(bytes((2 * at + 1,)) + head)
        tasks = [
            asyncio.ensure_future(self._forward(at, port, inboxes[at]))
            for at, port in enumerate(self._ports)
        ]
        try:
            while (message := await self._socket.receive()) is not None:
                raw = message.encode() if isinstance(message, str) else message
                if raw and raw[0] % 2 == 0 and raw[0] // 2 < len(inboxes):
                    await inboxes[raw[0] // 2].put(raw[1:])
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._socket.close()

    async def _forward(self, at: int, port: int, inbox: asyncio.Queue[bytes]) -> None:
        try:
            async with connected(await self._dial(port)) as target:
                inward = asyncio.ensure_future(_pour(inbox, target))
                try:
                    while data := await target.read():
                        await self._socket.send(bytes((2 * at,)) + data)
                finally:
                    inward.cancel()
                    await asyncio.gather(inward, return_exceptions=True)
        except SagongError as error:
            text = f"error forwarding port {port} to pod: {error.message}".encode()
            await self._socket.send(bytes((2 * at + 1,)) + text)


async def _pour(inbox: asyncio.Queue[bytes], target: Link) -> None:
    while True:
        await target.write(await inbox.get())
