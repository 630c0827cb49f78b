"""Whoever serves and answers nothing any more is ended and followed, as one that died."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator

import pytest
from hostile_contract import Attack, Hostile

from sagong.call import deadline
from sagong.contracts.scheduler import Scheduler
from sagong.errors import SagongError
from sagong.operator import connect
from tests.system.instance import Instance, instance
from tests.system.kernel.load import QUESTION, right

pytestmark = pytest.mark.root

CONFIGURATION = """
profile = "bare"
silence_seconds = 2
[units.scheduler]
plugin = "scheduler_first"
[units.hostile]
"""


@pytest.fixture(scope="module")
def running() -> Iterator[Instance]:
    with instance(CONFIGURATION) as found:
        yield found


async def test_a_call_to_one_that_is_stopped_is_answered_by_its_successor(
    running: Instance,
) -> None:
    """Nothing ended it but an operator: calls waited until their deadlines, again and again."""
    stopped = running.pid("scheduler")
    async with connect(running.paths) as operator:
        scheduler = await operator.use(Scheduler)
        os.kill(stopped, signal.SIGSTOP)
        with deadline(60.0):
            assert right(await scheduler.place(QUESTION))
    status = await asyncio.to_thread(running.wait_ready, gone=stopped)
    (unit,) = [one for one in status.units if one.name == "scheduler"]
    assert unit.restarts == 1
    log = (running.paths.run / "log" / "kernel.log").read_text()
    assert "unit hangs" in log
    assert "it is stopped" in log


@pytest.mark.parametrize("again", [1, 2])
async def test_a_kernel_that_is_stopped_is_followed_and_nobody_ends_with_it(
    running: Instance, again: int
) -> None:
    """By its keeper: what serves goes on, and could not be swapped or restarted any more."""
    kernel, scheduler = running.pid("kernel"), running.pid("scheduler")
    os.kill(kernel, signal.SIGSTOP)
    await asyncio.to_thread(running.wait_ready, gone=kernel)
    assert running.pid("kernel") != kernel
    assert running.pid("scheduler") == scheduler
    log = (running.paths.run / "log" / "kernel.log").read_text()
    assert log.count("kernel hangs") == again
    async with connect(running.paths) as operator:
        assert right(await (await operator.use(Scheduler)).place(QUESTION))


async def test_one_that_never_comes_back_to_its_loop_is_followed(running: Instance) -> None:
    hung = running.pid("hostile")
    async with connect(running.paths) as operator:
        hostile = await operator.use(Hostile)
        await hostile.begin(Attack(name="burden"))  # the way there is made
        with pytest.raises(SagongError), deadline(1.5):  # before its successor is asked
            await hostile.begin(Attack(name="hang"))
        await asyncio.to_thread(running.wait_ready, gone=hung)
        with deadline(60.0):
            await (await operator.use(Hostile)).begin(Attack(name="burden"))
