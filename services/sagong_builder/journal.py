"""The journal of what is borrowed: leases and containers, a file each.

Whatever a build borrows is noted before it is asked for; a builder that begins finds the notes of
one that was killed (see `workplace`), and gives back for it.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["Journal"]


class Journal:
    """Names of what is borrowed, a file each."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def note(self, name: str) -> None:
        """Before it is borrowed."""
        (self._directory / name).touch()

    def strike(self, name: str) -> None:
        """After it was given back."""
        (self._directory / name).unlink(missing_ok=True)

    def names(self) -> list[str]:
        """All that is borrowed."""
        return sorted(path.name for path in self._directory.iterdir())
