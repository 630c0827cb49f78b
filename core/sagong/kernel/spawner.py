"""The kernel's side of the zygote: ask for processes, hear of exits, make a new zygote if it dies."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import pickle
import signal
import socket
import sys
from collections.abc import Callable, Sequence

from sagong.errors import Internal, Unavailable
from sagong.kernel.signs import Sign, sign, stands_still
from sagong.kernel.zygote import MESSAGE_LIMIT, SpawnRequest, Zygote
from sagong.linux import process

__all__ = ["Spawner"]

_LOG = logging.getLogger("sagong.kernel")
# The first forks wait for the zygote's imports: half a second, or half a minute on a machine that is
# emulated or overloaded. Giving up earlier would only give it more to do.
_SPAWN_SECONDS = 60.0


class Spawner:
    """Owns the zygote; `pid` is 0 while there is none, after a death until one is needed."""

    def __init__(
        self,
        preload: Sequence[str],
        exited: Callable[[int, int], None],
        patience: float = _SPAWN_SECONDS,
    ) -> None:
        self.pid = 0
        self._patience = patience
        self._preload = preload
        self._exited = exited
        self._loop = asyncio.get_running_loop()
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[tuple[int, int]]] = {}
        self._control: socket.socket | None = None
        self._sources = _sources()
        self._own = _stamps(self._sources)
        self._stamps: list[int] = []

    def adopt(self, zygote: Zygote) -> None:
        """Use a zygote that the kernel's process forked before it was a kernel."""
        self._take(zygote.pid, zygote.control)

    async def spawn(self, request: SpawnRequest, descriptors: Sequence[int]) -> tuple[int, int]:
        """Fork a process; its pid and a pidfd. `Unavailable` if the zygote died meanwhile."""
        if self._control is not None and not self._waiting and self._is_outdated():
            _LOG.info("sources changed: a new zygote reads them")
            self.close()
        if self._control is None:
            self._begin()
        number, before = next(self._numbers), sign(self.pid)
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
            async with asyncio.timeout(self._patience):
                return await future
        except TimeoutError:
            self._judge(before)
            raise Unavailable(f"the zygote forks nothing within {self._patience:.0f} s") from None
        finally:
            self._waiting.pop(number, None)

    def _judge(self, before: Sign | None) -> None:
        """One that did nothing all the time (it is stopped) would do nothing for the next either."""
        now = sign(self.pid)
        if before and now and stands_still(before, now, self._patience):
            _LOG.error("the zygote hangs; the next process gets a new one")
            self._lose()

    def _is_outdated(self) -> bool:
        return self._stamps != _stamps(self._sources)

    def close(self) -> None:
        """End the zygote; what it forked lives on."""
        if self._control is not None:
            self._loop.remove_reader(self._control.fileno())
            self._control.close()
            self._control = None
            _wait(self.pid)
            self.pid = 0

    def _begin(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, "-m", "sagong.kernel.zygote", str(theirs.fileno())]
        theirs.set_inheritable(True)
        pid = os.posix_spawn(sys.executable, [*command, *self._preload], os.environ)
        theirs.close()
        self._take(pid, ours)

    def _take(self, pid: int, control: socket.socket) -> None:
        control.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        control.setblocking(False)
        self.pid, self._control, self._stamps = pid, control, _stamps(self._sources)
        self._loop.add_reader(control.fileno(), self._receive)

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
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self.close()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(Unavailable(self._death()))

    def _death(self) -> str:
        """Why it may have died: it reads the code anew, which is to fit the kernel's."""
        if _stamps(self._sources) == self._own:
            return "the zygote died"
        return (
            "the zygote died; the code on disk is not this kernel's any more: run `sagong upgrade`"
        )


def _wait(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


def _sources() -> list[str]:
    """Files of what a zygote of this kernel has imported of ours."""
    modules = [module for name, module in sys.modules.items() if name.startswith("sagong")]
    return [file for module in modules if (file := getattr(module, "__file__", None))]


def _stamps(files: Sequence[str]) -> list[int]:
    return [os.stat(file).st_mtime_ns if os.path.exists(file) else 0 for file in files]
