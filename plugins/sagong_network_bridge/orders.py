"""What the plugin tells a program of its own: JSON, and the sockets that go with it.

Only the standard library is imported here: the program has nothing else.
"""

from __future__ import annotations

import array
import json
import socket
from collections.abc import Iterator
from typing import Any

__all__ = ["MOST_SOCKETS", "orders"]

# An order has room for so many.
MOST_SOCKETS = 32


def orders(control: socket.socket) -> Iterator[tuple[dict[str, Any], list[int]]]:
    """All that has been said so far; EOFError when the plugin has gone."""
    while True:
        try:
            data, descriptors = _received(control)
        except BlockingIOError:
            return
        except ConnectionResetError:  # it was killed, and had not read all that it was told
            raise EOFError from None
        if not data:
            raise EOFError
        yield json.loads(data), descriptors


def _received(control: socket.socket) -> tuple[bytes, list[int]]:
    """A message with its descriptors; `recv_fds` of the standard library would not set CLOEXEC."""
    found = array.array("i")
    space = socket.CMSG_SPACE(MOST_SOCKETS * found.itemsize)
    data, ancillary, _, _ = control.recvmsg(1 << 20, space, socket.MSG_CMSG_CLOEXEC)
    for level, kind, raw in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(raw[: len(raw) - len(raw) % found.itemsize])
    return data, list(found)
