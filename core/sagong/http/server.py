"""The HTTP server of all API services: listeners, connections, draining, access log.

One handler gets every request; errors it raises become answers by `refusal`, each API's own table::

    server = HttpServer(router.serve, refusal=to_docker_error, log=host.log)
    server.listen(host.listener("api"))
    ...
    await server.drain(10.0)
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import logging
import os
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Mapping

from sagong.bus.refusals import Refusals
from sagong.http.connection import Connection
from sagong.http.door import Door, HttpLimits
from sagong.http.head import HeaderItems
from sagong.http.request import Peer, Request, Response
from sagong.http.tls import ServerTls, handshake_failure

__all__ = ["Handler", "HttpServer", "Refusal"]

Handler = Callable[[Request], Awaitable[Response | None]]
Refusal = Callable[[Request, Exception], Response]

_CREDENTIALS = struct.Struct("3i")
# Accepted before others have their turn, and of those that are refused.
_ACCEPT_BATCH, _REFUSED_BATCH = 16, 2
_SWEEP_SECONDS = 15.0
_QUIET_SECONDS = 2.0
_EXHAUSTED = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))


_USUAL = HttpLimits()


class HttpServer:
    """Serves one handler on any number of listening sockets; every answer has `headers`."""

    def __init__(
        self,
        handler: Handler,
        *,
        refusal: Refusal,
        log: logging.Logger,
        limits: HttpLimits = _USUAL,
        headers: HeaderItems = (),
    ) -> None:
        items = headers.items() if isinstance(headers, Mapping) else headers
        self.fixed = "".join(f"{name}: {value}\r\n" for name, value in items)
        self.handler = handler
        self.refusal = refusal
        self.log = log
        self.limits = limits
        self.draining = False
        self._listeners: dict[int, tuple[socket.socket, ServerTls | None]] = {}
        self._connections: set[Connection] = set()
        self._handshakes: set[asyncio.Task[None]] = set()
        self._door = Door(limits, Refusals(log))
        self._told: set[Callable[[], None]] = set()
        self._numbers = itertools.count(1)
        self._prefix = os.urandom(4).hex()
        self._sweep: asyncio.TimerHandle | None = None
        self._changed = asyncio.Event()

    def listen(self, listener: socket.socket, tls: ServerTls | None = None) -> None:
        """Accept on a listening socket, which the server owns from now on."""
        listener.setblocking(False)
        self._listeners[listener.fileno()] = (listener, tls)
        asyncio.get_running_loop().add_reader(listener.fileno(), self._accept, listener, tls)

    @property
    def connected(self) -> bool:
        """Whether somebody is connected."""
        return bool(self._connections or self._handshakes)

    async def drain(self, seconds: float) -> None:
        """Accept no more, end idle connections, tell streams, wait at most `seconds` for the rest."""
        self.draining = True
        self._stop_accepting()
        for told in list(self._told):
            told()
        idle = asyncio.get_running_loop().create_task(self._end_idle())
        try:
            async with asyncio.timeout(seconds):
                while self._connections or self._handshakes:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            self.log.info("draining ended early", extra={"left": len(self._connections)})
        finally:
            idle.cancel()

    async def _end_idle(self) -> None:
        """A request may be on its way: a client that gets a reset for it can't know what was done.

        So a connection is ended only after it has been quiet for a while; the answer to a request
        that comes before says that it was the last.
        """
        while True:
            quiet = time.monotonic() - _QUIET_SECONDS
            for connection in list(self._connections):
                if connection.idle and connection.touched < quiet:
                    connection.close()
            await asyncio.sleep(0.1)

    async def close(self) -> None:
        """Stop now: cancel every handler, close every connection."""
        self.draining = True
        self._stop_accepting()
        if self._sweep is not None:
            self._sweep.cancel()
        tasks = [c.task for c in self._connections if c.task is not None]
        tasks += self._handshakes
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for connection in list(self._connections):
            connection.close()
        await asyncio.sleep(0)

    def on_drain(self, told: Callable[[], None]) -> Callable[[], None]:
        """See `Request.on_drain`."""
        self._told.add(told)
        return lambda: self._told.discard(told)

    # -- called by connections --------------------------------------------------------------

    def next_id(self) -> str:
        """A request's id, unique on this machine."""
        return f"{self._prefix}-{next(self._numbers):x}"

    def joined(self, connection: Connection) -> None:
        """A connection stands."""
        self._connections.add(connection)
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(_SWEEP_SECONDS, self._sweep_idle)

    def left(self, connection: Connection) -> None:
        """A connection is gone."""
        full = len(self._connections) >= self.limits.connections
        self._connections.discard(connection)
        self._changed.set()
        if full and not self.draining:
            self._resume_accepting()

    def note(self, request: Request, began: float) -> None:
        """One line of the access log, at level debug."""
        if self.log.isEnabledFor(logging.DEBUG):
            facts = {
                "request": request.id,
                "method": request.method,
                "path": request.path,
                "status": request.status,
                "bytes": request.sent,
                "ms": round((time.monotonic() - began) * 1e3, 2),
                "peer": request.peer.address or f"uid {request.peer.uid}",
            }
            self.log.debug("served", extra=facts)

    # -- accepting --------------------------------------------------------------------------

    def _accept(self, listener: socket.socket, tls: ServerTls | None) -> None:
        refused = 0
        for _ in range(_ACCEPT_BATCH):
            if refused == _REFUSED_BATCH:
                return
            if len(self._connections) + len(self._handshakes) >= self.limits.connections:
                asyncio.get_running_loop().remove_reader(listener.fileno())
                return
            try:
                client, address = listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                self._accept_failed(listener, error)
                return
            refused += not self._admit(client, address, tls)

    def _admit(self, client: socket.socket, address: object, tls: ServerTls | None) -> bool:
        """Open a connection when it is its peer's turn; to refuse one has to cost next to nothing."""
        peer = _peer(client, address)
        wait = self._door.turn(peer.address, secured=tls is not None)
        if wait is None:
            client.close()
            return False
        task = asyncio.get_running_loop().create_task(self._open(client, peer, tls, wait))
        self._handshakes.add(task)
        task.add_done_callback(self._opened)
        return True

    def _accept_failed(self, listener: socket.socket, error: OSError) -> None:
        self.log.error("accept failed", extra={"error": str(error)})
        loop = asyncio.get_running_loop()
        loop.remove_reader(listener.fileno())
        if error.errno in _EXHAUSTED:
            loop.call_later(1.0, self._resume_accepting)

    def _resume_accepting(self) -> None:
        loop = asyncio.get_running_loop()
        for listener, tls in self._listeners.values():
            loop.add_reader(listener.fileno(), self._accept, listener, tls)

    def _stop_accepting(self) -> None:
        for listener, _ in self._listeners.values():
            asyncio.get_running_loop().remove_reader(listener.fileno())
            listener.close()
        self._listeners.clear()

    async def _open(
        self, client: socket.socket, peer: Peer, tls: ServerTls | None, wait: float
    ) -> None:
        loop = asyncio.get_running_loop()
        try:
            if wait:
                await asyncio.sleep(wait)
            _prepare(client)
            if tls is None:
                await loop.connect_accepted_socket(lambda: Connection(self, peer), client)
                return
            if not self._door.begin(peer.address):
                client.close()
                return
            await self._shake(client, peer, tls)
            self._door.finish(peer.address)
        except OSError as error:
            client.close()
            if tls is not None and (why := handshake_failure(error)):
                self._door.broke(peer.address, why)
            else:
                self.log.debug("no connection", extra={"peer": peer.address, "error": str(error)})
        except asyncio.CancelledError:
            client.close()
            raise

    async def _shake(self, client: socket.socket, peer: Peer, tls: ServerTls) -> None:
        seconds = self.limits.handshake_seconds
        if tls.half_closes:
            # Only who needs it loads ssl's part of Python.
            from sagong.http.secured import open_secured

            await open_secured(
                client, tls.context(), lambda: Connection(self, peer), seconds=seconds
            )
            return
        await asyncio.get_running_loop().connect_accepted_socket(
            lambda: Connection(self, peer),
            client,
            ssl=tls.context(),
            ssl_handshake_timeout=seconds,
            ssl_shutdown_timeout=2.0,
        )

    def _opened(self, task: asyncio.Task[None]) -> None:
        self._handshakes.discard(task)
        self._changed.set()
        if not task.cancelled() and task.exception() is not None:
            self.log.error("opening a connection failed", exc_info=task.exception())

    def _sweep_idle(self) -> None:
        """Close connections that sent no request for long, or not all of a head."""
        self._sweep = None
        now = time.monotonic()
        for connection in list(self._connections):
            bound = self.limits.head_seconds if connection.unfinished else self.limits.idle_seconds
            if connection.idle and now - connection.touched > bound:
                connection.close()
        if self._connections:
            self._sweep = asyncio.get_running_loop().call_later(_SWEEP_SECONDS, self._sweep_idle)


def _peer(client: socket.socket, address: object) -> Peer:
    if client.family == socket.AF_UNIX:
        raw = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid, uid, gid = _CREDENTIALS.unpack(raw)
        return Peer(uid=uid, gid=gid, pid=pid)
    host, port = (address[0], address[1]) if isinstance(address, tuple) else ("", 0)
    return Peer(address=str(host), port=int(port))


def _prepare(client: socket.socket) -> None:
    client.setblocking(False)
    if client.family != socket.AF_UNIX:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
