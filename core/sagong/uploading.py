"""Sends a file's bytes beside the bus, to an address that a slot has handed out (`Images.upload`)."""

from __future__ import annotations

from typing import BinaryIO

from sagong.contracts.streams import Address
from sagong.streams import connected

__all__ = ["send_file"]

_BLOCK = 1 << 20


async def send_file(address: Address, file: BinaryIO) -> None:
    """All of it; the half-close tells that it is complete."""
    async with connected(address) as link:
        while (block := file.read(_BLOCK)) and await link.write(block):
            continue
        link.end()
