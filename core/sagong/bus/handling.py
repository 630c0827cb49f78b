"""What handlers do beside answering: items of streams, and errors that no contract names."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

from sagong.errors import FailedPrecondition, Internal, ResourceExhausted, SagongError
from sagong.failures import FULL, no_room

__all__ = ["defect", "items_of", "unbound"]

_LOG = logging.getLogger("sagong.bus")


def items_of(function: Callable[..., Any], arguments: Iterable[Any]) -> Any:
    """A stream's items; a plain function that gives them may fail before there is any."""
    try:
        items = function(*arguments)
        return items if hasattr(items, "aclose") else _closable(items)
    except SagongError:
        raise
    except Exception as error:
        raise defect(function, error) from error


async def _closable(items: Any) -> AsyncIterator[Any]:
    """An iterator that is no generator."""
    async for item in items:
        yield item


def defect(function: Any, error: Exception) -> SagongError:
    """What a handler raised though its contract does not name it; a full disk is nobody's defect."""
    where = getattr(function, "__qualname__", repr(function))
    if (full := no_room(where, error)) is not None:
        return full
    _LOG.error("defect in %s", where, exc_info=error)
    return Internal(f"{where}: {type(error).__name__}: {error}")


def unbound(path: str, number: int | None) -> SagongError:
    """Why a provider's socket can't be made; a filesystem may have blocks free, and no inode."""
    reason = os.strerror(number or 0)
    if number in FULL:
        place = os.path.dirname(path)
        return ResourceExhausted(
            f"no socket can be made at {path}: {reason}; free space there, or files (df -i {place})"
        )
    return FailedPrecondition(f"no socket can be made at {path}: {reason}")
