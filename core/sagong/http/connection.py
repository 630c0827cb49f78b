"""One client's connection: cuts requests out of it, runs their handlers, writes the answers.

States::

    head ──► running ──► (body left unread: discarding) ──► head …
                │
                └─hijack─► raw ──► closed
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import time
from collections.abc import AsyncIterable, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, cast

from sagong.call import Call, serving
from sagong.errors import SagongError
from sagong.http.body import Body, BodyCutter, ChunkedCutter, LengthCutter
from sagong.http.head import BadRequest, Head, HeaderItems, format_head, parse_head, reason
from sagong.http.raw import RawStream
from sagong.http.request import Peer, Request, Response
from sagong.http.splicing import send_file, splice
from sagong.tracing import RECORDER

if TYPE_CHECKING:
    from sagong.http.server import HttpServer

__all__ = ["Connection", "Stream"]

_BUFFER_LIMIT = 256 << 10
_RELAY = 256 << 10
# A client may name its requests; a point would set them below others (see sagong.tracing).
_REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{4,64}")
# A client that tries TLS first waits for an answer, and would wait until the head's time is over.
_TLS_HANDSHAKE = b"\x16"
_BODILESS = frozenset((204, 304))


class Stream:
    """An answer in pieces. The handler's return ends it; an exception breaks the connection off."""

    def __init__(self, connection: Connection, request: Request, *, chunked: bool, mute: bool):
        self._connection = connection
        self._request = request
        self._chunked = chunked
        self._mute = mute
        self.ended = False

    def send(self, data: bytes) -> None:
        """Write at once, without waiting; follow with `drain` now and then."""
        if not data or self._mute:
            return
        self._request.sent += len(data)
        if self._chunked:
            self._connection.put(b"%x\r\n%b\r\n" % (len(data), data))
        else:
            self._connection.put(data)

    async def drain(self) -> None:
        """Wait until the client keeps up; ConnectionError when it is gone."""
        await self._connection.drain()

    async def write(self, data: bytes) -> None:
        """Write at once and wait until the client keeps up."""
        self.send(data)
        await self._connection.drain()

    async def carry(self, source: socket.socket, length: int) -> int:
        """Pass on at most `length` bytes of a non-blocking socket, to its end; how many they were.

        Where nothing has to be wrapped or encrypted they do not pass through this process.
        """
        if self._chunked or self._connection.secured:
            return await _relay(source, length, self)
        moved = await self._connection.carry(source, length)
        self._request.sent += moved
        return moved

    async def carry_file(self, source: int, offset: int, length: int) -> int:
        """The same of a file's descriptor, from `offset` on, wherever its own position is."""
        if self._chunked or self._connection.secured:
            return await _relay_file(source, offset, length, self)
        moved = await self._connection.carry_file(source, offset, length)
        self._request.sent += moved
        return moved

    def finish(self) -> None:
        """End the answer; done by the server when the handler returns."""
        if not self.ended:
            self.ended = True
            if self._chunked and not self._mute:
                self._connection.put(b"0\r\n\r\n")


class Connection(asyncio.Protocol):
    """The protocol of a connection; `server` owns it."""

    def __init__(self, server: HttpServer, peer: Peer) -> None:
        self.server = server
        self.peer = peer
        self.touched = time.monotonic()
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._cutter: BodyCutter | None = None
        self._head: Head | None = None
        self._task: asyncio.Task[None] | None = None
        self._stream: Stream | None = None
        self._promised = False
        self._raw: RawStream | None = None
        self._drained: asyncio.Future[None] | None = None
        self._writing_paused = False
        self._reading_paused = False
        self._body_wished = False
        self._input_ended = False
        self._keep = True

    # -- asyncio's side ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection stands; with TLS the handshake is over."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass
        secured = transport.get_extra_info("ssl_object")
        if secured is not None:
            certificate = secured.getpeercert(True) or b""
            self.peer = Peer("https", self.peer.address, self.peer.port, certificate=certificate)
        self.server.joined(self)

    def data_received(self, data: bytes) -> None:
        """Bytes of a head, of a body, of the next request, or of a taken-over connection."""
        if self._raw is not None:
            self._raw.feed(data)
            return
        self.touched = time.monotonic()
        self._buffer += data
        self._advance()
        if self._task is not None and len(self._buffer) > _BUFFER_LIMIT:
            self.flow(False)

    def eof_received(self) -> bool:
        """The client ended its side: an ordinary answer is still sent, a stream's reader is gone."""
        self._input_ended = True
        if self._raw is not None:
            self._raw.feed_eof()
            return self._half_closes
        if self._cutter is not None:
            self._cutter.broken()
        if self._task is None:
            return False
        if self._stream is not None or self._promised:
            self._task.cancel()
        return self._half_closes

    @property
    def secured(self) -> bool:
        """Whether bytes are encrypted on their way."""
        return self.peer.scheme == "https"

    @property
    def _half_closes(self) -> bool:
        """Whether our side can stay open after theirs: TLS of asyncio's can't, and warns if asked."""
        return self._transport is not None and self._transport.can_write_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone: the handler is cancelled, a taken-over one is told."""
        self._transport = None
        self.server.left(self)
        if self._cutter is not None:
            self._cutter.broken()
        if self._raw is not None:
            self._raw.lose()
        elif self._task is not None:
            self._task.cancel()
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def pause_writing(self) -> None:
        """The transport's buffer is full."""
        self._writing_paused = True
        if self._raw is not None:
            self._raw.pause(True)

    def resume_writing(self) -> None:
        """The transport's buffer has room again."""
        self._writing_paused = False
        if self._raw is not None:
            self._raw.pause(False)
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    # -- the server's side ------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Whether no request is being served."""
        return self._task is None

    @property
    def unfinished(self) -> bool:
        """Whether a request has begun to arrive that is not being served yet."""
        return bool(self._buffer) or self._cutter is not None

    @property
    def task(self) -> asyncio.Task[None] | None:
        """The handler that runs."""
        return self._task

    def close(self) -> None:
        """Close after what is written."""
        if self._transport is not None:
            self._transport.close()

    def flow(self, open: bool) -> None:
        """Go on or stop reading from the client."""
        transport = self._transport
        if transport is None or open != self._reading_paused or transport.is_closing():
            return
        self._reading_paused = not open
        if open:
            transport.resume_reading()
        else:
            transport.pause_reading()

    # -- requests ---------------------------------------------------------------------------

    def _advance(self) -> None:
        try:
            if self._cutter is not None and self._cutter.cut(self._buffer):
                self._cutter = None
            while self._task is None and self._cutter is None and self._buffer:
                if not self._begin():
                    return
        except BadRequest as error:
            self._refuse(error)

    def _begin(self) -> bool:
        """Start on the next request, if its head is whole."""
        while self._buffer[:2] == b"\r\n":
            del self._buffer[:2]
        if self._buffer[:1] == _TLS_HANDSHAKE:
            raise BadRequest(400, "this port speaks plain HTTP, not TLS")
        end = self._buffer.find(b"\r\n\r\n")
        limit = self.server.limits.head
        if end > limit or (end < 0 and len(self._buffer) > limit):
            raise BadRequest(431, f"the request's head is longer than {limit} bytes")
        if end < 0:
            if b"\n\n" in self._buffer:
                raise BadRequest(400, "line ends must be CR LF")
            return False
        head = parse_head(bytes(self._buffer[:end]))
        del self._buffer[: end + 4]
        self._head = head
        self._keep = head.keep_alive and not self.server.draining
        self._body_wished = "100-continue" not in head.headers.get("expect", "").lower()
        request = Request(head, self._open_body(head), self, self._name(head))
        self._task = asyncio.get_running_loop().create_task(self._serve(request))
        return True

    def _name(self, head: Head) -> str:
        """A request's id; what the client calls its requests stands before it."""
        given = head.headers.get("x-request-id", "")
        own = self.server.next_id()
        return f"{given}-{own}" if _REQUEST_ID.fullmatch(given) else own

    def _open_body(self, head: Head) -> Body | None:
        if head.length == 0:
            return None
        body = Body(self.flow)
        cutter = ChunkedCutter(body) if head.length < 0 else LengthCutter(body, head.length)
        if not cutter.cut(self._buffer):
            self._cutter = cutter
        return body

    def _refuse(self, error: BadRequest) -> None:
        """Answer what can't be read as a request, and end the connection."""
        if self._task is not None:
            self._keep = False
            self._cutter = None
            self._buffer.clear()
            return
        text = f"{error.status} {reason(error.status)}: {error.message}\n".encode()
        headers = {
            "Content-Type": "text/plain; charset=utf-8",
            "Content-Length": str(len(text)),
            "Connection": "close",
        }
        self.put(format_head(error.status, headers, fixed=self.server.fixed) + text)
        self._buffer.clear()
        self.close()

    async def _serve(self, request: Request) -> None:
        began = time.monotonic()
        try:
            children = RECORDER.children(request.id)
            with serving(Call(cause=request.id, children=children)):
                await self._answer(request)
        except (ConnectionError, asyncio.CancelledError):
            self._keep = False
            self._abort()
        except SagongError as error:
            # Of one that was taken over: there is no answer any more that could tell it.
            facts = {"request": request.id, "error": error.message}
            self.server.log.warning("request was cut", extra=facts)
            self._keep = False
            self._abort()
        except Exception:
            self.server.log.exception("request failed", extra={"request": request.id})
            self._keep = False
            self._abort()
        finally:
            self._task = None
            self.server.note(request, began)
            self._record(request, began)
        await self._end(request)

    def _record(self, request: Request, began: float) -> None:
        if RECORDER.on:
            took = int((time.monotonic() - began) * 1e9)
            error = str(request.status) if request.status >= 400 else ""
            name = f"{request.method} {request.target}"
            RECORDER.note(request.id, name, took, error, "request")

    async def _answer(self, request: Request) -> None:
        response: Response | None
        try:
            response = await self.server.handler(request)
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception as error:
            if request.status:
                raise
            response = self.server.refusal(request, error)
        if self._raw is not None:
            return
        if response is not None:
            await self._respond(request, response)
        elif self._stream is not None:
            self._stream.finish()
        else:
            raise RuntimeError(f"the handler of {request.method} {request.path} gave no answer")

    async def _respond(self, request: Request, response: Response) -> None:
        body = response.body
        if isinstance(body, bytes):
            self._send_whole(request, response.status, response.headers, body)
            await self.drain()
            return
        stream = self.begin_stream(request, response.status, response.headers)
        await self._pump(stream, body)
        stream.finish()

    async def _pump(self, stream: Stream, body: AsyncIterable[bytes]) -> None:
        chunks = aiter(body)
        try:
            async for chunk in chunks:
                await stream.write(chunk)
        finally:
            close = getattr(chunks, "aclose", None)
            if close is not None:
                await close()

    def _send_whole(self, request: Request, status: int, headers: HeaderItems, body: bytes) -> None:
        self._settle_body(request)
        items = _items(headers)
        if status not in _BODILESS and not _has(items, "content-length"):
            items.append(("Content-Length", str(len(body))))
        self._mark_connection(items)
        request.status = status
        head = format_head(status, items, fixed=self.server.fixed)
        if request.method == "HEAD" or status in _BODILESS:
            self.put(head)
            return
        request.sent = len(body)
        if len(body) < 65536:
            self.put(head + body)
        else:
            self.put(head)
            self.put(body)

    def promise_stream(self) -> None:
        """See `Request.promise_stream`."""
        self._promised = True
        if self._input_ended and self._task is not None:
            self._task.cancel()

    def begin_stream(self, request: Request, status: int, headers: HeaderItems) -> Stream:
        """See `Request.stream`."""
        if request.status:
            raise RuntimeError(f"{request.method} {request.path} has been answered already")
        items = _items(headers)
        sized = _has(items, "content-length")
        old = self._head is not None and self._head.old
        chunked = not sized and not old
        if chunked:
            items.append(("Transfer-Encoding", "chunked"))
        elif not sized:
            self._keep = False
        self._mark_connection(items)
        request.status = status
        mute = request.method == "HEAD"
        self._stream = Stream(self, request, chunked=chunked, mute=mute)
        self.put(format_head(status, items, fixed=self.server.fixed))
        if self._input_ended and self._task is not None:
            self._task.cancel()
        return self._stream

    def hijack(self, request: Request, status: int, headers: HeaderItems, phrase: str) -> RawStream:
        """See `Request.hijack`."""
        transport = self._transport
        if transport is None:
            raise ConnectionResetError("the client closed the connection")
        if request.status:
            raise RuntimeError(f"{request.method} {request.path} has been answered already")
        request.status = status
        self._keep = False
        raw = RawStream(transport, bytes(self._buffer))
        self._buffer.clear()
        self._raw = raw
        self.flow(True)
        if self._writing_paused:
            raw.pause(True)
        if self._input_ended:
            raw.feed_eof()
        fixed = self.server.fixed
        transport.write(format_head(status, headers, phrase=phrase, fixed=fixed))
        return raw

    def wish_body(self) -> None:
        """The handler reads the body: a client that waits for leave gets it."""
        if not self._body_wished:
            self._body_wished = True
            self.put(b"HTTP/1.1 100 Continue\r\n\r\n")

    def put(self, data: bytes) -> None:
        """Write; into the void when the connection is gone."""
        if self._transport is not None:
            self._transport.write(data)

    async def drain(self) -> None:
        """Wait until the transport's buffer has room; ConnectionError when the client is gone."""
        while self._writing_paused and self._transport is not None:
            self._drained = asyncio.get_running_loop().create_future()
            try:
                await self._drained
            finally:
                self._drained = None
        if self._transport is None:
            raise ConnectionResetError("the client closed the connection")

    async def carry(self, source: socket.socket, length: int) -> int:
        """See `Stream.carry`; without TLS only."""
        return await self._past_transport(lambda target: splice(source, target, length))

    async def carry_file(self, source: int, offset: int, length: int) -> int:
        """See `Stream.carry_file`; without TLS only."""
        return await self._past_transport(lambda target: send_file(source, offset, target, length))

    async def _past_transport(self, work: Callable[[int], Awaitable[int]]) -> int:
        transport = self._transport
        if transport is None:
            raise ConnectionResetError("the client closed the connection")
        # What was written before has to leave first: the bytes go past the transport.
        transport.set_write_buffer_limits(0)
        await self.drain()
        transport.set_write_buffer_limits()
        target = os.dup(transport.get_extra_info("socket").fileno())
        try:
            return await work(target)
        finally:
            os.close(target)

    def _settle_body(self, request: Request) -> None:
        """An answer before the body was read: a client that still waits for leave never sends it."""
        if not self._body_wished and self._cutter is not None:
            self._keep = False

    def _mark_connection(self, items: list[tuple[str, str]]) -> None:
        if self.server.draining:
            self._keep = False
        if not self._keep:
            items.append(("Connection", "close"))
        elif self._head is not None and self._head.old:
            items.append(("Connection", "keep-alive"))

    def _abort(self) -> None:
        """Break off, so that the client can tell that the answer isn't whole."""
        if self._raw is None and self._transport is not None:
            self._transport.abort()

    async def _end(self, request: Request) -> None:
        """After an answer: the next request, the rest of the body, or the end."""
        if self._raw is not None:
            await self._raw.close()
            return
        self._stream, self._promised = None, False
        self.touched = time.monotonic()
        if self._transport is None:
            return
        if not self._keep or self._input_ended or self.server.draining:
            self._close_gently()
            return
        if self._cutter is not None:
            self._cutter.body.abandon()
        self.flow(True)
        self._advance()

    def _close_gently(self) -> None:
        """Close; with a body still coming, first our side only, so that the answer is not lost."""
        transport = self._transport
        if transport is None:
            return
        if self._cutter is not None and not self._input_ended and transport.can_write_eof():
            self._cutter.body.abandon()
            transport.write_eof()
            asyncio.get_running_loop().call_later(2.0, transport.close)
        else:
            transport.close()


async def _relay(source: socket.socket, length: int, out: Stream) -> int:
    """Pass bytes on by hand."""
    loop, moved = asyncio.get_running_loop(), 0
    while moved < length:
        try:
            data = await loop.sock_recv(source, min(_RELAY, length - moved))
        except ConnectionError:
            break
        if not data:
            break
        await out.write(data)
        moved += len(data)
    return moved


def _items(headers: HeaderItems) -> list[tuple[str, str]]:
    return list(headers.items() if isinstance(headers, Mapping) else headers)


def _has(items: list[tuple[str, str]], name: str) -> bool:
    return any(key.lower() == name for key, _ in items)


async def _relay_file(source: int, offset: int, length: int, out: Stream) -> int:
    """Pass a file's bytes on by hand."""
    moved = 0
    while moved < length:
        count = min(_RELAY, length - moved)
        data = await asyncio.to_thread(os.pread, source, count, offset + moved)
        if not data:
            break
        await out.write(data)
        moved += len(data)
    return moved
