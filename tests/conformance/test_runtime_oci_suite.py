"""The runtime suite against runtime_oci with a real launcher and runc."""

from __future__ import annotations

import shutil

import pytest
from tests.conformance.runtime_rig import BUSYBOX, rig

from sagong.conformance import runtime as suite
from sagong.contract import conforms
from sagong.contracts.runtime import Runtime
from sagong.testing import Check, check_name, checks
from sagong_runtime_oci import RuntimeOci

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not BUSYBOX.exists(), reason="needs /bin/busybox (package busybox-static)"),
    pytest.mark.skipif(shutil.which("runc") is None, reason="needs runc (package runc)"),
]


@pytest.mark.parametrize("check", checks(suite), ids=check_name)
async def test_runtime_oci(check: Check) -> None:
    """Each check with a launcher of its own, which must be left with nothing."""
    async with rig(RuntimeOci) as made:
        lab = made.lab()
        try:
            await check(lab)
        finally:
            await lab.clean()
        assert not list((made.run / "containers").iterdir())


def test_runtime_oci_has_the_slots_form() -> None:
    """Method by method."""
    conforms(Runtime, RuntimeOci)
