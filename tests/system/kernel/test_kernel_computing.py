"""Units that compute, more than there are cores: each gives way for as long as it does."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hostile_contract import Attack, Hostile

from sagong.config import Config
from sagong.linux.cgroup import CONTROLLERS, Cgroup, layout_of_machine
from sagong.linux.cgroup_limits import weight_of_shares
from sagong.operator import connect
from tests.system.instance import Instance, instance

pytestmark = pytest.mark.root

# More than there are cores, so that none has most of one.
NAMES = [f"hostile-{number}" for number in range(2 * (os.cpu_count() or 1))]
CONFIGURATION = 'profile = "bare"\n' + "".join(
    f'[units.{name}]\nplugin = "hostile"\ninstance = "{name}"\n' for name in NAMES
)
STEADY_SECONDS = 3.0


@pytest.fixture(scope="module")
def running() -> Iterator[Instance]:
    with instance(CONFIGURATION) as found:
        yield found


def weight(running: Instance, name: str) -> float:
    """Of a unit's group, as a part of what units usually have."""
    lines = Path(f"/proc/{running.pid(name)}/cgroup").read_text().splitlines()
    own = running.paths.unit_group(name, "")
    path = next(line.split(":", 2)[2] for line in lines if own in line)
    place = Path(Cgroup(layout_of_machine(), path).directory("cpu") or "")
    usual = Config().cpu_shares
    known = {"cpu.shares": usual, "cpu.weight": weight_of_shares(usual)}
    found = next(place / file for file in known if (place / file).exists())
    return int(found.read_text()) / known[found.name]


def begin_to_compute(running: Instance) -> None:
    async def go() -> None:
        async with connect(running.paths) as operator:
            for name in NAMES:
                await (await operator.use(Hostile, name)).begin(Attack(name="computes"))

    asyncio.run(go())


def test_each_of_many_that_compute_is_light_until_it_ends_that(running: Instance) -> None:
    begin_to_compute(running)

    def light() -> bool:
        return all(weight(running, name) <= 1 / 8 for name in NAMES)

    limit = time.monotonic() + 60
    while not light():
        assert time.monotonic() < limit, running.logs()
        time.sleep(0.05)
    limit = time.monotonic() + STEADY_SECONDS
    while time.monotonic() < limit:
        assert light(), "one that does not sleep goes before others again"


def test_nothing_that_computes_outlives_the_system() -> None:
    with instance(CONFIGURATION) as running:
        begin_to_compute(running)
        groups = layout_of_machine().groups(running.paths.unit_group("*", "*"))
        assert sum(len(pids_of(group)) for group in groups) > len(NAMES)
        running.run("down", "--seconds", "1")
        # What was killed takes a while to die of it where so many compute.
        limit = time.monotonic() + 60
        while left := [pid for group in groups for pid in pids_of(group)]:
            assert time.monotonic() < limit, left
            time.sleep(0.05)


def pids_of(group: str) -> list[int]:
    try:
        return list(Cgroup(layout_of_machine(), group, (*CONTROLLERS, "unified")).pids())
    except FileNotFoundError:
        return []
