"""Processes: identity by pid and start time, waiting by pidfd, attributes, passing descriptors."""

from __future__ import annotations

import array
import contextlib
import ctypes
import os
import select
import socket
import struct
from typing import NamedTuple

from sagong.linux import syscalls

__all__ = [
    "ProcessId",
    "StatusFacts",
    "become_subreaper",
    "identify",
    "is_dying",
    "open_identified",
    "receive_descriptors",
    "send_descriptors",
    "set_death_signal",
    "set_dumpable",
    "set_name",
    "set_no_new_privs",
    "set_title",
    "set_turns",
    "start_time",
    "status_facts",
    "wait_ended",
]

# As a plain number: the enumeration's own "&" is slow.
_CUT = int(socket.MSG_CTRUNC)
_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_PF_EXITING = 0x4  # <linux/sched.h>
_SIGKILL_BIT = 1 << 8
_PR_SET_NO_NEW_PRIVS = 38


class ProcessId(NamedTuple):
    """A process for all times: its pid and its start in clock ticks since boot."""

    pid: int
    started: int


def _stat_fields(pid: int | str) -> list[str]:
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        # The second field is the command in parentheses and may itself hold spaces and ")".
        return file.read().rpartition(")")[2].split()


def start_time(pid: int | str = "self") -> int:
    """When a process began, in clock ticks since boot (field 22 of /proc/PID/stat)."""
    return int(_stat_fields(pid)[19])


def identify(pid: int) -> ProcessId:
    """The identity of a running process; OSError ENOENT if there is none."""
    return ProcessId(pid, start_time(pid))


def open_identified(identity: ProcessId) -> int | None:
    """A pidfd of exactly this process, or None when it has ended or its pid is somebody else's."""
    try:
        pidfd = syscalls.pidfd_open(identity.pid)
    except OSError:
        return None
    try:
        same = start_time(identity.pid) == identity.started
    except OSError:
        same = False
    if not same:
        os.close(pidfd)
        return None
    return pidfd


def is_dying(identity: ProcessId) -> bool:
    """Whether it has ended, is ending, or has got SIGKILL (flags and pending signals of proc(5))."""
    try:
        fields = _stat_fields(identity.pid)
    except OSError:
        return True
    flags, pending, started = int(fields[6]), int(fields[28]), int(fields[19])
    return started != identity.started or bool(flags & _PF_EXITING or pending & _SIGKILL_BIT)


def wait_ended(pidfd: int, seconds: float | None) -> bool:
    """Wait until the process has ended; False if it still runs after `seconds`."""
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    return bool(poller.poll(None if seconds is None else seconds * 1000))


class StatusFacts(NamedTuple):
    """What /proc/PID/status tells of a process's powers and family."""

    parent: int
    tracer: int
    uids: tuple[int, ...]
    gids: tuple[int, ...]
    groups: tuple[int, ...]
    no_new_privs: bool
    seccomp_mode: int
    seccomp_filters: int
    state: str
    pids: tuple[int, ...]


def status_facts(pid: int | str = "self") -> StatusFacts:
    """Read /proc/PID/status; `seccomp_mode` 2 means filtered, `pids` go from outer to inner.

    `tracer` is 0 for nobody, `state` a letter of proc(5).
    """
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
        lines = dict(line.rstrip("\n").split(":", 1) for line in file if ":" in line)

    def numbers(key: str) -> tuple[int, ...]:
        return tuple(int(word) for word in lines.get(key, "").split())

    return StatusFacts(
        parent=numbers("PPid")[0],
        tracer=numbers("TracerPid")[0],
        uids=numbers("Uid"),
        gids=numbers("Gid"),
        groups=numbers("Groups"),
        no_new_privs=numbers("NoNewPrivs") == (1,),
        seccomp_mode=(numbers("Seccomp") or (0,))[0],
        seccomp_filters=(numbers("Seccomp_filters") or (0,))[0],
        state=lines["State"].split()[0],
        pids=numbers("NSpid"),
    )


def become_subreaper() -> None:
    """Orphaned descendants become this process's children."""
    syscalls.prctl(_PR_SET_CHILD_SUBREAPER, 1)


def set_no_new_privs() -> None:
    """No exec below this process can gain privileges; irrevocable."""
    syscalls.prctl(_PR_SET_NO_NEW_PRIVS, 1)


def set_dumpable(*, dumpable: bool) -> None:
    """Not dumpable: no core, no ptrace, /proc/PID owned by root."""
    syscalls.prctl(_PR_SET_DUMPABLE, int(dumpable))


def set_death_signal(signal: int) -> None:
    """The signal this process gets when its parent thread ends; 0 for none."""
    syscalls.prctl(_PR_SET_PDEATHSIG, signal)


def set_name(name: str) -> None:
    """The 15 byte command name that /proc/PID/comm shows."""
    syscalls.prctl(_PR_SET_NAME, os.fsencode(name)[:15])


def set_title(title: str) -> None:
    """The command line that ps shows, and the command name.

    The argument area the kernel made at exec is overwritten in place: a title longer than it is
    cut. PR_SET_MM would allow more but needs CAP_SYS_RESOURCE, which containers' hosts often lack.
    """
    set_name(title)
    fields = _stat_fields("self")
    begin, end = int(fields[45]), int(fields[46])
    room = end - begin
    if begin <= 0 or room < 2:
        return
    raw = os.fsencode(title)[: room - 2]
    # A last byte that isn't NUL tells the kernel to end the command line at the first NUL.
    ctypes.memmove(begin, raw + bytes(room - len(raw) - 1) + b".", room)


_CREDENTIALS = struct.Struct("=3i")


class Received(NamedTuple):
    """A message with the descriptors that came along; the receiver closes them."""

    data: bytes
    descriptors: tuple[int, ...]


def send_descriptors(channel: socket.socket, data: bytes, descriptors: tuple[int, ...]) -> None:
    """Send one message with descriptors over a Unix socket; `data` must not be empty."""
    rights = array.array("i", descriptors)
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if descriptors else []
    sent = channel.sendmsg([data], ancillary)
    if sent < len(data):
        channel.sendall(data[sent:])


def receive_descriptors(channel: socket.socket, size: int, most: int = 16) -> Received:
    """Receive a message of up to `size` bytes and up to `most` descriptors, all close-on-exec.

    (`socket.recv_fds` of Python 3.11 drops its flags, so descriptors would leak over exec.)
    Descriptors beyond `most` make it an OSError, and none is kept.
    """
    room = socket.CMSG_SPACE(most * 4)
    data, ancillary, flags, _ = channel.recvmsg(size, room, socket.MSG_CMSG_CLOEXEC)
    if not ancillary and not flags & _CUT:
        return Received(data, ())
    rights = array.array("i")
    for level, kind, raw in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            rights.frombytes(raw[: len(raw) - len(raw) % rights.itemsize])
    if flags & _CUT:
        for descriptor in rights:
            os.close(descriptor)
        raise OSError(7, f"recvmsg: more than {most} descriptors in one message")
    return Received(data, tuple(rights))


def peer_credentials(channel: socket.socket) -> tuple[int, int, int]:
    """(pid, uid, gid) of whoever connected a Unix socket, as the kernel saw it then."""
    raw = channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(raw)
    return pid, uid, gid


def thread_times(pid: int) -> dict[int, tuple[int, int]]:
    """For how many nanoseconds each thread of a process has run, and has waited for a core.

    Of schedstat, proc(5): where the machine's kernel does not count, all is 0. Who ended has none.
    """
    found = {}
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{thread}/schedstat") as file:
                ran, waited, _ = file.read().split()
                found[int(thread)] = int(ran), int(waited)
    return found


# Of these, alike but for who gives way to whom, a thread may have any; others have priorities.
_ORDINARY = (os.SCHED_OTHER, os.SCHED_BATCH, os.SCHED_IDLE)


def set_turns(thread: int, nanoseconds: int) -> None:
    """How long a thread (0: this one) and what it makes run before who wakes may go first (Linux 6.12).

    One with a policy of real time is left alone.
    """
    policy = os.sched_getscheduler(thread)
    if policy in _ORDINARY:
        nice = os.getpriority(os.PRIO_PROCESS, thread)
        syscalls.sched_setattr(policy, nice, nanoseconds, thread=thread)
