"""Processes of a container as `ps` would print them, for `docker top`. Pure."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping

from sagong.errors import InvalidArgument, SagongError

__all__ = ["process_table"]

Facts = Mapping[str, str]
Cell = Callable[[Facts, float], str]
Column = tuple[str, Cell]
# What Docker forbids: another column under the name by which it finds the process.
_DISGUISED = re.compile(r"(?:^|\s)(\S*)=\s*(PID\S*)")
_LISTS = frozenset(("-o", "o", "-eo", "-axo", "axo", "-Ao", "--format"))


def process_table(
    processes: Iterable[tuple[int, Iterable[tuple[str, str]]]], arguments: str, now: float
) -> tuple[list[str], list[list[str]]]:
    """Titles and rows for the arguments of ps: `-ef`, `aux`, `-o pid,comm` and their like.

    As Docker reads them from what ps prints: between blanks, and what is too much is of the last.
    """
    for name, title in _DISGUISED.findall(arguments):
        if name.rpartition(",")[2] != "pid":
            raise SagongError(f'specifying "{name}={title}" is not allowed')
    columns = _columns(arguments.split())
    titles = [word for title, _ in columns for word in title.split()]
    if "PID" not in titles:
        raise SagongError("Couldn't find PID field in ps output")
    rows = []
    for pid, fields in processes:
        facts = {**dict(fields), "pid": str(pid)}
        words = " ".join(cell(facts, now) for _, cell in columns).split()
        last = len(titles) - 1
        rows.append([*words[:last], " ".join(words[last:])])
    return titles, rows


def _columns(arguments: list[str]) -> list[Column]:
    chosen: list[Column] = []
    words = iter(arguments)
    for word in words:
        if word in ("-q", "-p"):
            raise SagongError(f"ps: error: List of process IDs must follow {word}.")
        if word in _LISTS:
            chosen += _named(next(words, ""))
        elif re.match(r"-?o.|--format=", word):
            chosen += _named(re.sub(r"^(-?o|--format=)", "", word))
    if chosen:
        return chosen
    if "--help" in arguments:
        return []
    short = [word for word in arguments if not word.startswith("--")]
    flags = "".join(word.lstrip("-") for word in short)
    # BSD's options have no dash, but `x` is theirs in any case.
    if short and ("x" in flags or not short[0].startswith("-")):
        return [_BY_NAME[name] for name in _bsd(flags)]
    return [_BY_NAME[name] for name in _unix(flags)]


def _bsd(flags: str) -> list[str]:
    for flag in "ulj":
        if flag in flags:
            return _BSD_FORMS[flag].split()
    return _BSD_FORMS[""].split()


def _unix(flags: str) -> list[str]:
    label = ["label"] if "Z" in flags else []
    full = "f" if "f" in flags else ""
    for flag in "Flj":
        if flag in flags:
            return label + (_FORMS.get(flag + full) or _FORMS[flag]).split()
    return label + _FORMS["f" if full or not flags else ""].split()


def _named(text: str) -> Iterator[Column]:
    """What follows an equals sign is a title, to the end."""
    names, equals, title = text.partition("=")
    found = list(filter(None, names.split(",")))
    for at, name in enumerate(found, 1):
        column = _BY_NAME.get(name.lower())
        if column is None:
            raise InvalidArgument(f'ps: error: unknown user-defined format specifier "{name}"')
        yield (title, column[1]) if equals and at == len(found) else column


def _seconds(facts: Facts) -> int:
    return int(float(facts.get("seconds", "0")))


def _days(total: int) -> str:
    return f"{total // 86400}-" if total >= 86400 else ""


def _time(facts: Facts, now: float) -> str:
    total = _seconds(facts)
    return f"{_days(total)}{total // 3600 % 24:02}:{total // 60 % 60:02}:{total % 60:02}"


def _started(facts: Facts, now: float) -> float:
    """Seconds since the epoch of the start, which the facts give since boot."""
    since_boot = time.clock_gettime(time.CLOCK_BOOTTIME)
    return now - since_boot + float(facts.get("started", "0"))


def _stime(facts: Facts, now: float) -> str:
    started = _started(facts, now)
    form = "%H:%M" if now - started < 86400 else "%b%d"
    return time.strftime(form, time.localtime(started))


def _age(facts: Facts, now: float) -> int:
    return int(max(0.0, now - _started(facts, now)))


def _elapsed(facts: Facts, now: float) -> str:
    total = _age(facts, now)
    hours = f"{total // 3600 % 24:02}:" if total >= 3600 else ""
    return f"{_days(total)}{hours}{total // 60 % 60:02}:{total % 60:02}"


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


def _processor_share(facts: Facts, now: float) -> str:
    return f"{float(_share(facts, now)):.1f}"


def _whole_start(facts: Facts, now: float) -> str:
    return time.ctime(_started(facts, now))


def _minutes(facts: Facts, now: float) -> str:
    """TIME as BSD's ps has it: minutes and seconds."""
    total = _seconds(facts)
    return f"{total // 60}:{total % 60:02}"


def _stat(facts: Facts, now: float) -> str:
    """The state, and what else BSD's ps says with it: see "process state codes" of ps(1)."""
    nice, group = int(facts.get("nice", "0")), facts.get("group", "0")
    marks = "<" if nice < 0 else "N" if nice > 0 else ""
    marks += "s" if facts.get("session") == facts["pid"] else ""
    marks += "l" if int(facts.get("threads", "1")) > 1 else ""
    marks += "+" if group != "0" and facts.get("foreground") == group else ""
    return facts.get("state", "?") + marks


def _flags(facts: Facts, now: float) -> str:
    return str(int(facts.get("flags", "0")) >> 6 & 7)


def _pages(facts: Facts, now: float) -> str:
    return str(int(facts.get("vsz", "0")) * 1024 // os.sysconf("SC_PAGE_SIZE"))


def _priority(sign: int, base: int) -> Cell:
    return lambda facts, now: str(base + sign * int(facts.get("priority", "20")))


def _fact(name: str, default: str = "0") -> Cell:
    return lambda facts, now: facts.get(name, default)


def _fixed(text: str) -> Cell:
    return lambda facts, now: text


_USER, _UID, _ARGS, _NAME = _fact("user"), _fact("uid"), _fact("command", ""), _fact("name", "")
# The keywords of ps(1)'s "standard format specifiers", without those of signals and namespaces.
_BY_NAME: dict[str, Column] = {
    "pid": ("PID", _fact("pid")), "tgid": ("TGID", _fact("pid")), "ppid": ("PPID", _fact("ppid")),
    "pgid": ("PGID", _fact("group")), "pgrp": ("PGRP", _fact("group")),
    "sid": ("SID", _fact("session")), "sess": ("SESS", _fact("session")),
    "session": ("SESS", _fact("session")), "tpgid": ("TPGID", _fact("foreground", "-1")),
    "user": ("USER", _USER), "uname": ("USER", _USER), "euser": ("EUSER", _USER),
    "uid_hack": ("UID", _USER), "uid": ("UID", _UID), "euid": ("EUID", _UID),
    "c": ("C", _share), "%cpu": ("%CPU", _processor_share),
    "pcpu": ("%CPU", _processor_share),
    "%mem": ("%MEM", _memory_share), "pmem": ("%MEM", _memory_share),
    "vsz": ("VSZ", _fact("vsz")), "vsize": ("VSZ", _fact("vsz")), "sz": ("SZ", _pages),
    "rss": ("RSS", _fact("rss")), "rssize": ("RSS", _fact("rss")), "rsz": ("RSZ", _fact("rss")),
    "stime": ("STIME", _stime), "start_time": ("START", _stime), "bsdstart": ("START", _stime),
    "start": ("STARTED", _stime), "lstart": ("STARTED", _whole_start),
    "tty": ("TT", _tty), "tt": ("TT", _tty), "tname": ("TTY", _tty),
    "time": ("TIME", _time), "cputime": ("TIME", _time), "bsdtime": ("TIME", _minutes),
    "times": ("TIME", lambda facts, now: str(_seconds(facts))),
    "etime": ("ELAPSED", _elapsed), "etimes": ("ELAPSED", lambda f, now: str(_age(f, now))),
    "stat": ("STAT", _stat), "state": ("S", _fact("state", "?")), "s": ("S", _fact("state", "?")),
    "ni": ("NI", _fact("nice")), "nice": ("NI", _fact("nice")), "pri": ("PRI", _priority(-1, 39)),
    "opri": ("PRI", _priority(1, 60)), "priority": ("PRI", _priority(1, 0)),
    "nlwp": ("NLWP", _fact("threads", "1")), "thcount": ("THCNT", _fact("threads", "1")),
    "psr": ("PSR", _fact("processor")), "f": ("F", _flags), "flag": ("F", _flags),
    "flags": ("F", _flags), "addr": ("ADDR", _fixed("-")), "wchan": ("WCHAN", _fixed("-")),
    "label": ("LABEL", _fixed("-")), "cmd": ("CMD", _ARGS), "args": ("COMMAND", _ARGS),
    "command": ("COMMAND", _ARGS), "comm": ("COMMAND", _NAME), "ucomm": ("COMMAND", _NAME),
    "ucmd": ("CMD", _NAME),
}  # fmt: skip
# By the option that asks for it; UID is the login where ps calls the column so.
_FORMS = {
    "": "pid tname time ucmd",
    "f": "uid_hack pid ppid c stime tname time cmd",
    "F": "uid_hack pid ppid c sz rss psr stime tname time cmd",
    "l": "f s uid pid ppid c opri ni addr sz wchan tname time ucmd",
    "lf": "f s uid_hack pid ppid c opri ni addr sz wchan stime tname time cmd",
    "j": "pid pgid sid tname time ucmd",
    "jf": "uid_hack pid ppid pgid sid c stime tname time cmd",
}
_BSD_FORMS = {
    "": "pid tname stat bsdtime args",
    "u": "user pid %cpu %mem vsz rss tname stat start_time bsdtime args",
    "l": "f uid pid ppid priority ni vsz rss wchan stat tname bsdtime args",
    "j": "ppid pid pgid sid tname tpgid stat uid bsdtime args",
}
