"""What every provider of slot `metrics` must do; the lab makes real load in a real cgroup."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from sagong.contracts.metrics import Metrics, Sample, SampleQuery, Target, TargetRef
from sagong.errors import NotFound

__all__ = ["MetricsLab"]


@dataclass(frozen=True)
class MetricsLab:
    """The candidate; a target whose process spends `seconds` of a core's time in `work(seconds)`."""

    metrics: Metrics
    target: Target
    work: Callable[[float], None]


async def _sample(lab: MetricsLab) -> Sample:
    answer = await lab.metrics.sample(SampleQuery(ids=(lab.target.id,), fresh=True))
    assert len(answer.samples) == 1
    return answer.samples[0]


async def check_what_is_not_tracked_is_not_found(lab: MetricsLab) -> None:
    try:
        await lab.metrics.sample(SampleQuery(ids=("unknown",)))
    except NotFound as error:
        assert "unknown" in error.message
    else:
        raise AssertionError("statistics of something unknown")


async def check_nothing_is_tracked_at_first(lab: MetricsLab) -> None:
    assert (await lab.metrics.sample(SampleQuery())).samples == ()


async def check_a_tracked_container_is_measured(lab: MetricsLab) -> None:
    await lab.metrics.track(lab.target)
    sample = await _sample(lab)
    assert sample.id == lab.target.id
    assert sample.memory_usage > 0
    assert sample.pids >= 1
    assert sample.labels == lab.target.labels
    assert sample.group == lab.target.group


async def check_tracking_twice_is_tracking_once(lab: MetricsLab) -> None:
    await lab.metrics.track(lab.target)
    await lab.metrics.track(lab.target)
    assert len((await lab.metrics.sample(SampleQuery(fresh=True))).samples) == 1


async def check_untracked_is_forgotten(lab: MetricsLab) -> None:
    await lab.metrics.track(lab.target)
    await lab.metrics.untrack(TargetRef(id=lab.target.id))
    await lab.metrics.untrack(TargetRef(id=lab.target.id))
    assert (await lab.metrics.sample(SampleQuery())).samples == ()


async def check_work_shows_in_cpu_time_and_rate(lab: MetricsLab) -> None:
    await lab.metrics.track(lab.target)
    before = await _sample(lab)
    await asyncio.to_thread(lab.work, 0.3)
    after = await _sample(lab)
    assert after.cpu_total - before.cpu_total > 250_000_000
    assert after.window > 0
    assert 0.01 < after.cpu_rate < 2.5  # of a machine that is busy it gets less


async def check_counters_never_fall(lab: MetricsLab) -> None:
    await lab.metrics.track(lab.target)
    seen = [(await _sample(lab)).cpu_total for _ in range(3)]
    assert seen == sorted(seen)


async def check_a_history_is_in_order(lab: MetricsLab) -> None:
    await lab.metrics.track(lab.target)
    for _ in range(3):
        await _sample(lab)
    query = SampleQuery(ids=(lab.target.id,), fresh=True, history_seconds=60.0)
    times = [s.time for s in (await lab.metrics.sample(query)).samples]
    assert len(times) >= 3
    assert times == sorted(times)


async def check_the_machine_is_what_it_is(lab: MetricsLab) -> None:
    machine = await lab.metrics.machine()
    assert machine.cores >= 1
    assert 0 < machine.memory_available <= machine.memory_total
    assert 0 <= machine.cpu_rate <= machine.cores * 1.5
    assert machine.system_total >= machine.cpu_total > 0
    assert machine.disks and machine.disks[0][1] >= machine.disks[0][2] > 0
