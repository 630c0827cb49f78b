"""The directory of one builder's process, and what those before it have left.

Two generations run beside each other during a swap, so each has a place of its own below the unit's
data, which it holds by a lock::

    work/TOKEN/lock       held while the process lives
    work/TOKEN/spool      files that came in
    work/TOKEN/borrowed   the journal

A place whose lock nobody holds is of a process that was killed: its notes are taken over, and the rest
is deleted.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from pathlib import Path

__all__ = ["Workplace"]


class Workplace:
    """Made by the process that uses it."""

    def __init__(self, data: Path, run: Path) -> None:
        token = secrets.token_hex(6)
        self._all = data / "work"
        self._run = run
        self.directory = self._all / token
        self.directory.mkdir(mode=0o700, parents=True)
        self._lock = _held(self.directory)
        self.borrowed = self.directory / "borrowed"
        self.borrowed.mkdir(mode=0o700)
        self.spool = self.directory / "spool"
        self.socket = _socket(run, token)

    def inherit(self) -> list[str]:
        """Take over what is noted in places of the dead, and delete these; the names of the notes."""
        for place in self._all.iterdir():
            lock = None if place == self.directory else _held(place)
            if lock is None:
                continue
            for note in _notes(place):
                note.rename(self.borrowed / note.name)
            shutil.rmtree(place, ignore_errors=True)
            _socket(self._run, place.name).unlink(missing_ok=True)
            os.close(lock)
        return sorted(note.name for note in self.borrowed.iterdir())

    def leave(self) -> None:
        """Nothing is borrowed any more: the place goes with its process."""
        if not any(self.borrowed.iterdir()):
            shutil.rmtree(self.directory, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)


def _held(place: Path) -> int | None:
    """The place's lock; None while another process has it."""
    descriptor = os.open(place / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _notes(place: Path) -> list[Path]:
    try:
        return list((place / "borrowed").iterdir())
    except FileNotFoundError:
        return []


def _socket(run: Path, token: str) -> Path:
    return run / f"streams-{token}.sock"
