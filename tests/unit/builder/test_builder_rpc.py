"""gRPC on HTTP/2: calls both ways, errors, and peers that speak something else."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import h2.connection
import h2.events
import pytest

from sagong.errors import Internal, NotFound, ResourceExhausted, Unavailable, Unimplemented
from sagong_builder.buildkit import messages as m
from sagong_builder.buildkit.protobuf import decode
from sagong_builder.buildkit.rpc import Call, Connection, RpcError

Serve = Callable[[Call], Awaitable[None]]


@contextlib.asynccontextmanager
async def talking(serve: Serve) -> AsyncIterator[Connection]:
    """A client's side of a connection whose other side is served."""
    one, two = socket.socketpair()
    server = Connection(*await asyncio.open_unix_connection(sock=one), client=False, serve=serve)
    client = Connection(*await asyncio.open_unix_connection(sock=two), client=True)
    tasks = [asyncio.create_task(side.run()) for side in (server, client)]
    await asyncio.sleep(0)
    try:
        yield client
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def echo(call: Call) -> None:
    """Sends back what it is sent."""
    while (piece := await call.receive(m.Bytes)) is not None:
        await call.send(piece)


async def test_large_messages_pass_the_windows_both_ways() -> None:
    sent = random.Random(1).randbytes(5 << 20)
    async with talking(echo) as client, asyncio.timeout(60):
        answer = await client.ask("/echo", m.Bytes(data=sent), m.Bytes)
    assert answer.data == sent


async def test_many_calls_share_a_connection() -> None:
    async with talking(echo) as client, asyncio.timeout(60):
        asked = [client.ask("/echo", m.Bytes(data=b"%d" % n), m.Bytes) for n in range(50)]
        answers = await asyncio.gather(*asked)
    assert [answer.data for answer in answers] == [b"%d" % n for n in range(50)]


async def test_errors_keep_their_class_and_words() -> None:
    async def serve(call: Call) -> None:
        if call.path == "/defect":
            raise ZeroDivisionError
        raise NotFound("nothing, äöü: 100 %") if call.path == "/none" else Unimplemented("no")

    async with talking(serve) as client, asyncio.timeout(60):
        with pytest.raises(NotFound, match="nothing, äöü: 100 %"):
            await client.ask("/none", m.Empty(), m.Empty)
        with pytest.raises(Unimplemented):
            await client.ask("/other", m.Empty(), m.Empty)
        with pytest.raises(Internal, match="/defect failed"):
            await client.ask("/defect", m.Empty(), m.Empty)


async def test_a_cancelled_call_cancels_its_handler() -> None:
    ended = asyncio.Event()

    async def serve(call: Call) -> None:
        try:
            await call.send(m.Empty())
            await asyncio.sleep(600)
        finally:
            ended.set()

    async with talking(serve) as client, asyncio.timeout(60):
        call = client.open("/slow")
        await call.receive(m.Empty)
        call.cancel()
        await ended.wait()


async def test_messages_that_nobody_takes_are_bounded() -> None:
    asked = asyncio.Event()

    async def serve(call: Call) -> None:
        await asked.wait()
        await echo(call)

    async with talking(serve) as client, asyncio.timeout(60):
        call = client.open("/greedy")
        for _ in range(3):
            await call.send(m.Bytes(data=bytes(24 << 20)))
        call.end()
        asked.set()
        with pytest.raises(ResourceExhausted, match="more is sent than is taken"):
            await call.receive(m.Bytes)
        # Others on the same connection are served on.
        assert (await client.ask("/modest", m.Bytes(data=b"x"), m.Bytes)).data == b"x"


async def test_details_of_errors_arrive() -> None:
    detail = m.Anything(type_url="kind", value=b"\0\xff")

    async def serve(call: Call) -> None:
        raise RpcError("words", status=2, details=[detail])

    one, two = socket.socketpair()
    side = Connection(*await asyncio.open_unix_connection(sock=one), client=False, serve=serve)
    running = asyncio.create_task(side.run())
    peer = h2.connection.H2Connection()
    peer.initiate_connection()
    head = [(":method", "POST"), (":scheme", "http"), (":path", "/x"), (":authority", "l")]
    peer.send_headers(1, head, end_stream=True)
    reader, writer = await asyncio.open_unix_connection(sock=two)
    writer.write(peer.data_to_send())
    found: dict[str, str] = {}
    async with asyncio.timeout(60):
        while "grpc-status" not in found:
            for event in peer.receive_data(await reader.read(65536)):
                if isinstance(event, h2.events.ResponseReceived):
                    found = {k.decode(): v.decode() for k, v in event.headers}
    raw = found["grpc-status-details-bin"]
    status = decode(m.RpcStatus, base64.b64decode(raw + "=" * (-len(raw) % 4)))
    assert (status.code, status.message, status.details) == (2, "words", [detail])
    writer.close()
    await running


async def test_a_peer_that_goes_ends_all_calls() -> None:
    async def serve(call: Call) -> None:
        await asyncio.sleep(600)

    async with talking(serve) as client, asyncio.timeout(60):
        call = client.open("/slow")
        client._writer.close()
        with pytest.raises(Unavailable):
            await call.receive(m.Empty)


async def test_strangers_bytes_end_the_connection_alone() -> None:
    chance = random.Random(3)
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    for _ in range(200):
        one, two = socket.socketpair()
        side = Connection(*await asyncio.open_unix_connection(sock=one), client=False, serve=echo)
        length = chance.randint(0, 40)
        frame = length.to_bytes(3, "big") + bytes([chance.randrange(12), chance.randrange(256)])
        frame += chance.randrange(4).to_bytes(4, "big") + chance.randbytes(length)
        two.sendall(chance.choice((b"", preface)) + frame + chance.randbytes(chance.randint(0, 60)))
        two.close()
        async with asyncio.timeout(60):
            await side.run()
