"""The call being served or made: its deadline, cause and caller, carried by context variables.

A handler's outgoing calls inherit the deadline and the cause of the call it serves, so nobody
passes them by hand; `deadline(seconds)` narrows, `detached()` starts a cause of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar, Token
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace

from sagong.errors import SagongError, Unavailable

__all__ = [
    "Call",
    "PassedOn",
    "carried",
    "current",
    "deadline",
    "detached",
    "leaving",
    "outliving",
    "remaining",
    "serving",
]

_LOG = logging.getLogger("sagong")
T = TypeVar("T")


Rules = tuple[dict[str, tuple[str, ...]], ...]


class Call(msgspec.Struct, frozen=True):
    """`deadline` is CLOCK_MONOTONIC in nanoseconds (0: none); `cause` a trace id ("" if none).

    `caller` is the name of the process that called, `uid` what the operating system says of it,
    `rules` what its manifest says of its calls of this slot (None: no bounds, as for the operator).
    `children` numbers the calls made on its behalf while it is traced (see `sagong.tracing`).
    """

    deadline: int = 0
    cause: str = ""
    caller: str = ""
    uid: int = -1
    rules: Rules | None = None
    children: Iterator[int] | None = None

    def cause_of_child(self) -> str:
        """The cause that the next call on its behalf carries."""
        return self.cause if self.children is None else f"{self.cause}.{next(self.children)}"


class PassedOn(Unavailable):
    """Raised by a handler that waits while its process drains: the caller asks the successor.

    For what may go on for long and does no harm when it is begun anew. It is the handler's word that
    the call, done so far, can be asked again, whatever the contract says of crashes.
    """


_NOBODY = Call()
_CURRENT: ContextVar[Call] = ContextVar("sagong_call", default=_NOBODY)


def current() -> Call:
    """The call that this task serves; an empty one outside of any."""
    return _CURRENT.get()


def remaining(default: float) -> float:
    """Seconds until the current deadline, at most `default`; may be zero or less."""
    limit = _CURRENT.get().deadline
    return default if not limit else min(default, (limit - time.monotonic_ns()) / 1e9)


class serving:
    """Make `call` the current one, for the block. A class: each call on the bus takes this way."""

    __slots__ = ("_call", "_token")

    def __init__(self, call: Call) -> None:
        self._call = call

    def __enter__(self) -> None:
        self._token: Token[Call] = _CURRENT.set(self._call)

    def __exit__(self, *failure: object) -> None:
        _CURRENT.reset(self._token)


def deadline(seconds: float) -> serving:
    """Give the calls made inside at most `seconds`, from now on; an earlier deadline stays."""
    now = _CURRENT.get()
    limit = time.monotonic_ns() + int(seconds * 1e9)
    limit = min(limit, now.deadline) if now.deadline else limit
    return serving(replace(now, deadline=limit))


def detached(cause: str = "") -> serving:
    """Leave the current call: no deadline, a cause of its own. For loops and background work."""
    return serving(Call(cause=cause))


def outliving(call: Call) -> serving:
    """Go on after the answer of a call: for its cause, without its deadline."""
    return serving(replace(call, deadline=0))


@contextlib.asynccontextmanager
async def leaving(stream: AsyncIterator[T]) -> AsyncIterator[AsyncIterator[T]]:
    """A stream of a slot that is left at the end of the block, not whenever it is collected."""
    try:
        yield stream
    finally:
        close = getattr(stream, "aclose", None)
        if close is not None:
            await close()


async def carried(work: asyncio.Future[T]) -> T:
    """What work comes to that goes on when who waits for it is cancelled.

    Its failure is then nobody's, and logged only if it is a defect. `asyncio.shield` alone has it
    logged, whatever it is, as an exception that was not retrieved.
    """
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        work.add_done_callback(_unheard)
        raise


def _unheard(work: asyncio.Future[Any]) -> None:
    error = None if work.cancelled() else work.exception()
    if error is not None and not isinstance(error, SagongError | OSError):
        _LOG.error("a defect in what nobody waits for any more", exc_info=error)
