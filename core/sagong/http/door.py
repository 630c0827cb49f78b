"""The door: whose turn it is to open a connection, so that a storm of one address costs others little.

A handshake of TLS costs a service up to a millisecond, and next to nothing whoever begins one and never
finishes it. Who finishes pays as much, and has the pace of handshakes; of those that are not finished
an address has a few.
"""

from __future__ import annotations

import ipaddress
import time
from functools import lru_cache

import msgspec

from sagong.bus.refusals import Refusals
from sagong.pace import Pace

__all__ = ["Door", "HttpLimits"]

# Handshakes of one address that may be under way at the same moment, if they are at its pace.
_ABREAST = 2


class HttpLimits(msgspec.Struct, frozen=True):
    """Bytes of a head and of a body read whole; seconds of idleness and of a head's arrival.

    `connections` beyond this number wait in the listener's backlog. An address of the network opens
    so many at once, and so many a second after that; others wait their turn, or are closed if that
    is more than `patience_seconds` away. Handshakes of TLS, also those at once, come no closer than
    `handshakes_at_most` a second, since others need that time; and whoever has left as many as
    `unfinished` is refused until some are forgotten, so many a second.
    """

    head: int = 64 << 10
    body: int = 16 << 20
    idle_seconds: float = 600.0
    head_seconds: float = 30.0
    handshake_seconds: float = 15.0
    connections: int = 10_000
    burst: int = 1000
    connections_a_second: float = 500.0
    tls_burst: int = 200
    handshakes_a_second: float = 50.0
    handshakes_at_most: float = 100.0
    unfinished: int = 64
    unfinished_a_second: float = 5.0
    patience_seconds: float = 15.0


class Door:
    """Decides by address, before there is anything that costs; "" (a Unix socket) never waits."""

    def __init__(self, limits: HttpLimits, refusals: Refusals) -> None:
        self._patience = limits.patience_seconds
        self._plain = (Pace(limits.burst, limits.connections_a_second),)
        self._secured = (
            Pace(limits.tls_burst, limits.handshakes_a_second),
            Pace(_ABREAST, limits.handshakes_at_most),
        )
        self._unfinished = Pace(limits.unfinished, limits.unfinished_a_second)
        self._refusals = refusals

    def turn(self, address: str, *, secured: bool) -> float | None:
        """Seconds until an address's turn, which it takes; None if it is not to be waited for."""
        if not address:
            return 0.0
        who, now = _network(address), time.monotonic()
        if secured and self._unfinished.wait(who, now):
            self._refuse(who, "too many handshakes unfinished")
            return None
        paces = self._secured if secured else self._plain
        wait = max(pace.wait(who, now) for pace in paces)
        if wait > self._patience:
            self._refuse(who, "too many a second")
            return None
        for pace in paces:
            pace.take(who, now)
        return wait

    def begin(self, address: str) -> bool:
        """Its turn has come for a handshake: whether it still may."""
        if not address:
            return True
        who, now = _network(address), time.monotonic()
        if self._unfinished.wait(who, now):
            self._refuse(who, "too many handshakes unfinished")
            return False
        self._unfinished.take(who, now)
        return True

    def finish(self, address: str) -> None:
        """A handshake that began is done."""
        self._unfinished.give_back(_network(address))

    def broke(self, address: str, why: str) -> None:
        """A handshake came to nothing, and not because somebody was gone: whoever runs this is told."""
        who = _network(address)
        self._refusals.say("TLS handshake failed", (who, why), peer=who, why=why)

    def _refuse(self, who: str, why: str) -> None:
        self._refusals.say("connection refused", who, peer=who, why=why)


@lru_cache(maxsize=1024)
def _network(address: str) -> str:
    """Whom an address stands for: of version 6 everybody has a whole /64."""
    if ":" not in address or "." in address:
        return address
    return str(ipaddress.ip_network((address.partition("%")[0], 64), strict=False))
