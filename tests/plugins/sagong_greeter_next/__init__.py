"""Fills `greeting` in version 2 alone."""

from __future__ import annotations

from greeting_contract import Guests, Words

from sagong.host import Host


class Next:
    """Greets several."""

    def __init__(self, host: Host) -> None:
        self._log = host.log

    def greet(self, guests: Guests) -> Words:
        """Say it to all."""
        return Words(text="greetings " + " and ".join(guests.names))
