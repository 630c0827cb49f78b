"""Slot `metrics`: the plugin passes the suite, and ten broken ones don't."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import msgspec
import pytest

from sagong.conformance import metrics as suite
from sagong.conformance.metrics import MetricsLab
from sagong.contracts.metrics import Machine, Metrics, SampleQuery, SampleSet, Target, TargetRef
from sagong.linux.cgroup import Cgroup, layout_of_machine
from sagong.testing import Check, awaited, check_name, checks, local
from sagong_metrics_cgroup import MetricsCgroup

pytestmark = pytest.mark.root
SPINNER = (
    "import sys, time\n"
    "for line in sys.stdin:\n"
    "    end = time.monotonic() + float(line)\n"
    "    while time.monotonic() < end: pass\n"
    "    print('done', flush=True)\n"
)


@pytest.fixture(scope="module")
def worker() -> Iterator[tuple[Target, Callable[[float], None]]]:
    """A process in a cgroup of its own that works on demand."""
    name = f"sagong-test-{uuid.uuid4().hex[:8]}"
    group = Cgroup(layout_of_machine(), name)
    group.create()
    process = subprocess.Popen(
        [sys.executable, "-c", SPINNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    group.attach(process.pid)

    def work(seconds: float) -> None:
        assert process.stdin and process.stdout
        process.stdin.write(f"{seconds}\n")
        process.stdin.flush()
        process.stdout.readline()

    work(0.05)
    target = Target(id="a" * 64, cgroup=name, pid=process.pid, labels=(("k", "v"),), group="pod")
    try:
        yield target, work
    finally:
        process.kill()
        process.wait()
        time.sleep(0.05)
        group.remove()


@contextlib.asynccontextmanager
async def laboratory(
    worker: tuple[Target, Callable[[float], None]], plugin: Any = MetricsCgroup
) -> AsyncIterator[MetricsLab]:
    async with local(plugin) as candidate:
        yield MetricsLab(awaited(Metrics, candidate), *worker)


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
