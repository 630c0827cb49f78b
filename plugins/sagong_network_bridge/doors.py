"""The plugin's end of the locksmith: namespaces are made, opened and dropped by name. Blocking."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from sagong.deputy import Line
from sagong_network_bridge.locksmith import KINDS, Drop, Make, Open, Setting
from sagong_network_bridge.netlink import Channel
from sagong_network_bridge.user_namespace import Maps

__all__ = ["Doors", "Room"]


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
        self._line = Line(channel)

    @contextlib.contextmanager
    def make(
        self,
        pin: Path,
        sockets: tuple[str, ...],
        settings: tuple[Setting, ...],
        user: Maps | None = None,
    ) -> Iterator[Room]:
        """A new namespace; its pin goes again if what is done with it fails."""
        room = self._room(Make(pin.name, sockets, settings, user), sockets)
        try:
            yield room
        except BaseException:
            self.drop(pin)
            raise
        finally:
            room.close()

    @contextlib.contextmanager
    def open(
        self, pin: Path, sockets: tuple[str, ...] = (), settings: tuple[Setting, ...] = ()
    ) -> Iterator[Room]:
        """A namespace that is there."""
        room = self._room(Open(pin.name, sockets, settings), sockets)
        try:
            yield room
        finally:
            room.close()

    def drop(self, pin: Path) -> None:
        """Let a namespace go once nobody is in it; a pin that isn't there is no error."""
        self._line.ask(Drop(pin.name))

    def _room(self, request: Make | Open, sockets: tuple[str, ...]) -> Room:
        namespace, *inside = self._line.ask(request)
        return Room(namespace, dict(zip(sockets, inside, strict=True)))
