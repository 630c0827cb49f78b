"""What the chaos tests know of an instance's processes, whether or not anybody says who they are."""

from __future__ import annotations

import os
import signal

import pytest

from tests.system.chaos.faults import Injector
from tests.system.chaos.history import Recorder
from tests.system.chaos.processes import Processes
from tests.system.instance import instance

pytestmark = pytest.mark.root


def test_a_power_cut_ends_a_keeper_whose_kernel_cannot_tell_of_it() -> None:
    """It started the kernel again after the cut, now and then, when the kernel had not answered."""
    with instance('profile = "bare"\n') as running:
        processes = Processes(running)
        keeper = processes.pids()["keeper"]
        os.kill(processes.pids()["kernel"], signal.SIGKILL)
        ended, problem = processes.cut_power()
        assert keeper in ended
        assert not problem
        assert not processes.everything()
        assert running.run("up").returncode == 0


def test_a_keeper_and_a_kernel_that_die_at_once_have_a_supervisor() -> None:
    """Nobody was left who could start them, and a run waited in vain."""
    with instance('profile = "bare"\n') as running:
        processes, recorder = Processes(running), Recorder(1)
        before = processes.pids()
        Injector(running, recorder, {}).kill(["keeper", "kernel"], before)
        assert [fault.problem for fault in recorder.faults] == ["", ""]
        after = processes.pids()
        assert after.keys() == before.keys()
        assert not {after["keeper"], after["kernel"]} & set(before.values())
