"""How long who removes itself is left after its end."""

from __future__ import annotations

import asyncio
import time

from sagong_node.partings import moment


async def test_the_moment_after_an_end_is_longer_where_there_is_no_core() -> None:
    """On a starving machine its client asked too late: half a second was two turns of the node."""
    turns = 0

    async def starve() -> None:
        nonlocal turns
        while True:
            turns += 1
            time.sleep(0.3)
            await asyncio.sleep(0)

    starving = asyncio.create_task(starve())
    await moment()
    starving.cancel()
    assert turns >= 8
