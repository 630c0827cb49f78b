"""Containers that are being made: a name each, from before anything is taken for it until it is there.

Root and record are made at once, and a crash may leave the first without the second: whoever comes
after gives back what was taken for those names. They are in memory: a reboot takes them, and roots
that were as young.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

__all__ = ["Intentions"]


class Intentions:
    """Empty files by container id."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = str(directory)

    def note(self, id_: str) -> None:
        """It is about to be made; OSError if there is no room for the name."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
        os.close(os.open(f"{self._directory}/{id_}", flags, 0o600))

    def strike(self, id_: str) -> None:
        """It is written, or nothing of it is left."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{self._directory}/{id_}")

    def has(self, id_: str) -> bool:
        """Whether it is being made."""
        return os.path.exists(f"{self._directory}/{id_}")

    def left(self) -> list[str]:
        """Those that a predecessor did not come to an end with."""
        return os.listdir(self._directory)
