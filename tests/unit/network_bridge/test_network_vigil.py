"""What the vigil has read nobody else will: it is done, also by one that ends."""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from typing import Any

from sagong_network_bridge.vigil import Vigil

# A question to the machine's kernel, whose answer makes the socket readable: RTM_GETLINK of index 1.
_ROUTE, _LINK = 0, struct.pack("=LHHLLBxHiLL", 32, 18, 1, 1, 0, 0, 0, 1, 0, 0)


class Overflown(socket.socket):
    """One that has lost notices, which the machine's kernel says by an error."""

    def recv(self, *_: Any) -> bytes:
        """Nothing but that."""
        super().recv(1 << 17)
        raise OSError(errno.ENOBUFS, "No buffer space available")


async def test_who_ends_does_what_it_has_noticed() -> None:
    given = Overflown(socket.AF_NETLINK, socket.SOCK_RAW, _ROUTE)
    given.bind((0, 0))
    given.send(_LINK)
    told: list[tuple[bool, bool]] = []

    def restore(*, ours: bool, lost: bool) -> None:
        told.append((ours, lost))

    vigil = Vigil("ours", restore, given)
    vigil.begin()
    for _ in range(5):
        await asyncio.sleep(0)  # it has read, and waits for more of the same change
    assert told == []
    vigil.end()
    assert told == [(False, True)]
