"""Notices when the peer of a link dies, by the socket itself: needed only towards the kernel.

Of every other provider's death the kernel tells; of the kernel's own nobody would.
"""

from __future__ import annotations

import asyncio
import contextlib

import zmq

from sagong.bus.link import Link

__all__ = ["wait_disconnected"]


async def wait_disconnected(link: Link) -> None:
    """Return when the link's socket lost its peer; the link is then failed."""
    monitor = link.raw.get_monitor_socket(zmq.Event.DISCONNECTED)
    loop = asyncio.get_running_loop()
    gone: asyncio.Future[None] = loop.create_future()
    fd = monitor.fileno()

    def look() -> None:
        with contextlib.suppress(zmq.ZMQError):
            monitor.recv_multipart(zmq.NOBLOCK)
            if not gone.done():
                gone.set_result(None)

    loop.add_reader(fd, look)
    look()
    try:
        await gone
    finally:
        loop.remove_reader(fd)
        with contextlib.suppress(zmq.ZMQError):
            link.raw.disable_monitor()
    link.fail()
