"""Byte streams beside the bus: addresses that slots hand out for logs, attach, exec and blobs.

The receiver connects to the Unix socket `path`, sends `token` and a newline, and then speaks what
`protocol` says: "raw" is plain bytes each way, end of file by half-close; "frames" is the framing
of `sagong.frames` (type, length, payload), which carries several streams, resizes and the end;
"file" is one byte that brings a descriptor of a file, open for reading (SCM_RIGHTS), and no more.
A token is good once and for thirty seconds.
"""

from __future__ import annotations

from sagong.contract import Message

__all__ = ["Address"]


class Address(Message):
    """Where a byte stream can be fetched, once."""

    path: str
    token: str
    protocol: str = "raw"
