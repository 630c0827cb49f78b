"""Slot `metrics`: the plugin passes the suite, and ten broken ones don't."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sagong.conformance import metrics as suite
from sagong.conformance.metrics import MetricsLab
from sagong.conformance.rigs import Candidate, Worker, metrics_lab, working
from sagong.contracts.metrics import Machine, SampleQuery, SampleSet, Target, TargetRef
from sagong.testing import Check, check_name, checks, local
from sagong_metrics_cgroup import MetricsCgroup

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    """A process in a cgroup of its own that works on demand."""
    with working() as found:
        yield found


def laboratory(
    worker: Worker, plugin: Any = MetricsCgroup
) -> AbstractAsyncContextManager[MetricsLab]:
    """The rig that ships."""
    return metrics_lab(Candidate(plugin), worker)


@pytest.mark.parametrize("check", checks(suite), ids=check_name)
async def test_metrics_cgroup(check: Check, worker: Any) -> None:
    async with laboratory(worker) as lab:
        await check(lab)


class Silent(MetricsCgroup):
    def track(self, target: Target) -> None:
        """Forgets at once."""


class Sticky(MetricsCgroup):
    def untrack(self, target: TargetRef) -> None:
        """Never forgets."""


class Generous(MetricsCgroup):
    async def sample(self, query: SampleQuery) -> SampleSet:
        return await super().sample(msgspec.structs.replace(query, ids=()))


def altered(**facts: Any) -> type[MetricsCgroup]:
    """A measurer that says something else of every container."""

    class Altered(MetricsCgroup):
        async def sample(self, query: SampleQuery) -> SampleSet:
            found = await super().sample(query)
            return SampleSet(
                samples=tuple(msgspec.structs.replace(s, **facts) for s in found.samples)
            )

    return Altered


class Backwards(MetricsCgroup):
    async def sample(self, query: SampleQuery) -> SampleSet:
        found = await super().sample(query)
        return SampleSet(samples=tuple(reversed(found.samples)))


class Doubling(MetricsCgroup):
    def track(self, target: Target) -> None:
        super().track(target)
        super().track(msgspec.structs.replace(target, id=target.id + "2"))


class Boasting(MetricsCgroup):
    async def machine(self) -> Machine:
        return msgspec.structs.replace(await super().machine(), memory_available=1 << 60)


BROKEN = [
    Silent,
    Sticky,
    Generous,
    Backwards,
    Doubling,
    Boasting,
    altered(cpu_total=0),
    altered(memory_usage=0),
    altered(pids=0),
    altered(cpu_rate=0.0),
    altered(labels=()),
    altered(group=""),
]


@pytest.mark.parametrize("broken", BROKEN)
async def test_the_suite_finds_what_is_broken(broken: Any, worker: Any) -> None:
    failed = 0
    for check in checks(suite):
        async with laboratory(worker, broken) as lab:
            try:
                await check(lab)
            except Exception:
                failed += 1
    assert failed


async def test_the_machines_rate_goes_on_over_a_swap(worker: Worker, tmp_path: Path) -> None:
    """What was used since the last question, though a predecessor answered that."""
    data, run = tmp_path / "data", tmp_path / "run"
    async with local(MetricsCgroup, data=data, run=run) as old:
        before = await old.machine()
    await asyncio.to_thread(worker[1], 0.5)
    async with local(MetricsCgroup, data=data, run=run) as new:
        after = await new.machine()
    used = (after.cpu_total - before.cpu_total) / 1e9
    assert used >= 0.4
    assert after.cpu_rate == pytest.approx(used / (after.time - before.time))


async def test_a_successor_goes_on_with_what_is_measured(worker: Worker) -> None:
    target, _ = worker
    query = SampleQuery(ids=(target.id,), fresh=True, history_seconds=60.0)
    async with local(MetricsCgroup) as old:
        old.track(target)
        before = (await old.sample(query)).samples
        state = await old.export()
    async with local(MetricsCgroup) as new:
        await new.restore(state)
        after = (await new.sample(query)).samples
        await new.restore(b"of another form")
    assert after[: len(before)] == before
    assert len(after) == len(before) + 1
