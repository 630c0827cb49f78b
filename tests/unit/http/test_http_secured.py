"""TLS that closes each way by itself: what `echo hello | docker run -i` needs over the network."""

from __future__ import annotations

import asyncio
import socket
import ssl

import pytest
from tests.unit.http.server_fixture import client_context, serving
from tests.unit.http.test_http_tls_websocket import certificate, pem

from sagong.http import HttpLimits, Request, ServerTls

_HEAD = b"POST /attach HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
_LARGE = 3 << 20


class HalfClient:
    """A client as Go's: after `end` it reads on. Blocking, for a thread of its own."""

    def __init__(self, port: int, authority: str, most: ssl.TLSVersion) -> None:
        context = client_context(authority)
        context.maximum_version = most
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._more()
        self._flush()

    def send(self, data: bytes) -> None:
        """Encrypted."""
        self._tls.write(data)
        self._flush()

    def end(self) -> None:
        """`close_notify`, and nothing more from us."""
        with pytest.raises(ssl.SSLWantReadError):
            self._tls.unwrap()
        self._flush()

    def read(self) -> bytes:
        """What the server says until it says that it is done; EOFError if it was cut off."""
        parts: list[bytes] = []
        while True:
            try:
                data = self._tls.read(65536)
            except ssl.SSLWantReadError:
                self._more()
                continue
            except ssl.SSLZeroReturnError:
                data = b""
            if not data:
                return b"".join(parts)
            parts.append(data)

    def close(self) -> None:
        """The socket, too."""
        self._socket.close()

    def _more(self) -> None:
        self._flush()
        data = self._socket.recv(65536)
        if not data:
            raise EOFError
        self._incoming.write(data)

    def _flush(self) -> None:
        self._socket.sendall(self._outgoing.read())


async def count(request: Request) -> None:
    """Reads to the client's end, and answers only then, with more than a buffer."""
    raw = request.hijack(101, {"Connection": "Upgrade", "Upgrade": "tcp"}, "UPGRADED")
    size = 0
    while data := await raw.read():
        size += len(data)
        await asyncio.sleep(0)
    raw.write(f"{size}\n".encode())
    raw.write(b"x" * _LARGE)
    await raw.drain()


@pytest.mark.parametrize("most", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_who_ends_his_input_reads_on(most: ssl.TLSVersion) -> None:
    ca = certificate("ca", None)
    server = pem(*certificate("s", ca))
    tls = ServerTls(server.certificate, server.key, half_closes=True)

    def talk(port: int) -> bytes:
        client = HalfClient(port, pem(*ca).certificate, most)
        client.send(_HEAD)
        client.send(b"a" * _LARGE)
        client.end()
        try:
            return client.read()
        finally:
            client.close()

    async with serving(count, tls=tls) as (_, _path, port):
        head, _, body = (await asyncio.to_thread(talk, port)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 UPGRADED")
    said, _, rest = body.partition(b"\n")
    assert (said, len(rest)) == (str(_LARGE).encode(), _LARGE)


async def test_who_is_gone_without_a_word_is_gone() -> None:
    """No `close_notify`, no end of input: a cut line is not taken for one."""
    lost: asyncio.Queue[bool] = asyncio.Queue()

    async def watch(request: Request) -> None:
        raw = request.hijack(101, {"Connection": "Upgrade", "Upgrade": "tcp"}, "UPGRADED")
        while await raw.read():
            pass
        lost.put_nowait(raw.lost)

    ca = certificate("ca", None)
    server = pem(*certificate("s", ca))
    tls = ServerTls(server.certificate, server.key, half_closes=True)

    def cut(port: int) -> None:
        client = HalfClient(port, pem(*ca).certificate, ssl.TLSVersion.TLSv1_3)
        client.send(_HEAD)
        client.close()

    async with serving(watch, tls=tls) as (_, _path, port):
        await asyncio.to_thread(cut, port)
        async with asyncio.timeout(60):
            assert await lost.get()


async def test_who_speaks_no_tls_is_told_so() -> None:
    server = pem(*certificate("s", None))
    tls = ServerTls(server.certificate, server.key, half_closes=True)
    async with serving(count, tls=tls) as (_, _path, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert (await reader.read()).endswith(b"sent an HTTP request to an HTTPS server.\n")
        writer.close()


async def test_a_handshake_that_does_not_go_on_is_ended() -> None:
    server = pem(*certificate("s", None))
    tls = ServerTls(server.certificate, server.key, half_closes=True)
    limits = HttpLimits(handshake_seconds=0.1)
    async with serving(count, limits=limits, tls=tls) as (running, _path, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.timeout(60):
            assert await reader.read() == b""
        writer.close()
        assert not running.connected
