"""The state suite against state_sqlite and the fake, and the fake's mutations that it must catch."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from tests.conformance.broken_state import MUTATIONS
from tests.conformance.bus_lab import over_the_bus
from tests.conformance.fake_state import Disk, FakeState

from sagong.conformance import state as suite
from sagong.conformance.rigs import Candidate, state_rig
from sagong.conformance.state import StateLab
from sagong.contract import conforms
from sagong.contracts.state import State
from sagong.errors import SagongError
from sagong.testing import Check, check_name, checks
from sagong_state_sqlite import StateSqlite
from sagong_state_sqlite.rig import restored

CONFIG = {"recent_bytes": 1 << 16}


def sqlite_lab() -> AbstractAsyncContextManager[StateLab]:
    """A store with a journal so small that checks also read the file's history.

    The restart is the mild form of a crash; test_state_sqlite_crash.py has the other.
    """
    return state_rig(Candidate(StateSqlite, CONFIG, restored=restored))


@contextlib.asynccontextmanager
async def fake_lab(kind: type[FakeState]) -> AsyncIterator[StateLab]:
    """The fake, or a broken one."""
    disk = Disk()
    living: list[FakeState] = [kind(disk)]

    async def restart() -> State:
        living[-1].kill()
        living.append(kind(disk))
        return living[-1]

    @contextlib.asynccontextmanager
    async def restored_fake(snapshot: bytes) -> AsyncIterator[State]:
        fresh = kind(Disk.load(snapshot))
        try:
            yield fresh
        finally:
            fresh.kill()

    try:
        yield StateLab(state=living[0], restart=restart, restored=restored_fake)
    finally:
        living[-1].kill()


@pytest.mark.parametrize("check", checks(suite), ids=check_name)
async def test_state_sqlite(check: Check) -> None:
    async with sqlite_lab() as lab:
        await check(lab)


async def test_one_store_passes_all_checks_in_turn() -> None:
    async with sqlite_lab() as lab:
        for check in checks(suite):
            await check(StateLab(state=lab.state, restored=lab.restored))


async def test_state_sqlite_passes_over_the_bus() -> None:
    async with sqlite_lab() as lab, over_the_bus(State, lab.state) as remote:
        conforms(State, lab.state)
        for check in checks(suite):
            await check(StateLab(state=remote, restored=lab.restored))


@pytest.mark.parametrize("check", checks(suite), ids=check_name)
async def test_fake(check: Check) -> None:
    async with fake_lab(FakeState) as lab:
        conforms(State, lab.state)
        await check(lab)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
async def test_broken_fake_is_caught(
    mutation: type[FakeState], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each mutation names the check that must fail on it."""
    check: Callable[[Any], Any] = getattr(suite, f"check_{mutation.caught_by}")
    monkeypatch.setattr("sagong.conformance.state_lab.PATIENCE", 3.0)
    async with fake_lab(mutation) as lab:
        with pytest.raises((AssertionError, SagongError, StopAsyncIteration, TimeoutError)):
            await check(lab)
