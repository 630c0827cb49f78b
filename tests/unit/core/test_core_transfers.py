"""Uploads and whole streams whose provider ends in their midst, and comes again."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from sagong.contracts.streams import KEPT, Address
from sagong.downloading import fetched
from sagong.errors import Unavailable
from sagong.uploading import send_chunks

_DATA = bytes(range(256)) * 8192
_Serve = Callable[[socket.socket, int], None]


@contextlib.contextmanager
def provider(path: Path, serve: _Serve) -> Iterator[None]:
    """Serves one connection after the other; told how many there were before."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen()

    def run() -> None:
        count = 0
        while True:
            try:
                peer, _ = listening.accept()
            except OSError:
                return
            with peer, contextlib.suppress(OSError):
                serve(peer, count)
            count += 1

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join(10)


def _token(peer: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        line += peer.recv(1)
    return line


async def _chunks() -> AsyncIterator[bytes]:
    for begin in range(0, len(_DATA), 100_000):
        yield _DATA[begin : begin + 100_000]


@pytest.mark.parametrize("breaks", [(1,), (250_000,), (250_000, 1_200_000), (len(_DATA) - 1,)])
async def test_an_upload_goes_on_where_it_broke_off(
    tmp_path: Path, breaks: tuple[int, ...]
) -> None:
    come = bytearray()

    def serve(peer: socket.socket, count: int) -> None:
        assert _token(peer) == b"t\n"
        if count:
            peer.sendall(b"%d\n" % len(come))
        limit = breaks[count] if count < len(breaks) else len(_DATA) + 1
        while len(come) < limit:
            data = peer.recv(min(65536, limit - len(come)))
            if not data:
                peer.sendall(KEPT)
                return
            come.extend(data)

    with provider(tmp_path / "s", serve):
        address = Address(path=str(tmp_path / "s"), token="t", protocol="upload")
        await asyncio.wait_for(send_chunks(address, _chunks()), 60)
    assert bytes(come) == _DATA


async def test_who_was_not_told_that_all_is_kept_asks_again(tmp_path: Path) -> None:
    def serve(peer: socket.socket, count: int) -> None:
        _token(peer)
        if count:
            peer.sendall(KEPT)
            return
        while peer.recv(65536):
            continue

    with provider(tmp_path / "s", serve):
        address = Address(path=str(tmp_path / "s"), token="t", protocol="upload")
        await asyncio.wait_for(send_chunks(address, _chunks()), 60)


async def test_what_nobody_waits_for_any_more_is_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sagong.uploading._AGAIN_SECONDS", 0.1)

    def serve(peer: socket.socket, count: int) -> None:
        _token(peer)
        if not count:
            peer.recv(1000)

    read = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal read
        async for chunk in _chunks():
            read += len(chunk)
            yield chunk

    with provider(tmp_path / "s", serve):
        address = Address(path=str(tmp_path / "s"), token="t", protocol="upload")
        await asyncio.wait_for(send_chunks(address, chunks()), 60)
    assert read == len(_DATA)


async def _fetch(path: Path) -> bytes:
    async def ask() -> Address:
        return Address(path=str(path), token="t", protocol="whole")

    out = bytearray()
    async with contextlib.aclosing(fetched(ask)) as chunks:
        async for chunk in chunks:
            out += chunk
    return bytes(out)


@pytest.mark.parametrize("breaks", [(), (0,), (300_000,), (300_000, 100, 1_000_000)])
async def test_what_broke_off_is_asked_for_again(tmp_path: Path, breaks: tuple[int, ...]) -> None:
    def serve(peer: socket.socket, count: int) -> None:
        _token(peer)
        if count < len(breaks):
            peer.sendall(_DATA[: breaks[count]])
            return
        peer.sendall(_DATA)
        peer.recv(1)

    with provider(tmp_path / "s", serve):
        assert await asyncio.wait_for(_fetch(tmp_path / "s"), 60) == _DATA


@pytest.mark.parametrize("second", [_DATA[::-1], _DATA[:1000]], ids=["another", "shorter"])
async def test_what_is_another_then_is_not_put_behind_the_first(
    tmp_path: Path, second: bytes
) -> None:
    def serve(peer: socket.socket, count: int) -> None:
        _token(peer)
        peer.sendall(_DATA[:300_000] if not count else second)
        if count:
            peer.recv(1)

    with provider(tmp_path / "s", serve), pytest.raises(Unavailable, match="changed"):
        await asyncio.wait_for(_fetch(tmp_path / "s"), 60)


async def test_what_never_comes_to_its_end_is_unavailable(tmp_path: Path) -> None:
    def serve(peer: socket.socket, count: int) -> None:
        _token(peer)
        peer.sendall(_DATA[:1000])

    with provider(tmp_path / "s", serve), pytest.raises(Unavailable, match="broke off"):
        await asyncio.wait_for(_fetch(tmp_path / "s"), 60)
