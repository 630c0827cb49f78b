"""Units that fall asleep and wake, as the kernel tells of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from sagong.contracts.kernel import StatusQuery, UnitStatus
from sagong.operator import Operator

__all__ = ["unit_of", "wait_unit_of"]


async def unit_of(operator: Operator, name: str) -> UnitStatus:
    """As `sagong status` shows it."""
    status = await operator.kernel.status(StatusQuery())
    return next(u for u in status.units if u.name == name)


async def wait_unit_of(
    operator: Operator, name: str, holds: Callable[[UnitStatus], bool]
) -> UnitStatus:
    """Until it is so."""
    limit = time.monotonic() + 30
    while not holds(found := await unit_of(operator, name)):
        assert time.monotonic() < limit, found
        await asyncio.sleep(0.01)
    return found
