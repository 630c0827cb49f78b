"""Bytes to whoever has gone."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import uvloop

from sagong.streams import Link, send


async def _to_nobody(path: Path) -> None:
    """A client goes while it is written to, as uvloop sees it: its transport is closed."""
    served: asyncio.Future[asyncio.StreamWriter] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not writer.is_closing():
            writer.write(b"x")
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        served.set_result(writer)

    async with await asyncio.start_unix_server(serve, str(path)):
        _, client = await asyncio.open_unix_connection(str(path))
        client.close()
        writer = await asyncio.wait_for(served, 60)
        with pytest.raises(RuntimeError, match="closed"):
            writer.write(b"y")
        with pytest.raises(ConnectionResetError):
            await send(writer, b"y")
        assert not await Link(asyncio.StreamReader(), writer).write(b"y")


def test_what_is_sent_to_who_has_gone_is_a_connection_error(tmp_path: Path) -> None:
    uvloop.run(_to_nobody(tmp_path / "s"))
