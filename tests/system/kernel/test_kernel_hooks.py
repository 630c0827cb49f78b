"""A hook that hangs in a unit's process: the unit goes on, and it is told which hook it is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from sagong.contracts.scheduler import Question, Scheduler, Verdict
from sagong.errors import DeadlineExceeded, Unavailable
from sagong.operator import connect
from tests.system.instance import Instance, instance

pytestmark = pytest.mark.root

CONFIGURATION = """
profile = "bare"
[units.scheduler]
plugin = "scheduler_binpack"
hooks = ["stall"]
"""


@pytest.fixture(scope="module")
def running() -> Iterator[Instance]:
    with instance(CONFIGURATION) as found:
        yield found


def place(running: Instance, *pods: bytes) -> Verdict:
    async def ask() -> Verdict:
        async with connect(running.paths) as operator:
            scheduler = await operator.use(Scheduler)
            return await scheduler.place(Question(pods=pods, nodes=()))

    return asyncio.run(ask())


def test_a_hook_that_hangs_costs_its_callers_seconds_and_the_unit_nothing(
    running: Instance,
) -> None:
    pod, before = (
        b'{"metadata": {"name": "p"}, "spec": {"containers": []}}',
        running.pid("scheduler"),
    )
    place(running, pod)
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded, match="hook sagong_stall:Stall did not end place in 2 s"):
        place(running)
    with pytest.raises(Unavailable, match="hook sagong_stall:Stall was given up"):
        place(running, pod)
    assert time.monotonic() - began < 25
    assert running.pid("scheduler") == before
    status = running.run("status", check=False)
    assert "scheduler: hook sagong_stall:Stall was given up in place, 1 times" in status.stdout
    assert status.returncode == 0
