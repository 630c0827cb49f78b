"""A control group's counter rings when it grows, without anybody looking."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sagong.kernel.bells import Bells
from sagong.linux.cgroup import Cgroup, layout_of_machine
from sagong.linux.cgroup_limits import CgroupLimits

pytestmark = pytest.mark.root


@pytest.fixture
def group() -> Iterator[Cgroup]:
    """One in which nobody may have a second process."""
    made = Cgroup(layout_of_machine(), f"sagong-bells-{os.getpid()}", ("pids",))
    made.create()
    made.limit(CgroupLimits(pids=1))
    yield made
    made.kill()
    made.remove()


def refused_fork(group: Cgroup) -> None:
    pid = os.fork()
    if pid == 0:
        group.enter()
        try:
            os.fork()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


async def test_it_rings_once_for_each_growth(group: Cgroup) -> None:
    heard: list[tuple[str, str]] = []
    path = f"{group.directory('pids')}/pids.events"
    found = Bells(lambda *what: heard.append(what))
    found.watch([path, "/nowhere/pids.events"])
    assert heard == [(path, "max 0\n")]
    for times in (1, 2):
        refused_fork(group)
        async with asyncio.timeout(60):
            while heard[-1] != (path, f"max {times}\n"):
                await look(found)
        await look(found)
        assert len(heard) == 1 + times
    found.watch([])
    refused_fork(group)
    await look(found)
    assert len(heard) == 3
    found.close()


async def look(bells: Bells) -> None:
    """Let what rings ring, and look at what does not."""
    await asyncio.sleep(0.02)
    bells.peek()


async def test_what_comes_later_is_found(group: Cgroup) -> None:
    heard: list[tuple[str, str]] = []
    found = Bells(lambda *what: heard.append(what))
    later = Cgroup(group.layout, f"{group.path}-later", ("pids",))
    path = f"{later.directory('pids')}/pids.events"
    found.watch([path])
    assert not heard
    later.create()
    try:
        await look(found)
        assert heard == [(path, "max 0\n")]
    finally:
        found.close()
        later.remove()


async def test_a_group_that_is_gone_does_not_ring_for_ever(group: Cgroup) -> None:
    heard: list[tuple[str, str]] = []
    path = Path(group.directory("pids") or "", "pids.events")
    found = Bells(lambda *what: heard.append(what))
    found.watch([str(path)])
    group.remove()
    await look(found)
    assert len(heard) == 1
    found.close()
