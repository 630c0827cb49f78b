"""Watches over the keeper: when it dies, starts another one and gives it all descriptors."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import subprocess
import sys
from pathlib import Path

from sagong.config import Paths
from sagong.kernel.listeners import Listeners

__all__ = ["Guardian"]

_LOG = logging.getLogger("sagong.kernel")


class Guardian:
    """The keeper's socket ends when the keeper does."""

    def __init__(
        self, keeper: socket.socket | None, root: Path, profile: str, listeners: Listeners
    ) -> None:
        self._keeper = keeper
        self._root = root
        self._profile = profile
        self._listeners = listeners
        self._loop = asyncio.get_running_loop()
        if keeper is not None:
            self._loop.add_reader(keeper.fileno(), self._ended)

    def stop(self) -> None:
        """The system ends: the keeper may go."""
        if self._keeper is not None:
            self._loop.remove_reader(self._keeper.fileno())
            with contextlib.suppress(OSError):
                self._keeper.send(b"end")

    def _ended(self) -> None:
        assert self._keeper is not None
        self._loop.remove_reader(self._keeper.fileno())
        self._keeper.close()
        _LOG.warning("the keeper died; starting another one")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, "-m", "sagong.keeper", "--root", str(self._root)]
        command += ["--run", str(Paths.below(self._root).run)]
        command += ["--profile", self._profile, "--kernel", str(os.getpid())]
        command += ["--control", str(theirs.fileno())]
        given = [theirs.fileno()]
        for name, fd in self._listeners.items():
            command += ["--kept", f"{name}={fd}"]
            given.append(fd)
        # A grandchild, so that it is nobody's zombie when it ends and outlives this kernel.
        subprocess.run(
            [sys.executable, "-c", _DETACH, *command], pass_fds=given, check=False, timeout=10
        )
        theirs.close()
        self._keeper = ours
        self._listeners.change_keeper(ours)
        self._loop.add_reader(ours.fileno(), self._ended)


_DETACH = "import os, sys\nif os.fork() == 0:\n os.setsid()\n os.execv(sys.argv[1], sys.argv[1:])"
