"""A machine of its own for a benchmark: the same command again in fresh namespaces.

Real engines change addresses, firewall rules and mounts. In namespaces of their own they harm
nobody, every peer finds the same empty machine, and whatever is left ends with the command.
"""

from __future__ import annotations

import os
import subprocess
import sys

from sagong.linux import mounts, syscalls

__all__ = ["enter"]

_MARK = "SAGONG_BENCH_MACHINE"
# Network, mounts and processes; the shell is process 1 and reaps what others leave behind.
_UNSHARE = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
_INIT = ["bash", "-c", '"$@"; exit $?', "bench"]


def enter() -> None:
    """Go on inside; returns there only. Needs root."""
    if os.environ.get(_MARK) == str(os.getppid()):
        _furnish()
        return
    if os.geteuid() != 0:
        raise SystemExit("this benchmark needs root: namespaces, mounts and control groups")
    os.environ[_MARK] = "1"
    command = [*_UNSHARE, *_INIT, sys.executable, *sys.orig_argv[1:]]
    os.execvp(command[0], command)


def _furnish() -> None:
    mounts.set_propagation("/", "rprivate")
    syscalls.mount("tmpfs", "/run", "tmpfs", 0, "mode=755")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
