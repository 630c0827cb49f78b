"""Facts of processes from /proc, for `docker top`."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterable, Iterator
from pathlib import Path

__all__ = ["process_facts"]

Facts = tuple[int, tuple[tuple[str, str], ...]]


def process_facts(pids: Iterable[int]) -> Iterator[Facts]:
    """(pid, facts by name) of those that live; /proc/PID/stat, status and cmdline (proc(5))."""
    for pid in pids:
        try:
            yield pid, tuple(_facts(Path(f"/proc/{pid}")).items())
        except (OSError, ValueError, IndexError):
            continue  # ended meanwhile


def _facts(directory: Path) -> dict[str, str]:
    head, _, tail = (directory / "stat").read_text().rpartition(")")
    fields = tail.split()
    uid = directory.stat().st_uid
    ticks = os.sysconf("SC_CLK_TCK")
    command = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    name = head.partition("(")[2]
    return {
        "uid": str(uid),
        "user": _login(uid),
        "ppid": fields[1],
        "state": fields[0],
        "tty": fields[4],
        "seconds": str((int(fields[11]) + int(fields[12])) / ticks),
        "started": str(int(fields[19]) / ticks),
        "command": command.strip() or f"[{name}]",
        "name": name,
    }


def _login(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
