"""Proxies to pods, services and nodes: HTTP carried to their ports, WebSockets and all."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import random
from collections.abc import AsyncGenerator, Mapping, Sequence
from urllib.parse import quote

import msgspec

from sagong.model.numbers import natural
from sagong.model.selectors import from_labels
from sagong_kube import refusal
from sagong_kube.handlers.exchange import Answer, Ask, Raw, Reply, Streamed
from sagong_kube.handlers.objects import Objects
from sagong_kube.registry.document import Document
from sagong_kube.registry.resource import Resource
from sagong_kube.storage.collection import Selection
from sagong_kube.streams.pipe import Pipe

__all__ = ["Proxy", "Upstream", "split_name"]

_HOP = {
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
}
# What the API server was shown must not reach what is behind it.
_CREDENTIALS = {"authorization", "cookie", "x-forwarded-client-cert"}
_HEAD_LIMIT = 64 << 10
_CONNECT_SECONDS = 10.0
_PIECE = 64 << 10
_KUBELET_PORT = 10250


class Upstream(msgspec.Struct, frozen=True):
    """Where a proxied request goes."""

    scheme: str
    address: str
    port: int


def split_name(name: str) -> tuple[str, str, str]:
    """(scheme, name, port) of `scheme:name:port`, `name:port` or `name`."""
    parts = name.split(":")
    match parts:
        case [plain]:
            return "http", plain, ""
        case [plain, port]:
            return "http", plain, port
        case [scheme, plain, port] if scheme in ("", "http", "https"):
            return scheme or "http", plain, port
    raise refusal.bad_request(f'invalid proxy target "{name}"')


class Proxy:
    """Handlers of pods/proxy, services/proxy and nodes/proxy."""

    def __init__(self, objects: Objects, chance: random.Random) -> None:
        self._objects = objects
        self._chance = chance

    async def pod(self, ask: Ask, resource: Resource) -> Reply:
        """A port of a pod, its first container port if none is named."""
        scheme, name, port = split_name(ask.target.name)
        pod = await self._object(ask, resource, name)
        address = (pod.get("status") or {}).get("podIP")
        if not address:
            raise refusal.unavailable(f'no address for pod "{name}": it is not running')
        return await self._carry(ask, Upstream(scheme, address, _pod_port(pod, port)))

    async def service(self, ask: Ask, resource: Resource) -> Reply:
        """A ready endpoint of a service's port, by its number or name."""
        scheme, name, port = split_name(ask.target.name)
        service = await self._object(ask, resource, name)
        upstream = self._endpoint(service, scheme, port)
        return await self._carry(ask, upstream)

    async def node(self, ask: Ask, resource: Resource) -> Reply:
        """The node's own API."""
        scheme, name, port = split_name(ask.target.name)
        node = await self._object(ask, resource, name)
        status = node.get("status") or {}
        kubelet = ((status.get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}).get("Port")
        address = _node_address(status.get("addresses") or ())
        if not address:
            raise refusal.unavailable(f'node "{name}" has no address')
        number = natural(port) or int(kubelet or _KUBELET_PORT)
        chosen = scheme if ask.target.name.count(":") == 2 else "https"
        return await self._carry(ask, Upstream(chosen, address, number))

    async def _object(self, ask: Ask, resource: Resource, name: str) -> Document:
        plain = msgspec.structs.replace(ask, target=msgspec.structs.replace(ask.target, name=name))
        record = await self._objects.record(plain, resource)
        document: Document = msgspec.json.decode(record.body)
        return document

    def _endpoint(self, service: Document, scheme: str, port: str) -> Upstream:
        metadata = service["metadata"]
        ports = service["spec"].get("ports") or ()
        wanted = [p for p in ports if not port or str(p["port"]) == port or p.get("name") == port]
        if not wanted or (not port and len(ports) > 1):
            raise refusal.unavailable(
                f'no service port "{port}" found for service "{metadata["name"]}"'
            )
        name = wanted[0].get("name") or ""
        found = [
            Upstream(scheme, address, number)
            for slice_ in self._slices(metadata["namespace"], metadata["name"])
            for p in slice_.get("ports") or ()
            if (p.get("name") or "") == name and (number := p.get("port"))
            for endpoint in slice_.get("endpoints") or ()
            if (endpoint.get("conditions") or {}).get("ready", True)
            for address in endpoint.get("addresses") or ()
        ]
        if not found:
            raise refusal.unavailable(f'no endpoints available for service "{metadata["name"]}"')
        return self._chance.choice(found)

    def _slices(self, namespace: str, name: str) -> list[Document]:
        selection = Selection(namespace, from_labels({"kubernetes.io/service-name": name}))
        collection = self._objects.store.collection("discovery.k8s.io/endpointslices")
        return [msgspec.json.decode(record.body) for record in collection.select(selection)]

    async def _carry(self, ask: Ask, upstream: Upstream) -> Reply:
        _check_address(upstream.address)
        reader, writer = await _connect(upstream)
        try:
            writer.write(_head(ask, upstream) + ask.body)
            status, headers = await _answer_head(reader)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            writer.close()
            raise refusal.unavailable(f"error trying to reach service: {error}") from None
        if status == 101:
            return Raw(
                {**headers, "Connection": "Upgrade", "Upgrade": ask.upgrade},
                lambda pipe: _join(pipe, reader, writer),
            )
        media = headers.pop("Content-Type", "")
        kept = {k: v for k, v in headers.items() if k.lower() not in (*_HOP, "content-length")}
        kept = _rewritten(ask, kept)
        if ask.method == "HEAD" or status in (204, 304):
            writer.close()
            return Answer(b"", status, media, kept)
        return Streamed(_body(reader, writer, headers), media, kept, status)


def _pod_port(pod: Document, port: str) -> int:
    containers = pod["spec"].get("containers") or ()
    declared = [p for c in containers for p in c.get("ports") or ()]
    if (number := natural(port)) is not None:
        return number
    if port:
        for p in declared:
            if p.get("name") == port:
                return int(p["containerPort"])
        raise refusal.bad_request(f'pod has no port named "{port}"')
    return int(declared[0]["containerPort"]) if declared else 80


def _node_address(addresses: Sequence[Document]) -> str:
    for kind in ("InternalIP", "ExternalIP", "Hostname"):
        for address in addresses:
            if address.get("type") == kind:
                return str(address["address"])
    return ""


def _check_address(address: str) -> None:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return
    # The loopback device is the API server's own machine, not a pod's or an endpoint's.
    if parsed.is_loopback or parsed.is_link_local or parsed.is_multicast or parsed.is_unspecified:
        raise refusal.bad_request(f"address not allowed: {address}")


async def _connect(upstream: Upstream) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    context = None
    if upstream.scheme == "https":
        import ssl

        # Pods' certificates are their own; upstream doesn't verify them either.
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            return await asyncio.open_connection(
                upstream.address, upstream.port, ssl=context, limit=_HEAD_LIMIT
            )
    except (OSError, TimeoutError) as error:
        raise refusal.unavailable(
            f"error trying to reach service: dial tcp {upstream.address}:{upstream.port}: {error}"
        ) from None


def _head(ask: Ask, upstream: Upstream) -> bytes:
    path = quote(ask.target.rest or "/", safe="/:@!$&'()*+,;=~-._%")
    query = "&".join(
        f"{quote(name)}={quote(value)}" for name, values in ask.query.items() for value in values
    )
    lines = [f"{ask.method} {path}{'?' + query if query else ''} HTTP/1.1"]
    lines.append(f"Host: {upstream.address}:{upstream.port}")
    for name, value in ask.headers.items():
        if name not in _HOP and name not in _CREDENTIALS and name not in ("host", "content-length"):
            lines.append(f"{name}: {value}")
    lines.append(f"X-Forwarded-For: {ask.address}")
    if ask.upgrade:
        lines += ["Connection: Upgrade", f"Upgrade: {ask.headers.get('upgrade', '')}"]
    else:
        lines.append("Connection: close")
    if ask.body or ask.method in ("POST", "PUT", "PATCH"):
        lines.append(f"Content-Length: {len(ask.body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")


async def _answer_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    raw = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = raw.split("\r\n")
    parts = first.split(" ", 2)
    status = natural(parts[1]) if len(parts) > 1 else None
    if status is None:
        raise refusal.unavailable("error trying to reach service: malformed HTTP response")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            headers["-".join(p.capitalize() for p in name.split("-"))] = value.strip()
    return status, headers


def _rewritten(ask: Ask, headers: dict[str, str]) -> dict[str, str]:
    """Redirects within what is proxied stay within the proxy's path."""
    location = headers.get("Location", "")
    if not location.startswith("/"):
        return headers
    base = ask.target.path.partition("/proxy")[0] + "/proxy"
    return {**headers, "Location": base + location}


async def _body(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, headers: Mapping[str, str]
) -> AsyncGenerator[bytes, None]:
    try:
        if "chunked" in headers.get("Transfer-Encoding", "").lower():
            while size := int((await reader.readline()).partition(b";")[0] or b"0", 16):
                while size and (data := await reader.read(min(size, _PIECE))):
                    size -= len(data)
                    yield data
                await reader.readline()
            return
        left = int(headers.get("Content-Length", "-1"))
        while left and (data := await reader.read(_PIECE if left < 0 else min(left, _PIECE))):
            left -= len(data) if left > 0 else 0
            yield data
    finally:
        writer.close()


async def _join(pipe: Pipe, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    async def inward() -> None:
        while data := await pipe.read():
            writer.write(data)
            await writer.drain()

    async def outward() -> None:
        while data := await reader.read(_PIECE):
            await pipe.write(data)

    tasks = [asyncio.ensure_future(inward()), asyncio.ensure_future(outward())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await pipe.close()
