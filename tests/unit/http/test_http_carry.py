"""Bytes of another socket as an answer: passed on by the kernel where nothing has to be wrapped."""

from __future__ import annotations

import asyncio
import secrets
import socket
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from tests.unit.http.server_fixture import client_context, serving
from tests.unit.http.test_http_tls_websocket import certificate, pem

from sagong.http import Request, ServerTls

DATA = secrets.token_bytes(3 << 20)
GET = b"GET / HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n"


def feeding(data: bytes) -> socket.socket:
    """A socket from which the data comes, then its end."""
    ours, theirs = socket.socketpair()

    def feed() -> None:
        with theirs:
            try:
                theirs.sendall(data)
            except OSError:
                return  # nobody wants the rest

    threading.Thread(target=feed, daemon=True).start()
    ours.setblocking(False)
    return ours


def carrying(length: int, sized: bool, moved: list[int]) -> Callable[[Request], Awaitable[None]]:
    async def handler(request: Request) -> None:
        headers = {"Content-Length": str(len(DATA) + 6)} if sized else {}
        out = request.stream(200, headers)
        out.send(b"before")
        with feeding(DATA) as source:
            moved.append(await out.carry(source, length))

    return handler


async def body(port: int, tls: object = None) -> bytes:
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=tls, server_hostname="localhost" if tls else None
    )
    writer.write(GET)
    await reader.readuntil(b"\r\n\r\n")
    found = await reader.read()
    writer.close()
    return found


async def test_bytes_come_in_order_behind_what_was_written() -> None:
    moved: list[int] = []
    async with serving(carrying(len(DATA), True, moved)) as (_, _path, port):
        assert await body(port) == b"before" + DATA
    assert moved == [len(DATA)]


async def test_a_chunked_answer_is_wrapped() -> None:
    moved: list[int] = []
    async with serving(carrying(len(DATA), False, moved)) as (_, _path, port):
        found = await body(port)
    assert found.startswith(b"6\r\nbefore\r\n") and found.endswith(b"\r\n0\r\n\r\n")
    assert len(found) > len(DATA) and moved == [len(DATA)]


async def test_an_encrypted_answer_is_encrypted(tmp_path: Path) -> None:
    authority, key = certificate("authority", None)
    server = pem(*certificate("localhost", (authority, key)))
    context = client_context(pem(authority, key).certificate, None)
    tls, moved = ServerTls(server.certificate, server.key), list[int]()
    async with serving(carrying(len(DATA), True, moved), tls=tls) as (_, _path, port):
        assert await body(port, context) == b"before" + DATA


async def test_no_more_than_wanted_is_passed_on() -> None:
    moved: list[int] = []
    async with serving(carrying(1000, True, moved)) as (_, _path, port):
        assert (await body(port))[6:1006] == DATA[:1000]
    assert moved == [1000]


async def test_a_source_that_ends_early_is_told() -> None:
    moved: list[int] = []
    async with serving(carrying(len(DATA) + 5, True, moved)) as (_, _path, port):
        assert await body(port) == b"before" + DATA
    assert moved == [len(DATA)]


@pytest.mark.parametrize("read", [0, 100_000])
async def test_a_reader_that_leaves_ends_the_handler(read: int) -> None:
    ended = asyncio.Event()

    async def handler(request: Request) -> None:
        out = request.stream(200, {"Content-Length": str(1 << 40)})
        try:
            with feeding(DATA * 20) as source:
                await out.carry(source, 1 << 40)
        finally:
            ended.set()

    async with serving(handler) as (_, _path, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: d\r\n\r\n")
        await reader.read(read or 1)
        writer.transport.abort()
        await asyncio.wait_for(ended.wait(), 60)
