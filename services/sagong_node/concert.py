"""Calls that go at once: all of them done, or the one error to tell."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

from sagong.errors import SagongError

__all__ = ["first_error", "together"]


async def together(*work: Coroutine[object, object, object]) -> None:
    """Do all at once; when one fails the others are given up and its error is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            for one in work:
                group.create_task(one)
    except BaseExceptionGroup as failures:
        raise first_error(failures) from None


def first_error(group: BaseExceptionGroup[BaseException]) -> SagongError:
    """The error to tell, when several parts failed together."""
    for error in group.exceptions:
        if isinstance(error, SagongError):
            return error
    raise group
