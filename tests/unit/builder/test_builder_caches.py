"""Directories of RUN --mount=type=cache: nobody has one before it is what it begins with."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from sagong.contracts.image import PrepareRequest
from sagong_builder.caches import Caches
from sagong_builder.mounting import MountSpec

MOUNT = MountSpec("cache", target="/c", id="x")


@dataclass
class Root:
    """Of what is lent its writable directory."""

    upper: str


class Images:
    """Lends roots."""

    async def prepare(self, request: PrepareRequest) -> Root:
        """One without an image."""
        return Root(f"/upper/{request.id}")


def test_who_comes_second_waits_until_a_cache_is_filled(tmp_path: Path) -> None:
    story: list[str] = []

    async def fill(lease: str) -> None:
        story.append("begun")
        await asyncio.sleep(0.02)
        story.append("filled")

    async def use(caches: Caches) -> None:
        async with caches.used(MOUNT, fill):
            story.append("used")

    async def both() -> None:
        caches = Caches(tmp_path, cast(Any, Images()))
        await asyncio.gather(use(caches), use(caches))

    asyncio.run(both())
    assert story == ["begun", "filled", "used", "used"]


def test_a_cache_whose_filling_failed_is_filled_by_the_next(tmp_path: Path) -> None:
    filled: list[str] = []

    async def fail(lease: str) -> None:
        raise OSError("the disk is full")

    async def fill(lease: str) -> None:
        filled.append(lease)

    async def story() -> None:
        with pytest.raises(OSError):
            async with Caches(tmp_path, cast(Any, Images())).used(MOUNT, fail):
                raise AssertionError("it is not there")
        for _ in range(2):
            async with Caches(tmp_path, cast(Any, Images())).used(MOUNT, fill):
                pass

    asyncio.run(story())
    assert len(filled) == 1
