"""The service: its sockets, and the zone that follows the cluster's objects."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from sagong.contracts.objects import ObjectChange, Objects, ObjectWatch
from sagong.following import follow
from sagong.host import Host
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
        self._objects = host.use(Objects)
        self._zone = Zone(domain=settings.domain)
        upstream = settings.upstream or _machine_servers(Path("/etc/resolv.conf"))
        self._resolver = Resolver(self._zone, upstream, settings.ttl)
        self._server: asyncio.Server | None = None
        self._transport: asyncio.DatagramTransport | None = None
        self._read = {resource: asyncio.Event() for resource in (_SERVICES, _SLICES)}
        self._asked = False

    async def start(self) -> None:
        """Read what there is, then answer: a name must not be denied because it is not read yet.

        Where nobody serves the objects names of elsewhere are answered all the same, after a while.
        """
        for resource in self._read:
            self._host.spawn(self._watch(resource), f"watch {resource}")
        try:
            async with asyncio.timeout(_SYNC_SECONDS):
                for event in self._read.values():
                    await event.wait()
        except TimeoutError:
            self._host.log.warning("services are not read yet; their names are not known")
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(
            lambda: _Datagrams(self._resolve), sock=self._host.listener("udp")
        )
        self._server = await asyncio.start_server(self._serve, sock=self._host.listener("tcp"))

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
                writer.write(len(answer).to_bytes(2, "big") + answer)
                await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, ConnectionError):
            pass  # the client is done, or gone
        finally:
            writer.close()

    async def _watch(self, resource: str) -> None:
        seen: set[tuple[str, str]] = set()
        watch = ObjectWatch(resource=resource)
        async for batch in follow(self._objects, watch, log=self._host.log):
            if batch.fresh:
                seen = set()
            for change in batch.changes:
                self._take(resource, change, seen)
            if batch.synced:
                self._keep_only(resource, seen)
                self._read[resource].set()

    def _take(self, resource: str, change: ObjectChange, seen: set[tuple[str, str]]) -> None:
        store, kind = self._store(resource)
        found = msgspec.json.decode(change.body, type=kind)
        key = (found.metadata.namespace, found.metadata.name)
        if change.kind == "DELETED":
            store.pop(key, None)
            seen.discard(key)
        else:
            store[key] = found
            seen.add(key)

    def _keep_only(self, resource: str, seen: set[tuple[str, str]]) -> None:
        store, _ = self._store(resource)
        for key in set(store) - seen:
            del store[key]

    def _store(self, resource: str) -> tuple[dict[tuple[str, str], Any], Any]:
        if resource == _SERVICES:
            return self._zone.services, Service
        return self._zone.slices, EndpointSlice


def _machine_servers(path: Path) -> tuple[str, ...]:
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return ()
    return tuple(words[1] for words in lines if words[:1] == ["nameserver"] and len(words) > 1)
