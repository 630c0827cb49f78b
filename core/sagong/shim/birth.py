"""The start of a container's run: asked for at once, or prepared until somebody asks for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sagong.shim.failure import StartError
from sagong.shim.loop import Timer

if TYPE_CHECKING:
    from sagong.shim.channel import Channel
    from sagong.shim.container import Container
    from sagong.shim.loop import Loop
    from sagong.shim.starting import Attempt
    from sagong.shim.tickets import Tickets

__all__ = ["Birth"]

# Longer than whoever prepares waits for the start before he takes it back himself.
_PREPARED_SECONDS = 5.0


class Birth:
    """Who is told how it ended. What nobody asks for in time, or is left by who prepared it, ends."""

    def __init__(self, loop: Loop, channel: Channel, container: Container) -> None:
        self._loop = loop
        self._channel = channel
        self._container = container
        self._attempt: Attempt | None = None
        self._timer: Timer | None = None
        self._number = 0
        self._attach: dict[str, Any] | None = None
        self._discarded = False

    def expect(self, attempt: Attempt) -> None:
        """The attempt; without a request it has some seconds until one comes."""
        self._attempt = attempt
        if not self._number:
            self._timer = self._loop.later(_PREPARED_SECONDS, self.give_up)

    def ask(self, channel: Channel, number: int, attach: dict[str, Any] | None) -> None:
        """This request is answered by how it ends, with a ticket if it attaches."""
        self._channel, self._number, self._attach = channel, number, attach
        if self._timer is not None:
            self._timer.cancel()

    def proceed(self) -> None:
        """The program is wanted now."""
        if self._attempt is not None:
            self._attempt.proceed()

    def awaited_by(self, channel: Channel) -> bool:
        """Whether who prepared it, and alone can ask for it, is at the other end."""
        return not self._number and self._channel is channel

    def give_up(self) -> None:
        """Nobody wants it any more."""
        if self._attempt is not None:
            self._attempt.give_up(StartError("unavailable", "nobody asked for the prepared start"))

    def discard(self, channel: Channel, number: int) -> None:
        """As `give_up`, answered when nothing of it is left."""
        self.ask(channel, number, None)
        self._discarded = True
        self.give_up()

    def succeeded(self, tickets: Tickets) -> None:
        """The program runs."""
        container, session = self._container, self._container.session
        assert session is not None
        facts: dict[str, Any] = {"pid": session.pid, "started": session.started}
        if self._attach is not None:
            facts["token"] = tickets.issue(session, self._attach)
        container.birth = None
        self._channel.answer(self._number, {**facts, "started_at": container.started_at})

    def failed(self, error: StartError) -> None:
        """Nothing is left of it."""
        if self._timer is not None:
            self._timer.cancel()
        if self._discarded:
            self._channel.answer(self._number)
        elif self._number:
            self._channel.fail(self._number, error.code, error.message)
        else:
            facts = {"id": self._container.id, "run": self._container.run}
            self._channel.send({"event": "lapsed", **facts})
