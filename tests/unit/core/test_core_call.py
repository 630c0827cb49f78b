"""Work that goes on when who waits for it is cancelled."""

from __future__ import annotations

import asyncio
import gc

import pytest

from sagong.call import carried
from sagong.errors import Unavailable


async def abandoned(error: Exception) -> bool:
    """Work fails after who waited for it was cancelled; whether it came to its end."""
    go_on, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        await go_on.wait()
        ended.set()
        raise error

    waiting = asyncio.create_task(carried(asyncio.create_task(work())))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    del waiting
    go_on.set()
    await ended.wait()
    await asyncio.sleep(0)
    gc.collect()
    return ended.is_set()


@pytest.mark.parametrize("error", [Unavailable("it went away"), ConnectionResetError("gone")])
async def test_a_failure_that_nobody_waits_for_is_no_complaint(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    assert await abandoned(error)
    assert not caplog.records


async def test_a_defect_that_nobody_waits_for_is_told(caplog: pytest.LogCaptureFixture) -> None:
    assert await abandoned(ValueError("a defect"))
    (record,) = caplog.records
    assert record.exc_info
    assert "defect" in record.getMessage()


async def test_who_waits_is_told_of_a_failure() -> None:
    async def work() -> None:
        raise Unavailable("it went away")

    with pytest.raises(Unavailable):
        await carried(asyncio.create_task(work()))
