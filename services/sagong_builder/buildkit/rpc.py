"""gRPC over HTTP/2 on one connection that is there already: as a server, as a client, or both.

HTTP/2 is the package h2's; here are messages, statuses, flow control and tasks.
Source: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import struct
import urllib.parse
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeVar

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
import hpack.exceptions

from sagong import errors
from sagong.errors import InvalidArgument, ResourceExhausted, SagongError, Unavailable
from sagong.model.numbers import natural
from sagong_builder.buildkit.messages import Anything, RpcStatus
from sagong_builder.buildkit.protobuf import decode, encode

__all__ = ["Call", "Connection", "RpcError", "status_of"]

M = TypeVar("M")
_LOG = logging.getLogger("sagong.builder")
_WINDOW = 1 << 20
_MESSAGE_LIMIT = 32 << 20
# Of all messages of a connection that nobody has taken yet, whole or not.
_HELD_LIMIT = 64 << 20
_CALLS = 256
_READ = 1 << 16
_OK = 0
_TEXT_LIMIT = 4000
# Peers take headers of 16 KB at least.
_DETAILS_LIMIT = 10_000
# Classes of errors by gRPC's codes, and back.
_CODES: tuple[tuple[int, type[SagongError]], ...] = (
    (1, errors.Cancelled),
    (3, errors.InvalidArgument),
    (4, errors.DeadlineExceeded),
    (5, errors.NotFound),
    (6, errors.AlreadyExists),
    (7, errors.PermissionDenied),
    (8, errors.ResourceExhausted),
    (9, errors.FailedPrecondition),
    (10, errors.Aborted),
    (12, errors.Unimplemented),
    (13, errors.Internal),
    (14, errors.Unavailable),
    (16, errors.Unauthenticated),
)
_UNKNOWN = 2
_BY_CODE = dict(_CODES)


class RpcError(SagongError):
    """An error with a code of gRPC's own choice, and details: a peer's, or one that is meant for it."""

    def __init__(
        self, message: str, *, status: int = _UNKNOWN, details: Sequence[Anything] = ()
    ) -> None:
        super().__init__(message)
        self.status = status
        self.details = tuple(details)


def code_of(error: SagongError) -> int:
    """The code that travels."""
    if isinstance(error, RpcError):
        return error.status
    return next((code for code, kind in _CODES if isinstance(error, kind)), _UNKNOWN)


def status_of(error: SagongError) -> RpcStatus:
    """The error as a message, whole."""
    details = list(error.details) if isinstance(error, RpcError) else []
    return RpcStatus(code=code_of(error), message=error.message, details=details)


def _trailers(error: SagongError | None) -> list[tuple[str, str]]:
    """The status; details are in a message of their own, which repeats it."""
    if error is None:
        return [("grpc-status", str(_OK))]
    code, text = code_of(error), error.message[:_TEXT_LIMIT]
    found = [("grpc-status", str(code)), ("grpc-message", urllib.parse.quote(text, safe=" "))]
    details = list(error.details) if isinstance(error, RpcError) else []
    raw = encode(RpcStatus(code=code, message=text, details=details)) if details else b""
    if 0 < len(raw) <= _DETAILS_LIMIT:
        found.append(("grpc-status-details-bin", base64.b64encode(raw).decode().rstrip("=")))
    return found


class Call:
    """One call: messages each way, metadata before, a status after."""

    def __init__(
        self, connection: Connection, id_: int, path: str, metadata: dict[str, str]
    ) -> None:
        self.path = path
        self.metadata = metadata
        self._connection = connection
        self._id = id_
        self._buffer = bytearray()
        # Each with the bytes of it that the peer was not yet told of as taken.
        self._messages: deque[tuple[bytes, int]] = deque()
        self._taken = 0
        self._wake = asyncio.Event()
        self.last_size = 0
        self._ended = False
        self._error: SagongError | None = None
        self.window = asyncio.Event()
        self._headers_sent = False

    # What the connection tells.

    def feed(self, data: bytes) -> None:
        """Bytes of the peer's messages."""
        if self._ended and self._error is not None:
            self._connection.acknowledge(self._id, len(data))
            return
        self._buffer += data
        if not self._connection.hold(len(data)):
            self._refuse(ResourceExhausted(f"{self.path}: more is sent than is taken"))
            return
        while len(self._buffer) >= 5:
            compressed, length = struct.unpack_from(">BI", self._buffer)
            if compressed or length > _MESSAGE_LIMIT:
                what = "is compressed" if compressed else f"has {length} bytes"
                self._refuse(InvalidArgument(f"a message of {self.path} {what}"))
                return
            if len(self._buffer) < 5 + length:
                break
            self._messages.append((bytes(self._buffer[5 : 5 + length]), 5 + length - self._taken))
            del self._buffer[: 5 + length]
            self._taken = 0
        # A message may be larger than the window: what is there of it makes room for the rest.
        self._connection.acknowledge(self._id, len(self._buffer) - self._taken)
        self._taken = len(self._buffer)
        self._wake.set()

    def _refuse(self, error: SagongError) -> None:
        """The peer speaks badly: what came of it is dropped, and what comes."""
        self._connection.acknowledge(self._id, len(self._buffer) - self._taken)
        self.release()
        self.finish(error)

    def release(self) -> None:
        """Drop what came and was not taken."""
        self._connection.hold(-len(self._buffer) - sum(5 + len(raw) for raw, _ in self._messages))
        self._buffer.clear()
        self._messages.clear()
        self._taken = 0

    def finish(self, error: SagongError | None = None) -> None:
        """The peer sends no more."""
        if not self._ended:
            self._ended, self._error = True, error
        self._wake.set()
        self.window.set()

    # What both sides do.

    async def receive(self, kind: type[M]) -> M | None:
        """The next message; None at the end, which raises if it was a bad one."""
        while not self._messages:
            if self._ended:
                if self._error is not None:
                    raise self._error
                return None
            self._wake.clear()
            await self._wake.wait()
        raw, untold = self._messages.popleft()
        self._connection.hold(-5 - len(raw))
        self.last_size = len(raw)
        self._connection.consumed(self._id, untold)
        return decode(kind, raw)

    def head(self, *headers: tuple[str, str]) -> None:
        """A server: the answer begins, with metadata before its messages."""
        if not self._headers_sent:
            self._headers_sent = True
            self._connection.respond(self._id, headers)

    async def send(self, message: Any) -> None:
        """A message, or the bytes of one; waits while the peer's window is shut."""
        self.head()
        raw = message if isinstance(message, bytes) else encode(message)
        await self._connection.send(self, self._id, struct.pack(">BI", 0, len(raw)) + raw)

    def end(self) -> None:
        """A client: no more messages."""
        self._connection.end(self._id)

    def cancel(self) -> None:
        """A client: nobody wants the answer any more."""
        if not self._ended:
            self._connection.reset(self._id)
            self.finish(errors.Cancelled("cancelled"))
        self.release()

    def close(self, error: SagongError | None = None) -> None:
        """A server: the status."""
        self._connection.status(self._id, error, headers_sent=self._headers_sent)

    @property
    def alive(self) -> bool:
        """Whether the peer still listens and speaks well."""
        return self._error is None and self._connection.alive


Serve = Callable[[Call], Awaitable[None]]


class Connection:
    """One HTTP/2 connection. `serve` handles calls of the peer, each in a task of its own."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        client: bool,
        serve: Serve | None = None,
    ) -> None:
        config = h2.config.H2Configuration(client_side=client, header_encoding="utf-8")
        self._h2 = h2.connection.H2Connection(config)
        self._reader, self._writer = reader, writer
        self._serve = serve
        self._calls: dict[int, Call] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._held = 0
        self._flushing = False
        self.alive = True

    async def run(self) -> None:
        """Until either side closes; all calls end with it."""
        settings: dict[h2.settings.SettingCodes | int, int] = {
            h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: _WINDOW
        }
        self._h2.initiate_connection()
        self._h2.update_settings(settings)
        self._h2.increment_flow_control_window(_WINDOW * 4)
        self._flush()
        try:
            while data := await self._reader.read(_READ):
                for event in self._h2.receive_data(data):
                    self._take(event)
                self._flush()
        except (h2.exceptions.H2Error, hpack.exceptions.HPACKError, ValueError, OSError):
            # The peer went away or speaks something else: it is told by the cut.
            pass
        finally:
            await self._shut()

    async def _shut(self) -> None:
        self.alive = False
        for call in self._calls.values():
            call.finish(Unavailable("the other side closed the connection"))
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(OSError):
            self._write()
            self._writer.close()

    def _flush(self) -> None:
        """What is to be sent leaves with this turn of the loop: a call for each would be dear."""
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._write)

    def _write(self) -> None:
        self._flushing = False
        data = self._h2.data_to_send()
        if data and not self._writer.is_closing():
            self._writer.write(data)

    # Events.

    def _take(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.RequestReceived():
                self._begin(event)
            case h2.events.DataReceived():
                self._data(event)
            case h2.events.TrailersReceived() | h2.events.ResponseReceived():
                self._headers(event)
            case h2.events.StreamEnded():
                self._stream_ended(event.stream_id)
            case h2.events.StreamReset():
                self._stream_reset(event.stream_id)
            case h2.events.WindowUpdated() | h2.events.RemoteSettingsChanged():
                for call in self._calls.values():
                    call.window.set()

    def _begin(self, event: h2.events.RequestReceived) -> None:
        headers = _joined(event.headers)
        id_ = event.stream_id
        call = Call(self, id_, headers.get(":path", ""), headers)
        if self._serve is None or len(self._calls) >= _CALLS:
            self._h2.reset_stream(id_, h2.errors.ErrorCodes.REFUSED_STREAM)
            return
        self._calls[id_] = call
        self._tasks[id_] = asyncio.create_task(self._served(call, id_), name=f"rpc {call.path}")

    async def _served(self, call: Call, id_: int) -> None:
        assert self._serve is not None
        try:
            await self._serve(call)
            call.close()
        except SagongError as error:
            call.close(error)
        except Exception:
            # A defect here: the client must not wait for ever, and the log says what it was.
            _LOG.exception("a call failed", extra={"call": call.path[:200]})
            call.close(errors.Internal(f"{call.path[:200]} failed; the builder's log says more"))
        finally:
            call.release()
            self._calls.pop(id_, None)
            self._tasks.pop(id_, None)

    def _data(self, event: h2.events.DataReceived) -> None:
        call = self._calls.get(event.stream_id)
        length = event.flow_controlled_length or 0
        if call is None:
            self.acknowledge(event.stream_id, length)
            return
        padding = length - len(event.data)
        if padding:
            self.acknowledge(event.stream_id, padding)
        call.feed(event.data)

    def hold(self, length: int) -> bool:
        """Count bytes of messages that nobody has taken yet; False if they are too many."""
        self._held += length
        return self._held <= _HELD_LIMIT

    def consumed(self, id_: int, length: int) -> None:
        """Bytes of a call were taken: the peer may send as many more."""
        self.acknowledge(id_, length)
        self._flush()

    def acknowledge(self, id_: int, length: int) -> None:
        """Count bytes as taken; the peer is told with the next that is sent."""
        if length:
            with contextlib.suppress(h2.exceptions.ProtocolError, KeyError):
                self._h2.acknowledge_received_data(length, id_)

    def _headers(self, event: h2.events.TrailersReceived | h2.events.ResponseReceived) -> None:
        call = self._calls.get(event.stream_id)
        headers = _joined(event.headers)
        status = headers.get("grpc-status")
        if call is None:
            return
        if status is not None and status != "0":
            message = urllib.parse.unquote(headers.get("grpc-message", ""))
            code = natural(status)
            kind = _BY_CODE.get(_UNKNOWN if code is None else code, RpcError)
            call.finish(kind(message or f"{call.path} failed with status {status}"))

    def _stream_ended(self, id_: int) -> None:
        call = self._calls.get(id_)
        if call is not None:
            call.finish()
            if id_ not in self._tasks:
                self._calls.pop(id_, None)

    def _stream_reset(self, id_: int) -> None:
        call = self._calls.get(id_)
        if call is not None:
            call.finish(errors.Cancelled("the other side cancelled the call"))
        task = self._tasks.get(id_)
        if task is not None:
            task.cancel()

    # What calls do.

    def open(self, path: str, metadata: Iterable[tuple[str, str]] = ()) -> Call:
        """A client: begin a call."""
        if not self.alive:
            raise Unavailable("the client's session has ended")
        id_ = self._h2.get_next_available_stream_id()
        call = Call(self, id_, path, {})
        call._headers_sent = True
        self._calls[id_] = call
        fixed = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "localhost"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("user-agent", "sagong-builder"),
        ]
        self._h2.send_headers(id_, [*fixed, *metadata])
        self._flush()
        return call

    async def ask(
        self,
        path: str,
        request: Any,
        answer: type[M],
        metadata: Iterable[tuple[str, str]] = (),
    ) -> M:
        """A client: one message, one answer."""
        call = self.open(path, metadata)
        try:
            await call.send(request)
            call.end()
            found = await call.receive(answer)
            if found is None:
                raise Unavailable(f"{path} was not answered")
            while await call.receive(answer) is not None:
                continue
            return found
        finally:
            call.cancel()

    def respond(self, id_: int, headers: Iterable[tuple[str, str]] = ()) -> None:
        """A server: the head of the answer."""
        head = [(":status", "200"), ("content-type", "application/grpc"), *headers]
        with contextlib.suppress(h2.exceptions.ProtocolError):
            self._h2.send_headers(id_, head)
            self._flush()

    async def send(self, call: Call, id_: int, data: bytes) -> None:
        """Bytes of messages, as the windows allow."""
        view = memoryview(data)
        while view:
            if not call.alive:
                raise Unavailable(f"{call.path}: the other side is gone")
            try:
                window = self._h2.local_flow_control_window(id_)
                room = min(window, self._h2.max_outbound_frame_size, len(view))
                if room <= 0:
                    call.window.clear()
                    await call.window.wait()
                    continue
                self._h2.send_data(id_, bytes(view[:room]))
            except h2.exceptions.ProtocolError as error:
                raise Unavailable(f"{call.path}: {error}") from None
            view = view[room:]
            self._flush()
            with contextlib.suppress(ConnectionError):
                await self._writer.drain()

    def end(self, id_: int) -> None:
        """Half-close a call."""
        with contextlib.suppress(h2.exceptions.ProtocolError):
            self._h2.end_stream(id_)
            self._flush()

    def reset(self, id_: int) -> None:
        """Cancel a call."""
        call = self._calls.pop(id_, None)
        if call is not None:
            call.release()
        with contextlib.suppress(h2.exceptions.ProtocolError):
            self._h2.reset_stream(id_, h2.errors.ErrorCodes.CANCEL)
            self._flush()

    def status(self, id_: int, error: SagongError | None, *, headers_sent: bool) -> None:
        """A server: end a call with a status."""
        trailers = _trailers(error)
        head = [(":status", "200"), ("content-type", "application/grpc")]
        with contextlib.suppress(h2.exceptions.ProtocolError):
            if headers_sent:
                self._h2.send_headers(id_, trailers, end_stream=True)
            else:
                self._h2.send_headers(id_, [*head, *trailers], end_stream=True)
            self._flush()


def _joined(headers: Iterable[Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in headers:
        found[name] = f"{found[name]},{value}" if name in found else value
    return found
