"""Probes against real servers, thresholds, credentials, quoting of log ends."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sagong.contracts.node import ExecRef, ExecSpec, ExecState
from sagong.model.k8s.core_v1 import Container, LifecycleHandler, Probe, Secret
from sagong_node.pods.ending import _end_of_log
from sagong_node.pods.health_call import check_health, read_status, request_bytes
from sagong_node.pods.prober import Run, judge
from sagong_node.pods.probing import Target, http_get, port_number, probe, run_hook
from sagong_node.pods.pulling import credentials_for, effective_policy
from sagong_node.pods.reporting import same_status


class FakeNode:
    """Executes nothing; answers with a code."""

    def __init__(self, code: int = 0) -> None:
        self.code = code

    async def exec(self, spec: ExecSpec) -> ExecState:
        return ExecState(exec_id=spec.exec_id, running=False, code=self.code)

    async def exec_state(self, ref: ExecRef) -> ExecState:
        return ExecState(exec_id=ref.exec_id, running=False, code=self.code)


CONTAINER = msgspec.convert(
    {"name": "c", "ports": [{"name": "web", "containerPort": 81}]}, Container
)
TARGET = Target(CONTAINER, "id", "127.0.0.1")


def spec(**fields: Any) -> Probe:
    return msgspec.convert({"timeoutSeconds": 1, **fields}, Probe)


async def served(answer: bytes, seen: list[bytes]) -> tuple[asyncio.Server, int]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    return server, server.sockets[0].getsockname()[1]


@pytest.mark.parametrize(
    ("answer", "success", "message"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", True, ""),
        (b"HTTP/1.1 399 Odd\r\n\r\n", True, ""),
        (b"HTTP/1.0 503 No\r\n\r\n", False, "HTTP probe failed with statuscode: 503"),
        (b"nonsense\r\n\r\n", False, "malformed HTTP response"),
        (b"", False, "EOF"),
        (b"HTTP/1.1 302 F\r\nLocation: http://elsewhere.test/\r\n\r\n", True, ""),
    ],
)
async def test_http(answer: bytes, success: bool, message: str) -> None:
    seen: list[bytes] = []
    server, port = await served(answer, seen)
    async with server:
        headers = [{"name": "X-Own", "value": "1"}, {"name": "Host", "value": "own.test"}]
        get = {"path": "ok?x=1", "port": port, "httpHeaders": headers}
        result, said = await probe(FakeNode(), spec(httpGet=get), TARGET)
    assert (result, said.startswith(message)) == (success, True)
    assert seen[0].startswith(b"GET /ok?x=1 HTTP/1.1\r\n")
    assert b"Host: own.test\r\n" in seen[0] and seen[0].count(b"Host:") == 1


async def test_a_redirect_to_the_same_host_is_followed() -> None:
    seen: list[bytes] = []
    last, last_port = await served(b"HTTP/1.1 404 No\r\n\r\n", seen)
    location = f"Location: http://127.0.0.1:{last_port}/there".encode()
    first, port = await served(b"HTTP/1.1 301 M\r\n" + location + b"\r\n\r\n", seen)
    async with last, first:
        assert await http_get(f"http://127.0.0.1:{port}/", []) == 404
    assert seen[1].startswith(b"GET /there ")


async def test_tcp_exec_and_what_nobody_answers() -> None:
    server, port = await served(b"", [])
    async with server:
        assert await probe(FakeNode(), spec(tcpSocket={"port": port}), TARGET) == (True, "")
    refused = f"dial tcp 127.0.0.1:{port}: connect: connection refused"
    gone = f'timeout: failed to connect service "127.0.0.1:{port}" within 1s'
    for asked, said in (
        ({"tcpSocket": {"port": port}}, refused),
        ({"httpGet": {"path": "x", "port": port}}, f'Get "http://127.0.0.1:{port}/x": {refused}'),
        ({"grpc": {"port": port}}, f"{gone}: context deadline exceeded"),
    ):
        assert await probe(FakeNode(), spec(**asked), TARGET) == (False, said)
    assert await probe(FakeNode(0), spec(exec={"command": ["x"]}), TARGET) == (True, "")
    assert (await probe(FakeNode(1), spec(exec={"command": ["x"]}), TARGET))[0] is False


async def test_a_server_that_hangs_is_given_up() -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        success, said = await probe(FakeNode(), spec(httpGet={"path": "/", "port": port}), TARGET)
    late = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
    assert (success, said) == (False, f'Get "http://127.0.0.1:{port}/": {late}')


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


@pytest.mark.parametrize(("status", "healthy"), [(1, True), (2, False), (0, False)])
async def test_grpc(status: int, healthy: bool) -> None:
    received = bytearray()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        message = bytes([8, status]) if status else b""
        body = b"\0" + struct.pack(">I", len(message)) + message
        received.extend(await reader.readexactly(len(request_bytes("127.0.0.1:00000", "me"))))
        writer.write(frame(4, 0, 0, b"") + frame(6, 0, 0, b"12345678"))
        writer.write(frame(1, 4, 1, b"\x88") + frame(0, 8, 1, b"\x02" + body + b"\0\0"))
        writer.write(frame(1, 5, 1, b"\x88"))
        await writer.drain()
        acknowledged = await reader.readexactly(9 + 17)
        assert acknowledged[3:5] == b"\x04\x01" and acknowledged[12:14] == b"\x06\x01"
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        success, _ = await probe(FakeNode(), spec(grpc={"port": port, "service": "me"}), TARGET)
    assert success is healthy
    assert received.startswith(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    assert b"/grpc.health.v1.Health/Check" in received and b"\x0a\x02me" in received


async def test_a_server_that_speaks_no_grpc_is_unhealthy() -> None:
    server, port = await served(b"HTTP/1.1 400 Bad Request\r\n\r\n", [])
    async with server:
        with pytest.raises(ConnectionError):
            await check_health("127.0.0.1", port, "")
    assert read_status(b"") is None and read_status(b"\x01\0\0\0\0") is None
    assert read_status(b"\0\0\0\0\x02\x08\x01") == 1


def test_thresholds() -> None:
    run, verdicts = Run(), []
    for success in (False, False, True, False, False, False, True, True):
        run, verdict = judge(run, success, spec(failureThreshold=3, successThreshold=2))
        verdicts.append(verdict)
    assert verdicts == [None, None, None, None, None, False, None, True]


def test_ports_by_name() -> None:
    assert port_number("web", CONTAINER) == 81
    assert port_number("82", CONTAINER) == 82
    with pytest.raises(ValueError, match="couldn't find port"):
        port_number("none", CONTAINER)


async def test_hooks_tell_what_went_wrong() -> None:
    def hook(**fields: Any) -> LifecycleHandler:
        return msgspec.convert(fields, LifecycleHandler)

    assert await run_hook(FakeNode(0), hook(exec={"command": ["x"]}), TARGET, 1.0) == ""
    assert "exited with 3" in await run_hook(
        FakeNode(3), hook(exec={"command": ["x"]}), TARGET, 1.0
    )
    assert "longer than 0.01s" in await run_hook(
        FakeNode(), hook(sleep={"seconds": 5}), TARGET, 0.01
    )


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("busybox", "Always"),
        ("busybox:latest", "Always"),
        ("busybox:1", "IfNotPresent"),
        ("localhost:5000/a", "Always"),
        ("localhost:5000/a:2", "IfNotPresent"),
        ("a@sha256:00", "IfNotPresent"),
    ],
)
def test_default_pull_policies(image: str, policy: str) -> None:
    assert effective_policy("", image) == policy
    assert effective_policy("Never", image) == "Never"


def docker_secret(auths: dict[str, Any], *, old: bool = False) -> Secret:
    document = auths if old else {"auths": auths}
    key = ".dockercfg" if old else ".dockerconfigjson"
    return Secret(data={key: base64.b64encode(json.dumps(document).encode()).decode()})


@pytest.mark.parametrize(
    ("image", "users"),
    [
        ("busybox", ["hub"]),
        ("docker.io/library/busybox:1", ["hub"]),
        ("reg.test/team/app", ["team", "all"]),
        ("reg.test/other", ["all"]),
        ("a.wild.test/x", ["wild"]),
        ("a.b.wild.test/x", []),
        ("none.test:5000/x", []),
    ],
)
def test_credentials_fit_by_place(image: str, users: list[str]) -> None:
    auths = {
        "https://index.docker.io/v1/": {"username": "hub", "password": "p"},
        "reg.test": {"username": "all", "password": "p"},
        "reg.test/team": {"auth": base64.b64encode(b"team:p").decode()},
        "*.wild.test": {"username": "wild"},
    }
    for old in (False, True):
        found = credentials_for(image, [docker_secret(auths, old=old)])
        assert [c.username for c in found] == users
    assert list(credentials_for(image, [Secret(data={".dockerconfigjson": "!"})])) == []


def test_the_end_of_a_log_is_its_lines(tmp_path: Path) -> None:
    log = tmp_path / "0.log"
    log.write_bytes(
        b"2024-01-01T00:00:00.1Z stdout F first\n2024-01-01T00:00:00.2Z stderr F last\nbroken\n"
    )
    assert _end_of_log(log) == "first\nlast\n"
    assert _end_of_log(tmp_path / "none") == ""


def test_nothing_and_null_are_the_same_status() -> None:
    wanted = {"podIP": None, "containers": [{"message": "", "ready": False, "state": {}}]}
    assert same_status(wanted, {"containers": [{"ready": False}]})
    assert not same_status(wanted, {"containers": [{"ready": True}]})
