"""Forking into a pid namespace for whoever may not come back to his own: root of a user namespace."""

from __future__ import annotations

import os
import signal

from sagong.linux import syscalls
from sagong.shim import lean

__all__ = ["fork_into"]

_CLONE_NEWPID = 0x20000000


def fork_into(wanted: str | int) -> int:
    """Fork; the child is in a new pid namespace ("new"), in one by descriptor, or in ours ("")."""
    if wanted == "":
        return lean.fork()
    if wanted == "new":
        return syscalls.call("clone", _CLONE_NEWPID | signal.SIGCHLD, 0, 0, 0, 0)
    return _fork_entering(int(wanted))


def _fork_entering(space: int) -> int:
    """By a process between that enters and makes a sibling of itself, so a child of ours."""
    told, tell = os.pipe2(os.O_CLOEXEC)
    between = lean.fork()
    if between == 0:
        pid = -1
        try:
            lean.set_namespace(space, _CLONE_NEWPID)
            pid = lean.fork_sibling()
            if pid == 0:
                os.close(told)
                os.close(tell)
                return 0
            os.write(tell, b"%d" % pid)
        except OSError as error:
            os.write(tell, b"-%d" % (error.errno or 0))
        finally:
            if pid != 0:
                os._exit(0)
    os.close(tell)
    found = int(os.read(told, 32) or b"0")
    os.close(told)
    os.waitpid(between, 0)
    if found <= 0:
        raise OSError(-found, f"setns: {os.strerror(-found)}")
    return found
