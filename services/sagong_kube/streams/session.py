"""Exec and attach sessions: channels 0–4 over WebSocket subprotocols or SPDY streams."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from enum import IntEnum
from typing import Any, Protocol

import msgspec

from sagong.errors import DeadlineExceeded, InvalidArgument
from sagong_kube.streams.pipe import Pipe
from sagong_kube.streams.spdy import DataCame, Spdy, StreamOpened, StreamReset

__all__ = [
    "BROKEN",
    "SPDY_PROTOCOLS",
    "WEBSOCKET_PROTOCOLS",
    "Channel",
    "Message",
    "MessageSocket",
    "Session",
    "SocketSession",
    "SpdySession",
    "broken_status",
    "choose",
    "exit_status",
    "plain_exit",
    "terminal_size",
]

WEBSOCKET_PROTOCOLS = (
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "channel.k8s.io",
    "base64.channel.k8s.io",
)
SPDY_PROTOCOLS = (
    "v4.channel.k8s.io",
    "v3.channel.k8s.io",
    "v2.channel.k8s.io",
    "channel.k8s.io",
)
_CLOSE = 255
_STREAMS_SECONDS = 30.0


class Channel(IntEnum):
    """Channels by their WebSocket numbers."""

    STDIN = 0
    STDOUT = 1
    STDERR = 2
    ERROR = 3
    RESIZE = 4


class Message(msgspec.Struct, frozen=True):
    """Bytes of a channel from the client; `closed` ends its direction."""

    channel: Channel
    data: bytes = b""
    closed: bool = False


class MessageSocket(Protocol):
    """A WebSocket: whole messages, None when the peer is gone."""

    async def receive(self) -> bytes | str | None:
        """The next message."""
        ...

    async def wait_reader(self) -> None:
        """Wait until the peer answers, while somebody receives; not for ever."""
        ...

    async def send(self, message: bytes | str) -> None:
        """Send a message; text for str."""
        ...

    async def close(self) -> None:
        """Close normally."""
        ...


class Session(Protocol):
    """One exec or attach, whatever it runs over."""

    @property
    def plain_errors(self) -> bool:
        """Whether the error channel takes text instead of a Status (old protocols)."""
        ...

    async def receive(self) -> Message | None:
        """What the client sends next; None when it is gone."""
        ...

    async def wait_reader(self) -> None:
        """Wait until the client takes what is sent, while somebody receives."""
        ...

    async def send(self, channel: Channel, data: bytes) -> None:
        """Send to the client."""
        ...

    async def finish(self) -> None:
        """End all channels, then the connection."""
        ...


def choose(offered: Sequence[str], known: Sequence[str]) -> str | None:
    """The first protocol of `offered` that is known; "" when the client names none."""
    if not offered:
        return ""
    return next((name for name in offered if name in known), None)


def terminal_size(data: bytes) -> tuple[int, int] | None:
    """(rows, columns) of a message on the resize channel; None if it isn't one."""
    try:
        size: Any = msgspec.json.decode(data)
        return int(size["Height"]), int(size["Width"])
    except (msgspec.DecodeError, KeyError, TypeError, ValueError):
        return None


class SocketSession:
    """Channels multiplexed by a first byte of each WebSocket message."""

    def __init__(self, socket: MessageSocket, protocol: str) -> None:
        self._socket = socket
        self._base64 = "base64" in protocol
        self._closes = protocol.startswith("v5.")
        self.plain_errors = not protocol.startswith(("v4.", "v5."))

    async def wait_reader(self) -> None:
        """Until a ping is answered: kubectl 1.32 reads beside the making of its channels, drops
        what comes for one that it has not yet made, and ends with 0 all the same.
        """
        await self._socket.wait_reader()

    async def receive(self) -> Message | None:
        """The client's next message; unknown channels are passed over."""
        while (raw := await self._socket.receive()) is not None:
            message = self._read(raw)
            if message is not None:
                return message
        return None

    def _read(self, raw: bytes | str) -> Message | None:
        if self._base64:
            text = raw if isinstance(raw, str) else raw.decode("ascii", "replace")
            number = ord(text[0]) - ord("0") if text else -1
            data = base64.b64decode(text[1:] or "")
        else:
            binary = raw.encode() if isinstance(raw, str) else raw
            number, data = (binary[0], binary[1:]) if binary else (-1, b"")
        if self._closes and number == _CLOSE and data and data[0] in list(Channel):
            return Message(Channel(data[0]), closed=True)
        return Message(Channel(number), data) if number in list(Channel) else None

    async def send(self, channel: Channel, data: bytes) -> None:
        """One message a piece."""
        if self._base64:
            await self._socket.send(chr(ord("0") + channel) + base64.b64encode(data).decode())
        else:
            await self._socket.send(bytes((channel,)) + data)

    async def finish(self) -> None:
        """Close the WebSocket."""
        await self._socket.close()


_BY_HEADER = {
    "stdin": Channel.STDIN,
    "stdout": Channel.STDOUT,
    "stderr": Channel.STDERR,
    "error": Channel.ERROR,
    "resize": Channel.RESIZE,
}


class SpdySession:
    """A SPDY stream for each channel, opened by the client."""

    def __init__(self, pipe: Pipe, protocol: str) -> None:
        self._pipe = pipe
        self._spdy = Spdy()
        self._streams: dict[Channel, int] = {}
        self._channels: dict[int, Channel] = {}
        self._ready: list[Message] = []
        self.plain_errors = not protocol.startswith("v4.")

    async def wait_streams(self, channels: Sequence[Channel]) -> None:
        """Wait until the client has opened all these."""
        try:
            async with asyncio.timeout(_STREAMS_SECONDS):
                while not all(channel in self._streams for channel in channels):
                    if not await self._pump():
                        raise InvalidArgument("the client went before it opened all streams")
        except TimeoutError:
            names = ", ".join(c.name.lower() for c in channels if c not in self._streams)
            raise DeadlineExceeded(
                f"timed out waiting for client to create streams: {names}"
            ) from None

    async def wait_reader(self) -> None:
        """It has opened its streams."""

    async def _pump(self) -> bool:
        data = await self._pipe.read()
        if not data:
            return False
        replies = bytearray()
        for event in self._spdy.feed(data):
            match event:
                case StreamOpened():
                    self._open(event, replies)
                case DataCame() if event.stream in self._channels:
                    channel = self._channels[event.stream]
                    if event.data:
                        self._ready.append(Message(channel, event.data))
                    if event.fin:
                        self._ready.append(Message(channel, closed=True))
                case StreamReset() if event.stream in self._channels:
                    self._ready.append(Message(self._channels[event.stream], closed=True))
        replies += self._spdy.answers()
        if replies:
            await self._pipe.write(bytes(replies))
        return True

    def _open(self, event: StreamOpened, replies: bytearray) -> None:
        channel = _BY_HEADER.get(event.headers.get("streamtype", ""))
        if channel is None or channel in self._streams:
            replies += self._spdy.reset(event.stream, 3)
            return
        self._streams[channel] = event.stream
        self._channels[event.stream] = channel
        replies += self._spdy.reply(event.stream)
        if event.fin:
            self._ready.append(Message(channel, closed=True))

    async def receive(self) -> Message | None:
        """The client's next bytes."""
        while not self._ready:
            if not await self._pump():
                return None
        return self._ready.pop(0)

    async def send(self, channel: Channel, data: bytes) -> None:
        """Bytes on the channel's stream; nothing if the client opened none."""
        stream = self._streams.get(channel)
        if stream is not None and data:
            await self._pipe.write(self._spdy.data(stream, data))

    async def finish(self) -> None:
        """End what we send on, then the connection."""
        for channel, stream in self._streams.items():
            if channel not in (Channel.STDIN, Channel.RESIZE):
                await self._pipe.write(self._spdy.data(stream, b"", fin=True))
        await self._pipe.write(self._spdy.goaway(max(self._channels, default=0)))
        await self._pipe.close()


def exit_status(code: int) -> bytes:
    """What the error channel says of a process that ended."""
    if code == 0:
        return msgspec.json.encode({"metadata": {}, "status": "Success"})
    return msgspec.json.encode(
        {
            "metadata": {},
            "status": "Failure",
            "message": f"command terminated with non-zero exit code: exit status {code}",
            "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
        }
    )


BROKEN = "Internal error occurred: the stream of the process broke before it ended"


def broken_status() -> bytes:
    """What the error channel says when the node's stream ended without the process's end."""
    return msgspec.json.encode(
        {
            "metadata": {},
            "status": "Failure",
            "message": BROKEN,
            "reason": "InternalError",
            "code": 500,
        }
    )


def plain_exit(code: int) -> bytes:
    """The same for protocols before v4."""
    text = f"command terminated with non-zero exit code: exit status {code}"
    return b"" if code == 0 else text.encode()
