"""What happened in a run: requests and their answers, faults, log lines, lives, watched changes."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

import msgspec

__all__ = [
    "AT_THE_END",
    "Attempt",
    "Change",
    "Fault",
    "History",
    "Life",
    "Line",
    "Log",
    "Recorder",
    "Watched",
]

# The reader of what is in a log when all is over.
AT_THE_END = "at the end"


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One request. Times in seconds since the epoch.

    `kind` and `key` name the thing, which has one writer; `verb` is create, remove, set, read, or
    what else was asked. `outcome`: "done" (acknowledged), "exists", "absent" (an answer that tells
    the thing's state), "refused" (an answer that it could not be done), or how no answer came:
    "unreachable", "cut", "timeout". `wanted` and `value` are what was to be read, or written, and
    what was. `text` is the error's.
    """

    client: str
    kind: str
    key: str
    verb: str
    outcome: str
    began: float
    ended: float
    status: int = 0
    text: str = ""
    value: str = ""
    wanted: str | None = None


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """Something that was done to the platform; `ended` is when all was ready again.

    `kind`: kill, swap (one, or two at once), upgrade, stop, full (blocks or inodes), power. `problem`
    tells what should not have come of it.
    """

    kind: str
    target: str
    began: float
    ended: float
    problem: str = ""


class Line(msgspec.Struct, frozen=True, array_like=True):
    """A numbered line of a log, and when it was written (0: not known)."""

    number: int
    at: float = 0.0


class Log(msgspec.Struct, frozen=True, kw_only=True):
    """Lines of a container as a reader got them between two times; numbers begin at 0."""

    container: str
    reader: str
    began: float
    ended: float
    lines: tuple[Line, ...]
    garbage: tuple[str, ...] = ()


class Life(msgspec.Struct, frozen=True, kw_only=True):
    """A container that nothing may end: what it was in the beginning, and what it is at the end."""

    container: str
    before: str
    after: str


class Change(msgspec.Struct, frozen=True, array_like=True):
    """A watch told that an object has a value; `revision` orders all changes."""

    revision: int
    key: str
    value: int


class Watched(msgspec.Struct, frozen=True, kw_only=True):
    """A watch from one list on: what the list said, then what followed, over all reconnections.

    `reason` says why a list was made: "begin", or the explicit answer that history was gone.
    """

    reason: str
    listed: Mapping[str, int]
    changes: tuple[Change, ...]


class History(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run. `listed`, `values`: what is there at the end, by kind.

    `before` and `after`: what the platform has on the machine, by kind, without load; a thing that
    is there twice stands there twice. `defects`: what its logs should not hold.
    """

    seed: int
    attempts: tuple[Attempt, ...] = ()
    faults: tuple[Fault, ...] = ()
    logs: tuple[Log, ...] = ()
    lives: tuple[Life, ...] = ()
    watched: tuple[Watched, ...] = ()
    listed: Mapping[str, tuple[str, ...]] = {}
    values: Mapping[str, str] = {}
    before: Mapping[str, tuple[str, ...]] = {}
    after: Mapping[str, tuple[str, ...]] = {}
    problems: tuple[str, ...] = ()
    defects: tuple[str, ...] = ()


class Recorder:
    """Takes down what happens, from many threads."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.attempts: list[Attempt] = []
        self.faults: list[Fault] = []
        self.logs: list[Log] = []
        self.watched: list[Watched] = []
        self.problems: list[str] = []
        self._lock = threading.Lock()

    def attempt(self, attempt: Attempt) -> None:
        """A request is over."""
        with self._lock:
            self.attempts.append(attempt)

    def fault(self, fault: Fault) -> None:
        """A fault is over."""
        with self._lock:
            self.faults.append(fault)

    def log(self, log: Log) -> None:
        """A reader of a log is through."""
        with self._lock:
            self.logs.append(log)

    def problem(self, text: str) -> None:
        """Something that no check sees: a client's thread failed, or never came to its end."""
        with self._lock:
            self.problems.append(f"{time.strftime('%H:%M:%S')} {text}")
