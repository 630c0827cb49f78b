"""Requests and answers as values; only the front knows which HTTP server carries them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from sagong_kube.registry.actor import Actor
from sagong_kube.streams.pipe import Pipe
from sagong_kube.streams.session import MessageSocket
from sagong_kube.target import Target

__all__ = [
    "JSON",
    "Answer",
    "Ask",
    "Pieces",
    "Raw",
    "Reply",
    "Socket",
    "Streamed",
    "json_answer",
]

JSON = "application/json"
_ENCODER = msgspec.json.Encoder()


class Ask(msgspec.Struct):
    """A request: `headers` have lower-case names; `body` is read whole before handlers run."""

    method: str
    path: str
    query: Mapping[str, Sequence[str]]
    headers: Mapping[str, str]
    body: bytes = b""
    target: Target = Target(path="", verb="")
    actor: Actor = Actor("")
    request_id: str = ""
    address: str = ""

    def first(self, name: str, default: str = "") -> str:
        """The first value of a query parameter."""
        values = self.query.get(name)
        return values[0] if values else default

    def flag(self, name: str) -> bool:
        """A boolean query parameter, as upstream reads it."""
        values = self.query.get(name)
        return values is not None and values[0].lower() not in ("false", "0", "f")

    @property
    def accepts_gzip(self) -> bool:
        """Whether the answer may be compressed."""
        return "gzip" in self.headers.get("accept-encoding", "")

    @property
    def upgrade(self) -> str:
        """The protocol that the client wants to change to, in lower case."""
        if "upgrade" not in self.headers.get("connection", "").lower():
            return ""
        return self.headers.get("upgrade", "").lower()


class Answer(msgspec.Struct):
    """A whole answer."""

    body: bytes = b""
    status: int = 200
    media: str = JSON
    headers: dict[str, str] = {}
    warnings: tuple[str, ...] = ()


class Pieces(msgspec.Struct):
    """A large answer, made and sent in pieces; compressed when the client accepts that."""

    pieces: Iterable[bytes]
    media: str = JSON
    headers: dict[str, str] = {}


class Streamed(msgspec.Struct):
    """An answer without a known end: watches and followed logs. `stop` is called when we drain."""

    parts: AsyncGenerator[bytes, None]
    media: str = JSON
    headers: dict[str, str] = {}
    status: int = 200
    stop: Callable[[], None] | None = None


class Socket(msgspec.Struct):
    """The connection becomes a WebSocket that `serve` speaks on."""

    protocol: str
    serve: Callable[[MessageSocket], Awaitable[None]]


class Raw(msgspec.Struct):
    """The connection becomes a pipe of bytes after a 101 with these headers."""

    headers: dict[str, str]
    serve: Callable[[Pipe], Awaitable[None]]


Reply = Answer | Pieces | Streamed | Socket | Raw


def json_answer(document: Any, status: int = 200, **headers: str) -> Answer:
    """A document as JSON with the newline that upstream ends with."""
    return Answer(_ENCODER.encode(document) + b"\n", status, JSON, dict(headers))
