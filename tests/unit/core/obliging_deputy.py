"""A deputy for tests: it hands out files, fails, dawdles, and tries what it may not."""

from __future__ import annotations

import os
import signal
import socket
import time
from functools import partial

import msgspec

from sagong.deputy import Post, aside, attend
from sagong.linux import seccomp

__all__ = ["Dawdle", "Fail", "Open", "Reach", "serve"]


class Open(msgspec.Struct, frozen=True, tag=True):
    """A file of the plugin's data."""

    name: str


class Fail(msgspec.Struct, frozen=True, tag=True):
    """An error."""

    code: int


class Dawdle(msgspec.Struct, frozen=True, tag=True):
    """What takes long, aside."""

    seconds: float


class Reach(msgspec.Struct, frozen=True, tag=True):
    """Out into the network, which is not among its calls."""


def serve(channel: socket.socket, post: Post) -> None:
    """Be it."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    decoder = msgspec.msgpack.Decoder(Open | Fail | Dawdle | Reach)

    def work(
        request: Open | Fail | Dawdle | Reach, given: tuple[int, ...], found: list[int]
    ) -> None:
        match request:
            case Open(name):
                found.append(os.open(post.data / name, os.O_RDONLY | os.O_CLOEXEC))
            case Fail(code):
                found.append(os.open(post.data, os.O_RDONLY | os.O_CLOEXEC))
                raise OSError(code, "as you wish", str(post.settings["place"]))
            case Dawdle(seconds):
                aside(given[0], partial(time.sleep, seconds), lambda: None)
            case Reach():
                socket.socket(socket.AF_INET, socket.SOCK_STREAM)

    attend(channel, decoder.decode, work, (seccomp.rule_of("getdents64"),))
