"""Byte streams beside the bus: addresses that slots hand out for logs, attach, exec and blobs.

The receiver connects to the Unix socket `path`, sends `token` and a newline, and then speaks what
`protocol` says: "raw" is plain bytes each way, end of file by half-close; "frames" is the framing
of `sagong.frames` (type, length, payload), which carries several streams, resizes and the end;
"file" is one byte that brings a descriptor of a file, open for reading (SCM_RIGHTS), and no more;
"whole" is plain bytes to who connects, whose break is no end, and "upload" those from who connects,
which can go on after one: below.
A token is good once and for thirty seconds.

Who fetches what is "whole" sends one byte more behind the newline. The provider takes it when all has
been sent: if it ends before, or fails, the kernel resets the connection, since a byte was not read.
What was asked for can be asked again, to go on behind what has come.

Whoever takes an upload says `KEPT` when all of it has come, and closes. Its token is good as long as
it is waited for. Who was not told so connects again, perhaps to a successor by then, reads a line with
the number of bytes that have come so far, and sends the rest; or hears `KEPT` if all had come.
"""

from __future__ import annotations

from typing import Final

from sagong.contract import Message

__all__ = ["KEPT", "Address"]

KEPT: Final = b"kept\n"


class Address(Message):
    """Where a byte stream can be fetched, once."""

    path: str
    token: str
    protocol: str = "raw"
