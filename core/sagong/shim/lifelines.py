"""Duplicates of descriptors that a program would miss (its terminal, its stdin), kept elsewhere.

The launcher keeps them while monitors live, so that a killed monitor neither hangs a terminal up
nor ends an input; monitors give them again to a new launcher.
"""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Any

from sagong.linux import process
from sagong.shim.directory import RunDirectory
from sagong.shim.messages import MessageReader, encode

__all__ = ["Deposit", "Lifelines", "ask_status", "deposit", "release"]

_SECONDS = 1.0
# Without an answer nobody will ever know how a process ended.
_ANSWER_SECONDS = 10.0


def deposit(directory: RunDirectory, key: str, name: str, descriptor: int) -> None:
    """Give the launcher a duplicate; without a launcher the plugin asks again later."""
    _send(directory, {"op": "hold", "key": key, "name": name}, (descriptor,))


def release(directory: RunDirectory, key: str, name: str = "") -> None:
    """The launcher closes its duplicate, or with no name all of the key."""
    _send(directory, {"op": "release", "key": key, "name": name}, ())


def _send(directory: RunDirectory, message: dict[str, Any], descriptors: tuple[int, ...]) -> None:
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
        channel.settimeout(_SECONDS)
        channel.connect(directory.launcher_socket)
        process.send_descriptors(channel, encode(message), descriptors)


def ask_status(directory: RunDirectory, pid: int, started: int) -> int | None:
    """The wait status of an orphan that the launcher reaped, if it did."""
    request = encode({"n": 1, "op": "status", "pid": pid, "started": started})
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
            channel.settimeout(_ANSWER_SECONDS)
            channel.connect(directory.launcher_socket)
            channel.sendall(request)
            reader = MessageReader()
            while data := channel.recv(4096):
                for message in reader.feed(data):
                    found = message.get("ok", {}).get("status")
                    return found if isinstance(found, int) else None
    except OSError:
        return None
    return None


class Deposit:
    """A container's lifelines, as its monitor gives them to the launcher and takes them back."""

    def __init__(self, directory: RunDirectory, key: str, container_id: str) -> None:
        self._directory = directory
        self._key = key
        self._id = container_id

    def give(self, session: str, kind: str, descriptor: int) -> None:
        """Let the launcher hold a duplicate."""
        deposit(self._directory, self._key, f"{self._id}/{session}/{kind}", descriptor)

    def take_back(self, session: str, kind: str) -> None:
        """The program has no use for it any more."""
        release(self._directory, self._key, f"{self._id}/{session}/{kind}")


class Lifelines:
    """What the launcher keeps: descriptors by monitor key and name."""

    def __init__(self) -> None:
        self._kept: dict[str, dict[str, int]] = {}

    def keep(self, key: str, name: str, descriptor: int) -> None:
        """Keep one; an older one of the same name is closed."""
        names = self._kept.setdefault(key, {})
        older = names.pop(name, None)
        if older is not None:
            os.close(older)
        names[name] = descriptor

    def drop(self, key: str, name: str = "") -> None:
        """Close one, or all of a key."""
        names = self._kept.get(key, {})
        for known in [name] if name else list(names):
            descriptor = names.pop(known, None)
            if descriptor is not None:
                os.close(descriptor)
        if not names:
            self._kept.pop(key, None)

    def bequeath(self, key: str) -> dict[str, int]:
        """In a forked monitor: its own stay, all others are closed."""
        mine = self._kept.pop(key, {})
        for other in list(self._kept):
            self.drop(other)
        return mine
