"""Whoever writes into a watched directory is noticed, and not at every write."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from sagong.kernel import growth
from sagong.kernel.growth import Growth


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


async def test_what_is_written_is_told_again_and_again(tmp_path: Path) -> None:
    heard: list[Path] = []
    found = Growth(heard.append)
    found.watch([tmp_path, tmp_path / "not there yet"])
    for _ in range(2):
        heard.clear()
        await until(lambda: found._marks)
        (tmp_path / "file").write_text("more")
        await until(lambda: heard)
        assert heard == [tmp_path]
    (tmp_path / "not there yet").mkdir()
    found.watch([tmp_path / "not there yet"])
    await until(lambda: found._marks)
    heard.clear()
    (tmp_path / "file").write_text("nobody listens here any more")
    (tmp_path / "not there yet" / "file").write_text("but here")
    await until(lambda: heard)
    assert heard == [tmp_path / "not there yet"]
    found.close()


async def test_a_flood_of_writes_wakes_nobody_as_often(tmp_path: Path) -> None:
    heard: list[Path] = []
    found = Growth(heard.append)
    found.watch([tmp_path])
    began, writes = time.monotonic(), 0
    with open(tmp_path / "file", "wb", buffering=0) as file:
        while len(heard) < 5:
            writes += file.write(b"x")
            await asyncio.sleep(0)
    # One at once, and one that was due anyway.
    assert len(heard) <= 2 + (time.monotonic() - began) / growth._EVERY
    assert writes > len(heard)
    found.close()
