"""Streams of the node end without a complaint of Python, whatever became of their other ends."""

from __future__ import annotations

import asyncio
import errno
import gc
from pathlib import Path

import pytest

from sagong.errors import Unavailable
from sagong_node.streams import StreamServer


@pytest.mark.parametrize(
    "error", [OSError(errno.EHOSTUNREACH, "No route to host"), Unavailable("it ended")]
)
async def test_one_whose_other_end_can_not_be_reached_is_cut(
    tmp_path: Path, error: Exception
) -> None:
    """Port-forwarding to who is gone: "Task exception was never retrieved" stood in the log."""
    complaints: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(str(context)))
    server = StreamServer(tmp_path)
    await server.start()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise error

    address = server.offer(serve, "raw")
    reader, writer = await asyncio.open_unix_connection(address.path)
    writer.write(f"{address.token}\n".encode())
    assert await reader.read() == b""
    writer.close()
    await server.stop()
    gc.collect()
    assert complaints == []
