"""Probes a running container again and again and tells what follows: started, ready, sick."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import msgspec

from sagong.model.k8s.core_v1 import Probe
from sagong_node.pods.execution import Executor
from sagong_node.pods.probing import Target, probe

__all__ = ["Run", "Verdict", "judge", "watch", "watch_all"]

# A server that has just been started is looked at sooner; these looks count only when they succeed.
_EARLY = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8)


class Run(msgspec.Struct, frozen=True):
    """A row of equal results."""

    success: bool = False
    length: int = 0


class Verdict(msgspec.Struct, frozen=True):
    """`success` None: not decided yet. `message` is what the last failing look saw."""

    success: bool | None
    failed: bool = False
    message: str = ""


def judge(run: Run, success: bool, spec: Probe) -> tuple[Run, bool | None]:
    """The row with one more result, and the verdict if a threshold is reached. Pure."""
    run = Run(success, run.length + 1 if run.success == success else 1)
    threshold = (spec.success_threshold or 1) if success else (spec.failure_threshold or 3)
    return run, success if run.length >= threshold else None


async def watch(
    node: Executor, spec: Probe, target: Target, *, eager: bool
) -> AsyncIterator[Verdict]:
    """Verdicts, one after each look; `eager` looks sooner in the first period."""
    await asyncio.sleep(spec.initial_delay_seconds)
    period = float(spec.period_seconds or 10)
    if eager and not spec.exec and (spec.success_threshold or 1) == 1:
        for pause in _EARLY:
            await asyncio.sleep(min(pause, period))
            success, _ = await probe(node, spec, target)
            if success:
                yield Verdict(True)
                await asyncio.sleep(period)
                break
    run = Run()
    while True:
        success, message = await probe(node, spec, target)
        run, verdict = judge(run, success, spec)
        yield Verdict(verdict, failed=not success, message=message)
        await asyncio.sleep(period)


Tell = Callable[[str, Verdict], None]


async def watch_all(
    node: Executor,
    target: Target,
    tell: Tell,
) -> None:
    """Follow a container's probes: startup first, then the others beside each other."""
    container = target.container
    if container.startup_probe is not None:
        async for verdict in watch(node, container.startup_probe, target, eager=True):
            tell("startup", verdict)
            if verdict.success is not None:
                if not verdict.success:
                    return
                break
    async with asyncio.TaskGroup() as group:
        if container.readiness_probe is not None:
            group.create_task(_tell_all(node, container.readiness_probe, target, tell, "readiness"))
        if container.liveness_probe is not None:
            group.create_task(_tell_all(node, container.liveness_probe, target, tell, "liveness"))


async def _tell_all(node: Executor, spec: Probe, target: Target, tell: Tell, kind: str) -> None:
    async for verdict in watch(node, spec, target, eager=kind == "readiness"):
        tell(kind, verdict)
        if kind == "liveness" and verdict.success is False:
            return
