"""`sagong upgrade`: take the installed code into use, part by part, while everything runs."""

from __future__ import annotations

import argparse
import asyncio
import time

from sagong.call import deadline
from sagong.config import Paths
from sagong.contracts.kernel import PartRef, StatusQuery, SwapRequest, SystemStatus
from sagong.errors import FailedPrecondition, NotFound, SagongError
from sagong.operator import Operator, connect

__all__ = ["run_upgrade", "upgrade_arguments"]

_READY_SECONDS = 30.0


def upgrade_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `upgrade`."""
    parser.add_argument(
        "part", nargs="?", default="", help="kernel, a unit, or UNIT-companion; all if left out"
    )
    parser.add_argument(
        "--trial", type=float, default=1.0, metavar="SECONDS", help="of each unit (default: 1)"
    )


def run_upgrade(options: argparse.Namespace) -> int:
    """Take the installed code into use, part by part, until one fails."""
    return asyncio.run(_upgrade(Paths.below(options.root), options.part, options.trial))


async def _upgrade(paths: Paths, part: str, trial: float) -> int:
    """Kernel and zygote first: all that is started afterwards is a fork of the new code."""
    async with connect(paths) as operator:
        status = await operator.kernel.status(StatusQuery())
        ordered = [unit.name for unit in sorted(status.units, key=lambda unit: unit.rank)]
        companions = [p.unit for p in status.others if p.unit.endswith("-companion")]
        parts = ["kernel", *ordered, *companions]
        if part and part not in parts:
            raise NotFound(f"no part {part}; there are {', '.join(parts)}")
        done: list[str] = []
        for name in [part] if part else parts:
            try:
                if name in ordered and not await _is_there(operator, name):
                    print(f"{name}: not configured any more", flush=True)
                    continue
                await _renew(operator, name, trial, is_unit=name in ordered)
            except SagongError as error:
                told = f"{', '.join(done) or 'nothing'} upgraded before; all else is as it was"
                raise FailedPrecondition(f"{name}: {error.message}; {told}") from error
            done.append(name)
            print(f"{name}: upgraded", flush=True)
    return 0


async def _is_there(operator: Operator, unit: str) -> bool:
    """A new kernel has read the configuration anew."""
    status = await operator.kernel.status(StatusQuery())
    return any(found.name == unit for found in status.units)


async def _renew(operator: Operator, name: str, trial: float, *, is_unit: bool) -> None:
    if is_unit:
        async for _ in operator.kernel.swap(SwapRequest(unit=name, trial=trial, wait=True)):
            pass
        return
    before = _pid(await operator.kernel.status(StatusQuery()), name)
    await operator.kernel.renew(PartRef(part=name))
    await _wait_renewed(operator, name, before)


async def _wait_renewed(operator: Operator, name: str, before: int) -> None:
    """Until another process is there, and everything serves."""
    limit = time.monotonic() + _READY_SECONDS
    problem = "no answer"
    while time.monotonic() < limit:
        try:
            with deadline(2.0):
                status = await operator.kernel.status(StatusQuery())
        except SagongError as error:
            problem = error.message
        else:
            if status.ready and _pid(status, name) not in (0, before):
                return
            problem = "; ".join(u.problem for u in status.units if u.problem) or "not ready"
        await asyncio.sleep(0.05)
    raise FailedPrecondition(f"it is not back after {_READY_SECONDS:.0f} s: {problem}")


def _pid(status: SystemStatus, name: str) -> int:
    return next((p.pid for p in status.others if p.unit == name), 0)
