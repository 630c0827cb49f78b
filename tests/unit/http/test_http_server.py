"""The HTTP server over real sockets: requests, bodies, streams, hijack, cancellation, draining."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.unit.http.server_fixture import ask, exchange, serving

from sagong.call import current
from sagong.errors import InvalidArgument, Unavailable
from sagong.http import HttpLimits, Request, Response
from sagong.http.raw import RawStream


async def echo(request: Request) -> Response:
    """Answers with what it understood."""
    body = await request.read()
    text = f"{request.method} {request.path} {request.query.items} {body!r}"
    return Response(200, text.encode(), {"Content-Type": "text/plain"})


async def test_a_request_has_method_path_query_and_body() -> None:
    async with serving(echo) as (_, path, _port):
        head, body = await exchange(
            await asyncio.open_unix_connection(str(path)),
            b"POST /a%2Fb/c?x=1&x=2&y= HTTP/1.1\r\nHost: d\r\nContent-Length: 3\r\n\r\nabc",
        )
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert body == b"POST /a%2Fb/c [('x', '1'), ('x', '2'), ('y', '')] b'abc'"


async def test_a_connection_is_kept_and_pipelined_requests_are_answered_in_order() -> None:
    async with serving(echo) as (_, path, _port):
        client = await asyncio.open_unix_connection(str(path))
        one = b"GET /1 HTTP/1.1\r\nHost: d\r\n\r\n"
        two = (
            b"POST /2 HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"
        )
        _, first = await exchange(client, one + two)
        _, second = await exchange(client, b"")
        _, third = await exchange(client, one)
        client[1].close()
    assert (first, second, third) == (b"GET /1 [] b''", b"POST /2 [] b'hi'", b"GET /1 [] b''")


async def test_a_chunked_body_is_cut_wherever_the_bytes_are_split() -> None:
    text = (
        b"POST / HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3;ext=1\r\nabc\r\nA\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n"
    )
    async with serving(echo) as (_, path, _port):
        reader, writer = await asyncio.open_unix_connection(str(path))
        for position in range(len(text)):
            writer.write(text[position : position + 1])
            await asyncio.sleep(0)
        await reader.readuntil(b"\r\n\r\n")
        bytewise = await reader.readexactly(26)
        writer.close()
    async with serving(echo) as (_, path, _port):
        answer = await ask(path, text)
    assert bytewise == b"POST / [] b'abc0123456789'"
    assert answer.endswith(bytewise)


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: d\n\n\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: d\n\n", 400),
        (b"GET / HTTP/1.1\r\nHost : d\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: d\r\n folded: x\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: d\r\n\r\n", 505),
        (b"GET  / HTTP/1.1\r\nHost: d\r\n\r\n", 400),
        (b"G\x01T / HTTP/1.1\r\nHost: d\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: d\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: d\r\nContent-Length: +1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: d\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: d\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        (b"GET / HTTP/1.1\r\nHost: d\r\nX: " + b"y" * 70000 + b"\r\n\r\n", 431),
        (b"\x16\x03\x01" + b"\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01", 400),
    ],
)  # fmt: skip
async def test_what_is_no_request_is_refused_and_the_connection_closed(
    request_bytes: bytes, status: int
) -> None:
    async with serving(echo) as (_, path, _port):
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(request_bytes)
        answer = await reader.read()
        writer.close()
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b"Connection: close" in answer


async def test_garbage_in_a_chunked_body_is_refused() -> None:
    text = b"POST / HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
    async with serving(echo) as (_, path, _port):
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(text)
        answer = await reader.read()
        writer.close()
    assert answer.startswith(b"HTTP/1.1 400 ") and b"hexadecimal" in answer


async def test_a_body_over_the_limit_is_refused() -> None:
    async with serving(echo, HttpLimits(body=10)) as (_, path, _port):
        known = await ask(
            path, b"POST / HTTP/1.1\r\nHost: d\r\nContent-Length: 11\r\n\r\n" + b"x" * 11
        )
        unknown = await ask(
            path,
            b"POST / HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"b\r\n" + b"x" * 11 + b"\r\n0\r\n\r\n",
        )
    assert known.startswith(b"HTTP/1.1 413 ") and unknown.startswith(b"HTTP/1.1 413 ")


async def test_leave_to_send_a_body_is_given_when_the_handler_reads() -> None:
    async with serving(echo) as (_, path, _port):
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(
            b"POST / HTTP/1.1\r\nHost: d\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
        )
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"ok")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        writer.close()


async def test_a_body_that_nobody_reads_does_not_harm_the_next_request() -> None:
    async def handler(request: Request) -> Response:
        return Response(200, b"unread") if request.method == "POST" else await echo(request)

    async with serving(handler) as (_, path, _port):
        client = await asyncio.open_unix_connection(str(path))
        post = b"POST / HTTP/1.1\r\nHost: d\r\nContent-Length: 3000000\r\n\r\n"
        _, body = await exchange(client, post + b"x" * 3000000)
        _, after = await exchange(client, b"GET /n HTTP/1.1\r\nHost: d\r\n\r\n")
        client[1].close()
    assert (body, after) == (b"unread", b"GET /n [] b''")


async def test_a_slow_handler_slows_the_sender() -> None:
    fed = asyncio.Event()
    held: list[int] = []

    async def handler(request: Request) -> Response:
        await fed.wait()
        return Response(200, str(len(await request.read())).encode())

    async with serving(handler) as (_, path, _port):
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b"POST / HTTP/1.1\r\nHost: d\r\nContent-Length: 8000000\r\n\r\n")
        writer.write(b"x" * 8000000)
        await asyncio.sleep(0.1)
        held.append(writer.transport.get_write_buffer_size())
        fed.set()
        await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(7) == b"8000000"
        writer.close()
    assert held[0] > 4000000


async def test_head_has_no_body_and_304_no_length() -> None:
    async def handler(request: Request) -> Response:
        return Response(304) if request.path == "/304" else Response(200, b"body")

    async with serving(handler) as (_, path, _port):
        head = await ask(path, b"HEAD / HTTP/1.1\r\nHost: d\r\n\r\n")
        unmodified = await ask(path, b"POST /304 HTTP/1.1\r\nHost: d\r\n\r\n")
    assert b"Content-Length: 4\r\n" in head and head.endswith(b"\r\n\r\n")
    assert b"Content-Length" not in unmodified


async def test_a_streams_head_is_there_before_its_first_piece() -> None:
    gate = asyncio.Event()

    async def handler(request: Request) -> None:
        out = request.stream(200, {"Content-Type": "application/json"})
        await gate.wait()
        await out.write(b"{}")

    async with serving(handler) as (_, path, _port):
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b"POST /wait HTTP/1.1\r\nHost: d\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"Transfer-Encoding: chunked" in head
        gate.set()
        assert await reader.readexactly(12) == b"2\r\n{}\r\n0\r\n\r\n"
        writer.close()


async def test_http_1_0_gets_a_stream_that_ends_with_the_connection() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"a"
        yield b"b"

    async def handler(request: Request) -> Response:
        return Response(200, chunks())

    async with serving(handler) as (_, path, _port):
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        answer = await reader.read()
        writer.close()
    assert answer.endswith(b"\r\n\r\nab") and b"chunked" not in answer


async def test_a_handler_is_cancelled_when_its_streams_reader_goes() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def handler(request: Request) -> None:
        request.stream()
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    async with serving(handler) as (_, path, _port):
        _, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b"GET / HTTP/1.1\r\nHost: d\r\n\r\n")
        await begun.wait()
        writer.close()
        await asyncio.wait_for(ended.wait(), 60)


async def test_a_generator_body_is_closed_when_its_reader_goes() -> None:
    ended = asyncio.Event()

    async def chunks() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x" * 1000
                await asyncio.sleep(0.001)
        finally:
            ended.set()

    async def handler(request: Request) -> Response:
        return Response(200, chunks())

    async with serving(handler) as (_, path, _port):
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b"GET / HTTP/1.1\r\nHost: d\r\n\r\n")
        await reader.readexactly(5000)
        writer.close()
        await asyncio.wait_for(ended.wait(), 60)


async def test_an_error_before_the_answer_is_refused_and_one_within_breaks_off() -> None:
    async def handler(request: Request) -> None:
        if request.path == "/late":
            await request.stream().write(b"abc")
        raise InvalidArgument("wrong")

    async with serving(handler) as (_, path, _port):
        early = await ask(path, b"GET /early HTTP/1.1\r\nHost: d\r\n\r\n")
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b"GET /late HTTP/1.1\r\nHost: d\r\n\r\n")
        late = await reader.read()
        writer.close()
    assert early.startswith(b"HTTP/1.1 400 ") and early.endswith(b"wrong")
    assert not late.endswith(b"0\r\n\r\n")


async def test_a_hijacked_connection_closes_each_way_by_itself() -> None:
    async def handler(request: Request) -> None:
        raw = request.hijack(101, {"Connection": "Upgrade", "Upgrade": "tcp"}, "UPGRADED")
        total = 0
        while data := await raw.read():
            total += len(data)
        for _ in range(100):
            raw.write(b"%08d" % total * 1000)
            await raw.drain()

    async with serving(handler) as (_, path, port):
        for opened in (
            await asyncio.open_unix_connection(str(path)),
            await asyncio.open_connection("127.0.0.1", port),
        ):
            reader, writer = opened
            writer.write(
                b"POST /attach HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nearly"
            )
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 101 UPGRADED\r\n")
            writer.write(b"x" * 500_000)
            writer.write_eof()
            assert await reader.read() == b"%08d" % 500_005 * 100_000
            writer.close()


async def test_the_last_output_arrives_though_input_was_left_unread() -> None:
    async def handler(request: Request) -> None:
        raw = request.hijack()
        raw.write(b"last words")

    async with serving(handler) as (_, path, _port):
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b"POST / HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"x" * 100_000)
        assert await reader.read() == b"last words"
        writer.close()


@pytest.mark.parametrize("promised", [True, False])
async def test_who_promises_a_stream_is_cancelled_when_its_client_goes(promised: bool) -> None:
    begun, left = asyncio.Event(), asyncio.Event()
    went_on = asyncio.Event()

    async def handler(request: Request) -> Response:
        if promised:
            request.promise_stream()
        begun.set()
        try:
            await left.wait()
            went_on.set()
        finally:
            left.set()
        return Response(200, b"done")

    async with serving(handler) as (_, path, _port):
        _, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b"POST / HTTP/1.1\r\nHost: d\r\n\r\n")
        await begun.wait()
        writer.write_eof()
        if promised:
            await asyncio.wait_for(left.wait(), 60)
        else:
            left.set()
            await asyncio.wait_for(went_on.wait(), 60)
        assert went_on.is_set() is not promised
        writer.close()


async def test_the_peer_of_a_unix_socket_is_known_and_the_call_has_a_cause() -> None:
    async def handler(request: Request) -> Response:
        assert current().cause == request.id
        return Response(200, f"{request.peer.uid} {request.peer.pid}".encode())

    async with serving(handler) as (_, path, _port):
        answer = await ask(path, b"GET / HTTP/1.1\r\nHost: d\r\n\r\n")
    assert answer.endswith(f"\r\n\r\n{os.geteuid()} {os.getpid()}".encode())


async def test_draining_finishes_requests_ends_idle_ones_and_tells_streams() -> None:
    gate = asyncio.Event()

    async def handler(request: Request) -> Response | None:
        if request.path == "/stream":
            told = asyncio.Event()
            request.on_drain(told.set)
            request.stream()
            await told.wait()
            return None
        await gate.wait()
        return Response(200, b"done")

    async with serving(handler) as (server, path, _port):
        idle = await asyncio.open_unix_connection(str(path))
        busy = await asyncio.open_unix_connection(str(path))
        stream = await asyncio.open_unix_connection(str(path))
        busy[1].write(b"GET / HTTP/1.1\r\nHost: d\r\n\r\n")
        stream[1].write(b"GET /stream HTTP/1.1\r\nHost: d\r\n\r\n")
        await stream[0].readuntil(b"\r\n\r\n")
        draining = asyncio.create_task(server.drain(5))
        assert await idle[0].read() == b""
        assert await stream[0].read() == b"0\r\n\r\n"
        gate.set()
        answer = await busy[0].read()
        await draining
        with pytest.raises(OSError):
            await asyncio.open_unix_connection(str(path))
        for _, writer in (idle, busy, stream):
            writer.close()
    assert answer.endswith(b"done") and b"Connection: close" in answer


async def test_a_request_on_its_way_when_draining_begins_is_answered_as_the_last() -> None:
    async def handler(request: Request) -> Response:
        return Response(200, b"done")

    async with serving(handler) as (server, path, _port):
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b"GET / HTTP/1.1\r\nHost: d\r\n\r\n")
        assert (await reader.readuntil(b"done")).count(b"Connection: close") == 0
        draining = asyncio.create_task(server.drain(5))
        await asyncio.sleep(0.05)
        writer.write(b"POST / HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n")
        answer = await reader.read()
        await draining
        writer.close()
    assert answer.endswith(b"done") and b"Connection: close" in answer


async def test_two_servers_share_a_listener_so_that_a_swap_refuses_nobody(tmp_path: Path) -> None:
    async def old(request: Request) -> Response:
        return Response(200, b"old")

    async def new(request: Request) -> Response:
        return Response(200, b"new")

    text = b"GET / HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n"
    async with serving(old) as (first, path, _port):
        async with serving(new) as (second, _, _port):
            shared = next(iter(first._listeners.values()))[0].dup()
            second.listen(shared)
            await first.drain(1)
            answers = [await ask(path, text) for _ in range(20)]
    assert all(a.endswith(b"new") for a in answers)


class Asked:
    """A transport whose socket counts how often it is looked at."""

    def __init__(self, ours: socket.socket) -> None:
        self._ours = ours
        self.times = 0

    def get_extra_info(self, name: str) -> Asked:
        return self

    def fileno(self) -> int:
        self.times += 1
        return self._ours.fileno()


async def test_waiting_for_a_client_to_read_does_not_keep_the_loop_busy() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.send(b"unread")
        asked = Asked(ours)
        stream = RawStream(asked, b"")  # type: ignore[arg-type]
        await stream.wait_taken(0.5)
        assert 2 <= asked.times <= 501
        before = asked.times
        theirs.recv(100)
        await stream.wait_taken(10)
        assert asked.times <= before + 1


async def test_one_address_opens_connections_at_a_pace_and_others_do_not_wait() -> None:
    """Of one that opens more than its burst each has its turn; too many are closed."""
    limits = HttpLimits(burst=2, connections_a_second=0.1, patience_seconds=15.0)
    hello = b"GET / HTTP/1.1\r\nHost: d\r\n\r\n"

    async def opened(host: str) -> asyncio.StreamReader:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(host, 0))
        clients.append(writer)
        writer.write(hello)
        return reader

    clients: list[asyncio.StreamWriter] = []
    async with serving(echo, limits=limits) as (_, path, port):
        first = [await opened("127.0.0.1") for _ in range(5)]
        for reader in (*first[:2], await opened("127.0.0.2")):
            assert (await reader.readuntil(b" [] b''")).startswith(b"HTTP/1.1 200 OK")
        assert await ask(path, hello)
        for reader in first[3:]:  # theirs would be 20 seconds away
            assert await reader.read() == b""
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(first[2].read(1), 0.1)
        for writer in clients:
            writer.close()


async def test_an_error_of_others_on_a_connection_that_was_taken_over_is_no_defect(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """There is no answer that could tell it; the log had a traceback."""

    async def take_over(request: Request) -> None:
        request.hijack(101, {})
        raise Unavailable("the runtime is down")

    async with serving(take_over) as (_, path, _port):
        await ask(path, b"GET / HTTP/1.1\r\nHost: d\r\n\r\n")
    (record,) = [r for r in caplog.records if r.getMessage() == "request was cut"]
    assert not record.exc_info
    assert vars(record)["error"] == "the runtime is down"
