"""The slot `hostile`: a plugin that attacks from inside its sandbox, and says what came of it."""

from __future__ import annotations

from typing import Protocol

from sagong.contract import Message, method, slot

__all__ = ["Attack", "Finding", "Hostile", "Noise"]


class Attack(Message):
    """One attack by its name; `facts` are paths and numbers that it is told, so as not to guess.

    `again`: whenever the process that carries it out was ended.
    """

    name: str
    again: bool = False
    facts: dict[str, str] = {}


class Finding(Message):
    """What came of each try: "done", the name of the errno, or the code of the error."""

    found: dict[str, str]


class Noise(Message):
    """An event that says nothing."""

    text: str


@slot("hostile", version=1, events=(Noise,))
class Hostile(Protocol):
    """Attacks when told to."""

    @method(idempotent=False, seconds=60.0)
    async def attack(self, attack: Attack) -> Finding:
        """Try it once, all its parts."""
        ...

    @method(idempotent=True)
    async def begin(self, attack: Attack) -> None:
        """Try it from now on, without end."""
        ...
