"""A program of the plugin in a process of its own that has no right at all, and the channel to it.

It is started when there is something to tell, without any capability; what it must know is told to
each process anew. Orders are JSON, with sockets that the program is to have.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import json
import logging
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from sagong.linux import capabilities, process, syscalls

__all__ = ["Outwork"]

_START = (
    "import sys;sys.path[:0]=[sys.argv[1]];"
    "from sagong_network_bridge.{module} import main;"
    "main(int(sys.argv[2]),tuple(sys.argv[3:]))"
)
_END_MILLISECONDS = 1000
# It is looked at so often, that far apart. One that can't run does not answer for that reason.
_ANSWER_MILLISECONDS, _LOOKS = 500, 20
# In so many nanoseconds of a core everybody comes to an answer, also from his start.
_ENOUGH = 2_000_000_000


class Outwork:
    """One program; `ended` is called when it died on its own."""

    def __init__(
        self,
        module: str,
        arguments: Iterable[str],
        log: logging.Logger,
        ended: Callable[[], None],
    ) -> None:
        self._module = module
        self._arguments = tuple(arguments)
        self._log = log
        self._when_ended = ended
        self._child: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._pidfd = -1

    @property
    def runs(self) -> bool:
        """Whether there is a process."""
        return self._child is not None

    def begin(self) -> None:
        """Start it; OSError says why it does not."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        ours.setblocking(False)
        self._control = ours
        try:
            self._child = _started(self._module, theirs, self._arguments)
        except BaseException:
            ours.close()
            self._control = None
            raise
        finally:
            theirs.close()
        self._pidfd = syscalls.pidfd_open(self._child.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._ended)

    def _ended(self) -> None:
        status = self._child.wait() if self._child is not None else 0
        self.close()
        self._log.warning("the %s ended", self._module, extra={"status": status})
        self._when_ended()

    def close(self) -> None:
        """End it: it goes when its channel closes."""
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._child is not None:
            self._reap(self._child)
            self._child = None

    def _reap(self, child: subprocess.Popen[bytes]) -> None:
        """`wait` of subprocess with a limit would doze."""
        asyncio.get_running_loop().remove_reader(self._pidfd)
        ended = select.poll()
        ended.register(self._pidfd, select.POLLIN)
        if not ended.poll(_END_MILLISECONDS):
            child.kill()
        child.wait()
        os.close(self._pidfd)
        self._pidfd = -1

    def ask(self, order: dict[str, Any]) -> None:
        """Tell it, and wait for its answer, for as long as one that lives may take."""
        self.send(order)
        if self._control is None or self._child is None:
            return
        if _answers(self._control, self._child.pid):
            with contextlib.suppress(OSError):
                self._control.recv(16)
        else:
            self._child.kill()

    def send(self, order: dict[str, Any], sockets: Iterable[socket.socket] = ()) -> None:
        """A full channel means a stuck process: it is ended, and the next one is told everything."""
        if self._control is None:
            return
        descriptors = array.array("i", [served.fileno() for served in sockets])
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)] if descriptors else []
        try:
            self._control.sendmsg([json.dumps(order).encode()], rights)
        except (BlockingIOError, BrokenPipeError, ConnectionResetError):
            if self._child is not None:
                self._child.kill()


def _answers(channel: socket.socket, pid: int) -> bool:
    """Whether it does; who waits for a core or a disk all the time is waited for, up to a bound."""
    answered = select.poll()
    answered.register(channel, select.POLLIN)
    begun = _ran(pid)
    for _ in range(_LOOKS):
        if answered.poll(_ANSWER_MILLISECONDS):
            return True
        if not _waits(pid) or _ran(pid) - begun > _ENOUGH:
            break
    return bool(answered.poll(0))  # it may have answered before it was looked at


def _ran(pid: int) -> int:
    return process.thread_times(pid).get(pid, (0, 0))[0]


def _waits(pid: int) -> bool:
    """What it has waited for a core is not counted before it has one: its state tells."""
    try:
        return process.status_facts(pid).state in ("R", "D")
    except OSError:
        return False


def _started(
    module: str, channel: socket.socket, words: tuple[str, ...]
) -> subprocess.Popen[bytes]:
    """Start it from a thread that has given up every capability: they are each thread's own."""
    root = str(Path(__file__).parents[1])
    arguments = [root, str(channel.fileno()), *words]
    found: list[subprocess.Popen[bytes]] = []
    problems: list[BaseException] = []

    def start() -> None:
        try:
            _renounce()
            child = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _START.format(module=module), *arguments],
                pass_fds=[channel.fileno()],
                stdin=subprocess.DEVNULL,
                cwd="/",
            )
            found.append(child)
        except BaseException as error:
            problems.append(error)

    thread = threading.Thread(target=start, name=f"{module}-start")
    thread.start()
    thread.join()
    if problems:
        raise problems[0]
    return found[0]


def _renounce() -> None:
    """No capability for this thread and what it executes, not even for root."""
    process.set_no_new_privs()
    with contextlib.suppress(PermissionError):
        # Only who may change the bounding set must: others lose all with the ambient set.
        capabilities.drop_bounding(0)
    capabilities.apply(capabilities.CapabilitySets(0, 0, 0, 0, 0))
