"""A process with its streams: a container's first process or an exec'd one, its log, its clients.

Output of a program without a terminal goes through FIFOs in the session's directory that the
program holds open both ways, so it survives the death of its monitor; a successor opens them anew.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import os
import signal
import struct
import termios
from collections import deque
from collections.abc import Callable
from typing import Any

from sagong.linux import process, syscalls
from sagong.shim.clients import Client
from sagong.shim.lifelines import Deposit
from sagong.shim.logs import LogWriter
from sagong.shim.loop import READ, WRITE, Loop, Timer
from sagong.shim.replay import Replay

__all__ = ["Session"]

_READ_SIZE = 64 << 10
_DRAIN_READS = 32
_INPUT_LIMIT = 256 << 10
_RING_LIMIT = 64 << 10
# Descendants of an exec'd process may hold its output; Docker, too, waits two seconds for them.
_STRAGGLERS_SECONDS = 2.0
_TIOCGPTPEER = 0x5441
UNKNOWN_CODE = 255


class Session:
    """Owns the descriptors of one process; tells `on_exit` and then `on_end`, each once."""

    def __init__(
        self,
        loop: Loop,
        directory: str,
        spec: dict[str, Any],
        *,
        log: LogWriter | None,
        lifelines: Deposit,
        on_exit: Callable[[Session], None],
        on_end: Callable[[Session], None],
    ) -> None:
        self.loop = loop
        self.directory = directory
        self.spec = spec
        self.log = log
        self.name = ""
        self.pid = 0
        self.started = 0
        self.code: int | None = None
        self.ended = False
        self.clients: list[Client] = []
        self.since = ""
        self._on_exit = on_exit
        self._on_end = on_end
        self._outputs: dict[int, int] = {}
        self._reading: set[int] = set()
        self._slave = -1
        self._input = -1
        self._input_buffer = bytearray()
        self._input_closing = False
        self._held = False
        self._hold_timer: Timer | None = None
        self._end_timer: Timer | None = None
        self._ring: deque[tuple[int, bytes]] = deque()
        self._ring_size = 0
        self._lifelines = lifelines
        self._deposited: set[str] = set()

    # -- streams -------------------------------------------------------------------------------

    def make_fifos(self, uid: int, gid: int) -> None:
        """Before the fork: FIFOs owned by the program's user, so that it can open /dev/stdout."""
        if self.spec["tty"]:
            return
        for name in ("stdin", "stdout", "stderr"):
            if name == "stdin" and not self.spec["stdin"]:
                continue
            path = f"{self.directory}/{name}"
            os.mkfifo(path, 0o600)
            os.chown(path, uid, gid)
        self.open_fifos()
        self.deposit()

    def open_fifos(self) -> None:
        """Our ends; opening doesn't wait for anybody."""
        flags = os.O_NONBLOCK | os.O_CLOEXEC
        for stream, name in ((1, "stdout"), (2, "stderr")):
            self._outputs[stream] = os.open(f"{self.directory}/{name}", os.O_RDONLY | flags)
        if self.spec["stdin"]:
            self._input = os.open(f"{self.directory}/stdin", os.O_RDWR | flags)

    def use_terminal(self, master: int, slave: int = -1) -> None:
        """The terminal's ends, before the program runs: it must not miss them if we die.

        Ours of the slave keeps the master readable until the exit.
        """
        os.set_blocking(master, False)
        if slave < 0:
            flags = os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC
            slave = fcntl.ioctl(master, _TIOCGPTPEER, flags)
        self._outputs[1] = self._input = master
        self._slave = slave
        self.deposit()

    def deposit(self) -> None:
        """Have the launcher keep duplicates of descriptors whose loss the program would notice."""
        for kind, descriptor in self._noticed().items():
            self._lifelines.give(self.name, kind, descriptor)
            self._deposited.add(kind)

    def _noticed(self) -> dict[str, int]:
        if self._slave >= 0:
            return {"tty": self._outputs[1]}
        return {"stdin": self._input} if self._input >= 0 else {}

    def _withdraw(self) -> None:
        """They are closed here: the launcher's duplicates go, too."""
        for kind in self._deposited:
            self._lifelines.take_back(self.name, kind)
        self._deposited.clear()

    def begin(self, pid: int, started: int) -> None:
        """The process runs. With `hold` its output waits so many seconds for the first client."""
        self.pid = pid
        self.started = started
        hold = float(self.spec.get("hold", 0))
        if hold > 0:
            self._held = True
            self._hold_timer = self.loop.later(hold, self._release)
        self._update_reading()

    def let_go(self) -> None:
        """Hold output no longer."""
        if self._held:
            self._release()

    def _release(self) -> None:
        self._held = False
        if self._hold_timer is not None:
            self._hold_timer.cancel()
            self._hold_timer = None
        self._update_reading()
        if self.code is not None:
            self._drain()

    def _update_reading(self) -> None:
        """Read output unless it is held back or a client is slow."""
        wanted = not self._held and not any(client.full for client in self.clients)
        for stream, descriptor in self._outputs.items():
            if wanted and stream not in self._reading:
                self._reading.add(stream)
                mask = READ | (WRITE if self._writes_to(descriptor) else 0)
                self.loop.add(descriptor, mask, functools.partial(self._ready, stream))
            elif not wanted and stream in self._reading:
                self._reading.discard(stream)
                self.loop.drop(descriptor)

    def _writes_to(self, descriptor: int) -> bool:
        return descriptor == self._input and bool(self._input_buffer)

    def _ready(self, stream: int, events: int) -> None:
        if events & WRITE:
            self._flush_input()
        if events & ~WRITE:
            self._read(stream)

    def _read(self, stream: int) -> bool:
        """One read; False at the end or when nothing is there now."""
        descriptor = self._outputs.get(stream, -1)
        if descriptor < 0:
            return False
        try:
            data = os.read(descriptor, _READ_SIZE)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            data = b""
        if not data:
            self._close_output(stream)
            return False
        self._deliver(stream, data)
        return True

    def _deliver(self, stream: int, data: bytes) -> None:
        if self.log is not None:
            self.log.write(stream, data)
        else:
            self._remember(stream, data)
        for client in tuple(self.clients):
            client.send(stream, data)
        if any(client.full for client in self.clients):
            self._update_reading()

    def _remember(self, stream: int, data: bytes) -> None:
        """Without a log, the last of the output is kept for clients that attach late."""
        self._ring.append((stream, data))
        self._ring_size += len(data)
        while self._ring_size > _RING_LIMIT and len(self._ring) > 1:
            self._ring_size -= len(self._ring.popleft()[1])

    def _close_output(self, stream: int) -> None:
        descriptor = self._outputs.pop(stream)
        if stream in self._reading:
            self._reading.discard(stream)
            self.loop.drop(descriptor)
        if descriptor == self._input:
            self._input = -1
        os.close(descriptor)
        if self.code is not None and not self._outputs:
            self._finish()

    def partial(self, stream: int) -> bytes:
        """Output of a line that has not ended, which no log entry holds yet."""
        return self.log.partial(stream) if self.log is not None else b""

    # -- input ---------------------------------------------------------------------------------

    @property
    def input_full(self) -> bool:
        """Whether clients should wait before they send more."""
        return len(self._input_buffer) > _INPUT_LIMIT

    def write_input(self, data: bytes) -> None:
        """Give the program input; without an open stdin it is dropped."""
        if self._input >= 0 and not self._input_closing:
            self._input_buffer += data
            self._flush_input()

    def _flush_input(self) -> None:
        try:
            while self._input_buffer:
                count = os.write(self._input, memoryview(self._input_buffer)[:_READ_SIZE])
                del self._input_buffer[:count]
        except BlockingIOError:
            pass
        except OSError:
            self._input_buffer.clear()
        self._watch_input()
        if not self._input_buffer:
            if self._input_closing:
                self._close_input()
            for client in tuple(self.clients):
                client.resume_input()

    def _watch_input(self) -> None:
        """Be told when the program takes more."""
        waiting = bool(self._input_buffer)
        if self._slave >= 0:
            if 1 in self._reading:
                self.loop.change(self._outputs[1], READ | (WRITE if waiting else 0))
            elif waiting:
                self.loop.later(0.05, self._flush_input)
            return
        self.loop.drop(self._input)
        if waiting:
            self.loop.add(self._input, WRITE, lambda _: self._flush_input())

    def client_input_ended(self) -> None:
        """A client with stdin has no more: the end for the program if stdin is for one client."""
        if self.spec["stdin_once"]:
            self.close_input()

    def close_input(self) -> None:
        """Let the program see the end of its input, after what is still to be written."""
        if self._input < 0 or self._slave >= 0 or self._input_closing:
            return
        self._input_closing = True
        if not self._input_buffer:
            self._close_input()

    def _close_input(self) -> None:
        descriptor, self._input = self._input, -1
        if descriptor >= 0:
            self.loop.drop(descriptor)
            os.close(descriptor)
            self._withdraw()

    def resize(self, rows: int, columns: int) -> None:
        """Set the terminal's size; without one nothing happens."""
        if self._slave >= 0 and 1 in self._outputs:
            size = struct.pack("HHHH", rows, columns, 0, 0)
            fcntl.ioctl(self._outputs[1], termios.TIOCSWINSZ, size)

    def signal(self, number: int) -> None:
        """Signal the process, if it still is the one."""
        if self.code is not None or not 0 < number < signal.NSIG:
            return
        pidfd = process.open_identified(process.ProcessId(self.pid, self.started))
        if pidfd is not None:
            with contextlib.suppress(ProcessLookupError):
                syscalls.pidfd_send_signal(pidfd, number)
            os.close(pidfd)

    # -- clients -------------------------------------------------------------------------------

    def attach(self, client: Client, early: bytes, *, replay: bool) -> None:
        """A client came; the first one releases held output."""
        self.clients.append(client)
        past = self._past() if replay else None
        if replay and past is None:
            for stream, data in self._ring:
                client.send(stream, data)
        client.begin(early, past)
        if self.ended:
            client.end(self.code or 0)
        elif self._held:
            self._release()

    def _past(self) -> Replay | None:
        if self.log is None:
            return None
        return Replay(self.spec["log"]["driver"], self.log.path, self.since)

    def client_drained(self) -> None:
        """A slow client took enough."""
        self._update_reading()

    def client_left(self, client: Client) -> None:
        """A client is gone."""
        if client in self.clients:
            self.clients.remove(client)
        self._update_reading()

    # -- the end -------------------------------------------------------------------------------

    def exited(self, code: int) -> None:
        """The process has ended; output it left is still delivered."""
        if self.code is not None:
            return
        self.code = code
        self._on_exit(self)
        if not self._held:
            self._drain()

    def _drain(self) -> None:
        """Read what is there; descendants that hold an exec's output get a little longer."""
        if self._slave >= 0:
            os.close(self._slave)
            self._slave = -1
        for stream in tuple(self._outputs):
            # As much as a FIFO holds: who still writes must not keep us from all else.
            for _ in range(_DRAIN_READS):
                if not self._read(stream):
                    break
        if self.ended or self._end_timer is not None:
            return
        if not self._outputs or not self.spec.get("stragglers", False):
            self._finish()
        else:
            self._end_timer = self.loop.later(_STRAGGLERS_SECONDS, self._finish)

    def discard(self, *, files: bool = True) -> None:
        """The process never began: close and remove what was made for it; its end tells nobody.

        Without `files` those at its path are another's.
        """
        self.ended = True
        self.code = UNKNOWN_CODE
        for stream in tuple(self._outputs):
            self._close_output(stream)
        self._close_input()
        if self._slave >= 0:
            os.close(self._slave)
            self._slave = -1
        self._withdraw()
        if self.log is not None:
            self.log.finish()
        for name in ("stdin", "stdout", "stderr", "state.json") if files else ():
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{self.directory}/{name}")

    def _finish(self) -> None:
        if self.ended:
            return
        self.ended = True
        if self._end_timer is not None:
            self._end_timer.cancel()
        for stream in tuple(self._outputs):
            self._close_output(stream)
        self._close_input()
        self._withdraw()
        if self.log is not None:
            self.log.finish()
        self._on_end(self)
        for client in tuple(self.clients):
            client.end(self.code or 0)
