"""Sight: reports and spans of all processes, asked for when somebody looks, and never otherwise."""

from __future__ import annotations

import asyncio
import time
from typing import TypeVar

import msgspec

from sagong.bus import Provider
from sagong.contracts.kernel import (
    Order,
    ProcessReport,
    ReportQuery,
    SpanList,
    SpanQuery,
    SystemReport,
    Tracing,
)
from sagong.errors import SagongError
from sagong.kernel.population import Process
from sagong.kernel.supervisor import Supervisor
from sagong.report import account
from sagong.tracing import RECORDER

__all__ = ["Sight"]

A = TypeVar("A")
_ANSWER_SECONDS = 2.0


class Sight:
    """Asks every process at once; who does not answer soon is named and left out."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._provider: Provider | None = None
        self._end: asyncio.TimerHandle | None = None

    def observe(self, provider: Provider) -> None:
        """The kernel's own provider is reported, too."""
        self._provider = provider

    async def report(self, query: ReportQuery) -> SystemReport:
        """What every process has done."""
        asked = [p for p in self._known() if not query.units or p.unit.name in query.units]
        answers = await self._ask(asked, "report", b"", ProcessReport)
        found = [answer for answer in answers.values() if answer is not None]
        if not query.units or "kernel" in query.units:
            found.append(account("kernel", "", 0, self._provider))
        silent = tuple(p.unit.name for p, answer in answers.items() if answer is None)
        return SystemReport(at=time.time(), processes=tuple(found), silent=silent)

    def trace(self, tracing: Tracing) -> None:
        """Switch the recording of spans, here and in every process there is and will be."""
        if self._end is not None:
            self._end.cancel()
            self._end = None
        RECORDER.unit = "kernel"
        RECORDER.switch(on=tracing.on)
        self._supervisor.tracing = tracing.on
        for process in self._known():
            process.tell(Order(id=0, tracing=tracing.on))
        if tracing.on:
            off = Tracing(on=False)
            self._end = asyncio.get_running_loop().call_later(tracing.seconds, self.trace, off)

    async def spans(self, query: SpanQuery) -> SpanList:
        """Spans of all processes, by time."""
        cause = query.cause.encode()
        answers = await self._ask(self._known(), "spans", cause, SpanList)
        found = list(RECORDER.of(query.cause))
        for answer in answers.values():
            found.extend(answer.spans if answer is not None else ())
        return SpanList(spans=tuple(sorted(found, key=lambda span: span.began)))

    def _known(self) -> list[Process]:
        return [p for p in self._supervisor.population if p.attended.is_set()]

    async def _ask(
        self, processes: list[Process], action: str, state: bytes, kind: type[A]
    ) -> dict[Process, A | None]:
        """Each process's answer to an order, None where there is none in time."""

        async def ask(process: Process) -> A | None:
            order = self._supervisor.population.order(action, state=state)
            try:
                done = await process.carry_out(order, _ANSWER_SECONDS)
                return msgspec.msgpack.decode(done.state, type=kind)
            except (SagongError, msgspec.MsgspecError):
                return None

        return dict(zip(processes, await asyncio.gather(*map(ask, processes))))
