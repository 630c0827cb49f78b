"""Uploads across lives of the store: what a successor knows of them."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from pathlib import Path

import pytest

from sagong.errors import InvalidArgument
from sagong_image_overlay.uploads import Uploads, _name

TOKEN = "token"


def unpacked(directory: Path) -> None:
    """An archive that was unpacked by a predecessor."""
    files = directory / f"{hashlib.sha256(TOKEN.encode()).hexdigest()[:32]}.files"
    files.mkdir()
    (files / "manifest.json").write_text("[]")


def left(directory: Path) -> list[Path]:
    """What is there beside answers."""
    return [path for path in directory.iterdir() if path.suffix != ".answer"]


async def successor(directory: Path) -> Uploads:
    """A new life."""
    uploads = Uploads(directory, 0)
    uploads.start()
    return uploads


async def test_what_was_unpacked_is_known_to_a_successor(tmp_path: Path) -> None:
    unpacked(tmp_path)
    uploads = await successor(tmp_path)
    async with uploads.taken(TOKEN) as upload:
        assert (upload.files / "manifest.json").exists()
    assert not left(tmp_path)


async def test_what_was_answered_is_known_to_a_successor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpacked(tmp_path)
    first = await successor(tmp_path)
    async with first.taken(TOKEN) as upload:
        upload.answer = b"loaded"
    with pytest.raises(InvalidArgument, match="no such upload"):
        async with first.taken(TOKEN):
            pass
    first.stop()
    unpacked(tmp_path)  # killed before it was deleted
    second = await successor(tmp_path)
    assert not left(tmp_path) and second.has(TOKEN)
    async with second.taken(TOKEN) as upload:
        assert upload.answered and upload.answer == b"loaded"
    second.stop()
    monkeypatch.setattr("sagong_image_overlay.uploads._KEPT_SECONDS", 0.0)
    third = await successor(tmp_path)
    async with asyncio.timeout(60):
        while third or list(tmp_path.iterdir()):
            await asyncio.sleep(0.01)


async def test_not_all_answers_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sagong_image_overlay.uploads._MOST", 3)
    uploads = await successor(tmp_path)
    for number in range(10):
        uploads.new(str(number))
        upload = uploads._known[_name(str(number))]
        upload.begun.set()
        upload.done.set_result(None)
        async with uploads.taken(str(number)):
            pass
    assert len(list(tmp_path.iterdir())) == 3
    uploads.stop()


async def test_what_was_half_deleted_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpacked(tmp_path)
    uploads = await successor(tmp_path)
    with monkeypatch.context() as killed:
        killed.setattr(shutil, "rmtree", lambda *_, **__: None)
        async with uploads.taken(TOKEN):
            pass
    assert left(tmp_path)
    assert not await successor(tmp_path)
    assert not left(tmp_path)


async def test_what_nobody_goes_on_with_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sagong_image_overlay.uploads._KEPT_SECONDS", 0.0)
    unpacked(tmp_path)
    (tmp_path / "a.part").write_bytes(b"some")
    (tmp_path / "b.whole").write_bytes(b"all")
    uploads = await successor(tmp_path)
    while uploads:
        await asyncio.sleep(0.01)
    assert not list(tmp_path.iterdir())
