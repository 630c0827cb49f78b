"""The replication suite against replication_kube, and against ways to break it that it must catch."""

from __future__ import annotations

import pytest
from tests.conformance.broken_replication import MUTATIONS, Broken

from sagong.conformance import replication as suite
from sagong.conformance.rigs import Candidate, replication_rig
from sagong.testing import Check, check_name, checks
from sagong_replication_kube import ReplicationKube


@pytest.mark.parametrize("check", checks(suite), ids=check_name)
async def test_replication_kube(check: Check) -> None:
    async with replication_rig(Candidate(ReplicationKube)) as candidate:
        await check(candidate)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
async def test_broken_one_is_caught(mutation: type[Broken]) -> None:
    """Each mutation names the check that must fail on it."""
    async with replication_rig(Candidate(ReplicationKube)) as candidate:
        broken = mutation(candidate)
        with pytest.raises((AssertionError, KeyError)):
            await getattr(suite, f"check_{mutation.caught_by}")(broken)


def test_the_suite_lists_its_checks() -> None:
    assert len(checks(suite)) >= 30
    assert {f"check_{check_name(check)}" for check in checks(suite)} == set(suite.__all__)
