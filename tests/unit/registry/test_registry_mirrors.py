"""A copy of another registry: fetched once, looked up again, served when the other is down."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import json
import secrets
import shutil
import socket
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohappyeyeballs
import bcrypt
import pytest
from tests.conformance.image_registry_server import by_certificate, needs_registry
from tests.unit.registry.registry_lab import Kept, Running, running

from sagong.conformance.registry import Pushed, asked, pushed
from sagong.contracts.registry import Account
from sagong.errors import Unauthenticated
from sagong.http import Request, Response
from sagong_registry.upstream import check_realm

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


class Upstream:
    """A registry that counts what it is asked for, and can be made to fail."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self.asked: Counter[str] = Counter()
        self.broken = False
        self.cut = 0
        self.pause: asyncio.Event | None = None
        self.silence: asyncio.Event | None = None
        server = running.plugin._server
        self._serve, server.handler = server.handler, self.serve

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.running.port}"

    async def serve(self, request: Request) -> Response | None:
        """Count, then answer; or break off within a blob."""
        self.asked[f"{request.method} {request.path}"] += 1
        if self.silence is not None:
            await self.silence.wait()
        if self.broken:
            return Response(502, b"bad gateway")
        if self.cut and request.method == "GET" and "/blobs/" in request.path:
            self.cut -= 1
            raise ConnectionResetError
        if self.pause is not None and request.method == "GET" and "/blobs/" in request.path:
            await self.slowly(request, self.pause)
            return None
        return await self._serve(request)

    async def slowly(self, request: Request, pause: asyncio.Event) -> None:
        """A blob in two pieces, with a pause between."""
        data = self.running.kept.content.blobs[request.path.rpartition("/")[2]]
        out = request.stream(200, {"Content-Length": str(len(data))})
        for piece in (data[:10], data[10:20]):
            await out.write(piece)
            await asyncio.sleep(0.05)
        await pause.wait()
        await out.write(data[20:])


@contextlib.asynccontextmanager
async def copying(kept: Kept | None = None, **more: Any) -> AsyncIterator[tuple[Running, Upstream]]:
    """A registry that copies from another one below `hub`."""
    async with running() as other:
        upstream = Upstream(other)
        settings = {"url": upstream.url, "prefix": "hub", **more}
        async with running(kept, upstreams=[settings]) as copy:
            yield copy, upstream


async def pull(copy: Running, image: Pushed, reference: str = "v1") -> tuple[int, dict[str, str]]:
    """A whole pull: manifest and blob."""
    target = f"/v2/hub/{image.repository}"
    status, headers, raw = await asked(copy.lab, "GET", f"{target}/manifests/{reference}")
    if status == 200:
        assert f"sha256:{hashlib.sha256(raw).hexdigest()}" == headers["docker-content-digest"]
        digest = json.loads(raw)["config"]["digest"]
        found, _, blob = await asked(copy.lab, "GET", f"{target}/blobs/{digest}")
        assert found == 200 and f"sha256:{hashlib.sha256(blob).hexdigest()}" == digest
    return status, headers


async def test_an_image_is_fetched_once_and_kept() -> None:
    async with copying() as (copy, upstream):
        image = await pushed(upstream.running.lab, "team/app", "v1")
        upstream.asked.clear()
        for _ in range(3):
            assert (await pull(copy, image))[0] == 200
        blob = f"/v2/team/app/blobs/{image.blob}"
        assert upstream.asked[f"GET {blob}"] == 1
        assert upstream.asked["HEAD /v2/team/app/manifests/v1"] == 1


async def begun(copy: Running, target: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A GET whose head has come."""
    reader, writer = await asyncio.open_connection("127.0.0.1", copy.port)
    writer.write(f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    return reader, writer


async def test_bytes_come_while_they_are_fetched() -> None:
    kept = Kept()
    async with copying(kept) as (copy, upstream):
        image = await pushed(upstream.running.lab, "team/app", "v1")
        data = upstream.running.kept.content.blobs[image.blob]
        upstream.pause = asyncio.Event()
        target = f"/v2/hub/team/app/blobs/{image.blob}"
        first, writer = await begun(copy, target)
        assert await first.readexactly(10) == data[:10]
        late = asyncio.ensure_future(asked(copy.lab, "GET", target))
        await asyncio.sleep(0.05)
        assert image.blob not in kept.content.blobs and not late.done()
        upstream.pause.set()
        assert await first.read() == data[10:]
        assert (await late)[2] == data
        assert upstream.asked[f"GET /v2/team/app/blobs/{image.blob}"] == 1
        writer.close()


async def test_a_client_that_leaves_does_not_end_the_fetch() -> None:
    kept = Kept()
    async with copying(kept) as (copy, upstream):
        image = await pushed(upstream.running.lab, "team/app", "v1")
        upstream.pause = asyncio.Event()
        target = f"/v2/hub/team/app/blobs/{image.blob}"
        _, writer = await begun(copy, target)
        writer.transport.abort()
        await asyncio.sleep(0.05)
        upstream.pause.set()
        assert (await asked(copy.lab, "GET", target))[0] == 200
        assert upstream.asked[f"GET /v2/team/app/blobs/{image.blob}"] == 1


async def test_a_question_brings_nothing() -> None:
    kept = Kept()
    async with copying(kept) as (copy, upstream):
        image = await pushed(upstream.running.lab, "team/app", "v1")
        target = f"/v2/hub/team/app/blobs/{image.blob}"
        status, headers, _ = await asked(copy.lab, "HEAD", target)
        there = len(upstream.running.kept.content.blobs[image.blob])
        assert (status, headers["content-length"]) == (200, str(there))
        assert image.blob not in kept.content.blobs
        nowhere = "/v2/hub/team/app/blobs/sha256:" + "0" * 64
        assert (await asked(copy.lab, "HEAD", nowhere))[0] == 404


async def test_a_blob_is_fetched_once_though_many_ask_at_the_same_time() -> None:
    async with copying() as (copy, upstream):
        image = await pushed(upstream.running.lab, "team/app", "v1")
        answers = await asyncio.gather(*(pull(copy, image) for _ in range(20)))
        assert {status for status, _ in answers} == {200}
        assert upstream.asked[f"GET /v2/team/app/blobs/{image.blob}"] == 1
        assert upstream.asked[f"GET /v2/team/app/manifests/{image.digest}"] == 1


async def test_a_tag_is_looked_up_again_when_its_time_is_over() -> None:
    async with copying(tag_seconds=0.0) as (copy, upstream):
        first = await pushed(upstream.running.lab, "team/app", "v1")
        assert (await pull(copy, first))[1]["docker-content-digest"] == first.digest
        second = await pushed(upstream.running.lab, "team/app", "v1")
        assert (await pull(copy, second))[1]["docker-content-digest"] == second.digest


async def test_a_tag_is_believed_for_its_time() -> None:
    async with copying() as (copy, upstream):
        first = await pushed(upstream.running.lab, "team/app", "v1")
        await pull(copy, first)
        await pushed(upstream.running.lab, "team/app", "v1")
        assert (await pull(copy, first))[1]["docker-content-digest"] == first.digest


async def test_what_is_here_is_served_with_a_warning_while_the_upstream_is_down() -> None:
    async with copying(tag_seconds=0.0) as (copy, upstream):
        image = await pushed(upstream.running.lab, "team/app", "v1")
        await pull(copy, image)
        upstream.broken = True
        for _ in range(2):
            status, headers = await pull(copy, image)
            assert status == 200 and headers["warning"].startswith('299 - "')
        assert (await pull(copy, image, image.digest))[0] == 200
        status, _, _ = await asked(copy.lab, "GET", "/v2/hub/team/app/manifests/v2")
        assert status == 503


async def test_what_is_here_does_not_wait_for_an_upstream_that_is_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sagong_registry.mirrors._PATIENCE", 0.2)
    async with copying(tag_seconds=0.0) as (copy, upstream):
        first = await pushed(upstream.running.lab, "team/app", "v1")
        await pull(copy, first)
        second = await pushed(upstream.running.lab, "team/app", "v1")
        upstream.silence = asyncio.Event()
        upstream.asked.clear()
        for _ in range(2):
            async with asyncio.timeout(60):
                status, headers = await pull(copy, first)
            assert status == 200 and "does not answer soon" in headers["warning"]
            assert headers["docker-content-digest"] == first.digest
        assert upstream.asked.total() == 1
        upstream.silence.set()
        monkeypatch.setattr("sagong_registry.mirrors._PATIENCE", 60.0)
        async with asyncio.timeout(60):
            while (await pull(copy, second))[1]["docker-content-digest"] != second.digest:
                await asyncio.sleep(0.01)
        assert "warning" not in (await pull(copy, second))[1]


async def test_an_upstream_that_is_not_there_at_all_is_503() -> None:
    nowhere = {"url": "http://127.0.0.1:1", "prefix": "hub"}
    async with running(upstreams=[nowhere]) as copy:
        status, headers, _ = await asked(copy.lab, "GET", "/v2/hub/a/manifests/v1")
        assert status == 503 and "retry-after" not in headers


async def test_an_upstream_that_drops_what_comes_is_waited_for_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sagong_registry.upstream._CONNECT_SECONDS", 0.2)
    # As long as one waits in vain nobody asks again: for minutes by this clock, whatever comes between.
    clock = itertools.chain((0.0,), itertools.count(600.0))
    monkeypatch.setattr(
        "sagong_registry.upstream.time", SimpleNamespace(monotonic=lambda: next(clock))
    )
    connect, waits = aiohappyeyeballs.start_connection, 0

    async def start_connection(*given: Any, **more: Any) -> socket.socket:
        nonlocal waits
        waits += 1
        return await connect(*given, **more)

    monkeypatch.setattr(aiohappyeyeballs, "start_connection", start_connection)
    with contextlib.ExitStack() as stack:
        silent = stack.enter_context(socket.socket())
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        for _ in range(4):  # its queue is full: whoever comes now hears nothing
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(silent.getsockname())
        dark = {"url": f"http://127.0.0.1:{silent.getsockname()[1]}", "prefix": "hub"}
        async with running(upstreams=[dark]) as copy:
            for what in ("manifests/v1", "manifests/v2", "blobs/sha256:" + "0" * 64) * 2:
                assert (await asked(copy.lab, "GET", f"/v2/hub/a/{what}"))[0] == 503
            assert waits == 1


async def test_what_the_upstream_does_not_have_is_404() -> None:
    async with copying(tag_seconds=0.0) as (copy, upstream):
        image = await pushed(upstream.running.lab, "team/app", "v1")
        await pull(copy, image)
        for target in ("manifests/v2", "manifests/sha256:" + "0" * 64, "blobs/sha256:" + "0" * 64):
            assert (await asked(copy.lab, "GET", f"/v2/hub/team/app/{target}"))[0] == 404
        gone = "/v2/team/app/manifests/v1"
        assert (await asked(upstream.running.lab, "DELETE", gone))[0] == 202
        assert (await asked(copy.lab, "GET", "/v2/hub/team/app/manifests/v1"))[0] == 404


async def test_a_fetch_that_breaks_off_goes_on() -> None:
    async with copying() as (copy, upstream):
        image = await pushed(upstream.running.lab, "team/app", "v1")
        upstream.cut = 2
        assert (await pull(copy, image))[0] == 200
        assert upstream.asked[f"GET /v2/team/app/blobs/{image.blob}"] == 3


async def test_a_fetch_goes_on_where_an_earlier_process_was() -> None:
    kept = Kept()
    async with copying(kept) as (copy, upstream):
        image = await pushed(upstream.running.lab, "team/app", "v1")
        _, _, blob = await asked(upstream.running.lab, "GET", f"/v2/team/app/blobs/{image.blob}")
        write = f"copy-{image.blob.partition(':')[2][:56]}"
        kept.content.writes["", write] = bytearray(blob[:5])
        assert (await pull(copy, image))[0] == 200
        assert image.blob in kept.content.blobs and not kept.content.writes


async def test_bytes_that_are_not_their_digest_are_not_kept() -> None:
    kept = Kept()
    async with copying(kept) as (copy, upstream):
        image = await pushed(upstream.running.lab, "team/app", "v1")
        size = len(upstream.running.kept.content.blobs[image.blob])
        upstream.running.kept.content.blobs[image.blob] = secrets.token_bytes(size)
        target = f"/v2/hub/team/app/blobs/{image.blob}"
        _, headers, body = await asked(copy.lab, "GET", target)
        assert len(body) < int(headers["content-length"]) and image.blob not in kept.content.blobs
        assert (await asked(copy.lab, "HEAD", target))[0] == 200
        assert image.blob not in kept.content.blobs


async def test_nothing_is_pushed_to_a_copy() -> None:
    async with copying() as (copy, _):
        assert (await asked(copy.lab, "POST", "/v2/hub/a/blobs/uploads/"))[0] == 405
        assert (await asked(copy.lab, "POST", "/v2/own/a/blobs/uploads/"))[0] == 202


async def test_a_whole_registry_is_copied_without_a_prefix() -> None:
    async with copying(prefix="") as (copy, upstream):
        await pushed(upstream.running.lab, "team/app", "v1")
        assert (await asked(copy.lab, "GET", "/v2/team/app/manifests/v1"))[0] == 200


async def test_an_upstream_is_shown_who_we_are() -> None:
    hashed = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
    async with copying(username="copier", password="secret") as (copy, upstream):
        image = await pushed(upstream.running.lab, "team/app", "v1")
        account = Account(name="copier", hash=hashed)
        await upstream.running.plugin.implementation.set_account(account)
        assert (await asked(upstream.running.lab, "GET", "/v2/team/app/manifests/v1"))[0] == 401
        assert (await pull(copy, image))[0] == 200
        assert upstream.asked["GET /token"] == 1
    async with copying(username="copier", password="wrong") as (copy, upstream):
        image = await pushed(upstream.running.lab, "team/app", "v1")
        await upstream.running.plugin.implementation.set_account(account)
        assert (await pull(copy, image))[0] == 404


@needs_registry
@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
async def test_an_upstream_may_want_a_certificate(tmp_path: Path) -> None:
    with by_certificate(tmp_path) as host:
        known = {"certificate": str(tmp_path / "cert.pem"), "key": str(tmp_path / "key.pem")}
        for given, status in (({}, 503), (known, 404)):
            told = {"prefix": "hub", "url": f"https://{host}", "verify": False, **given}
            async with running(upstreams=[told]) as copy:
                found = await asked(copy.lab, "GET", "/v2/hub/a/manifests/v1")
                assert found[0] == status


@pytest.mark.parametrize(
    ("url", "realm", "good"),
    [
        ("https://r.test", "https://auth.test/token", True),
        ("https://r.test", "http://auth.test/token", False),
        ("https://r.test", "//auth.test/token", False),
        ("http://10.0.0.1:5000", "http://10.0.0.1:5001/token", True),
    ],
)
def test_a_password_does_not_leave_tls(url: str, realm: str, good: bool) -> None:
    with contextlib.nullcontext() if good else pytest.raises(Unauthenticated):
        check_realm(url, realm)
