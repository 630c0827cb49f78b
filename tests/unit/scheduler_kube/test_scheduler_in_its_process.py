"""Scheduler and controllers as units of an instance, sandboxed, with nobody serving objects."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest
from tests.system.instance import Instance, instance

from sagong.conformance import replication as replication_suite
from sagong.conformance import scheduler as scheduler_suite
from sagong.conformance.replication_jobs import cron
from sagong.conformance.scheduler_lab import node, pod
from sagong.contracts.kernel import SwapRequest
from sagong.contracts.replication import Replication, Situation
from sagong.contracts.scheduler import Question, Scheduler
from sagong.operator import connect
from sagong.testing import checks

pytestmark = pytest.mark.root

CONFIGURATION = """
profile = "bare"
[units.scheduler]
plugin = "scheduler_kube"
[units.replication]
plugin = "replication_kube"
"""


@pytest.fixture(scope="module")
def running() -> Iterator[Instance]:
    """One instance for all tests of this module."""
    with instance(CONFIGURATION) as found:
        yield found


async def test_both_suites_hold_over_the_bus(running: Instance) -> None:
    async with connect(running.paths) as operator:
        scheduler = await operator.use(Scheduler)
        for check in checks(scheduler_suite):
            await check(scheduler)
        replication = await operator.use(Replication)
        for check in checks(replication_suite):
            await check(replication)


async def test_time_zones_are_known_in_the_sandbox(running: Instance) -> None:
    wanted = cron("0 9 * * *", timeZone="Europe/Berlin")
    wanted["metadata"] |= {"creationTimestamp": "2024-01-01T00:00:00Z", "uid": "u"}
    situation = Situation(objects=(json.dumps(wanted).encode(),), now=1704096000.0)
    async with connect(running.paths) as operator:
        plan = await (await operator.use(Replication)).reconcile(situation)
    assert [w.name for w in plan.writes if w.resource == "batch/v1/jobs"] == ["tick-28401600"]


async def test_a_swap_under_load_loses_no_call(running: Instance) -> None:
    nodes = tuple(json.dumps(node(name)).encode() for name in ("a", "b"))
    bound = (json.dumps(pod("x", cpu="2", on="a")).encode(),)
    question = Question(pods=(json.dumps(pod("p", cpu="1")).encode(),), nodes=nodes, bound=bound)
    answers: list[str] = []
    stopping = asyncio.Event()
    async with connect(running.paths) as operator:
        scheduler = await operator.use(Scheduler)

        async def ask() -> None:
            while not stopping.is_set():
                answers.append((await scheduler.place(question)).placements[0].node)

        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(ask())
            for plugin, expected in (("scheduler_binpack", "a"), ("scheduler_kube", "b")) * 2:
                async for _step in operator.kernel.swap(
                    SwapRequest(unit="scheduler", plugin=plugin)
                ):
                    pass
                seen = len(answers)
                while len(answers) < seen + 100:
                    await asyncio.sleep(0.01)
                assert set(answers[-50:]) == {expected}
            stopping.set()
