"""The kernel's side of the zygote: ask for processes, hear of exits, make a new zygote if it dies."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence

from sagong.errors import Internal, Unavailable
from sagong.kernel.zygote import MESSAGE_LIMIT, SpawnRequest
from sagong.linux import process

__all__ = ["Spawner"]

_LOG = logging.getLogger("sagong.kernel")
# The first forks wait for the zygote's imports: half a second, or half a minute on a machine that is
# emulated or overloaded. Giving up earlier would only give it more to do.
_SPAWN_SECONDS = 60.0


class Spawner:
    """Owns the zygote."""

    def __init__(self, preload: Sequence[str], exited: Callable[[int, int], None]) -> None:
        self.pid = 0
        self._preload = preload
        self._exited = exited
        self._loop = asyncio.get_running_loop()
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[tuple[int, int]]] = {}
        self._control: socket.socket | None = None
        self._child: subprocess.Popen[bytes] | None = None

    async def spawn(self, request: SpawnRequest, descriptors: Sequence[int]) -> tuple[int, int]:
        """Fork a process; its pid and a pidfd. `Unavailable` if the zygote died meanwhile."""
        if self._control is None:
            self._begin()
        number = next(self._numbers)
        message = pickle.dumps(request._replace(number=number))
        if len(message) > MESSAGE_LIMIT:
            raise Internal(f"spawn request of {len(message)} bytes exceeds {MESSAGE_LIMIT}")
        future: asyncio.Future[tuple[int, int]] = self._loop.create_future()
        self._waiting[number] = future
        assert self._control is not None
        try:
            process.send_descriptors(self._control, message, tuple(descriptors))
        except OSError as error:
            self._lose()
            raise Unavailable(f"the zygote does not answer: {error}") from error
        try:
            async with asyncio.timeout(_SPAWN_SECONDS):
                return await future
        except TimeoutError:
            raise Unavailable(f"the zygote forks nothing within {_SPAWN_SECONDS:.0f} s") from None
        finally:
            self._waiting.pop(number, None)

    def close(self) -> None:
        """End the zygote; what it forked lives on."""
        if self._control is not None:
            self._loop.remove_reader(self._control.fileno())
            self._control.close()
            self._control = None
        if self._child is not None:
            self._child.wait()
            self._child = None

    def _begin(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        command = [sys.executable, "-m", "sagong.kernel.zygote", str(theirs.fileno())]
        self._child = subprocess.Popen([*command, *self._preload], pass_fds=[theirs.fileno()])
        self.pid = self._child.pid
        theirs.close()
        ours.setblocking(False)
        self._control = ours
        self._loop.add_reader(ours.fileno(), self._receive)

    def _receive(self) -> None:
        assert self._control is not None
        try:
            message, descriptors = process.receive_descriptors(self._control, MESSAGE_LIMIT, 4)
        except BlockingIOError:
            return
        except OSError:
            message, descriptors = b"", ()
        if not message:
            _LOG.warning("the zygote died; the next process gets a new one")
            self._lose()
            return
        number, pid, *rest = pickle.loads(message)
        if number == 0:
            self._exited(pid, rest[0])
            return
        future = self._waiting.get(number)
        if future is None or future.done():
            # It comes too late: whoever asked has given up, and may have asked again.
            for fd in descriptors:
                signal.pidfd_send_signal(fd, signal.SIGKILL)
                os.close(fd)
        elif pid < 0:
            future.set_exception(Unavailable(f"fork failed: {rest[0]}"))
        else:
            future.set_result((pid, descriptors[0]))

    def _lose(self) -> None:
        if self._control is not None:
            self._loop.remove_reader(self._control.fileno())
            self._control.close()
            self._control = None
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(Unavailable("the zygote died"))
