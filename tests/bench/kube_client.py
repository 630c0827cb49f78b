"""A lean client of the Kubernetes API over TLS, by an instance's own kubeconfig."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

__all__ = ["Client", "Server"]


@dataclass(frozen=True)
class Server:
    """Where the API is and who asks."""

    host: str
    port: int
    context: ssl.SSLContext

    @classmethod
    def of(cls, kubeconfig: Path) -> Server:
        """As kubectl would use it: a client certificate, the cluster's authority."""
        config = yaml.safe_load(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        context = ssl.create_default_context(cadata=authority)
        with tempfile.NamedTemporaryFile() as file:
            file.write(base64.b64decode(user["client-certificate-data"]))
            file.write(base64.b64decode(user["client-key-data"]))
            file.flush()
            context.load_cert_chain(file.name)
        where = urlsplit(cluster["server"])
        return cls(str(where.hostname), where.port or 443, context)


class Client:
    """One connection that sends requests and reads whole answers, or follows a watch."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def open(self) -> Client:
        """Connect."""
        server = self._server
        self._reader, self._writer = await asyncio.open_connection(
            server.host, server.port, ssl=server.context, limit=1 << 22
        )
        return self

    async def close(self) -> None:
        """Hang up."""
        self._writer.close()

    async def _send(self, method: str, path: str, body: bytes, accept: str) -> bytes:
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        )
        if accept:
            head += f"Accept: {accept}\r\n"
        self._writer.write(head.encode() + b"\r\n" + body)
        return await self._reader.readuntil(b"\r\n\r\n")

    async def ask(self, method: str, path: str, body: bytes = b"", accept: str = "") -> bytes:
        """Send one request; its answer's body."""
        answer = await self._send(method, path, body, accept)
        lower = answer.lower()
        if b"transfer-encoding: chunked" in lower:
            data = b"".join([part async for part in self._chunks()])
        else:
            length = int(lower.partition(b"content-length:")[2].partition(b"\r\n")[0])
            data = await self._reader.readexactly(length)
        if int(answer[9:12]) >= 400:
            raise RuntimeError(f"{method} {path}: {data.decode()}")
        return data

    async def watch(self, path: str) -> AsyncIterator[dict[str, Any]]:
        """The events of a watch, until the caller goes away."""
        await self._send("GET", path, b"", "")
        rest = b""
        async for part in self._chunks():
            *lines, rest = (rest + part).split(b"\n")
            for line in lines:
                yield json.loads(line)

    async def _chunks(self) -> AsyncIterator[bytes]:
        while size := int(await self._reader.readline(), 16):
            yield await self._reader.readexactly(size)
            await self._reader.readexactly(2)
        await self._reader.readexactly(2)
