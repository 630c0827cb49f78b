"""The image store's streams while no descriptor is free."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

from sagong_image_overlay.streams import Streams
from sagong_image_overlay.uploads import Uploads


@contextlib.contextmanager
def no_descriptor_free() -> Iterator[None]:
    """What is open stays open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_who_comes_while_no_descriptor_is_free_is_served_when_there_is(
    tmp_path: Path,
) -> None:
    """The acceptor ended by it: nothing was streamed any more until the store was started anew."""
    streams = Streams(tmp_path / "s", tmp_path, Uploads(tmp_path, 0))
    streams.start()

    async def serve(peer: socket.socket) -> None:
        await asyncio.get_running_loop().sock_sendall(peer, b"here")

    address = streams.offer(serve)
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX) as client:
        client.setblocking(False)
        with no_descriptor_free():
            await loop.sock_connect(client, address.path)
            await loop.sock_sendall(client, address.token.encode() + b"\n")
            await asyncio.sleep(0.3)
        async with asyncio.timeout(60):
            assert await loop.sock_recv(client, 16) == b"here"
    await streams.stop()
