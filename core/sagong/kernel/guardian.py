"""Watches over the keeper: when it dies, another one comes, and is given all descriptors.

Any keeper, the first of a kernel excepted, connects to `kernel/keeper`. One that a supervisor (systemd)
started says so: when it dies, the kernel waits for the supervisor's next before it starts one itself.
It is told now and then that the kernel lives, and starts another one if it hears nothing any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

from sagong.config import Paths
from sagong.keeper import START
from sagong.kernel.listeners import Listeners
from sagong.kernel.outages import Standing

__all__ = ["Guardian"]

_LOG = logging.getLogger("sagong.kernel")
_CREDENTIALS = struct.Struct("3i")
_SUPERVISOR_SECONDS = 5.0
# From one that was started to the next, if it does not come.
_AGAIN_SECONDS = 5.0
_MANY = 1 << 20
_LONGEST = 1024
# So many may be missed.
_BEATS = 3


class Guardian:
    """The keeper's socket ends when the keeper does."""

    def __init__(
        self, keeper: socket.socket | None, root: Path, profile: str, listeners: Listeners
    ) -> None:
        self._keeper = keeper
        self._root = root
        self._profile = profile
        self._listeners = listeners
        self._supervised = False
        self._standing: bytes | None = None
        self._fewest = _MANY
        self._loop = asyncio.get_running_loop()
        self._place = Paths.below(root).run / "kernel" / "keeper"
        self._door = _open_door(self._place)
        self._loop.add_reader(self._door.fileno(), self._admit)
        if keeper is not None:
            self._loop.add_reader(keeper.fileno(), self._hear)

    def tell(self, how: Standing) -> None:
        """How far the units have come; told when that has changed."""
        word = "ready" if how.ready else "late"
        if not how.ready and len(how.late) < self._fewest:
            word = "progress" if self._standing is not None else word
            self._fewest = len(how.late)
        standing = f"{word} {how}".encode()[:_LONGEST]
        if standing != self._standing:
            self._standing = standing
            self._tell(standing)

    async def beat(self, seconds: float) -> None:
        """Say so every `seconds` that the loop goes on, until cancelled; 0: never."""
        while seconds:
            self._tell(f"beat {_BEATS * seconds}".encode())
            await asyncio.sleep(seconds)

    def stop(self) -> None:
        """The system ends: the keeper may go."""
        self._loop.remove_reader(self._door.fileno())
        self._door.close()
        # By this a keeper that is on its way knows that the kernel has not died, but ended.
        self._place.unlink(missing_ok=True)
        if self._keeper is not None:
            self._loop.remove_reader(self._keeper.fileno())
            self._tell(b"end")

    def _tell(self, message: bytes) -> None:
        if self._keeper is not None:
            with contextlib.suppress(OSError):
                # One that is stopped reads nothing: it must not stop the kernel as well.
                self._keeper.send(message, socket.MSG_DONTWAIT)

    def _hear(self) -> None:
        assert self._keeper is not None
        try:
            message = self._keeper.recv(64)
        except OSError:
            message = b""
        if message == b"supervised":
            self._supervised = True
        elif not message:
            self._ended()

    def _ended(self) -> None:
        assert self._keeper is not None
        self._loop.remove_reader(self._keeper.fileno())
        self._keeper.close()
        self._keeper = None
        if self._supervised:
            _LOG.warning("the keeper died; its supervisor starts another one")
            self._loop.call_later(_SUPERVISOR_SECONDS, self._replace)
        else:
            _LOG.warning("the keeper died; starting another one")
            self._replace()

    def _replace(self) -> None:
        if self._keeper is not None or self._door.fileno() < 0:
            return
        command = [sys.executable, *START, "--root", str(self._root)]
        command += ["--run", str(Paths.below(self._root).run), "--profile", self._profile]
        command += ["--successor"]
        # It may end before it comes; where it is only slow, the next one finds the lock taken.
        self._loop.call_later(_AGAIN_SECONDS, self._replace_again)
        # A grandchild, so that it is nobody's zombie when it ends and outlives this kernel.
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run([sys.executable, "-c", _DETACH, *command], check=False, timeout=10)

    def _replace_again(self) -> None:
        if self._keeper is None and self._door.fileno() >= 0:
            _LOG.warning("no keeper has come; starting another one")
            self._replace()

    def _admit(self) -> None:
        """A keeper has come: it is given every descriptor, and told how things stand."""
        try:
            keeper, _ = self._door.accept()
        except OSError:
            return
        peer = keeper.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        if _CREDENTIALS.unpack(peer)[1] != os.geteuid():
            keeper.close()
            return
        if self._keeper is not None:
            self._loop.remove_reader(self._keeper.fileno())
            self._keeper.close()
        self._keeper = keeper
        self._supervised = False
        self._listeners.change_keeper(keeper)
        self._loop.add_reader(keeper.fileno(), self._hear)
        if self._standing is not None:
            self._tell(self._standing)


def _open_door(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    door.bind(str(path))
    os.chmod(path, 0o600)
    door.listen(4)
    door.setblocking(False)
    return door


_DETACH = "import os, sys\nif os.fork() == 0:\n os.setsid()\n os.execv(sys.argv[1], sys.argv[1:])"
