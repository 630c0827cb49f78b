"""Processes of a container as `ps` would print them, for `docker top`. Pure."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping

from sagong.errors import InvalidArgument

__all__ = ["process_table"]

Facts = Mapping[str, str]
_FULL = ("UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD")
_AUX = ("USER", "PID", "%CPU", "%MEM", "VSZ", "RSS", "TTY", "STAT", "START", "TIME", "COMMAND")
_PLAIN = ("PID", "TTY", "TIME", "CMD")
_BSD = ("PID", "TTY", "STAT", "TIME", "COMMAND")
_ALIASES = {
    "uid": "UID", "euid": "UID", "user": "USER", "euser": "USER", "uname": "USER", "pid": "PID",
    "ppid": "PPID", "c": "C", "stime": "STIME", "start_time": "STIME", "start": "START",
    "lstart": "STARTED", "tty": "TTY", "tt": "TTY", "tname": "TTY", "time": "TIME",
    "cputime": "TIME", "cmd": "CMD", "args": "COMMAND", "command": "COMMAND", "comm": "COMMAND_",
    "ucmd": "COMMAND_", "stat": "STAT", "state": "STAT", "s": "STAT", "%cpu": "%CPU",
    "pcpu": "%CPU", "%mem": "%MEM", "pmem": "%MEM", "vsz": "VSZ", "vsize": "VSZ", "rss": "RSS",
    "rssize": "RSS", "etime": "ELAPSED",
}  # fmt: skip


def process_table(
    processes: Iterable[tuple[int, Iterable[tuple[str, str]]]], arguments: str, now: float
) -> tuple[list[str], list[list[str]]]:
    """Titles and rows for the arguments of ps: `-ef`, `aux`, `-o pid,comm` and their like."""
    columns = _columns(arguments.split())
    cells = {**_CELLS, "TIME": _minutes} if tuple(columns) in (_AUX, _BSD) else _CELLS
    rows = []
    for pid, fields in processes:
        facts = {**dict(fields), "pid": str(pid)}
        rows.append([cells[column](facts, now) for column in columns])
    return [column.rstrip("_") for column in columns], rows


def _columns(arguments: list[str]) -> list[str]:
    chosen: list[str] = []
    words = iter(arguments)
    for word in words:
        bare = word.lstrip("-")
        if bare in ("o", "eo", "axo", "format"):
            chosen += _named(next(words, ""))
        elif bare.startswith("o") and len(bare) > 1:
            chosen += _named(bare[1:].lstrip("="))
    if chosen:
        return chosen if "PID" in chosen else ["PID", *chosen]
    flags = "".join(word.lstrip("-") for word in arguments)
    # BSD's options have no dash, but `x` is theirs in any case.
    if arguments and ("x" in flags or not arguments[0].startswith("-")):
        return list(_AUX if "u" in flags else _BSD)
    return list(_FULL) if "f" in flags or not flags else list(_PLAIN)


def _named(text: str) -> list[str]:
    found = []
    for name in filter(None, text.split(",")):
        column = _ALIASES.get(name.partition("=")[0].lower())
        if column is None:
            raise InvalidArgument(f"ps: error: unknown user-defined format specifier {name!r}")
        found.append(column)
    return found


def _seconds(facts: Facts) -> int:
    return int(float(facts.get("seconds", "0")))


def _time(facts: Facts, now: float) -> str:
    total = _seconds(facts)
    return f"{total // 3600:02}:{total // 60 % 60:02}:{total % 60:02}"


def _started(facts: Facts, now: float) -> float:
    """Seconds since the epoch of the start, which the facts give since boot."""
    since_boot = time.clock_gettime(time.CLOCK_BOOTTIME)
    return now - since_boot + float(facts.get("started", "0"))


def _stime(facts: Facts, now: float) -> str:
    started = _started(facts, now)
    form = "%H:%M" if now - started < 86400 else "%b%d"
    return time.strftime(form, time.localtime(started))


def _elapsed(facts: Facts, now: float) -> str:
    total = int(max(0.0, now - _started(facts, now)))
    hours = f"{total // 3600:02}:" if total >= 3600 else ""
    return f"{hours}{total // 60 % 60:02}:{total % 60:02}"


def _tty(facts: Facts, now: float) -> str:
    number = int(facts.get("tty", "0"))
    minor = (number & 0xFF) | ((number >> 12) & 0xFFF00)
    return f"pts/{minor}" if number > 0 else "?"


def _share(facts: Facts, now: float) -> str:
    age = max(1.0, now - _started(facts, now))
    return str(int(_seconds(facts) * 100 / age))


def _memory_share(facts: Facts, now: float) -> str:
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 10
    return f"{int(facts.get('rss', '0')) * 100 / whole:.1f}"


def _minutes(facts: Facts, now: float) -> str:
    """TIME as BSD's ps has it: minutes and seconds."""
    total = _seconds(facts)
    return f"{total // 60}:{total % 60:02}"


def _fact(name: str, default: str = "0") -> Callable[[Facts, float], str]:
    return lambda facts, now: facts.get(name, default)


_CELLS: dict[str, Callable[[Facts, float], str]] = {
    "UID": _fact("user"),
    "USER": _fact("user"),
    "PID": _fact("pid"),
    "PPID": _fact("ppid"),
    "C": _share,
    "%CPU": lambda facts, now: f"{float(_share(facts, now)):.1f}",
    "%MEM": _memory_share,
    "VSZ": _fact("vsz"),
    "RSS": _fact("rss"),
    "STIME": _stime,
    "START": _stime,
    "STARTED": lambda facts, now: time.ctime(_started(facts, now)),
    "ELAPSED": _elapsed,
    "TTY": _tty,
    "TIME": _time,
    "STAT": _fact("state", "?"),
    "CMD": _fact("command", ""),
    "COMMAND": _fact("command", ""),
    "COMMAND_": _fact("name", ""),
}
