"""Attachments to containers that do not run yet: they wait for the start, and miss nothing."""

from __future__ import annotations

import asyncio

from sagong.contracts.streams import Address

__all__ = ["Pending", "Waiting"]


class Waiting:
    """One attachment's wait; `started` tells whether the container runs or never will.

    `held`: its output is held back for this one, so there is nothing to replay (a replay comes
    from the log, which does not keep every byte as it was). `stream` is what the start gave for it,
    with the program's input if it has `stdin`. `over` is set when an end of the container is told.
    """

    def __init__(self, *, stdin: bool) -> None:
        self.stdin = stdin
        self.stream: Address | None = None
        self.woken = asyncio.Event()
        self.over = asyncio.Event()
        self.started = False
        self.held = False


class _Asked:
    """A start that was asked for here: whom its output waits for, and how far it is."""

    def __init__(self, first: Waiting) -> None:
        self.first = first
        self.answering = True
        self.told = False


class Pending:
    """Attachments by container: those that wait, and all until they part."""

    def __init__(self) -> None:
        self._attached: dict[str, list[Waiting]] = {}
        self._waiting: dict[str, list[Waiting]] = {}
        self._asked: dict[str, _Asked] = {}

    def enter(self, container: str, *, stdin: bool) -> Waiting:
        """Begin to wait."""
        waiting = Waiting(stdin=stdin)
        self._waiting.setdefault(container, []).append(waiting)
        self._attached.setdefault(container, []).append(waiting)
        return waiting

    def leave(self, container: str, waiting: Waiting) -> None:
        """Wait no more."""
        _take_out(self._waiting, container, waiting)

    def part(self, container: str, waiting: Waiting) -> None:
        """It is attached no more."""
        self.leave(container, waiting)
        _take_out(self._attached, container, waiting)

    def over(self, container: str) -> None:
        """A run has ended, and its code can be asked for."""
        for waiting in self._attached.get(container, ()):
            waiting.over.set()

    def unsure(self) -> None:
        """Nobody may have told of ends."""
        for container in self._attached:
            self.over(container)

    def hold(self, container: str) -> Waiting | None:
        """A start is about to be asked for: for whom output must be held back."""
        first = next(iter(self._waiting.get(container, ())), None)
        if first is not None:
            self._asked[container] = _Asked(first)
        return first

    def told(self, container: str) -> None:
        """Somebody says that the container runs: attach now, unless an answer will say how."""
        asked = self._asked.get(container)
        if asked is not None and asked.answering:
            asked.told = True
        else:
            self._wake(container, started=True)

    def started(self, container: str, stream: Address | None) -> None:
        """The start is answered: attach now."""
        asked = self._asked.get(container)
        if asked is not None:
            asked.first.stream = stream
        self._wake(container, started=True)

    def unanswered(self, container: str) -> None:
        """Nobody waits for the answer of the start any more, but it may happen."""
        asked = self._asked.get(container)
        if asked is not None:
            asked.answering = False
            if asked.told:
                self._wake(container, started=True)

    def ended(self, container: str) -> None:
        """It will not run; or its start failed, perhaps after it was told: the attachments end."""
        asked = self._asked.get(container)
        self._wake(container, started=asked is not None and asked.told)

    def _wake(self, container: str, *, started: bool) -> None:
        held = self._asked.pop(container, None) is not None
        for waiting in self._waiting.pop(container, ()):
            waiting.started, waiting.held, held = started, held, False
            waiting.woken.set()


def _take_out(table: dict[str, list[Waiting]], container: str, waiting: Waiting) -> None:
    others = table.get(container, [])
    if waiting in others:
        others.remove(waiting)
    if not others:
        table.pop(container, None)
