"""The zygote's side of its socket: a kernel that ends amid an exchange is an end as any other."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from sagong.kernel.zygote import SpawnRequest
from sagong.linux.process import send_descriptors, status_facts
from sagong.process import Launch

LAUNCH = Launch(
    unit="u", plugin="p", class_="p:P", generation=1, kernel="", bus="", data="", run="", root=""
)


class Zygote:
    """One of its own, and the kernel's end of its socket."""

    def __init__(self) -> None:
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.settimeout(30)
        command = [sys.executable, "-m", "sagong.kernel.zygote", str(theirs.fileno())]
        self.process = subprocess.Popen(
            command, pass_fds=(theirs.fileno(),), stderr=subprocess.PIPE, text=True
        )
        theirs.close()

    def ask(self, *command: str) -> None:
        request = SpawnRequest(1, msgspec.json.encode(LAUNCH), "sagong-test", None, command)
        null = os.open("/dev/null", os.O_WRONLY)
        send_descriptors(self.control, pickle.dumps(request), (null,))
        os.close(null)

    def ended(self) -> tuple[int, str]:
        """Its exit status and what it said."""
        _, said = self.process.communicate(timeout=60)
        return self.process.returncode, said


@pytest.fixture
def zygote() -> Iterator[Zygote]:
    made = Zygote()
    yield made
    made.control.close()
    made.process.kill()
    made.process.communicate()


def wait_until(condition: Callable[[], bool], what: str) -> None:
    limit = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < limit, what
        time.sleep(0.01)


def test_exits_that_the_kernel_never_read_are_no_error(zygote: Zygote) -> None:
    """It ended with a ConnectionResetError, in the log of a system that went down."""
    zygote.ask("/bin/true")
    zygote.control.recv(65536, socket.MSG_PEEK)
    zygote.control.close()
    assert zygote.ended() == (0, "")


def test_a_process_of_which_the_kernel_never_heard_is_ended(zygote: Zygote) -> None:
    zygote.ask("/bin/true")
    while pickle.loads(zygote.control.recv(65536))[0] != 0:
        pass  # its socket is read to the end, and it serves
    zygote.process.send_signal(signal.SIGSTOP)
    wait_until(lambda: status_facts(zygote.process.pid).state == "T", "it does not stop")
    seconds = f"600.{zygote.process.pid}"
    zygote.ask("/bin/sleep", seconds)
    zygote.control.close()
    zygote.process.send_signal(signal.SIGCONT)
    assert zygote.ended() == (0, "")
    wait_until(lambda: not running(seconds), "it lives on")


def running(word: str) -> list[str]:
    """Processes with this word on their command line."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if word in place.read_text().split("\0"):
                found.append(place.parent.name)
        except OSError:
            continue
    return found
