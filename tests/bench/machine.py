"""A machine of its own for a benchmark: the same command again in fresh namespaces.

Real engines change addresses, firewall rules and mounts. In namespaces of their own they harm
nobody, every peer finds the same empty machine, and whatever is left ends with the command. Who ends
it, by whatever signal, lets it clear up first.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

from sagong.linux import mounts, syscalls

__all__ = ["enter"]

_MARK = "SAGONG_BENCH_MACHINE"
# Network, mounts and processes; the shell is process 1 and reaps what others leave behind.
_UNSHARE = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
_INIT = ["bash", "-c", '"$@"; exit $?', "bench"]


def enter() -> None:
    """Go on inside; returns there only. Needs root."""
    if _MARK in os.environ and os.getppid() == 1:
        threading.Thread(target=_follow, args=(int(os.environ.pop(_MARK)),), daemon=True).start()
        _furnish()
        return
    if os.geteuid() != 0:
        raise SystemExit("this benchmark needs root: namespaces, mounts and control groups")
    command = [*_UNSHARE, *_INIT, sys.executable, *sys.orig_argv[1:]]
    raise SystemExit(_lead(command))


def _lead(command: list[str]) -> int:
    """Wait for it; unshare(1) ignores what would end it, so it is told by the end of a pipe."""
    told, tell = os.pipe()
    signal.signal(signal.SIGINT, lambda *_: None)  # the terminal sends it to all
    with open(tell, "wb") as line:
        signal.signal(signal.SIGTERM, lambda *_: line.close())
        environment = {**os.environ, _MARK: str(told)}
        child = subprocess.Popen(command, env=environment, pass_fds=(told,))
        os.close(told)
        return child.wait()


def _follow(told: int) -> None:
    """Who began this is gone, or wants it to end: end as by a terminal."""
    os.read(told, 1)
    os.kill(os.getpid(), signal.SIGINT)


def _furnish() -> None:
    mounts.set_propagation("/", "rprivate")
    syscalls.mount("tmpfs", "/run", "tmpfs", 0, "mode=755")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
