"""Load on a scheduler: callers in a loop whose answers are checked and whose errors are kept."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from sagong.contracts.scheduler import Question, Scheduler, Verdict
from sagong.operator import Operator, connect
from tests.system.instance import Instance

QUESTION = Question(
    pods=(b'{"metadata":{"name":"p","namespace":"default"}}',),
    nodes=(
        b'{"metadata":{"name":"n"},'
        b'"status":{"allocatable":{"cpu":"4","memory":"8Gi","pods":"110"}}}',
    ),
)


@dataclass
class Load:
    """64 callers in a loop; every answer is checked, every error counted."""

    scheduler: Scheduler
    answers: int = 0
    wrong: int = 0
    errors: list[BaseException] = field(default_factory=list)
    longest: float = 0.0
    stopping: bool = False

    async def call(self) -> None:
        """One caller."""
        while not self.stopping:
            began = time.monotonic()
            try:
                verdict = await self.scheduler.place(QUESTION)
            except Exception as error:
                self.errors.append(error)
                continue
            self.longest = max(self.longest, time.monotonic() - began)
            self.answers += 1
            self.wrong += not right(verdict)


def right(verdict: Verdict) -> bool:
    """The one answer there is."""
    return [(p.name, p.node) for p in verdict.placements] == [("p", "n")]


@contextlib.asynccontextmanager
async def loaded(running: Instance, callers: int = 16) -> AsyncIterator[tuple[Operator, Load]]:
    """An operator, and load on the scheduler until the end of the block; no call may have failed."""
    async with connect(running.paths) as operator:
        load = Load(await operator.use(Scheduler))
        tasks = [asyncio.create_task(load.call()) for _ in range(callers)]
        try:
            yield operator, load
        finally:
            load.stopping = True
            await asyncio.gather(*tasks)
    assert load.errors == []
    assert load.wrong == 0
