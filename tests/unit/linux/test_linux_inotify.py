"""Followed directories: what counts as a change, and what is only a beginning."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from sagong.linux.inotify import DirectoryWatch


async def heard(watch: DirectoryWatch, seconds: float = 60.0) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await watch.wait()
    except TimeoutError:
        return False
    return True


async def test_a_file_counts_when_its_writer_closes_it(tmp_path: Path) -> None:
    watch = DirectoryWatch([tmp_path])
    try:
        with open(tmp_path / "slow", "w") as file:
            file.write("half")
            file.flush()
            assert not await heard(watch, 0.1)
        assert await heard(watch)
    finally:
        watch.close()


async def test_renames_links_and_removals_count(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    directory = tmp_path / "watched"
    directory.mkdir()
    (outside / "file").write_text("x")
    watch = DirectoryWatch([directory])
    try:
        os.rename(outside / "file", directory / "file")
        assert await heard(watch)
        (directory / "link").symlink_to("file")
        assert await heard(watch)
        (directory / "file").unlink()
        assert await heard(watch)
    finally:
        watch.close()


async def test_what_is_no_directory_is_refused_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match=r"inotify_add_watch.*file"):
        DirectoryWatch([tmp_path / "file"])
