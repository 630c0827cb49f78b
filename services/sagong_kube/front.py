"""The front: carries requests of the HTTP layer to handlers, and their answers back."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

import msgspec

from sagong.errors import ResourceExhausted, SagongError
from sagong.http import RawStream, Request, Response
from sagong.http.websocket import WebSocket
from sagong_kube import refusal
from sagong_kube.handlers.exchange import Answer, Ask, Pieces, Raw, Reply, Socket, Streamed
from sagong_kube.status import failure, http_code
from sagong_kube.target import parse

__all__ = ["Front"]

_BODY_LIMIT = 3 << 20
_GZIP_BYTES = 128 << 10
_GZIP_LEVEL = 1
# Characters of all warnings together, and of each where these are more; as upstream.
_WARNINGS = 4096
_LONGEST_OF_MANY = 256
# A client that never answers pings gets its output none the less.
_PONG_SECONDS = 1.0
_MESSAGE_PROTOCOLS = ("", "binary.k8s.io", "base64.binary.k8s.io")
_READS = frozenset(("get", "list", "watch", "head"))

Serve = Callable[[Ask, bytes], Awaitable[Reply]]


class Front:
    """Serves one handler of values on the HTTP layer."""

    def __init__(self, serve: Serve, log: logging.Logger, *, audit: bool = False) -> None:
        self._serve = serve
        self._log = log
        self._audit = audit
        self.served: dict[tuple[str, str, int], int] = {}

    async def handle(self, request: Request) -> Response | None:
        """Serve a request; the HTTP layer's handler."""
        ask = self._ask(request)
        if request.length and not ask.upgrade:
            try:
                ask.body = await request.read(_BODY_LIMIT)
            except ResourceExhausted:
                raise refusal.too_large(
                    f"Request entity too large: limit is {_BODY_LIMIT}"
                ) from None
        try:
            reply = await self._serve(ask, request.peer.certificate)
        except SagongError as error:
            self._note(ask, http_code(error))
            raise
        except RecursionError:
            raise refusal.bad_request("the body is nested too deeply") from None
        self._note(ask, reply.status if isinstance(reply, Answer | Streamed) else 200)
        return await self._send(request, ask, reply)

    def _note(self, ask: Ask, status: int) -> None:
        """A line of the audit for what may change something, refused or done."""
        target = ask.target
        if not self._audit or target.verb in _READS:
            return
        facts = {
            "request": ask.request_id,
            "user": ask.actor.username,
            "from": ask.address,
            "verb": target.verb,
            "group": target.group,
            "resource": f"{target.resource}/{target.subresource}".rstrip("/"),
            "namespace": target.namespace,
            "object": target.name,
            "status": status,
        }
        self._log.info("audit", extra=facts)

    def _ask(self, request: Request) -> Ask:
        query: dict[str, list[str]] = {}
        for name, value in request.query.items:
            query.setdefault(name, []).append(value)
        flat = {name: values[0] for name, values in query.items()}
        return Ask(
            method=request.method,
            path=request.path,
            query=query,
            headers=request.headers,
            target=parse(request.method, request.path, flat),
            request_id=request.id,
            address=request.peer.address,
        )

    async def _send(self, request: Request, ask: Ask, reply: Reply) -> Response | None:
        match reply:
            case Answer():
                return self._answer(request, ask, reply)
            case Pieces():
                await self._pieces(request, ask, reply)
            case Streamed():
                await self._streamed(request, ask, reply)
            case Socket():
                await self._socket(request, reply)
            case Raw():
                await self._raw(request, reply)
        return None

    def _answer(self, request: Request, ask: Ask, answer: Answer) -> Response:
        self._count(ask, answer.status)
        single = {
            "Audit-Id": request.id,
            "Cache-Control": "no-cache, private",
            "Content-Type": answer.media,
            **answer.headers,
        }
        headers = [*single.items(), *(("Warning", text) for text in _warnings(answer.warnings))]
        body = answer.body
        if (
            len(body) >= _GZIP_BYTES
            and ask.accepts_gzip
            and "Content-Encoding" not in answer.headers
        ):
            from isal import igzip

            body = igzip.compress(body, _GZIP_LEVEL)
            headers += [("Content-Encoding", "gzip"), ("Vary", "Accept-Encoding")]
        return Response(answer.status, body, headers)

    async def _pieces(self, request: Request, ask: Ask, reply: Pieces) -> None:
        self._count(ask, 200)
        headers = {
            "Audit-Id": request.id,
            "Cache-Control": "no-cache, private",
            "Content-Type": reply.media,
            **reply.headers,
        }
        pieces: Iterable[bytes] = reply.pieces
        if ask.accepts_gzip:
            headers |= {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
            pieces = _gzipped(pieces)
        stream = request.stream(200, headers)
        for piece in pieces:
            await stream.write(piece)
            # A list is much work at once: others get their turn between its pieces.
            await asyncio.sleep(0)

    async def _streamed(self, request: Request, ask: Ask, reply: Streamed) -> None:
        self._count(ask, reply.status)
        if ask.upgrade == "websocket":
            await self._messages(request, ask, reply)
            return
        headers = {
            "Audit-Id": request.id,
            "Cache-Control": "no-cache, private",
            "Content-Type": reply.media,
            **reply.headers,
        }
        stream = request.stream(reply.status, headers)
        forget = request.on_drain(reply.stop) if reply.stop is not None else _nothing
        try:
            async with contextlib.aclosing(reply.parts) as parts:
                async for part in parts:
                    await stream.write(part)
        finally:
            forget()

    async def _messages(self, request: Request, ask: Ask, reply: Streamed) -> None:
        """A watch or a log over a WebSocket: a message for each event or piece."""
        socket = request.websocket(_MESSAGE_PROTOCOLS)
        encoded = socket.protocol.startswith("base64.")
        forget = request.on_drain(reply.stop) if reply.stop is not None else _nothing
        gone = asyncio.ensure_future(_closed(socket, reply))
        try:
            async with contextlib.aclosing(reply.parts) as parts:
                async for part in parts:
                    for message in part.splitlines(True) if _is_watch(ask) else (part,):
                        socket.send(_message(message, ask, encoded=encoded))
                    await socket.drain()
            await socket.close()
        except ConnectionError:
            return
        finally:
            forget()
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)

    async def _socket(self, request: Request, reply: Socket) -> None:
        protocols = (reply.protocol,) if reply.protocol else ()
        socket = request.websocket(protocols)
        with contextlib.suppress(ConnectionError):
            await reply.serve(_MessageSocket(socket))

    async def _raw(self, request: Request, reply: Raw) -> None:
        stream = request.hijack(101, reply.headers)
        with contextlib.suppress(ConnectionError):
            await reply.serve(_StreamPipe(stream))

    def refuse(self, request: Request, error: Exception) -> Response:
        """The answer to an error; the HTTP layer's refusal."""
        if not isinstance(error, SagongError):
            self._log.error(
                "request failed",
                exc_info=error,
                extra={"request": request.id, "path": request.path},
            )
            error = refusal.internal("the server failed on this request; its log says why")
        status = http_code(error)
        headers = {"Audit-Id": request.id, "Content-Type": "application/json"}
        if "retry" in error.detail:
            headers["Retry-After"] = error.detail["retry"]
        if status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return Response(status, msgspec.json.encode(failure(error)) + b"\n", headers)

    def _count(self, ask: Ask, status: int) -> None:
        key = (ask.target.verb, ask.target.resource, status)
        self.served[key] = self.served.get(key, 0) + 1


class _MessageSocket:
    """The HTTP layer's WebSocket as sessions want it."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket

    async def receive(self) -> bytes | str | None:
        return await self._socket.receive()

    async def wait_reader(self) -> None:
        self._socket.ping()
        await self._socket.wait_heard(_PONG_SECONDS)

    async def send(self, message: bytes | str) -> None:
        self._socket.send(message)
        await self._socket.drain()

    async def close(self) -> None:
        await self._socket.close()


class _StreamPipe:
    """The HTTP layer's taken-over connection as a pipe."""

    def __init__(self, stream: RawStream) -> None:
        self._stream = stream

    async def read(self) -> bytes:
        return await self._stream.read()

    async def write(self, data: bytes) -> None:
        self._stream.write(data)
        await self._stream.drain()

    async def close(self) -> None:
        await self._stream.close()


def _warnings(texts: Sequence[str]) -> Iterator[str]:
    """Values of Warning headers (RFC 7234, 5.5): UTF-8, without control characters; many are cut."""
    cut = _LONGEST_OF_MANY if sum(map(len, texts)) > _WARNINGS else _WARNINGS
    left = _WARNINGS
    for text in texts:
        plain = "".join(c if c.isprintable() else " " for c in text[:cut])
        left -= len(plain)
        if left < 0:
            return
        escaped = plain.replace("\\", "\\\\").replace('"', '\\"')
        # The HTTP layer writes headers in Latin-1.
        yield f'299 - "{escaped}"'.encode("utf-8", "replace").decode("latin-1")


def _gzipped(pieces: Iterable[bytes]) -> Iterable[bytes]:
    from isal import isal_zlib

    compressor = isal_zlib.compressobj(_GZIP_LEVEL, isal_zlib.DEFLATED, 31)
    for piece in pieces:
        data = compressor.compress(piece)
        if data:
            yield data
    yield compressor.flush()


async def _closed(socket: WebSocket, reply: Streamed) -> None:
    while await socket.receive() is not None:
        continue
    if reply.stop is not None:
        reply.stop()


def _is_watch(ask: Ask) -> bool:
    return ask.target.verb == "watch"


def _message(data: bytes, ask: Ask, *, encoded: bool) -> bytes | str:
    if encoded:
        return base64.b64encode(data).decode()
    return data.decode() if _is_watch(ask) else data


def _nothing() -> None:
    return
