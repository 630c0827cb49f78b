"""What the chaos tests know of an instance's processes, whether or not anybody says who they are."""

from __future__ import annotations

import os
import signal

import pytest

from tests.system.chaos.processes import Processes
from tests.system.instance import instance

pytestmark = pytest.mark.root


def test_a_power_cut_ends_a_keeper_whose_kernel_cannot_tell_of_it() -> None:
    """It started the kernel again after the cut, now and then, when the kernel had not answered."""
    with instance('profile = "bare"\n') as running:
        processes = Processes(running)
        keeper = processes.pids()["keeper"]
        os.kill(processes.pids()["kernel"], signal.SIGKILL)
        assert keeper in processes.cut_power()
        assert not processes.everything(), processes.described(processes.everything())
        assert running.run("up").returncode == 0
