"""What ps(1) shows of processes, read in /proc by who may see them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

__all__ = ["process_facts"]


def process_facts(pids: Iterable[int]) -> list[dict[str, Any]]:
    """Fields of the contract's `ProcessFacts` of those that still live; proc(5) names the files."""
    found = []
    for pid in pids:
        try:
            found.append(_facts(pid))
        except (FileNotFoundError, ProcessLookupError):
            continue  # It has ended meanwhile.
    return found


def _facts(pid: int) -> dict[str, Any]:
    # The name in parentheses may itself hold spaces and ")".
    head, _, tail = _read(pid, "stat").rpartition(")")
    fields = tail.split()
    ticks = os.sysconf("SC_CLK_TCK")
    command = _read(pid, "cmdline")
    return {
        "pid": pid,
        "parent": int(fields[1]),
        "group": int(fields[2]),
        "session": int(fields[3]),
        "user": _effective_uid(pid),
        "state": fields[0],
        "tty": int(fields[4]),
        "foreground": int(fields[5]),
        "flags": int(fields[6]),
        "cpu": (int(fields[11]) + int(fields[12])) / ticks,
        "priority": int(fields[15]),
        "nice": int(fields[16]),
        "threads": int(fields[17]),
        "processor": int(fields[36]),
        "started": int(fields[19]) / ticks,
        "name": head.partition("(")[2],
        "virtual": int(fields[20]) >> 10,
        "resident": int(fields[21]) * os.sysconf("SC_PAGE_SIZE") >> 10,
        "args": command.rstrip("\0").split("\0") if command else [],
    }


def _effective_uid(pid: int) -> int:
    """Not the owner of /proc/PID, who is root when the process is not dumpable."""
    for line in _read(pid, "status").splitlines():
        if line.startswith("Uid:"):
            return int(line.split()[2])
    raise ProcessLookupError(pid)


def _read(pid: int, name: str) -> str:
    with open(f"/proc/{pid}/{name}", "rb") as file:
        return file.read().decode("utf-8", "replace")
