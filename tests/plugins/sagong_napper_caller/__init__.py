"""Calls and hears `nap`."""

from __future__ import annotations

from nap_contract import Count, Counted, Nap

from sagong.call import current
from sagong.host import Host

__all__ = ["Caller"]


class Caller:
    """As confined as any plugin."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._nap = host.use(Nap)
        self._heard = self._missed = 0
        self._left: set[str] = set()

    async def start(self) -> None:
        """Begin to listen; that wakes nobody."""
        self._host.spawn(self._hear(), "hear")

    async def _hear(self) -> None:
        async for event in self._host.hear(Nap, Counted):
            self._heard += event is not None
            self._missed += event is None

    async def ring(self) -> Count:
        """Ask."""
        return await self._nap.count()

    def heard(self) -> Count:
        """What was heard."""
        return Count(value=self._heard, generation=self._missed)

    def leave(self) -> None:
        """Remember who calls."""
        self._left.add(current().caller)

    async def stir(self) -> None:
        """Also one that did not ask for it."""
        left, self._left = self._left, set()
        for unit in (*left, "nap"):
            await self._host.wake(unit)
