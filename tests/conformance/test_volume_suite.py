"""The volume suite against volume_local and the fake, and the fake's mutations it must catch."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from tests.conformance.broken_volume import MUTATIONS
from tests.conformance.fake_volume import FakeVolumes, Shelf

from sagong.conformance import volume as suite
from sagong.conformance.rigs import Candidate, volume_rig
from sagong.conformance.volume import VolumeLab
from sagong.contract import conforms
from sagong.contracts.volume import Volumes
from sagong.errors import SagongError
from sagong.testing import Check, check_name, checks
from sagong_volume_local import VolumeLocal

CHECKS = checks(suite)


def volume_lab() -> AbstractAsyncContextManager[VolumeLab]:
    """The plugin on a directory of its own; stopping it is the mild form of a crash."""
    return volume_rig(Candidate(VolumeLocal))


@pytest.mark.root
@pytest.mark.parametrize("check", CHECKS, ids=check_name)
async def test_volume_local(check: Check) -> None:
    async with volume_lab() as lab:
        await check(lab)


@contextlib.asynccontextmanager
async def fake_lab(kind: type[FakeVolumes]) -> AsyncIterator[VolumeLab]:
    """The fake, or a broken one."""
    with tempfile.TemporaryDirectory(prefix="sagong-volume-", dir="/tmp") as base:
        shelf = Shelf(Path(base) / "shelf")
        living = [kind(shelf)]

        async def restart() -> Volumes:
            getattr(living[-1], "kill", lambda: None)()
            living.append(kind(shelf))
            return living[-1]

        yield VolumeLab(living[0], Path(base), restart)


@pytest.mark.parametrize("check", CHECKS, ids=check_name)
async def test_fake(check: Check) -> None:
    async with fake_lab(FakeVolumes) as lab:
        conforms(Volumes, lab.volumes)
        await check(lab)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda kind: kind.__name__)
async def test_broken_fake_is_caught(mutation: type[FakeVolumes]) -> None:
    """Each mutation names the check that must fail on it."""
    check: Callable[[Any], Any] = getattr(suite, f"check_{mutation.caught_by}")
    async with fake_lab(mutation) as lab:
        with pytest.raises((AssertionError, SagongError, OSError)):
            await check(lab)


def test_there_are_enough_checks() -> None:
    assert len(CHECKS) >= 20
    assert len(MUTATIONS) >= 10
