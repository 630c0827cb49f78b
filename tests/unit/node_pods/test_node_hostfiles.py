"""Files that node makes for containers."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from sagong.contracts.node import HostFile
from sagong_node.hostfiles import write_files

_NOBODY = 65534


def succeeds_as_nobody(work: Callable[[], object]) -> bool:
    """Run it in a fork without rights: node has none to write where modes forbid it."""
    pid = os.fork()
    if pid == 0:
        try:
            if os.geteuid() == 0:
                os.setgroups(())
                os.setgid(_NOBODY)
                os.setuid(_NOBODY)
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_start_that_was_cut_off_is_repeated_over_its_read_only_files() -> None:
    """A pod whose start was cut by the end of node could never start again."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        os.chmod(name, 0o777)
        me = _NOBODY if os.geteuid() == 0 else os.geteuid()
        files = [HostFile(target="/etc/x", content=b"1", mode=0o444, uid=me, gid=me)]
        for _ in range(2):
            assert succeeds_as_nobody(lambda: write_files(Path(name, "files"), files))
