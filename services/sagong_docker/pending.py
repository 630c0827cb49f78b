"""Attachments to containers that do not run yet: they wait for the start, and miss nothing."""

from __future__ import annotations

import asyncio

__all__ = ["Pending", "Waiting"]


class Waiting:
    """One attachment's wait; `started` is set when the container runs, `failed` when it can't."""

    def __init__(self) -> None:
        self.woken = asyncio.Event()
        self.started = False


class Pending:
    """Waiting attachments by container."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[Waiting]] = {}

    def enter(self, container: str) -> Waiting:
        """Begin to wait."""
        waiting = Waiting()
        self._waiting.setdefault(container, set()).add(waiting)
        return waiting

    def leave(self, container: str, waiting: Waiting) -> None:
        """Wait no more."""
        others = self._waiting.get(container, set())
        others.discard(waiting)
        if not others:
            self._waiting.pop(container, None)

    def any(self, container: str) -> bool:
        """Whether a start must hold output back."""
        return container in self._waiting

    def started(self, container: str) -> None:
        """The container runs: attach now."""
        self._wake(container, True)

    def ended(self, container: str) -> None:
        """It will not run: the attachments end."""
        self._wake(container, False)

    def _wake(self, container: str, started: bool) -> None:
        for waiting in self._waiting.pop(container, ()):
            waiting.started = started
            waiting.woken.set()
