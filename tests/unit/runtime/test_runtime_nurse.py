"""When a monitor takes a nurse for one that will not come back soon, and what a child survives."""

from __future__ import annotations

import contextlib
import os
import socket
import time

from sagong.linux.cgroup import layout_of_machine
from sagong.linux.process import send_descriptors
from sagong.shim.nursery import Nurse
from sagong_runtime_linux.child import Children


def test_a_nurse_lags_by_what_one_child_takes_not_by_how_many_wait() -> None:
    """Fifty starts at once had four times as many nurses as monitors, each copied from its monitor."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        nurse = Nurse(ours)
        assert not nurse.lags(time.monotonic() + 60)
        for _ in range(3):
            began = time.monotonic()
            assert nurse.order(b"text", (), ahead=False)
            assert theirs.recv(16) == b"1text"
            assert not nurse.lags(began)
            assert nurse.lags(began + 60)
            nurse.busy = False
            assert not nurse.lags(began + 60)


def test_a_child_whose_monitor_was_killed_meanwhile_has_nothing_to_say() -> None:
    """What it raised stood in the log of the launcher, from a callback of C."""
    nurse, orders = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours, monitor = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with nurse, orders:
        send_descriptors(orders, b"1text", (monitor.fileno(),))
        monitor.close()
        ours.close()
        pid = os.fork()
        if pid == 0:
            code = 1
            with contextlib.suppress(BaseException):
                code = 0 if Children("", layout_of_machine()).begin(nurse, 1) is None else 2
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
