"""Notices of the kernel about nftables: our table gone, or a foreign FORWARD chain changed."""

from __future__ import annotations

import asyncio
import socket
from typing import Protocol

from sagong_network_bridge.neighbours import CHAIN
from sagong_network_bridge.netlink import NETFILTER, Channel, attributes

__all__ = ["Vigil"]

_GROUP = 7
_DELETED_TABLE, _NEW_CHAIN, _NEW_RULE, _DELETED_RULE = 0xA02, 0xA03, 0xA06, 0xA08
# Which attribute names the chain.
_CHAIN_OF = {_NEW_CHAIN: 3, _NEW_RULE: 2, _DELETED_RULE: 2}
_PAUSE = 0.05


class Restore(Protocol):
    """What is done then; `ours` if our own table was removed, `lost` if that may have been missed."""

    def __call__(self, *, ours: bool, lost: bool) -> None: ...


class Vigil:
    """Waits for notices; several of one change are one.

    They come by a socket that is `given`, where what came for no process waits, or one of its own.
    """

    def __init__(self, table: str, restore: Restore, given: socket.socket | None = None) -> None:
        self._table = table
        self._restore = restore
        self._given = given
        self._channel: Channel | None = None
        self._ours = self._lost = False
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Listen from now on."""
        self._channel = Channel(NETFILTER, large=True, opened=self._given)
        if self._given is None:
            self._channel.subscribe(_GROUP)
        asyncio.get_running_loop().add_reader(self._channel.fileno(), self._read)

    def end(self) -> None:
        """Listen no more; what was noticed is done, since nobody else hears of it."""
        if self._channel is not None:
            asyncio.get_running_loop().remove_reader(self._channel.fileno())
            self._channel.close()
            self._channel = None
        if self._timer is not None:
            self._timer.cancel()
            self._act()

    def _read(self) -> None:
        assert self._channel is not None
        try:
            for kind, payload in self._channel.notices():
                self._judge(kind, payload)
        except OSError:
            self._later(lost=True)

    def _judge(self, kind: int, payload: bytes) -> None:
        if kind == _DELETED_TABLE:
            if payload[0] == 1 and _text(payload, 1) == self._table:
                self._later(ours=True)
        elif kind in _CHAIN_OF and _text(payload, _CHAIN_OF[kind]) == CHAIN:
            self._later()

    def _later(self, *, ours: bool = False, lost: bool = False) -> None:
        self._ours, self._lost = self._ours or ours, self._lost or lost
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(_PAUSE, self._act)

    def _act(self) -> None:
        self._timer = None
        ours, lost, self._ours, self._lost = self._ours, self._lost, False, False
        self._restore(ours=ours, lost=lost)


def _text(payload: bytes, kind: int) -> str:
    return attributes(payload, 4).get(kind, b"").rstrip(b"\0").decode()
