"""TLS whose two ways end by themselves, as on a socket: what asyncio's and uvloop's own can't.

A peer that has no more to say sends a `close_notify` and reads on (RFC 8446, section 6.1):
`docker run -i` does at the end of its input. asyncio's TLS closes the connection then.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import Any, cast

__all__ = ["Layer", "open_secured"]

_PIECE = 64 << 10
# In the words of Go's server, hence of Docker's.
_PLAIN = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"


async def open_secured(
    client: socket.socket,
    context: ssl.SSLContext,
    make: Callable[[], asyncio.Protocol],
    *,
    seconds: float,
) -> None:
    """Shake hands as the server on an accepted socket, then serve the protocol that `make` gives.

    OSError, and the socket is closed, if that fails or takes longer than `seconds`.
    """
    layer = Layer(context, make)
    transport, _ = await asyncio.get_running_loop().connect_accepted_socket(lambda: layer, client)
    try:
        async with asyncio.timeout(seconds):
            await layer.shaken
    except BaseException:
        transport.close()  # after the alert that says why
        raise


class Layer(asyncio.Protocol):
    """Between the socket's transport and a protocol, which gets a `_Transport` of its own."""

    def __init__(self, context: ssl.SSLContext, make: Callable[[], asyncio.Protocol]) -> None:
        self.shaken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ssl_context = context
        self._make = make
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._upper: asyncio.Protocol | None = None
        self._reading = True
        self._peer_ended = False
        self._own_ended = False

    # -- the socket's side ------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The client begins the handshake."""
        self.lower = cast(asyncio.Transport, transport)  # uvloop's are no subclass

    def data_received(self, data: bytes) -> None:
        """Records: of the handshake first, then of the protocol."""
        self._incoming.write(data)
        try:
            if self._upper is None:
                self._shake()
            self.read()
        except ssl.SSLError as error:
            self._broken(error)

    def eof_received(self) -> bool:
        """Without `close_notify` before it the client is cut off; with one it may still read."""
        return self._peer_ended

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, be it in the handshake."""
        if not self.shaken.done():
            self.shaken.set_exception(ConnectionResetError("gone before its handshake was over"))
        if self._upper is not None:
            self._upper.connection_lost(exc)

    def pause_writing(self) -> None:
        """The socket's buffer is full."""
        if self._upper is not None:
            self._upper.pause_writing()

    def resume_writing(self) -> None:
        """It has room again."""
        if self._upper is not None:
            self._upper.resume_writing()

    # -- the protocol's side ----------------------------------------------------------------

    def read(self) -> None:
        """Hand over what has come, as far as it is wanted."""
        while self._upper is not None and self._reading and not self._peer_ended:
            try:
                data = self.tls.read(_PIECE)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLZeroReturnError:
                data = b""
            if not data:
                self._end_of_peer(self._upper)
            else:
                self._upper.data_received(data)
        self._flush()

    def read_on(self) -> None:
        """What came meanwhile, and what comes."""
        self.lower.resume_reading()
        if not self._reading:
            self._reading = True
            asyncio.get_running_loop().call_soon(self._reread)

    def stop_reading(self) -> None:
        """Until `read_on`."""
        self._reading = False
        self.lower.pause_reading()

    def write(self, data: bytes) -> None:
        """Encrypt and send."""
        if data and not self._own_ended and not self.lower.is_closing():
            self.tls.write(data)
            self._flush()

    def end(self) -> None:
        """Say that no more comes."""
        if self._own_ended:
            return
        self._own_ended = True
        # It wants the peer's end, too, which is not to be waited for.
        with contextlib.suppress(ssl.SSLError):
            self.tls.unwrap()
        self._flush()

    def _shake(self) -> None:
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return
        self._flush()
        self._upper = self._make()
        self._upper.connection_made(_Transport(self))
        if not self.shaken.done():
            self.shaken.set_result(None)

    def _reread(self) -> None:
        try:
            self.read()
        except ssl.SSLError as error:
            self._broken(error)

    def _end_of_peer(self, upper: asyncio.Protocol) -> None:
        self._peer_ended = True
        if not upper.eof_received():
            self.end()
            self.lower.close()

    def _broken(self, error: ssl.SSLError) -> None:
        """What came is no TLS, or of nobody who may come: the alert says so."""
        self._flush()
        if error.reason == "HTTP_REQUEST":
            self.lower.write(_PLAIN)
        if not self.shaken.done():
            self.shaken.set_exception(error)
        self.lower.close()

    def _flush(self) -> None:
        if self._outgoing.pending:
            self.lower.write(self._outgoing.read())


class _Transport(asyncio.Transport):
    """What the protocol sees."""

    def __init__(self, layer: Layer) -> None:
        super().__init__({"ssl_object": layer.tls, "sslcontext": layer.ssl_context})
        self._layer = layer

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Of TLS, or of the socket below."""
        found = super().get_extra_info(name)
        return self._layer.lower.get_extra_info(name, default) if found is None else found

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send."""
        self._layer.write(bytes(data))

    def can_write_eof(self) -> bool:
        """It can; asyncio's own can't."""
        return True

    def write_eof(self) -> None:
        """Say that no more comes; the peer may go on."""
        self._layer.end()

    def pause_reading(self) -> None:
        """Until `resume_reading`."""
        self._layer.stop_reading()

    def resume_reading(self) -> None:
        """What came meanwhile first."""
        self._layer.read_on()

    def is_reading(self) -> bool:
        """Whether it is not paused."""
        return self._layer.lower.is_reading()

    def get_write_buffer_size(self) -> int:
        """Bytes that the socket has not taken."""
        return self._layer.lower.get_write_buffer_size()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """When the protocol is told to wait."""
        self._layer.lower.set_write_buffer_limits(high, low)

    def is_closing(self) -> bool:
        """Whether it ends."""
        return self._layer.lower.is_closing()

    def close(self) -> None:
        """End after what is written."""
        self._layer.end()
        self._layer.lower.close()

    def abort(self) -> None:
        """End at once."""
        self._layer.lower.abort()
