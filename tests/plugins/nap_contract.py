"""Slots of the tests' own: `nap`, whose provider starts on demand, and `nudge`, which calls it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from sagong.contract import Message, method, slot

__all__ = ["Count", "Counted", "Nap", "Nudge"]


class Count(Message):
    """A number; of `heard`, how often it was told that it may have missed something, below 0 first."""

    value: int
    generation: int = 0


class Counted(Message):
    """Somebody counted."""

    value: int


@slot("nap", version=1, events=(Counted,))
class Nap(Protocol):
    """Counts its calls, over sleeps."""

    @method(idempotent=False)
    async def count(self) -> Count:
        """One more, in this generation."""
        ...

    @method(idempotent=False)
    def counts(self) -> AsyncIterator[Count]:
        """One more, and then one more, without end."""
        ...


@slot("nudge", version=1)
class Nudge(Protocol):
    """Calls `nap` as a confined process does."""

    @method(idempotent=False)
    async def ring(self) -> Count:
        """What `count` says."""
        ...

    @method(idempotent=True)
    async def heard(self) -> Count:
        """Events heard, and as the generation the Nones."""
        ...

    @method(idempotent=True)
    async def leave(self) -> None:
        """Wake the caller when this is stirred next."""
        ...

    @method(idempotent=False)
    async def stir(self) -> None:
        """Wake who has left word, and the napper, which has not and may not be woken so."""
        ...
