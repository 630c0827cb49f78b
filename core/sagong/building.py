"""Follows a build beside the bus: frames from `Builder.build`'s address, as items and errors.

The builder sends frames of `sagong.frames` whose types are those of `Told`, their payloads MessagePack;
the last one is END or FAILURE. Whoever closes the connection before ends the build.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from enum import IntEnum

import msgspec

from sagong.contract import Message
from sagong.contracts.builder import BuildProgress
from sagong.contracts.streams import Address
from sagong.errors import SagongError, Unavailable, from_code
from sagong.frames import pack
from sagong.streams import framed

__all__ = ["Told", "failure", "follow", "item"]


class Told(IntEnum):
    """Types of frames."""

    ITEM = 32
    FAILURE = 33
    END = 34


class Failure(Message):
    """The error that ended a build."""

    code: str
    message: str
    detail: dict[str, str] = {}


def item(progress: BuildProgress) -> bytes:
    """A frame of progress."""
    return pack(Told.ITEM, msgspec.msgpack.encode(progress))


def failure(error: SagongError) -> bytes:
    """The frame of an error."""
    told = Failure(code=error.code, message=error.message, detail=error.detail)
    return pack(Told.FAILURE, msgspec.msgpack.encode(told))


async def follow(address: Address) -> AsyncGenerator[BuildProgress, None]:
    """What the builder tells, to its end; raises what ended it otherwise.

    Unavailable when the builder is gone before it has told the end.
    """
    async with framed(address) as frames:
        async for kind, payload in frames:
            if kind == Told.ITEM:
                yield msgspec.msgpack.decode(payload, type=BuildProgress)
            elif kind == Told.FAILURE:
                told = msgspec.msgpack.decode(payload, type=Failure)
                raise from_code(told.code, told.message, told.detail)
            elif kind == Told.END:
                return
    raise Unavailable("the builder was lost", maybe_executed=True)
