"""Who sent a message, as the operating system says it."""

from __future__ import annotations

import zmq

__all__ = ["descriptor_of", "uid_of"]


def descriptor_of(frame: zmq.Frame) -> int:
    """The connection that a message came by."""
    try:
        return int(str(frame.get("__fd")))
    except (ValueError, zmq.ZMQError):
        return -1


def uid_of(frame: zmq.Frame) -> int:
    """The peer's uid as the operating system says it: Peer-Address is `localhost:uid:gid:pid`."""
    try:
        return int(str(frame.get("Peer-Address")).split(":")[1])
    except (IndexError, ValueError, zmq.ZMQError):
        return -1
