"""Patience: a step of somebody's code in this process that does not end is cut off, and told of.

All of a process waits for what runs in its loop. A step has some seconds; then SIGALRM raises in it,
wherever it is in Python, or sleeps, or waits for the operating system. Whose step was cut off is not
asked for a while, so that others wait for it once in that time. One that goes on all the same ends the
process: its supervisor sees that. What holds the interpreter itself can't be cut off.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import TypeVar

from sagong.errors import DeadlineExceeded, Unavailable

__all__ = ["PATIENCE", "Patience"]

_LOG = logging.getLogger("sagong.patience")
_STEP_SECONDS, _REST_SECONDS = 2.0, 30.0
# One that catches whatever is raised in it is hit again, so often.
_AGAIN_SECONDS, _HITS = 0.2, 25
_QUIET_SECONDS = 60.0
T = TypeVar("T")


class _CutOff(BaseException):
    """Nobody's `except Exception` is to keep it."""


@dataclass
class _Trouble:
    """How often something was cut off, and when (monotonic, and since the epoch) it was last."""

    times: int = 0
    last: float = 0.0
    at: float = 0.0


class Patience:
    """Takes steps in the main thread, `seconds` long at most; elsewhere it takes them as they are."""

    def __init__(self, seconds: float = _STEP_SECONDS, rest: float = _REST_SECONDS) -> None:
        self._seconds = seconds
        self._rest = rest
        self._troubles: dict[tuple[str, str], _Trouble] = {}
        self._quiet: dict[tuple[str, str], float] = {}
        self._who = ""
        self._hits = 0

    def step(self, who: str, what: str, function: Callable[[], T], seconds: float = 0.0) -> T:
        """What `function` returns; DeadlineExceeded if it was cut off, Unavailable if it lately was."""
        if threading.current_thread() is not threading.main_thread() or self._who:
            return function()
        self._check_rest(who)
        seconds = seconds or self._seconds
        signal.signal(signal.SIGALRM, self._hit)
        try:
            try:
                self._who, self._hits = f"{who} in {what}", 0
                signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN_SECONDS)
                return function()
            finally:
                self._who = ""
                signal.setitimer(signal.ITIMER_REAL, 0)
        except _CutOff:
            self._who = ""
            signal.setitimer(signal.ITIMER_REAL, 0)
            self.note(who, what)
            raise DeadlineExceeded(f"{who} did not end {what} in {seconds:g} s") from None

    def note(self, who: str, what: str) -> None:
        """It was given up there."""
        trouble = self._troubles.setdefault((who, what), _Trouble())
        trouble.times += 1
        trouble.last, trouble.at = time.monotonic(), time.time()
        _LOG.error("given up: %s did not end %s", who, what)

    def tell(self, who: str, what: str, error: Exception) -> None:
        """It raised there: the log has all of it, once a minute at most."""
        now = time.monotonic()
        if now >= self._quiet.get((who, what), now):
            self._quiet[who, what] = now + _QUIET_SECONDS
            _LOG.error("%s failed in %s", who, what, exc_info=error)

    def is_long(self, seconds: float) -> bool:
        """Whether that is longer than a step may take."""
        return seconds >= self._seconds

    def troubles(self) -> tuple[str, ...]:
        """What was given up, a line each."""
        return tuple(
            f"{who} was given up in {what}, {one.times} times, the last one at "
            f"{time.strftime('%H:%M:%S', time.localtime(one.at))}"
            for (who, what), one in self._troubles.items()
        )

    def _check_rest(self, who: str) -> None:
        last = max((t.last for (name, _), t in self._troubles.items() if name == who), default=None)
        left = last + self._rest - time.monotonic() if last is not None else 0.0
        if left > 0:
            raise Unavailable(f"{who} was given up, and is not asked for {left:.0f} s more")

    def _hit(self, number: int, frame: FrameType | None) -> None:
        if not self._who:
            return
        self._hits += 1
        if self._hits > _HITS:
            _LOG.error("%s can't be cut off: the process ends", self._who)
            os._exit(1)
        raise _CutOff


PATIENCE = Patience()
