"""Bounds look at who comes from its first moment on, and at nobody once the system ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sagong import manifest
from sagong.bus.refusals import Refusals
from sagong.kernel.bounds import Bounded, Bounds
from sagong.kernel.usage import Stance
from sagong.manifest import Manifest

TEXT = '[plugin]\nname = "p"\nversion = "1"\nsummary = "s"\nclass = "a:B"\n'


@dataclass(frozen=True)
class One:
    """A process that uses a file as its counter."""

    usage: str
    manifest: Manifest
    name: str = "p"
    generation: int = 7
    pidfd: int = -1
    own: tuple[Path, ...] = ()
    counters: tuple[str, ...] = ()

    def threads(self) -> dict[int, int]:
        return {}


@dataclass
class World:
    """Who lives, how often that was asked, and what was said of them."""

    lives: list[Bounded]
    asked: int = 0
    said: list[tuple[str, int, bool]] = field(default_factory=list)

    def living(self) -> Iterable[Bounded]:
        self.asked += 1
        return self.lives

    def offends(self, name: str, generation: int, why: str) -> None: ...

    def computes(self, name: str, generation: int, stance: Stance) -> None:
        self.said.append((name, generation, stance.computes))


def made(tmp_path: Path, limits: str = "") -> tuple[World, Bounds, Path]:
    usage = tmp_path / "cpuacct.usage"
    usage.write_text("0\n")
    world = World([One(str(usage), manifest.parse(TEXT + limits, where="p"))])
    judge: Any = world
    refusals = Refusals(logging.getLogger("sagong.test"))
    return world, Bounds(tmp_path, 1 << 20, refusals, world.living, judge), usage


async def test_who_comes_and_computes_is_told_soon(tmp_path: Path) -> None:
    world, bounds, usage = made(tmp_path)
    bounds.follow()
    usage.write_text("100000000000\n")
    async with asyncio.timeout(60):
        while not world.said:
            await asyncio.sleep(0.01)
    assert world.said == [("p", 7, True)]


async def test_who_may_use_all_cores_is_not(tmp_path: Path) -> None:
    world, bounds, usage = made(tmp_path, "[limits]\ncpu = 0\n")
    bounds.follow()
    usage.write_text("100000000000\n")
    await asyncio.sleep(0.2)
    assert not world.said


async def test_nobody_is_looked_at_once_it_is_over(tmp_path: Path) -> None:
    """Units may be woken while the system ends."""
    world, bounds, _ = made(tmp_path)
    watching = asyncio.create_task(bounds.watch())
    await asyncio.sleep(0)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    asked = world.asked
    bounds.follow()
    assert world.asked == asked
