"""`sagong swap` and `sagong restart`."""

from __future__ import annotations

import argparse
import asyncio

from sagong.config import Paths
from sagong.contracts.kernel import SwapRequest, UnitRef
from sagong.operator import connect

__all__ = ["restart_arguments", "run_restart", "run_swap", "swap_arguments"]


def swap_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `swap`."""
    parser.add_argument("unit", help="what is to be replaced: scheduler, image, docker, …")
    parser.add_argument("plugin", nargs="?", default="", help="by what; the same anew if left out")
    parser.add_argument("--quiet", action="store_true", help="say nothing but errors")


def restart_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `restart`."""
    parser.add_argument("unit")


def run_swap(options: argparse.Namespace) -> int:
    """Swap live, showing each step."""

    async def go() -> None:
        async with connect(Paths.below(options.root)) as operator:
            request = SwapRequest(unit=options.unit, plugin=options.plugin)
            async for step in operator.kernel.swap(request):
                if not options.quiet:
                    print(f"{options.unit}: {step.text}")

    asyncio.run(go())
    return 0


def run_restart(options: argparse.Namespace) -> int:
    """Start a unit anew."""

    async def go() -> None:
        async with connect(Paths.below(options.root)) as operator:
            await operator.kernel.restart(UnitRef(unit=options.unit))

    asyncio.run(go())
    print(f"{options.unit}: restarted")
    return 0
