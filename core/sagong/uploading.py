"""Sends a file's bytes beside the bus, to an address that a slot has handed out (`Images.upload`)."""

from __future__ import annotations

import asyncio
from typing import BinaryIO

from sagong.contracts.streams import Address

__all__ = ["send_file"]

_BLOCK = 1 << 20


async def send_file(address: Address, file: BinaryIO) -> None:
    """All of it; the half-close tells that it is complete."""
    _, writer = await asyncio.open_unix_connection(address.path)
    try:
        writer.write(address.token.encode() + b"\n")
        while block := file.read(_BLOCK):
            writer.write(block)
            await writer.drain()
        writer.write_eof()
        await writer.drain()
    finally:
        writer.close()
