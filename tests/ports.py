"""Ports of this machine for tests that must know one before somebody listens on it."""

from __future__ import annotations

import random
import socket

__all__ = ["free_port"]

# Below those that the kernel gives to connections, and to whoever names none: they come and go.
_RANGE = range(22000, 30000)
_GIVEN: list[socket.socket] = []


def free_port() -> int:
    """One that nobody uses at any address, and that no test is given until this process ends."""
    for port in random.sample(_RANGE, len(_RANGE)):
        mark = socket.socket(socket.AF_UNIX)
        try:
            mark.bind(f"\0sagong-tests-port-{port}")
            _probe(port)
        except OSError:
            mark.close()
        else:
            _GIVEN.append(mark)
            return port
    raise RuntimeError(f"all ports from {_RANGE.start} to {_RANGE.stop - 1} are in use")


def _probe(port: int) -> None:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            probe.bind(("0.0.0.0", port))
