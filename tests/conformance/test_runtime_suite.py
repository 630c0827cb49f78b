"""The runtime suite against runtime_linux with a real launcher."""

from __future__ import annotations

from collections.abc import Iterator
from shutil import which
from typing import Any

import pytest
from tests.conformance.broken_runtime import MUTATIONS
from tests.conformance.runtime_rig import BUSYBOX, Rig, held, launched, rig

from sagong.conformance import runtime as suite
from sagong.contract import conforms
from sagong.contracts.runtime import Runtime
from sagong.errors import SagongError
from sagong.testing import Check, check_name, checks
from sagong_runtime_linux import RuntimeLinux
from sagong_runtime_oci import RuntimeOci

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not BUSYBOX.exists(), reason="needs /bin/busybox (package busybox-static)"),
]


@pytest.fixture(scope="module")
def launcher() -> Iterator[Rig]:
    """One for all checks."""
    with launched(RuntimeLinux, RuntimeOci if which("runc") else None) as made:
        yield made


@pytest.mark.parametrize("check", checks(suite), ids=check_name)
async def test_runtime_linux(check: Check, launcher: Rig) -> None:
    """Each check over the same launcher, which must be left with nothing."""
    await held(launcher, check)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda kind: kind.__name__)
async def test_broken_runtime_is_caught(mutation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A runtime that breaks one promise fails the check of that promise; nobody waits for long."""
    monkeypatch.setattr("sagong.conformance.runtime_lab.PATIENCE", 2.0)
    check = getattr(suite, f"check_{mutation.caught_by}")
    async with rig(mutation) as made:
        lab = made.lab()
        with pytest.raises((AssertionError, SagongError, TimeoutError)):
            await check(lab)


def test_runtime_linux_has_the_slots_form() -> None:
    """Method by method."""
    conforms(Runtime, RuntimeLinux)
