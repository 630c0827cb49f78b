"""Attacks on the machine and on other processes, by system calls."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sagong.linux import capabilities, syscalls

__all__ = ["ATTACKS", "Facts", "Findings", "tried"]

Facts = dict[str, str]
Findings = dict[str, str]


def tried(action: Callable[[], Any]) -> str:
    """ "done", or the name of the errno that refused it."""
    try:
        action()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    return "done"


def _all(tries: dict[str, Callable[[], Any]]) -> Findings:
    return {name: tried(action) for name, action in tries.items()}


def read_files(facts: Facts) -> Findings:
    """Files that are others': each fact `read …` is a path."""
    return _all(
        {
            path: (lambda p=path: Path(p).read_bytes())  # type: ignore[misc]
            for name, path in facts.items()
            if name.startswith("read ")
        }
    )


def list_places(facts: Facts) -> Findings:
    """What a directory shows, as text."""
    found = {}
    for name, path in facts.items():
        if name.startswith("list "):
            try:
                found[path] = " ".join(sorted(os.listdir(path)))
            except OSError as error:
                found[path] = errno.errorcode[error.errno or 0]
    return found


def write_files(facts: Facts) -> Findings:
    """Anything that is not its own."""
    places = ["/", "/usr", "/etc", "/dev", "/proc/sys/kernel", "/sys", facts["root"]]
    places += [path for name, path in facts.items() if name.startswith("write ")]

    def make(place: str) -> None:
        os.close(os.open(f"{place}/x", os.O_CREAT | os.O_WRONLY))

    return {place: tried(lambda p=place: make(p)) for place in places}  # type: ignore[misc]


def touch_processes(facts: Facts) -> Findings:
    """Another process: its memory, its files, its life."""
    pid = int(facts["pid"])
    buffer = ctypes.create_string_buffer(64)
    return _all(
        {
            "memory": lambda: open(f"/proc/{pid}/mem", "rb").close(),
            "root": lambda: os.listdir(f"/proc/{pid}/root"),
            "environment": lambda: Path(f"/proc/{pid}/environ").read_bytes(),
            "ptrace": lambda: syscalls.call("ptrace", 16, pid, 0, 0),
            "process_vm_readv": lambda: syscalls.call(
                "process_vm_readv", pid, buffer, 1, buffer, 1, 0
            ),
            "kill": lambda: os.kill(pid, signal.SIGKILL),
            "stop": lambda: os.kill(pid, signal.SIGSTOP),
            "pidfd": lambda: syscalls.call("pidfd_getfd", 0, 0, 0),
            "priority": lambda: os.setpriority(os.PRIO_PROCESS, pid, 19),
            "limits": lambda: syscalls.call("prlimit64", pid, 7, None, buffer),
        }
    )


def raise_powers(facts: Facts) -> Findings:
    """To be more than it is."""
    every = (1 << 40) - 1
    return _all(
        {
            "capset": lambda: syscalls.capset(every, every, every),
            "ambient": lambda: capabilities.raise_ambient(1 << 21),
            "setuid": lambda: os.setuid(0),
            "setgroups": lambda: os.setgroups([0]),
            "user namespace": lambda: syscalls.unshare(0x10000000),
            "mount namespace": lambda: syscalls.unshare(0x00020000),
            "setns": lambda: syscalls.setns(0),
            "chroot": lambda: os.chroot("/tmp"),
            "mount": lambda: syscalls.mount("x", "/tmp", "tmpfs"),
            "umount": lambda: syscalls.umount("/usr"),
            "open_tree": lambda: syscalls.open_tree("/usr", clone=True),
            "module": lambda: syscalls.call("init_module", b"", 0, b""),
            "kexec": lambda: syscalls.call("kexec_load", 0, 0, None, 0),
            "bpf": lambda: syscalls.call("bpf", 0, None, 0),
            "reboot": lambda: syscalls.call("reboot", 0, 0, 0, None),
            "clock": lambda: syscalls.call("clock_settime", 0, None),
            "handle": lambda: syscalls.call("open_by_handle_at", 0, None, 0),
            "keyring": syscalls.join_session_keyring,
            "device": lambda: os.mknod("/tmp/disk", 0o60600, os.makedev(254, 0)),
        }
    )


def connect_out(facts: Facts) -> Findings:
    """Whoever is outside."""

    def raw() -> None:
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()

    def udp() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
            made.sendto(b"x", ("192.0.2.1", 53))

    def unix(address: str) -> None:
        with socket.socket(socket.AF_UNIX) as made:
            made.connect(address)

    loopback = ("127.0.0.1", int(facts["port"]))
    return {
        "tcp": tried(lambda: socket.create_connection(loopback, timeout=2)),
        "tcp out": tried(lambda: socket.create_connection(("192.0.2.1", 80), timeout=2)),
        "udp": tried(udp),
        "raw": tried(raw),
        "packet": tried(lambda: socket.socket(17, socket.SOCK_RAW)),
        "vsock": tried(lambda: socket.socket(40, socket.SOCK_STREAM)),
        "abstract": tried(lambda: unix("\0" + facts["abstract"])),
        **{path: tried(lambda p=path: unix(p)) for n, path in facts.items() if n[:5] == "unix "},  # type: ignore[misc]
    }


def fork_bomb(facts: Facts) -> Findings:
    """As many processes as there can be; they are ended again."""
    children: list[int] = []
    reason = "done"
    for _ in range(1000):
        try:
            pid = os.fork()
        except OSError as error:
            reason = errno.errorcode[error.errno or 0]
            break
        if pid == 0:
            signal.pause()
        children.append(pid)
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return {"fork": reason, "children": str(len(children))}


def fill_tmp(facts: Facts) -> Findings:
    """More than its /tmp holds."""

    def fill() -> None:
        with open("/tmp/x", "wb") as file:
            for _ in range(64):
                file.write(bytes(1 << 20))

    found = tried(fill)
    os.unlink("/tmp/x")
    return {"tmp": found}


def big_file(facts: Facts) -> Findings:
    """One file without end, in a directory of its own."""
    path = Path(facts["data"], "big")

    def fill() -> None:
        with open(path, "wb") as file:
            for _ in range(256):
                file.write(bytes(1 << 20))

    found = tried(fill)
    path.unlink()
    return {"file": found}


ATTACKS: dict[str, Callable[[Facts], Findings]] = {
    "read files": read_files,
    "list places": list_places,
    "write files": write_files,
    "touch processes": touch_processes,
    "raise powers": raise_powers,
    "connect out": connect_out,
    "fork bomb": fork_bomb,
    "fill tmp": fill_tmp,
    "big file": big_file,
}
