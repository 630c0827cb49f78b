"""A request as a handler sees it, and its three ways to answer beyond returning a `Response`."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable
from functools import cached_property
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote

import msgspec

from sagong.errors import InvalidArgument, ResourceExhausted
from sagong.http.body import Body
from sagong.http.head import Head, HeaderItems

if TYPE_CHECKING:
    from sagong.http.connection import Connection, Stream
    from sagong.http.raw import RawStream
    from sagong.http.websocket import WebSocket

__all__ = ["Peer", "Query", "Request", "Response"]


class Peer(msgspec.Struct, frozen=True):
    """Who is at the other end, as the operating system and TLS tell.

    `uid`, `gid` and `pid` are of a Unix socket's client, else -1. `certificate` is the client's
    verified certificate (DER), b"" without one.
    """

    scheme: str = "http"
    address: str = ""
    port: int = 0
    uid: int = -1
    gid: int = -1
    pid: int = -1
    certificate: bytes = b""


class Query:
    """A query string: parameters may repeat and may be empty."""

    def __init__(self, text: str) -> None:
        try:
            items = parse_qsl(text, keep_blank_values=True, max_num_fields=1000)
        except ValueError as error:
            raise InvalidArgument(f"malformed query: {error}") from None
        self.items: list[tuple[str, str]] = items
        self._first: dict[str, str] = {}
        for key, value in items:
            self._first.setdefault(key, value)

    def get(self, name: str, default: str = "") -> str:
        """The parameter's first value."""
        return self._first.get(name, default)

    def all(self, name: str) -> list[str]:
        """All values of the parameter, in order."""
        return [value for key, value in self.items if key == name]

    def __contains__(self, name: str) -> bool:
        return name in self._first


class Response(msgspec.Struct):
    """A whole answer. `body` may be an iterator of chunks, each sent when it comes."""

    status: int = 200
    body: bytes | AsyncIterable[bytes] = b""
    headers: HeaderItems = {}


class Request:
    """One request. `path` is raw (percent-encoded), `id` names it in logs and bus calls."""

    def __init__(self, head: Head, body: Body | None, connection: Connection, id: str) -> None:
        self.method = head.method
        self.target = head.target
        self.headers = head.headers
        self.id = id
        self.length = head.length
        self.upgrade = _upgrade(head.headers)
        self.status = 0
        self.sent = 0
        self._body = body
        self._connection = connection
        self.path, _, self._query = head.target.partition("?")

    @property
    def peer(self) -> Peer:
        """Who asks."""
        return self._connection.peer

    @property
    def scheme(self) -> str:
        """http or https."""
        return self._connection.peer.scheme

    @cached_property
    def segments(self) -> tuple[str, ...]:
        """The path's segments, decoded; a trailing slash makes no empty one."""
        return tuple(unquote(part) for part in self.path.strip("/").split("/") if part)

    @cached_property
    def query(self) -> Query:
        """The query's parameters."""
        return Query(self._query)

    def header(self, name: str, default: str = "") -> str:
        """A header by its lower-case name."""
        return self.headers.get(name, default)

    @property
    def draining(self) -> bool:
        """Whether this process is about to stop: long answers should end soon."""
        return self._connection.server.draining

    def on_drain(self, told: Callable[[], None]) -> Callable[[], None]:
        """Have `told` called when draining begins; the answer takes it back."""
        return self._connection.server.on_drain(told)

    async def chunks(self, limit: int = 0) -> AsyncIterator[bytes]:
        """The body as it comes; more than `limit` bytes (0: any) are ResourceExhausted."""
        if self._body is None:
            return
        if limit and self.length > limit:
            raise ResourceExhausted(f"the body has {self.length} bytes, the limit is {limit}")
        self._connection.wish_body()
        total = 0
        while data := await self._body.read():
            total += len(data)
            if limit and total > limit:
                raise ResourceExhausted(f"the body has more than {limit} bytes")
            yield data

    async def read(self, limit: int = 0) -> bytes:
        """The whole body, at most `limit` bytes (0: the server's limit)."""
        if self._body is None:
            return b""
        limit = limit or self._connection.server.limits.body
        return b"".join([chunk async for chunk in self.chunks(limit)])

    def promise_stream(self) -> None:
        """Say that the answer will be a stream, though its head can't be sent yet.

        From now on a client that ends its side is gone, and the handler is cancelled.
        """
        self._connection.promise_stream()

    def stream(self, status: int = 200, headers: HeaderItems = ()) -> Stream:
        """Begin an answer that is written piece by piece; its head is sent now."""
        return self._connection.begin_stream(self, status, headers)

    def hijack(self, status: int = 101, headers: HeaderItems = (), phrase: str = "") -> RawStream:
        """Take the connection over: sends the head as given, then bytes are the handler's."""
        return self._connection.hijack(self, status, headers, phrase)

    def websocket(self, protocols: tuple[str, ...] = (), *, limit: int = 4 << 20) -> WebSocket:
        """Accept a WebSocket, with the first of the client's subprotocols that is in `protocols`."""
        from sagong.http.websocket import accept

        return accept(self, protocols, limit)


def _upgrade(headers: dict[str, str]) -> str:
    """What the client wants to speak instead: the Upgrade header, if Connection names it."""
    wanted = headers.get("upgrade", "")
    return wanted.lower() if wanted and "upgrade" in headers.get("connection", "").lower() else ""
