"""The plugin's end of the locksmith: namespaces are made, opened and dropped by name. Blocking."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from sagong.deputy import Line
from sagong_network_bridge.locksmith import KINDS, Drop, Make, Open, Setting
from sagong_network_bridge.netlink import Channel
from sagong_network_bridge.user_namespace import Maps

__all__ = ["MOST", "Doors", "Room"]

# Namespaces that are made by one request: a message carries 253 descriptors at most (SCM_MAX_FD).
MOST = 16


class Room:
    """An open namespace: its descriptor, and sockets that were opened inside, each taken once."""

    def __init__(self, namespace: int, sockets: dict[str, int]) -> None:
        self.namespace = namespace
        self._sockets = sockets

    def channel(self, kind: str) -> Channel:
        """A netlink socket: "route" or "filter"."""
        return Channel(opened=self.socket(kind))

    def socket(self, kind: str) -> socket.socket:
        """One of the others."""
        return socket.socket(*KINDS[kind], fileno=self._sockets.pop(kind))

    def close(self) -> None:
        """Let go of it, and of what nobody took."""
        os.close(self.namespace)
        for descriptor in self._sockets.values():
            os.close(descriptor)
        self._sockets = {}


class Doors:
    """Asks the locksmith."""

    def __init__(self, channel: socket.socket) -> None:
        self._line = Line(channel, most=MOST * (1 + len(KINDS)))

    @contextlib.contextmanager
    def make(
        self,
        pins: Sequence[Path],
        sockets: tuple[str, ...],
        settings: tuple[Setting, ...],
        user: Maps | None = None,
    ) -> Iterator[list[Room]]:
        """New namespaces; their pins go again if what is done with one of them fails."""
        request = Make(tuple(pin.name for pin in pins), sockets, settings, user)
        rooms = self._rooms(request, sockets)
        try:
            yield rooms
        except BaseException:
            self.drop(pins)
            raise
        finally:
            for room in rooms:
                room.close()

    @contextlib.contextmanager
    def open(
        self, pin: Path, sockets: tuple[str, ...] = (), settings: tuple[Setting, ...] = ()
    ) -> Iterator[Room]:
        """A namespace that is there."""
        (room,) = self._rooms(Open(pin.name, sockets, settings), sockets)
        try:
            yield room
        finally:
            room.close()

    def drop(self, pins: Iterable[Path]) -> None:
        """Let namespaces go once nobody is in them; a pin that isn't there is no error."""
        self._line.ask(Drop(tuple(pin.name for pin in pins)))

    def _rooms(self, request: Make | Open, sockets: tuple[str, ...]) -> list[Room]:
        found = self._line.ask(request)
        each = 1 + len(sockets)
        return [
            Room(found[at], dict(zip(sockets, found[at + 1 : at + each], strict=True)))
            for at in range(0, len(found), each)
        ]
