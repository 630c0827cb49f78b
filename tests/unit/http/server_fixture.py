"""A server on a Unix socket or TCP port, and a client that speaks plain bytes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from sagong.errors import ResourceExhausted, SagongError
from sagong.http import Handler, HttpLimits, HttpServer, Request, Response, ServerTls

Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def refusal(request: Request, error: Exception) -> Response:
    """The table of errors of these tests."""
    status = 413 if isinstance(error, ResourceExhausted) else 400
    if not isinstance(error, SagongError):
        status = 500
    return Response(status, str(error).encode())


@contextlib.asynccontextmanager
async def serving(
    handler: Handler, limits: HttpLimits | None = None, tls: ServerTls | None = None
) -> AsyncIterator[tuple[HttpServer, Path, int]]:
    """A server on a Unix socket and on a TCP port (with `tls` there)."""
    log = logging.getLogger("sagong.test.http")
    server = HttpServer(handler, refusal=refusal, log=log, limits=limits or HttpLimits())
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        path = Path(directory, "s")
        local = socket.socket(socket.AF_UNIX)
        local.bind(str(path))
        local.listen()
        net = socket.create_server(("127.0.0.1", 0))
        port = net.getsockname()[1]
        server.listen(local)
        server.listen(net, tls)
        try:
            yield server, path, port
        finally:
            await server.close()


async def ask(path: Path, text: bytes) -> bytes:
    """Send bytes, end our side, read to the end."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(text)
    writer.write_eof()
    try:
        return await reader.read()
    finally:
        writer.close()


async def exchange(client: Client, text: bytes) -> tuple[bytes, bytes]:
    """One request and its answer with Content-Length on a kept connection."""
    reader, writer = client
    writer.write(text)
    head = await reader.readuntil(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    return head, await reader.readexactly(length)


def client_context(authority: str, certificate: Path | None = None) -> ssl.SSLContext:
    """TLS of a client that trusts `authority`; `certificate` holds its own with the key."""
    context = ssl.create_default_context(cadata=authority)
    if certificate is not None:
        context.load_cert_chain(certificate)
    return context
