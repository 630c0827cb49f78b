"""The plugin's end of the workshop: starts the fork server when there is work, ends it when idle.

What works on files of images needs rights that this process does not use itself; see `foreman`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

from sagong.errors import Unavailable, from_code
from sagong.linux import process

__all__ = ["Workshop", "child_environment"]

Report = Callable[[dict[str, Any]], None]


def child_environment() -> dict[str, str]:
    """The environment of our children: where the code is, and nothing of secrets."""
    keep = ("PATH", "LANG", "LC_ALL", "TZ", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY")
    names = [n for key in keep for n in (key, key.lower()) if n in os.environ]
    environment = {name: os.environ[name] for name in names}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    return environment


class Workshop:
    """Runs jobs in children of the fork server, at most `parallel` of the heavy ones at once."""

    def __init__(self, *, parallel: int = 2, idle: float = 20.0) -> None:
        self._idle = idle
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._numbers = 0
        self._busy = 0
        self._ending: asyncio.TimerHandle | None = None
        self.heavy = asyncio.Semaphore(parallel)

    async def run(
        self,
        job: str,
        arguments: dict[str, Any],
        descriptors: Sequence[int] = (),
        report: Report = lambda _: None,
    ) -> dict[str, Any]:
        """Do a job; its result, or the error it met. A cancelled job is killed."""
        self._busy += 1
        self._numbers += 1
        number = self._numbers
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                message = json.dumps({**arguments, "job": job, "number": number}).encode()
                await self._send(message, (*descriptors, theirs.fileno()))
            return await self._answer(ours, job, report)
        except BaseException:
            self._kill(number)
            raise
        finally:
            ours.close()
            self._busy -= 1
            self._end_later()

    def warm(self) -> None:
        """Start the fork server, since there will be work soon."""
        if self._process is None or self._process.poll() is not None:
            self._start()
        self._end_later()

    async def _send(self, message: bytes, descriptors: tuple[int, ...]) -> None:
        for _ in range(200):
            if self._control is None or self._process is None or self._process.poll() is not None:
                self._start()
            assert self._control is not None
            try:
                process.send_descriptors(self._control, message, descriptors)
                return
            except BlockingIOError:
                await asyncio.sleep(0.05)
            except (BrokenPipeError, ConnectionError):
                self._stop()
        raise Unavailable("the image workshop takes no work; see the log of the image plugin")

    def _start(self) -> None:
        self._stop()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-s", "-m", "sagong_image_overlay.foreman"],
                stdin=theirs.fileno(),
                env=child_environment(),
                cwd="/",
            )
        ours.setblocking(False)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 19)
        self._control = ours

    async def _answer(self, channel: socket.socket, job: str, report: Report) -> dict[str, Any]:
        channel.setblocking(False)
        loop = asyncio.get_running_loop()
        buffer = b""
        while data := await loop.sock_recv(channel, 1 << 18):
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                message = json.loads(line)
                if "done" in message:
                    return dict(message["done"])
                if "error" in message:
                    raise from_code(message["error"], message["message"])
                report(message)
        raise Unavailable(f"the image workshop's {job} was killed; is memory or disk short?")

    def _kill(self, number: int) -> None:
        if self._control is not None:
            with contextlib.suppress(OSError):
                self._control.send(json.dumps({"kill": number}).encode())

    def _end_later(self) -> None:
        if self._ending is not None:
            self._ending.cancel()
        self._ending = asyncio.get_running_loop().call_later(self._idle, self._end_idle)

    def _end_idle(self) -> None:
        """Ended without waiting: a thread reaps the process."""
        self._ending = None
        if self._busy or self._control is None or self._process is None:
            return
        self._control.close()
        asyncio.get_running_loop().run_in_executor(None, self._process.wait)
        self._control = self._process = None

    def _stop(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                # It ends at once when its socket does, unless a job holds the processor.
                self._process.wait(timeout=2)
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            self._process = None

    def close(self) -> None:
        """End the workshop and what it is doing."""
        if self._ending is not None:
            self._ending.cancel()
            self._ending = None
        self._stop()
