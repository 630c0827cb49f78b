"""What stands, and shall not: groups that a former run has left frozen."""

from __future__ import annotations

from shutil import which

import pytest
from tests.conformance.runtime_rig import BUSYBOX, rig

from sagong.linux.cgroup import Cgroup, layout_of_machine
from sagong.shim.runtime import MonitoredRuntime
from sagong_runtime_linux import RuntimeLinux
from sagong_runtime_oci import RuntimeOci

needs_runc = pytest.mark.skipif(which("runc") is None, reason="needs runc (package runc)")
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not BUSYBOX.exists(), reason="needs /bin/busybox (package busybox-static)"),
]


@pytest.mark.parametrize("make", [RuntimeLinux, pytest.param(RuntimeOci, marks=needs_runc)])
async def test_a_group_that_is_frozen_keeps_no_start(make: type[MonitoredRuntime]) -> None:
    """The program stood before it began, until the start was given up; runc refused it."""
    async with rig(make) as made:
        lab = made.lab()
        spec = lab.spec("echo begun")
        group = Cgroup(layout_of_machine(), f"{made.parent}/{spec.id}")
        group.create()
        group.freeze()
        assert (await lab.output(spec)).lines == ["begun"]
        await lab.clean()
        assert not group.exists()
