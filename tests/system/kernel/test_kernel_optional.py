"""What a unit can do without: calls say at once that it is not there, and are served once it is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from nap_contract import Nudge

from sagong.errors import SagongError, Unavailable
from sagong.operator import connect
from tests.system.instance import instance

pytestmark = pytest.mark.root

CONFIGURATION = """
profile = "bare"
[units.nudge]
plugin = "napper_caller"
"""


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait for something, for a minute."""
    async with asyncio.timeout(60.0):
        while not await holds():
            await asyncio.sleep(0.05)


async def test_calls_of_what_is_not_there_fail_at_once_until_it_is() -> None:
    with instance(CONFIGURATION) as running:
        async with connect(running.paths) as operator:
            nudge = await operator.use(Nudge)

            async def refused() -> bool:
                try:
                    await nudge.ring()
                except SagongError as error:
                    return isinstance(error, Unavailable) and "nothing provides it" in error.message
                return False

            async def rings() -> bool:
                return not await refused()

            async def hears() -> bool:
                await nudge.ring()
                return (await nudge.heard()).value > 0

            assert await refused()
            running.run("enable", "nap", "--plugin", "napper")
            await until(rings)
            await until(hears)
            running.run("disable", "--force", "nap")
            await until(refused)
            running.run("enable", "nap")
            await until(rings)
