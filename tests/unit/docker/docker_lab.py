"""The Docker API over fakes on a Unix socket, and the docker command line against it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests import sample_image
from tests.conformance.fake_image import FakeImages
from tests.conformance.fake_state import Disk, FakeState
from tests.unit.docker.fake_node import FakeNode
from tests.unit.docker.fake_slots import FakeMetrics, FakeNetworks, FakeVolumes

from sagong.contracts.image import Images, LoadRequest
from sagong.contracts.metrics import Metrics
from sagong.contracts.network import Networks
from sagong.contracts.node import ContainerEvent, Node
from sagong.contracts.state import State
from sagong.contracts.volume import Volumes
from sagong.testing import LocalHost
from sagong_docker import Docker

needs_docker = pytest.mark.skipif(
    shutil.which("docker") is None, reason="needs the docker command line"
)
IMAGE = sample_image.NAME


@dataclass
class Result:
    """What a command did."""

    code: int
    out: str
    err: str


@dataclass
class Lab:
    """The service and what is below it."""

    service: Docker
    host: LocalHost
    node: FakeNode
    images: FakeImages
    networks: FakeNetworks
    volumes: FakeVolumes
    socket: Path
    directory: Path

    async def docker(
        self, *words: str, stdin: bytes | None = None, env: dict[str, str] | None = None
    ) -> Result:
        """Run the docker command line."""
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            "docker",
            *words,
            stdin=pipe if stdin is not None else asyncio.subprocess.DEVNULL,
            stdout=pipe,
            stderr=pipe,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.directory),
                "DOCKER_HOST": f"unix://{self.socket}",
                "DOCKER_CONFIG": str(self.directory / "config"),
                **(env or {}),
            },
        )
        async with asyncio.timeout(60):
            out, err = await process.communicate(stdin)
        return Result(process.returncode or 0, out.decode(), err.decode())

    async def ok(self, *words: str, stdin: bytes | None = None) -> str:
        """The output of a command that must succeed."""
        found = await self.docker(*words, stdin=stdin)
        assert found.code == 0, (words, found)
        return found.out.strip()

    async def raw(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """One request by hand."""
        reader, writer = await asyncio.open_unix_connection(str(self.socket))
        head = f"{method} {path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n"
        head += "Content-Type: application/json\r\n" if body else ""
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        answer = await reader.read()
        writer.close()
        top, _, rest = answer.partition(b"\r\n\r\n")
        if b"Transfer-Encoding: chunked" in top:
            rest = _unchunked(rest)
        return int(top.split()[1]), rest


def _unchunked(data: bytes) -> bytes:
    found = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        found += data[:length]
        data = data[length + 2 :]
        if not length:
            break
    return found


@contextlib.asynccontextmanager
async def docker_lab(**config: Any) -> AsyncIterator[Lab]:
    """Everything up, one image loaded."""
    with tempfile.TemporaryDirectory(prefix="dk", dir="/tmp") as name:
        directory = Path(name)
        images = FakeImages({}, directory)
        networks, volumes = FakeNetworks(), FakeVolumes()
        events: list[LocalHost] = []

        def tell(event: ContainerEvent) -> None:
            events[0].deliver(event)

        node = FakeNode(images, networks, volumes, tell, directory)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(directory / "docker.sock"))
        listener.listen(64)
        host = LocalHost(
            "docker",
            data=directory,
            run=directory,
            config=config,
            uses={
                Node: node,
                Images: images,
                Networks: networks,
                Volumes: volumes,
                Metrics: FakeMetrics(),
                State: {"local": FakeState(Disk())},
            },
            listeners={"api": listener},
        )
        events.append(host)
        await images.start()
        await node.start_serving()
        service = Docker(host)
        await service.start()
        lab = Lab(
            service, host, node, images, networks, volumes, directory / "docker.sock", directory
        )
        try:
            await _load(images, directory)
            yield lab
        finally:
            await service.stop()
            await node.close()
            await images.stop()
            await host.close()


async def _load(images: FakeImages, directory: Path) -> None:
    sample = sample_image.build(directory)
    address = await images.upload()
    _, writer = await asyncio.open_unix_connection(address.path)
    writer.write(address.token.encode() + b"\n" + Path(sample.docker_archive).read_bytes())
    writer.write_eof()
    async for _ in images.load(LoadRequest(upload=address.token)):
        pass
    writer.close()
