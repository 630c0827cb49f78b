"""Fills `greeting` in versions 1 and 2, whose methods have the same name."""

from __future__ import annotations

from greeting_contract import Greeting, Greeting2, Guest, Guests, Words

from sagong.host import Host


class One:
    """Version 1."""

    def greet(self, guest: Guest) -> Words:
        """Say it."""
        return Words(text=f"welcome {guest.name}")


class Several:
    """Version 2."""

    def greet(self, guests: Guests) -> Words:
        """Say it to all."""
        return Words(text="welcome " + " and ".join(guests.names))


class Both:
    """An object for each version."""

    def __init__(self, host: Host) -> None:
        self.implementation = {Greeting: One(), Greeting2: Several()}
