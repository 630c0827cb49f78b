"""The scheduler suite against both schedulers and the fake, and mutations that it must catch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.conformance.fake_scheduler import MUTATIONS, FakeScheduler

from sagong.conformance import scheduler as suite
from sagong.conformance.rigs import Candidate, scheduler_rig
from sagong.contracts.scheduler import Scheduler
from sagong.testing import Check, awaited, check_name, checks
from sagong_scheduler_binpack import SchedulerBinpack
from sagong_scheduler_kube import SchedulerKube


@pytest.mark.parametrize("plugin", [SchedulerKube, SchedulerBinpack])
@pytest.mark.parametrize("check", checks(suite), ids=check_name)
async def test_plugin(check: Check, plugin: Callable[[Any], Scheduler]) -> None:
    async with scheduler_rig(Candidate(plugin)) as candidate:
        await check(candidate)


@pytest.mark.parametrize("check", checks(suite), ids=check_name)
async def test_fake(check: Check) -> None:
    await check(awaited(Scheduler, FakeScheduler()))


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
async def test_broken_fake_is_caught(mutation: type[FakeScheduler]) -> None:
    """Each mutation names the check that must fail on it."""
    with pytest.raises(AssertionError):
        await getattr(suite, f"check_{mutation.caught_by}")(awaited(Scheduler, mutation()))


def test_the_suite_lists_its_checks() -> None:
    assert len(checks(suite)) >= 35
    assert {f"check_{check_name(check)}" for check in checks(suite)} == set(suite.__all__)
