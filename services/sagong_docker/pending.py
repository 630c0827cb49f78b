"""Attachments to containers that do not run yet: they wait for the start, and miss nothing."""

from __future__ import annotations

import asyncio

__all__ = ["Pending", "Waiting"]


class Waiting:
    """One attachment's wait; `started` tells whether the container runs or never will.

    `held`: its output is held back for this one, so there is nothing to replay (a replay comes
    from the log, which does not keep every byte as it was).
    """

    def __init__(self) -> None:
        self.woken = asyncio.Event()
        self.started = False
        self.held = False


class Pending:
    """Waiting attachments by container."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[Waiting]] = {}
        self._held: set[str] = set()

    def enter(self, container: str) -> Waiting:
        """Begin to wait."""
        waiting = Waiting()
        self._waiting.setdefault(container, []).append(waiting)
        return waiting

    def leave(self, container: str, waiting: Waiting) -> None:
        """Wait no more."""
        others = self._waiting.get(container, [])
        if waiting in others:
            others.remove(waiting)
        if not others:
            self._waiting.pop(container, None)

    def hold(self, container: str) -> bool:
        """A start is about to be asked for: whether output must be held back."""
        if container in self._waiting:
            self._held.add(container)
            return True
        return False

    def started(self, container: str) -> None:
        """The container runs: attach now."""
        self._wake(container, True)

    def ended(self, container: str) -> None:
        """It will not run: the attachments end."""
        self._wake(container, False)

    def _wake(self, container: str, started: bool) -> None:
        held = container in self._held
        self._held.discard(container)
        for waiting in self._waiting.pop(container, ()):
            waiting.started, waiting.held, held = started, held, False
            waiting.woken.set()
