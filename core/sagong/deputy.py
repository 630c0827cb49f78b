"""Deputies: a part of a plugin in a process of its own, which holds rights instead of the plugin.

What parses requests and talks to everybody need not hold what only a few system calls need. A
manifest's `[deputy]` names a function; each right in it says who holds it. The function runs in a
fork of the plugin's process, in the same sandbox, before that has threads; then each gives up what
is the other's, for ever. They talk over a socket of whole messages, by a protocol of their own. It
ends when the plugin does; if it dies, so does the plugin, and both are started anew.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import msgspec

from sagong.linux import capabilities, process, seccomp, syscalls
from sagong.linux.seccomp import ALLOW, Condition, Policy, Rule
from sagong.linux.seccomp_profile import CLONE_NAMESPACES
from sagong.linux.syscall_table import machine
from sagong.manifest import Manifest, Rights
from sagong.sandbox.syscall_groups import compiled_policy

__all__ = [
    "INTERPRETER",
    "Appointed",
    "Deputation",
    "Holding",
    "Line",
    "Post",
    "appoint",
    "aside",
    "attend",
    "deputation",
    "hire",
]

R = TypeVar("R")
# What an interpreter with one thread does all the time, memory, time and messages, and forking; a
# deputy adds the few calls that it is for. (libuv, where a loop was made, makes a pipe in each fork.)
INTERPRETER = """
brk clock_getres clock_gettime clock_nanosleep close dup exit exit_group fcntl fstat futex getpid
getppid getrandom gettid gettimeofday lseek lstat madvise membarrier mmap mprotect mremap munmap
newfstatat open openat pipe2 poll ppoll read readlink readlinkat recvfrom recvmsg restart_syscall rseq
rt_sigaction rt_sigprocmask rt_sigreturn sched_yield sendmsg sendto set_robust_list set_tid_address
sigaltstack stat statx wait4 write
"""
_LIMIT = 1 << 16


class Holding(msgspec.Struct, frozen=True, kw_only=True):
    """Capabilities of one of the two, and its filter of system calls (empty: the sandbox's)."""

    capabilities: tuple[str, ...] = ()
    filter: bytes = b""


class Deputation(msgspec.Struct, frozen=True, kw_only=True):
    """Which function (`module:name`), and who holds what; None where sandboxes are switched off."""

    function: str
    plugin: Holding | None = None
    deputy: Holding | None = None


def deputation(manifest: Manifest, *, confined: bool) -> Deputation | None:
    """What a manifest says of its deputy; `confined`: there is a sandbox, so rights are parted."""
    if manifest.deputy is None:
        return None
    function = manifest.deputy.function
    if not confined:
        return Deputation(function=function)
    plugin, deputy = (_holding(manifest.rights, holder) for holder in ("plugin", "deputy"))
    return Deputation(function=function, plugin=plugin, deputy=deputy)


def _holding(rights: Rights, holder: str) -> Holding:
    holders = (holder, "both")
    return Holding(
        capabilities=tuple(c.name for c in rights.capabilities if c.holder in holders),
        filter=compiled_policy([s.group for s in rights.seccomp if s.holder in holders]),
    )


class Post(NamedTuple):
    """What a deputy knows of its plugin's `Host`: the places and the settings."""

    data: Path
    run: Path
    root: Path
    settings: dict[str, Any]


class Answer(msgspec.Struct, frozen=True):
    """What comes back, beside descriptors; `code` 0 is success, else an errno with its words."""

    code: int = 0
    text: str = ""


class Line:
    """The plugin's end: one request at a time, from any thread; it blocks.

    An answer has at most so many descriptors.
    """

    def __init__(self, channel: socket.socket, most: int = 16) -> None:
        self._channel = channel
        self._most = most
        self._turn = threading.Lock()

    def ask(self, request: msgspec.Struct, given: tuple[int, ...] = ()) -> tuple[int, ...]:
        """Descriptors that come back, the caller's to close; OSError with the deputy's errno."""
        with self._turn:
            process.send_descriptors(self._channel, msgspec.msgpack.encode(request), given)
            data, descriptors = process.receive_descriptors(self._channel, _LIMIT, self._most)
        _check(data)
        return descriptors

    def wait(self, request: msgspec.Struct, seconds: float) -> None:
        """A request that the deputy works off `aside`; OSError ETIMEDOUT when it takes longer."""
        ours, theirs = _channel()
        with ours:
            with theirs:
                self.ask(request, (theirs.fileno(),))
            ours.settimeout(seconds)
            try:
                data = ours.recv(_LIMIT)
            except TimeoutError:
                raise OSError(errno.ETIMEDOUT, f"no answer within {seconds:g} s") from None
        _check(data)


def _check(data: bytes) -> None:
    if not data:
        raise OSError(errno.EPIPE, "the deputy ended; the plugin will be started again")
    answer = msgspec.msgpack.decode(data, type=Answer)
    if answer.code:
        raise OSError(answer.code, answer.text)


def aside(channel: int, work: Callable[[], None], undo: Callable[[], None]) -> None:
    """What may take long, in a fork that answers on the socket that came along with the request.

    `undo` if nobody waits for it any more. The deputy ignores SIGCHLD.
    """
    if os.fork():
        return
    try:
        answer = _attempted(work)
        try:
            os.write(channel, msgspec.msgpack.encode(answer))
        except OSError:
            undo()
    finally:
        os._exit(0)


def attend(
    channel: socket.socket,
    decode: Callable[[bytes], R],
    work: Callable[[R, tuple[int, ...], list[int]], None],
    rules: Iterable[Rule],
) -> None:
    """The deputy's end, until the plugin is gone: requests worked off by nothing but these calls,
    and those of an interpreter.

    `work` has the decoded request, descriptors that came along, and a list for those that go back;
    all are closed here. What it raises is the answer.
    """
    fork = seccomp.rule_of("clone", ALLOW, Condition(0, "masked_eq", 0, CLONE_NAMESPACES))
    policy = Policy((seccomp.rule_of(INTERPRETER), fork, *rules), architectures=(machine(),))
    seccomp.load(seccomp.compile_policy(policy))
    while True:
        try:
            data, given = process.receive_descriptors(channel, _LIMIT)
        except ConnectionResetError:
            return  # the plugin was killed before it read an answer
        if not data:
            return
        found: list[int] = []
        answer = _attempted(partial(_work, decode, work, data, given, found))
        back = () if answer.code else tuple(found)
        try:
            process.send_descriptors(channel, msgspec.msgpack.encode(answer), back)
        except (BrokenPipeError, ConnectionResetError):
            return  # the plugin was killed while it waited
        finally:
            for descriptor in (*given, *found):
                os.close(descriptor)


def _work(
    decode: Callable[[bytes], R],
    work: Callable[[R, tuple[int, ...], list[int]], None],
    data: bytes,
    given: tuple[int, ...],
    found: list[int],
) -> None:
    work(decode(data), given, found)


def _attempted(work: Callable[[], None]) -> Answer:
    try:
        work()
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return Answer(error.errno or errno.EIO, f"{where}{error.strerror}")
    except (ValueError, msgspec.DecodeError) as error:
        return Answer(errno.EINVAL, str(error))
    return Answer()


class Appointed(NamedTuple):
    """The plugin's end of the socket, and the deputy's process."""

    channel: socket.socket
    pid: int


def appoint(deputation: Deputation, post: Post, title: str) -> Appointed:
    """Fork the deputy off this process, which has no threads yet, and part the rights."""
    ours, theirs = _channel()
    pid = os.fork()
    if pid == 0:
        try:
            # Descriptors of the plugin's are closed, and their numbers the deputy's by then: no
            # object may close them when it is collected, no signal be written to them.
            gc.freeze()
            signal.set_wakeup_fd(-1)
            process.set_title(title)
            _close_all_but(theirs.fileno())
            _hold(deputation.deputy)
            _function(deputation.function)(theirs, post)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(0)
    theirs.close()
    _hold(deputation.plugin)
    return Appointed(ours, pid)


def hire(function: str, post: Post) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """A deputy of a process that has threads already, with the same rights: for tests."""
    ours, theirs = _channel()
    places = [str(post.data), str(post.run), str(post.root)]
    with theirs:
        child = subprocess.Popen(
            [sys.executable, "-c", _START, json.dumps(sys.path), function, *places],
            stdin=theirs.fileno(),
            env={**os.environ, "SAGONG_DEPUTY": json.dumps(post.settings)},
        )
    return ours, child


_START = (
    "import json,sys;sys.path[:]=json.loads(sys.argv[1]);"
    "from sagong.deputy import main;main(*sys.argv[2:])"
)


def main(function: str, data: str, run: str, root: str) -> None:
    """Be a hired deputy; the socket is standard input."""
    settings = json.loads(os.environ.pop("SAGONG_DEPUTY"))
    channel = socket.socket(fileno=os.dup(0))
    _function(function)(channel, Post(Path(data), Path(run), Path(root), settings))


def _channel() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def _function(text: str) -> Callable[[socket.socket, Post], None]:
    module, _, name = text.partition(":")
    return cast(
        Callable[[socket.socket, Post], None], getattr(importlib.import_module(module), name)
    )


def _close_all_but(kept: int) -> None:
    """What the plugin was given, listeners among it, is not the deputy's."""
    os.closerange(3, kept)
    os.closerange(kept + 1, os.sysconf("SC_OPEN_MAX"))


def _hold(holding: Holding | None) -> None:
    """Exactly these, in every set that can be reduced without CAP_SETPCAP."""
    if holding is None:
        return
    # Without root there are none to part.
    mask = capabilities.mask_of(holding.capabilities) & syscalls.capget()[1]
    with contextlib.suppress(PermissionError):
        capabilities.drop_bounding(mask)
    capabilities.apply(capabilities.CapabilitySets(mask, mask, mask, mask, mask))
    if holding.filter:
        seccomp.load(holding.filter)
