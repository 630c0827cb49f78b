"""The service: its sockets, and the zone that follows the cluster's objects."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from sagong.contracts.objects import Objects
from sagong.following import Kept
from sagong.host import Host
from sagong.streams import send
from sagong_dns.resolver import Resolver
from sagong_dns.zone import EndpointSlice, Service, Zone

__all__ = ["DnsService", "Settings"]

_SERVICES = "v1/services"
_SLICES = "discovery.k8s.io/v1/endpointslices"
_IN_FLIGHT = 512
_SYNC_SECONDS = 5.0
_TCP_IDLE = 10.0


Resolve = Callable[[bytes, int], Awaitable[bytes]]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`domain` of the cluster, `ttl` in seconds, `upstream` servers (default: the machine's)."""

    domain: str = "cluster.local"
    ttl: int = 5
    upstream: tuple[str, ...] = ()


class _Datagrams(asyncio.DatagramProtocol):
    """UDP questions; more than `_IN_FLIGHT` at once are dropped, as a busy server does."""

    def __init__(self, resolve: Resolve) -> None:
        self._resolve = resolve
        self._tasks: set[asyncio.Task[None]] = set()
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: Any) -> None:
        """The socket is open."""
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """A question."""
        if len(self._tasks) < _IN_FLIGHT:
            task = asyncio.get_running_loop().create_task(self._answer(data, addr))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _answer(self, data: bytes, addr: Any) -> None:
        answer = await self._resolve(data, 4096)
        if answer and self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(answer, addr)


class DnsService:
    """Serves names."""

    def __init__(self, host: Host) -> None:
        settings = host.config(Settings)
        self._host = host
        objects = host.use(Objects)
        self._services = Kept(objects, _SERVICES, Service, self._look)
        self._slices = Kept(objects, _SLICES, EndpointSlice, self._look)
        self._zone = Zone(domain=settings.domain)
        upstream = settings.upstream or _machine_servers(Path("/etc/resolv.conf"))
        self._resolver = Resolver(self._zone, upstream, settings.ttl)
        self._server: asyncio.Server | None = None
        self._transport: asyncio.DatagramTransport | None = None
        self._asked = False

    async def start(self) -> None:
        """Read what there is, then answer: a name must not be denied because it is not read yet.

        Where nobody serves the objects names of elsewhere are answered all the same, after a while.
        """
        self._host.spawn(self._services.run(self._host.log), f"watch {_SERVICES}")
        self._host.spawn(self._slices.run(self._host.log), f"watch {_SLICES}")
        try:
            async with asyncio.timeout(_SYNC_SECONDS):
                await self._services.synced.wait()
                await self._slices.synced.wait()
        except TimeoutError:
            self._host.log.warning("services are not read yet; their names are not known")
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(
            lambda: _Datagrams(self._resolve), sock=self._host.listener("udp")
        )
        self._server = await asyncio.start_server(self._serve, sock=self._host.listener("tcp"))

    def _look(self) -> None:
        self._zone.services, self._zone.slices = self._services.items, self._slices.items

    def busy(self) -> bool:
        """Whether somebody has asked since this was called last."""
        asked, self._asked = self._asked, False
        return asked

    async def _resolve(self, question: bytes, limit: int) -> bytes:
        self._asked = True
        return await self._resolver.resolve(question, limit=limit)

    async def stop(self) -> None:
        """Close our copies of the sockets."""
        if self._transport is not None:
            self._transport.close()
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Questions by TCP: a length of two bytes, then the message (RFC 1035, 4.2.2)."""
        try:
            while True:
                async with asyncio.timeout(_TCP_IDLE):
                    length = int.from_bytes(await reader.readexactly(2), "big")
                    data = await reader.readexactly(length)
                answer = await self._resolve(data, 65535)
                if not answer:
                    return
                await send(writer, len(answer).to_bytes(2, "big") + answer)
        except (TimeoutError, asyncio.IncompleteReadError, ConnectionError):
            pass  # the client is done, or gone
        finally:
            writer.close()


def _machine_servers(path: Path) -> tuple[str, ...]:
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return ()
    return tuple(words[1] for words in lines if words[:1] == ["nameserver"] and len(words) > 1)
