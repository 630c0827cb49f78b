"""`sagong swap`, `enable`, `disable` and `restart`."""

from __future__ import annotations

import argparse
import asyncio
import json
import tomllib
from collections.abc import Iterable
from typing import Any

from sagong.cli.rehearsal import rehearse
from sagong.config import Paths
from sagong.contracts.kernel import DisableRequest, SwapRequest, UnitRef, UnitSpec
from sagong.errors import InvalidArgument, NotFound
from sagong.operator import connect

__all__ = [
    "disable_arguments",
    "enable_arguments",
    "restart_arguments",
    "run_disable",
    "run_enable",
    "run_restart",
    "run_swap",
    "swap_arguments",
]


def swap_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `swap`."""
    parser.add_argument("unit", help="what is to be replaced: scheduler, image, docker, …")
    parser.add_argument("plugin", nargs="?", default="", help="by what; the same anew if left out")
    parser.add_argument("--quiet", action="store_true", help="say nothing but errors")
    parser.add_argument(
        "--trial",
        type=float,
        default=-1.0,
        metavar="SECONDS",
        help="how long the old one may come back if the new one fails (default: its manifest's)",
    )
    parser.add_argument("--wait", action="store_true", help="wait until the trial is over")
    parser.add_argument(
        "--dry-run", action="store_true", help="only run the slot's conformance suite against it"
    )
    parser.add_argument(
        "--check", action="store_true", help="run the suite first, swap only if it conforms"
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="CHECK",
        help="of the suite only this check, or these",
    )


def enable_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `enable`."""
    parser.add_argument(
        "unit", help="a name for it; what is configured of it counts, and what it was given before"
    )
    parser.add_argument("--plugin", default="", help="what fills it (default: of the same name)")
    parser.add_argument("--instance", default="", help="its name among providers of its slot")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the plugin"
    )
    parser.add_argument(
        "--listen", action="append", default=[], metavar="NAME=ADDRESS", help="change a listener"
    )


def disable_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `disable`."""
    parser.add_argument("unit", help="as `sagong status` names it")
    parser.add_argument("--force", action="store_true", help="also if other units use it")
    parser.add_argument(
        "--forget",
        action="store_true",
        help="what it was given by `enable` and `swap`, too; also of one that is disabled already",
    )


def restart_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `restart`."""
    parser.add_argument("unit", help="as `sagong status` names it")


def run_swap(options: argparse.Namespace) -> int:
    """Swap live, showing each step."""
    if options.only and not (options.dry_run or options.check):
        raise InvalidArgument("--only names checks of the suite: give --dry-run or --check, too")
    if options.dry_run or options.check:
        paths = Paths.below(options.root)
        status = asyncio.run(rehearse(paths, options.unit, options.plugin, options.only))
        if status or options.dry_run:
            return status
    asyncio.run(_swap(options))
    return 0


async def _swap(options: argparse.Namespace) -> None:
    async with connect(Paths.below(options.root)) as operator:
        request = SwapRequest(
            unit=options.unit, plugin=options.plugin, trial=options.trial, wait=options.wait
        )
        async for step in operator.kernel.swap(request):
            if not options.quiet:
                print(f"{options.unit}: {step.text}", flush=True)


def run_enable(options: argparse.Namespace) -> int:
    """Add a unit, showing each step."""
    spec = UnitSpec(
        unit=options.unit,
        plugin=options.plugin,
        instance=options.instance,
        settings=json.dumps(_settings(options.set)),
        listens=tuple(_pairs(options.listen)),
    )

    async def go() -> None:
        async with connect(Paths.below(options.root)) as operator:
            async for step in operator.kernel.enable(spec):
                print(f"{options.unit}: {step.text}")

    try:
        asyncio.run(go())
    except NotFound as error:
        if options.plugin:
            raise
        message = f"{error.message}; to have {options.unit} filled by another one give --plugin"
        raise NotFound(message) from None
    return 0


def run_disable(options: argparse.Namespace) -> int:
    """Take a unit away, showing each step."""

    async def go() -> None:
        async with connect(Paths.below(options.root)) as operator:
            request = DisableRequest(unit=options.unit, force=options.force, forget=options.forget)
            async for step in operator.kernel.disable(request):
                print(f"{options.unit}: {step.text}")

    asyncio.run(go())
    return 0


def _settings(words: Iterable[str]) -> dict[str, Any]:
    """`a.b=1` as a table: the value is TOML, or else the text itself."""
    settings: dict[str, Any] = {}
    for key, text in _pairs(words):
        *tables, last = key.split(".")
        table = settings
        for name in tables:
            table = table.setdefault(name, {})
        try:
            table[last] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            table[last] = text
    return settings


def _pairs(words: Iterable[str]) -> Iterable[tuple[str, str]]:
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise InvalidArgument(f"{word!r}: write it as NAME=VALUE")
        yield key, value


def run_restart(options: argparse.Namespace) -> int:
    """Start a unit anew."""

    async def go() -> None:
        async with connect(Paths.below(options.root)) as operator:
            await operator.kernel.restart(UnitRef(unit=options.unit))

    asyncio.run(go())
    print(f"{options.unit}: restarted")
    return 0
