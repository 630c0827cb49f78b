"""kubectl's streams: logs, exec, attach, cp and port-forward, over WebSocket and over SPDY."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.conformance.fake_state import FakeState
from tests.ports import free_port
from tests.unit.kube.kube_fake_node import CONTAINER, FakeNode, fake_node
from tests.unit.kube.kube_lab import Lab, kubectl_path, lab

PODS = "/api/v1/namespaces/default/pods"


@contextlib.asynccontextmanager
async def running(tmp_path: Path) -> AsyncIterator[tuple[Lab, FakeNode]]:
    async with fake_node(tmp_path) as node, lab(FakeState(), node=node) as at:
        await at.ask("POST", PODS, _pod(), status=201)
        status = {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [_container_status()],
        }
        patch = {"status": status}
        media = "application/merge-patch+json"
        await at.ask("PATCH", f"{PODS}/p/status", patch, status=200, Content_Type=media)
        yield at, node


def _pod() -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p"},
        "spec": {
            "nodeName": "n",
            "containers": [{"name": "c", "image": "busybox", "ports": [{"containerPort": 80}]}],
        },
    }


def _container_status() -> dict[str, Any]:
    return {
        "name": "c",
        "ready": True,
        "restartCount": 0,
        "image": "busybox",
        "imageID": "busybox",
        "containerID": f"sagong://{CONTAINER}",
        "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
    }


@pytest.fixture(params=["websocket", "spdy"])
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """kubectl speaks WebSocket first; an environment variable makes it use SPDY."""
    value = "true" if request.param == "websocket" else "false"
    monkeypatch.setenv("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", value)
    monkeypatch.setenv("KUBECTL_PORT_FORWARD_WEBSOCKETS", value)
    name: str = request.param
    return name


async def test_logs_are_shown(tmp_path: Path) -> None:
    async with running(tmp_path) as (at, node):
        assert await at.kubectl("logs", "p") == "one\ntwo\n"
        await at.kubectl("logs", "p", "--tail=5", "--timestamps", "--since=10s", "-f")
        asked = node.logs_asked[-1]
        assert (asked.tail, asked.timestamps, asked.follow) == (5, True, True)
        assert asked.since_nanos > 0
        missing = await at.kubectl("logs", "p", "-c", "x", code=1)
        assert "container x is not valid for pod p" in missing
        previous = await at.kubectl("logs", "p", "--previous", code=1)
        assert 'previous terminated container "c" in pod "p" not found' in previous


async def test_exec_carries_output_input_and_the_code(transport: str, tmp_path: Path) -> None:
    async with running(tmp_path) as (at, _):
        assert await at.kubectl("exec", "p", "--", "echo", "hello") == "hello\n"
        echoed = await at.kubectl("exec", "-i", "p", "--", "cat", stdin="through\n")
        assert echoed == "through\n"
        failed = await at.kubectl("exec", "p", "--", "sh", "-c", "echo no >&2; exit 7", code=7)
        assert "no\n" in failed
        assert "command terminated with exit code 7" in failed
        large = await at.kubectl(
            "exec", "p", "--", "sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' x"
        )
        assert len(large) == 3000000


async def test_attach_shows_what_the_container_says(transport: str, tmp_path: Path) -> None:
    async with running(tmp_path) as (at, _):
        assert "attached" in await at.kubectl("attach", "p")


async def test_cp_copies_both_ways(tmp_path: Path) -> None:
    async with running(tmp_path) as (at, _):
        source, target, back = tmp_path / "source", tmp_path / "inside", tmp_path / "back"
        source.write_bytes(os.urandom(300_000))
        await at.kubectl("cp", str(source), f"p:{target}")
        assert target.read_bytes() == source.read_bytes()
        await at.kubectl("cp", f"p:{target}", str(back))
        assert back.read_bytes() == source.read_bytes()


async def test_port_forward_carries_connections(transport: str, tmp_path: Path) -> None:
    async with running(tmp_path) as (at, _):
        port = free_port()
        process = await asyncio.create_subprocess_exec(
            kubectl_path(),
            "port-forward",
            "pod/p",
            f"{port}:80",
            env={**os.environ, "KUBECONFIG": str(at.kubeconfig), "HOME": str(tmp_path)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            assert process.stdout is not None
            line = await asyncio.wait_for(process.stdout.readline(), 60)
            assert b"Forwarding from 127.0.0.1" in line, line
            answers = await asyncio.gather(*(_through(port, n) for n in range(3)))
            assert answers == [f"HELLO {n}BYE".encode() for n in range(3)]
        finally:
            process.kill()
            await process.wait()


async def _through(port: int, number: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"hello {number}".encode())
    writer.write_eof()
    answer = await asyncio.wait_for(reader.read(-1), 60)
    writer.close()
    return answer


async def test_unknown_containers_are_refused(tmp_path: Path) -> None:
    async with running(tmp_path) as (at, _):
        body = {
            "status": {
                "containerStatuses": [{**_container_status(), "containerID": "sagong://gone"}]
            }
        }
        media = "application/merge-patch+json"
        await at.ask("PATCH", f"{PODS}/p/status", body, status=200, Content_Type=media)
        said = await at.kubectl("exec", "p", "--", "true", code=1)
        assert "No such container" in said
