"""Units that fall asleep and wake, as the kernel tells of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from sagong.contracts.kernel import StatusQuery, UnitStatus
from sagong.operator import Operator
from tests.system.instance import Instance

__all__ = ["unit_of", "wait_unit_of", "wait_wakings", "wakings", "woken"]


async def unit_of(operator: Operator, name: str) -> UnitStatus:
    """As `sagong status` shows it."""
    status = await operator.kernel.status(StatusQuery())
    return next(u for u in status.units if u.name == name)


async def wait_unit_of(
    operator: Operator, name: str, holds: Callable[[UnitStatus], bool]
) -> UnitStatus:
    """Until it is so."""
    limit = time.monotonic() + 60
    while not holds(found := await unit_of(operator, name)):
        assert time.monotonic() < limit, found
        await asyncio.sleep(0.01)
    return found


def wakings(running: Instance, name: str) -> int:
    """How often a unit began to serve: also if it slept again before anybody looked."""
    log = (running.paths.run / "log" / "kernel.log").read_text()
    return log.count(f'unit serves unit="{name}" ')


async def wait_wakings(running: Instance, name: str, count: int) -> None:
    """Until it has begun to serve so often."""
    limit = time.monotonic() + 60
    while wakings(running, name) < count:
        assert time.monotonic() < limit, f"{name} does not wake\n{running.logs()}"
        await asyncio.sleep(0.01)


@asynccontextmanager
async def woken(running: Instance, operator: Operator, name: str) -> AsyncIterator[None]:
    """What the block does wakes it; then it sleeps again, and nothing of it is left."""
    before = wakings(running, name)
    yield
    await wait_wakings(running, name, before + 1)
    await wait_unit_of(operator, name, lambda u: u.state == "asleep" and not u.processes)
