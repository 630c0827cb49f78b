"""A newcomer that fails goes, and its predecessor comes back, while everybody goes on calling."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from sagong.contracts.kernel import PartRef, StatusQuery, SwapRequest, UnitRef, UnitStatus
from sagong.contracts.scheduler import Scheduler
from sagong.errors import FailedPrecondition, NotFound, Unavailable
from sagong.linux.cgroup import layout_of_machine
from sagong.operator import connect
from tests.system.instance import Instance, instance
from tests.system.kernel.load import QUESTION, loaded, right

pytestmark = pytest.mark.root

CONFIGURATION = """
profile = "bare"
[units.scheduler]
plugin = "scheduler_first"
[units.metrics]
plugin = "metrics_cgroup"
idle_seconds = 0.0
"""
BOTH = pytest.mark.parametrize("plugin", ["moody", "alone"])


@pytest.fixture(scope="module")
def running() -> Iterator[Instance]:
    """One instance for all tests of this module."""
    with instance(CONFIGURATION) as found:
        yield found


def mood(running: Instance, plugin: str, word: str) -> None:
    """How the plugin is from now on."""
    data = running.paths.data / "plugins" / f"scheduler_{plugin}"
    data.mkdir(parents=True, exist_ok=True)
    (data / "mood").write_text(word)


async def scheduler(running: Instance) -> UnitStatus:
    """The unit as `sagong status` shows it."""
    async with connect(running.paths) as operator:
        status = await operator.kernel.status(StatusQuery())
    return next(u for u in status.units if u.name == "scheduler")


async def wait_unit(running: Instance, holds: Callable[[UnitStatus], bool]) -> UnitStatus:
    """Wait until the unit is so."""
    limit = time.monotonic() + 60
    while not holds(found := await scheduler(running)):
        assert time.monotonic() < limit, (found, running.logs())
        await asyncio.sleep(0.02)
    return found


async def pid(running: Instance) -> int:
    """Of the process that serves."""
    unit = await wait_unit(running, lambda unit: unit.state == "serving")
    return next(p.pid for p in unit.processes if p.state == "serving")


async def kill_kernel(running: Instance) -> None:
    """At once; its keeper starts another one."""
    async with connect(running.paths) as operator:
        status = await operator.kernel.status(StatusQuery())
    os.kill(next(p.pid for p in status.others if p.unit == "kernel"), signal.SIGKILL)


def alone_with(plugin: str) -> Callable[[UnitStatus], bool]:
    """One process, which serves, of that plugin, not on trial."""
    return lambda unit: (
        unit.plugin == f"scheduler_{plugin}"
        and not unit.trial
        and [p.state for p in unit.processes] == ["serving"]
    )


async def swap(running: Instance, plugin: str, *, trial: float = 60.0, wait: bool = True) -> None:
    """Swap under load; to the end of the trial, if asked."""
    async with loaded(running) as (operator, _):
        request = SwapRequest(unit="scheduler", plugin=plugin, trial=trial, wait=wait)
        async for _step in operator.kernel.swap(request):
            pass


async def back_to_first(running: Instance) -> None:
    """As the tests begin."""
    await swap(running, "first", trial=0.0, wait=False)
    await wait_unit(running, alone_with("first"))


def choices(running: Instance) -> dict[str, str]:
    """What the kernel remembers of the operator's choices."""
    file = running.paths.data / "kernel" / "choices.json"
    return dict(msgspec.json.decode(file.read_bytes())["plugins"])


@BOTH
@pytest.mark.parametrize(
    ("word", "why"), [("refuses", "not today"), ("exits", "exit status 7"), ("ill", "a headache")]
)
async def test_one_that_does_not_start_well_changes_nothing(
    running: Instance, plugin: str, word: str, why: str
) -> None:
    mood(running, plugin, word)
    with pytest.raises(FailedPrecondition, match=f"scheduler_{plugin} does not start: .*{why}"):
        await swap(running, plugin)
    await wait_unit(running, alone_with("first"))
    assert choices(running).get("scheduler", "scheduler_first") == "scheduler_first"


@BOTH
async def test_one_that_dies_within_its_trial_is_followed_by_its_predecessor(
    running: Instance, plugin: str
) -> None:
    mood(running, plugin, "dies")
    log = running.paths.run / "log/kernel.log"
    before = log.read_text().count("died within its trial; scheduler_first serves again")
    with pytest.raises(FailedPrecondition, match="died within its trial"):
        await swap(running, plugin)
    await wait_unit(running, alone_with("first"))
    told = log.read_text().count("died within its trial; scheduler_first serves again")
    assert told - before == 1, "it is logged once"


@BOTH
async def test_one_that_falls_ill_within_its_trial_is_followed_by_its_predecessor(
    running: Instance, plugin: str
) -> None:
    mood(running, plugin, "well")
    swapping = asyncio.create_task(swap(running, plugin, trial=60.0))
    on_trial = await wait_unit(running, lambda unit: unit.trial == "scheduler_first")
    assert 0 < on_trial.trial_seconds <= 60
    assert "on trial" in (await asyncio.to_thread(running.run, "status")).stdout
    mood(running, plugin, "ill")
    with pytest.raises(FailedPrecondition, match="a headache"):
        await swapping
    await wait_unit(running, alone_with("first"))


async def test_one_that_hangs_within_its_trial_is_ended(running: Instance) -> None:
    mood(running, "moody", "blocks")
    async with connect(running.paths) as operator:
        request = SwapRequest(unit="scheduler", plugin="moody", trial=60.0, wait=True)
        with pytest.raises(FailedPrecondition, match="within its trial"):
            async for _step in operator.kernel.swap(request):
                pass
    await wait_unit(running, alone_with("first"))


@BOTH
async def test_one_that_proves_itself_is_remembered(running: Instance, plugin: str) -> None:
    mood(running, plugin, "well")
    await swap(running, plugin, trial=0.5)
    assert choices(running)["scheduler"] == f"scheduler_{plugin}"
    await kill_kernel(running)
    await wait_unit(running, alone_with(plugin))
    await back_to_first(running)


async def test_a_trial_survives_the_kernel(running: Instance) -> None:
    mood(running, "moody", "well")
    await swap(running, "moody", trial=60.0, wait=False)
    await kill_kernel(running)
    unit = await wait_unit(running, lambda unit: unit.trial == "scheduler_first")
    assert unit.plugin == "scheduler_moody"
    os.kill(await pid(running), signal.SIGKILL)
    await wait_unit(running, alone_with("first"))


async def test_state_goes_from_generation_to_generation(running: Instance) -> None:
    mood(running, "alone", "well")
    await swap(running, "alone", trial=0.0)
    for _ in range(3):
        await swap(running, "alone", trial=0.0)
    data = running.paths.data / "plugins" / "scheduler_alone"
    assert (data / "inherited").read_bytes() == b"xxx"
    await back_to_first(running)


async def test_one_that_does_not_end_its_drain_is_ended(running: Instance) -> None:
    mood(running, "alone", "clings")
    await swap(running, "alone", trial=0.0)
    async with connect(running.paths) as operator:
        async for _step in operator.kernel.swap(SwapRequest(unit="scheduler", plugin="first")):
            pass
    await wait_unit(running, lambda unit: unit.plugin == "scheduler_first" and not unit.trial)


async def test_two_swaps_at_once_are_refused(running: Instance) -> None:
    mood(running, "moody", "slow")
    async with loaded(running) as (operator, _):
        request = SwapRequest(unit="scheduler", plugin="moody", trial=0.0)
        steps = aiter(operator.kernel.swap(request))
        await anext(steps)
        with pytest.raises(FailedPrecondition, match="is being swapped; wait until"):
            await anext(operator.kernel.swap(SwapRequest(unit="scheduler", plugin="first")))
        mood(running, "moody", "well")
        async for _step in steps:
            pass
    await back_to_first(running)


@BOTH
async def test_a_kernel_killed_within_a_swap_leaves_one_serving(
    running: Instance, plugin: str
) -> None:
    mood(running, plugin, "slow")
    async with loaded(running) as (operator, load):
        request = SwapRequest(unit="scheduler", plugin=plugin)
        steps = aiter(operator.kernel.swap(request))
        await anext(steps)
        unit = await wait_unit(running, lambda unit: len(unit.processes) == 2)
        await kill_kernel(running)
        with pytest.raises(Unavailable):
            while True:
                await anext(steps)
        await wait_unit(running, alone_with("first"))
        before = load.answers
        while load.answers < before + 50:
            await asyncio.sleep(0.01)
    living = {p.pid for p in (await scheduler(running)).processes}
    for process in unit.processes:
        assert process.pid in living or not os.path.exists(f"/proc/{process.pid}/exe")


async def test_restart_replaces_the_process(running: Instance) -> None:
    before = await pid(running)
    async with loaded(running) as (operator, _):
        await operator.kernel.restart(UnitRef(unit="scheduler"))
    await wait_unit(running, alone_with("first"))
    assert await pid(running) != before


async def test_one_that_never_starts_is_down_until_it_is_mended(running: Instance) -> None:
    mood(running, "moody", "well")
    await swap(running, "moody", trial=0.0)
    mood(running, "moody", "refuses")
    async with connect(running.paths) as operator:
        proxy = await operator.use(Scheduler)
        os.kill(await pid(running), signal.SIGKILL)
        unit = await wait_unit(running, lambda unit: unit.state == "down")
        assert "not today" in unit.problem
        with pytest.raises(Unavailable, match=r"scheduler is down after \d+ failures.*not today"):
            await proxy.place(QUESTION)
        with pytest.raises(NotFound, match="scheduler is down"):
            await operator.use(Scheduler)
        told = await asyncio.to_thread(running.run, "status", check=False)
        assert told.returncode == 1
        assert "degraded, without scheduler" in told.stdout
        assert "metrics" in told.stdout
        with pytest.raises(FailedPrecondition, match="not today"):
            await operator.kernel.restart(UnitRef(unit="scheduler"))
        mood(running, "moody", "well")
        await operator.kernel.restart(UnitRef(unit="scheduler"))
        assert right(await proxy.place(QUESTION))
    await back_to_first(running)


async def test_upgrade_takes_new_code_into_use_under_load(running: Instance) -> None:
    names = ("kernel", "zygote", "scheduler", "metrics")
    before = {name: running.pid(name) for name in names}
    async with loaded(running):
        told = await asyncio.to_thread(running.run, "upgrade", "--trial", "0.2")
        assert told.stdout.splitlines()[0] == "kernel: upgraded"
        assert sorted(told.stdout.split(": upgraded\n")[1:-1]) == ["metrics", "scheduler"]
    after = {name: running.pid(name) for name in names}
    assert not set(before.values()) & set(after.values())


async def test_a_kernel_that_could_not_come_up_is_not_begun(running: Instance) -> None:
    before = running.pid("kernel")
    file = running.root / "etc" / "sagong.toml"
    file.write_text(CONFIGURATION + "nonsense = 1\n")
    try:
        async with loaded(running) as (operator, _):
            with pytest.raises(FailedPrecondition, match=r"can't be the kernel.*nonsense"):
                await operator.kernel.renew(PartRef(part="kernel"))
    finally:
        file.write_text(CONFIGURATION)
    assert running.pid("kernel") == before


async def test_a_dry_run_shows_each_check_and_changes_nothing(running: Instance) -> None:
    before = await pid(running)
    good = await asyncio.to_thread(running.run, "swap", "--dry-run", "scheduler", "binpack")
    assert "scheduler_binpack against the suite of scheduler, in its sandbox" in good.stdout
    assert "ok fits_exactly" in good.stdout
    bad = await asyncio.to_thread(running.run, "swap", "--check", "scheduler", "first", check=False)
    assert bad.returncode == 1
    assert "FAILED taints_need_tolerations" in bad.stdout
    assert await pid(running) == before


async def test_a_new_kernel_sweeps_what_others_left(running: Instance) -> None:
    serving = (await scheduler(running)).processes[0]
    buses = running.paths.run / "slots" / "scheduler" / "bus"
    (buses / "999").mkdir()
    group = stale_group(serving.pid)
    await kill_kernel(running)
    await wait_unit(running, lambda unit: not group.exists())
    assert [path.name for path in buses.iterdir()] == [str(serving.generation)]
    assert await pid(running) == serving.pid


def stale_group(beside: int) -> Path:
    """A control group as a dead generation may leave it, beside that of a living one."""
    path = own_group(beside)
    stale = path.with_suffix(".999")
    stale.mkdir()
    return stale


def own_group(process: int) -> Path:
    """The directory of a process's own control group, in a hierarchy that has one."""
    for line in Path(f"/proc/{process}/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        for hierarchy in layout_of_machine().hierarchies:
            own = Path(hierarchy.directory(path))
            if ".scheduler." in path and set(names.split(",")) & hierarchy.controllers:
                return own
    raise LookupError("no control group of the plugin's own")


async def test_one_that_can_not_be_imported_costs_nobody_anything(running: Instance) -> None:
    """Its predecessor had been drained by then, if the two can't stand beside each other."""
    before = running.pid("scheduler")
    async with connect(running.paths) as operator:
        with pytest.raises(FailedPrecondition, match=r"ImportError: no such part.* serves on"):
            async for _ in operator.kernel.swap(SwapRequest(unit="scheduler", plugin="unmade")):
                pass
    assert running.pid("scheduler") == before
