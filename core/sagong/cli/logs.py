"""`sagong logs`: lines of one log or of several by time, as text or as JSON, and those to come."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from heapq import merge
from pathlib import Path
from typing import Any, TextIO

from sagong.config import Paths
from sagong.errors import NotFound

__all__ = ["Line", "logs_arguments", "parse", "run_logs"]

_HEAD = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}) ([A-Z]+) (\S+) (.*)", re.DOTALL)
_FACT = re.compile(r" ([A-Za-z_]\w*)=(\"(?:[^\"\\]|\\.)*\"|[^\s\"]+)")
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_LOOK_SECONDS = 0.2


@dataclass(frozen=True)
class Line:
    """An event in a log. `at` in seconds since the epoch; 0 for what a program printed as it is."""

    unit: str
    text: str
    at: float = 0.0
    level: str = "INFO"
    logger: str = ""
    message: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


def parse(unit: str, text: str, before: float = 0.0) -> Line:
    """A line as it was written; one without a head has the time of the line before it."""
    head = _HEAD.match(text)
    if head is None:
        return Line(unit, text, before, message=text)
    at = datetime.fromisoformat(head[1]).timestamp()
    message, facts = _cut(head[4])
    return Line(unit, text, at, head[2], head[3], message, facts)


def _cut(rest: str) -> tuple[str, dict[str, Any]]:
    """The message, and the facts at its end."""
    facts: dict[str, Any] = {}
    found = list(_FACT.finditer(rest))
    end = len(rest)
    for match in reversed(found):
        if match.end() != end:
            break
        try:
            facts[match[1]] = json.loads(match[2])
        except ValueError:
            break
        end = match.start()
    return rest[:end], dict(reversed(facts.items()))


def logs_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `logs`."""
    parser.add_argument("unit", nargs="*", help="units or slots (default: kernel); `all` for all")
    parser.add_argument("-f", "--follow", action="store_true", help="go on as the logs grow")
    parser.add_argument("-n", "--lines", type=int, default=100, help="how many of the last lines")
    parser.add_argument(
        "--since", type=float, default=0.0, metavar="SECONDS", help="only of the last SECONDS"
    )
    parser.add_argument(
        "--level",
        choices=[x.lower() for x in _LEVELS],
        default="debug",
        help="only lines of this level and above",
    )
    parser.add_argument("--request", default="", help="only lines of this request")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def run_logs(options: argparse.Namespace) -> int:
    """Print the end of the logs, and what comes."""
    directory = Paths.below(options.root).run / "log"
    wanted = options.unit or ["kernel"]
    tails = [_Tail(path) for path in _files(directory, wanted)]
    shown = [line for tail in tails for line in tail.read() if _wanted(line, options)]
    shown.sort(key=lambda line: line.at)
    several = len(tails) > 1
    for line in shown[-options.lines :]:
        _print(line, several=several, json_form=options.json)
    while options.follow:
        sys.stdout.flush()
        for line in merge(*(tail.read() for tail in tails), key=lambda line: line.at):
            if _wanted(line, options):
                _print(line, several=several, json_form=options.json)
        sys.stdout.flush()
        time.sleep(_LOOK_SECONDS)
    return 0


def _files(directory: Path, wanted: Sequence[str]) -> list[Path]:
    """Logs of units, or of all units of a slot (`state`: `state-local` and `state-cluster`)."""
    known = sorted(directory.glob("*.log"))
    if not known:
        raise NotFound(f"no logs in {directory}: no sagong has run since the machine started")
    found: dict[Path, None] = {}
    for name in wanted:
        exact = [p for p in known if p.stem == name or name == "all"]
        matching = exact or [p for p in known if p.stem.startswith(f"{name}-")]
        if not matching:
            there = ", ".join(p.stem for p in known)
            raise NotFound(f"no log of {name}; there are: {there}")
        found.update(dict.fromkeys(matching))
    return list(found)


def _wanted(line: Line, options: argparse.Namespace) -> bool:
    if options.since and line.at < time.time() - options.since:
        return False
    if options.request and not str(line.facts.get("request", "")).startswith(options.request):
        return False
    level = _LEVELS.index(line.level) if line.level in _LEVELS else 1
    return level >= _LEVELS.index(options.level.upper())


def _print(line: Line, *, several: bool, json_form: bool) -> None:
    if json_form:
        document = {
            "time": datetime.fromtimestamp(line.at).isoformat(timespec="milliseconds"),
            "log": line.unit,
            "level": line.level.lower(),
            "message": line.message,
            **line.facts,
        }
        print(json.dumps(document, ensure_ascii=False))
    else:
        print(f"{line.unit}: {line.text}" if several else line.text)


class _Tail:
    """Reads a log on, also when it was replaced by a new one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: TextIO | None = None
        self._rest = ""
        self._at = 0.0

    def read(self) -> Iterator[Line]:
        """Whole lines that are new, continuation lines with the one they continue."""
        events = list(self._events())
        if events and not self._at:
            self._at = self._first(events)
        for text in events:
            line = parse(self._path.stem, text, self._at)
            self._at = line.at
            yield line

    def _first(self, events: Sequence[str]) -> float:
        """When lines before the first with a time were written: before it, or at last by now."""
        heads = (parse("", text).at for text in events)
        return next((at for at in heads if at), self._path.stat().st_mtime)

    def _events(self) -> Iterator[str]:
        event = ""
        for text in self._lines():
            if event and not text.startswith("    "):
                yield event
                event = text
            else:
                event = f"{event}\n{text}" if event else text
        if event:
            yield event

    def _lines(self) -> Iterator[str]:
        if self._file is None:
            self._file = open(self._path, errors="replace")  # noqa: SIM115
        yield from self._more(self._file)
        try:
            new = open(self._path, errors="replace")  # noqa: SIM115
        except FileNotFoundError:
            return
        with new as replaced:
            if not _same(replaced, self._file):
                self._file.close()
                self._file = open(self._path, errors="replace")  # noqa: SIM115
                yield from self._more(self._file)

    def _more(self, file: TextIO) -> Iterator[str]:
        data = self._rest + file.read()
        *lines, self._rest = data.split("\n")
        yield from lines


def _same(one: TextIO, other: TextIO) -> bool:
    import os

    return os.path.sameopenfile(one.fileno(), other.fileno())
