"""The keeper: restarts the kernel, holds its descriptors, reaps orphans. Standard library only.

It is as small as it can be, because everything else may be killed and comes back through it; and it
imports little, because it shares its memory with nobody: no argparse, typing, array; of `socket` and
`signal` only what is written in C, without enumerations of all their constants (1.3 MB); and it is
begun by `START`, as `-m` keeps what it takes to find a module (0.8 MB).

The kernel sends it descriptors to hold (`keep NAME`), gets them all back when it is started anew, says
how far the units have come (`late`, `progress`, `ready`), and `end` before it ends for good. Now and
then it says `beat SECONDS`: if nothing follows for so long it hangs, and is followed by another. If the
keeper itself dies, another one (the kernel's, or that of a supervisor such as systemd) connects to
the kernel at `kernel/keeper` and is given the descriptors.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import _socket
import ctypes
import fcntl
import os
import select
import struct
import sys
import time

__all__ = ["CONFIGURATION_ERROR", "START", "main"]

START = ("-P", "-c", "from sagong.keeper import main; main()")
CONFIGURATION_ERROR = 78
_LOCKED = 75
_TITLE = "sagong-keeper"
_CREDENTIALS = struct.Struct("3i")
_PR_SET_CHILD_SUBREAPER = 36
_MESSAGE, _DESCRIPTORS = 4096, 16
# What the service manager is told with the kernel's words, as in sd_notify(3). How long a start may
# take it knows itself (TimeoutStartSec); one that comes further may take longer.
_NOTIFICATIONS = {
    "late": "",
    "progress": "EXTEND_TIMEOUT_USEC=120000000\n",
    "ready": "READY=1\n",
}


class Options:
    """The command line: `--run DIR --root DIR --profile NAME --supervised --successor`."""

    def __init__(self, words: list[str]) -> None:
        self.root, self.run, self.profile = "/", "", ""
        self.supervised = self.successor = False
        left = iter(words)
        for word in left:
            name = word.removeprefix("--")
            if name in ("supervised", "successor"):
                setattr(self, name, True)
            elif name in ("root", "run", "profile") and (value := next(left, None)) is not None:
                setattr(self, name, value)
            else:
                sys.exit(f"sagong-keeper: {word}: not understood; {Options.__doc__}")
        if not self.run:
            sys.exit(f"sagong-keeper: --run is missing; {Options.__doc__}")


class Keeper:
    """One kernel at a time, its descriptors by name."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._door = f"{options.run}/kernel/keeper"
        self._kept: dict[str, int] = {}
        self._control: _socket.socket | None = None
        self._pid = 0
        self._pidfd = -1
        self._stopping = False
        # Taken out of the environment: it is for this process, not for those below.
        self._supervisor = os.environ.pop("NOTIFY_SOCKET", "")
        self._started = 0.0
        # Until when the kernel is to be heard; 0: it has promised nothing.
        self._due = 0.0
        self._status: int | None = None

    def run(self) -> int:
        """Until the kernel ends by itself."""
        read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        _signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        _signal.signal(_signal.SIGCHLD, lambda *_: None)
        _signal.signal(_signal.SIGTERM, self._terminate)
        if not self._attach():
            if self._options.successor and not os.path.exists(self._door):
                return 0
            self._notify("STATUS=starting the kernel")
            self._start()
        while True:
            assert self._control is not None
            waiting = [read, self._control.fileno(), self._pidfd]
            left = max(self._due - time.monotonic(), 0.0) if self._due else None
            ready, _, _ = select.select(waiting, [], [], left)
            if not ready:
                self._end_hung()
            if read in ready:
                os.read(read, 4096)
            if self._control.fileno() in ready and not self._hold():
                self._control.close()
                self._control = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)[0]
            self._reap()
            if self._pidfd in ready:
                if self._status in (0, CONFIGURATION_ERROR) or self._stopping:
                    return self._status or 0
                if time.monotonic() - self._started < 1.0:
                    time.sleep(0.5)
                self._start()

    def _start(self) -> None:
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        command = [sys.executable, "-m", "sagong.kernel", "--root", self._options.root]
        command += ["--profile", self._options.profile, "--keeper", str(theirs.fileno())]
        for name, fd in self._kept.items():
            command += ["--kept", f"{name}={fd}"]
        given = [theirs.fileno(), *self._kept.values()]
        for fd in given:
            os.set_inheritable(fd, True)
        self._status = None
        self._pid = os.posix_spawn(sys.executable, command, os.environ)
        for fd in given:
            os.set_inheritable(fd, False)
        theirs.close()
        if self._pidfd >= 0:
            os.close(self._pidfd)
        self._pidfd = os.pidfd_open(self._pid)
        self._begin(ours)

    def _attach(self) -> bool:
        """Become the keeper of a kernel that lives without one."""
        control = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        try:
            control.connect(self._door)
            peer = control.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, _CREDENTIALS.size)
            self._pid = _CREDENTIALS.unpack(peer)[0]
            self._pidfd = os.pidfd_open(self._pid)
        except OSError:
            control.close()
            return False
        self._begin(control)
        return True

    def _begin(self, control: _socket.socket) -> None:
        self._control = control
        self._due = 0.0
        self._started = time.monotonic()
        if self._options.supervised:
            try:
                control.send(b"supervised")
            except OSError:
                pass  # it died meanwhile, and its pidfd says so

    def _hold(self) -> bool:
        """Take a descriptor; false at the end of the kernel's socket."""
        assert self._control is not None
        try:
            message, descriptors = _receive(self._control)
        except OSError:
            return False
        if not message:
            return False
        word, _, name = message.decode().partition(" ")
        if word == "end":
            self._stopping, self._due = True, 0.0
        elif word == "beat":
            self._due = 0.0 if self._stopping else time.monotonic() + float(name)
        elif word in _NOTIFICATIONS:
            self._notify(f"{_NOTIFICATIONS[word]}STATUS={name}")
        elif word == "keep" and descriptors:
            old = self._kept.pop(name, None)
            if old is not None:
                os.close(old)
            self._kept[name] = descriptors[0]
        elif word == "drop" and name in self._kept:
            os.close(self._kept.pop(name))
        return True

    def _end_hung(self) -> None:
        """Unless it has said something after all (this process was away), or can't by itself."""
        assert self._control is not None
        self._due = 0.0
        heard, _, _ = select.select([self._control.fileno()], [], [], 0)
        if heard or _state(self._pid) in "DtZX":
            return
        self._notify("STATUS=the kernel hangs; starting another one")
        at = time.strftime("%FT%T")
        print(f"{at} ERROR sagong.keeper kernel hangs pid={self._pid}", file=sys.stderr, flush=True)
        try:
            _signal.pidfd_send_signal(self._pidfd, _signal.SIGKILL)
        except ProcessLookupError:
            pass  # it ended meanwhile, and its pidfd says so

    def _notify(self, text: str) -> None:
        """Tell the supervisor, as sd_notify(3) does."""
        if self._supervisor:
            address = self._supervisor.replace("@", "\0", 1)
            sender = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
            try:
                sender.sendto(text.encode(), address)
            except OSError:
                pass  # nobody listens
            finally:
                sender.close()

    def _reap(self) -> None:
        """Wait for whatever ended; keep the kernel's exit status if it was among them."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._pid:
                self._status = os.waitstatus_to_exitcode(status)

    def _terminate(self, *_: object) -> None:
        self._stopping, self._due = True, 0.0
        self._notify("STOPPING=1\nSTATUS=stopping; containers go on")
        try:
            _signal.pidfd_send_signal(self._pidfd, _signal.SIGTERM)
        except ProcessLookupError:
            os._exit(0)


def _receive(control: _socket.socket) -> tuple[bytes, tuple[int, ...]]:
    """A message and the descriptors that came along."""
    room = _socket.CMSG_SPACE(_DESCRIPTORS * 4)
    data, ancillary, _, _ = control.recvmsg(_MESSAGE, room, _socket.MSG_CMSG_CLOEXEC)
    rights: list[int] = []
    for level, kind, raw in ancillary:
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
            rights += struct.unpack(f"{len(raw) // 4}i", raw[: len(raw) // 4 * 4])
    return data, tuple(rights)


def _state(pid: int) -> str:
    """The letter of proc(5) for what a process does; X if there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0].decode()
    except OSError:
        return "X"


def _show_title() -> None:
    """The name and command line that ps shows, written over the arguments; see prctl(2), proc(5)."""
    with open("/proc/self/comm", "w") as file:
        file.write(_TITLE)
    with open("/proc/self/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    begin, end = int(fields[45]), int(fields[46])
    # A last byte that isn't NUL tells the kernel to end the line at the first NUL.
    line = _TITLE.encode().ljust(end - begin - 1, b"\0") + b"."
    if 0 < begin < end - len(_TITLE) - 1:
        ctypes.memmove(begin, line, len(line))


def main() -> None:
    """`python START… --run DIR --root DIR --profile NAME`; one instance a root, by a lock.

    `--supervised` says that whoever started it does so again when it dies, `--successor` that a
    kernel which lost its keeper did: if that has ended in order meanwhile, there is nothing to keep.
    """
    options = Options(sys.argv[1:])
    # Nothing below may import from the directory that this happened to be started in, and no sandbox
    # is to show it: systemd starts it in "/".
    os.environ["PYTHONSAFEPATH"] = "1"
    # Threads are few and allocate little; an own heap for each costs more memory than it spares time.
    os.environ.setdefault("MALLOC_ARENA_MAX", "1")
    # Files and logs are UTF-8, whatever the locale of who started it is.
    os.environ["PYTHONUTF8"] = "1"
    os.environ.pop("PYTHONIOENCODING", None)
    # Whoever started it may hide what he makes; plugins are to find their directories.
    os.umask(0o022)
    os.makedirs(f"{options.run}/kernel", exist_ok=True)
    lock = os.open(f"{options.run}/kernel/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if not options.supervised:
            sys.exit(_LOCKED)
        _replace(options.run, lock)
    _write_pid(f"{options.run}/keeper.pid")
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    _show_title()
    sys.exit(Keeper(options).run())


def _write_pid(path: str) -> None:
    """Not emptied first: what the file has on a full disk would not be had again."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    os.ftruncate(file, os.write(file, f"{os.getpid()}\n".encode()))
    os.close(file)


def _replace(run: str, lock: int) -> None:
    """End the keeper that nobody supervises, so that one that is takes its place: none waits on it.

    It may have been started this moment, and not have written yet who it is: then look again.
    """
    while True:
        try:
            _end_keeper(run)
        except (OSError, ValueError):
            pass
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.02)


def _end_keeper(run: str) -> None:
    with open(f"{run}/keeper.pid") as file:
        pid = int(file.read())
    with open(f"/proc/{pid}/comm") as file:
        name = file.read().strip()
    if name == _TITLE:
        os.kill(pid, _signal.SIGKILL)


if __name__ == "__main__":
    main()
