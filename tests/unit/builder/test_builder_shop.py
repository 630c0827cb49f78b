"""Archives of the image store's: whole, though the store is replaced while they come."""

from __future__ import annotations

import asyncio
import io
import logging
import socket
import tarfile
from pathlib import Path
from typing import Any, cast

import pytest

from sagong.contracts.image import SaveRequest
from sagong.contracts.streams import Address
from sagong.errors import Unavailable
from sagong_builder.journal import Journal
from sagong_builder.settings import Settings
from sagong_builder.shop import Shop
from sagong_builder.spool import Spool


def tarred(**files: bytes) -> bytes:
    """An archive."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


class Store:
    """A store that is replaced in the middle of the first archives that it sends."""

    def __init__(self, path: Path, content: bytes, cuts: int) -> None:
        self._path = path
        self._content = content
        self.cuts = cuts

    async def save(self, request: SaveRequest) -> Address:
        """Where it is to be had."""
        return Address(path=str(self._path), token="t", protocol="whole")

    async def serve(self, listening: socket.socket) -> None:
        """Send it, or half of it: the byte behind the line is not taken then, as the kernel tells."""
        loop = asyncio.get_running_loop()
        while True:
            peer, _ = await loop.sock_accept(listening)
            with peer:
                assert await loop.sock_recv(peer, 2) == b"t\n"
                cut, self.cuts = self.cuts > 0, self.cuts - 1
                half = len(self._content) // 2 if cut else len(self._content)
                await loop.sock_sendall(peer, self._content[:half])
                if not cut:
                    assert await loop.sock_recv(peer, 1) == b"\n"


@pytest.mark.parametrize(("cuts", "comes"), [(0, True), (2, True), (100, False)])
def test_an_archive_that_is_cut_is_asked_for_again(tmp_path: Path, cuts: int, comes: bool) -> None:
    content = tarred(a=b"A" * 400_000, b=b"B")

    async def story() -> None:
        spool = Spool(tmp_path / "s", tmp_path / "spool", 1 << 30)
        await spool.start()
        (tmp_path / "borrowed").mkdir()
        store = Store(tmp_path / "store", content, cuts)
        listening = socket.socket(socket.AF_UNIX)
        listening.setblocking(False)
        listening.bind(str(tmp_path / "store"))
        listening.listen()
        server = asyncio.create_task(store.serve(listening))
        shop = Shop(
            cast(Any, store),
            cast(Any, None),
            spool,
            Journal(tmp_path / "borrowed"),
            Settings(),
            logging.getLogger("t"),
        )
        try:
            if not comes:
                with pytest.raises(Unavailable):
                    await shop.saved(["i"])
                return
            archive = await shop.saved(["i"])
            sizes = {name: entry.size for name, entry in archive.tree.walk()}
            assert sizes == {"a": 400_000, "b": 1}
            archive.close()
        finally:
            server.cancel()
            await asyncio.gather(server, return_exceptions=True)
            listening.close()
            await spool.stop()

    asyncio.run(story())
    assert not any((tmp_path / "spool").iterdir())
