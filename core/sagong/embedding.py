"""Embedding: a whole platform, or a kernel with a few plugins, inside another Python program.

::

    import asyncio, sagong
    from sagong.contracts.scheduler import Question, Scheduler

    async def main():
        units = {"scheduler": {"plugin": "scheduler_binpack"}}
        async with sagong.platform("/srv/box", units=units) as box:
            scheduler = await box.use(Scheduler)
            print(await scheduler.place(Question(pods=(), nodes=())))

    asyncio.run(main())

The kernel and its plugins are processes of their own, below a keeper, as always; the program is
their operator. They end with the block, unless `stay` is set; if the program dies before, the
platform goes on, and the next block finds it running.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from sagong import config
from sagong.config import Paths
from sagong.errors import FailedPrecondition
from sagong.operator import Operator, connect

__all__ = ["configuration", "platform"]

_MARK = "# Written by the program that embeds this platform; changes are lost at its next start.\n"


@contextlib.asynccontextmanager
async def platform(
    root: str | Path,
    *,
    profile: str = "bare",
    units: Mapping[str, Mapping[str, Any]] | None = None,
    seconds: float = 60.0,
    stay: bool = False,
) -> AsyncIterator[Operator]:
    """Start what `profile` and `units` say below `root`, and connect to it; needs root.

    `units` are the tables `[units.NAME]` of sagong.toml, laid over the profile. A sagong.toml that
    somebody else wrote there is not touched: FailedPrecondition. Raises what `sagong up` would say.
    """
    from sagong.cli.lifecycle import end, raise_up

    paths = Paths.below(root)
    write_configuration(paths, configuration(profile, units or {}))
    try:
        # What does not come up whole has processes, too.
        await asyncio.to_thread(raise_up, paths, str(root), "", seconds)
        async with connect(paths) as operator:
            yield operator
    finally:
        if not stay:
            await asyncio.to_thread(end, paths, 10.0, everything=True)


def configuration(profile: str, units: Mapping[str, Mapping[str, Any]]) -> str:
    """A sagong.toml."""
    lines = [_MARK, f"profile = {_toml(profile)}\n"]
    for name, table in units.items():
        lines.append(f"\n[units.{_toml(name)}]\n")
        lines += [f"{key} = {_toml(value)}\n" for key, value in table.items()]
    return "".join(lines)


def write_configuration(paths: Paths, text: str) -> None:
    """Put it in its place, and hold it against what can be configured."""
    path = paths.etc / "sagong.toml"
    if path.exists() and not path.read_text().startswith(_MARK):
        raise FailedPrecondition(
            f"{path} was written by somebody else; choose another root, or take it away"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    config.load(paths)


def _toml(value: Any) -> str:
    """A value as TOML; JSON's strings, numbers and booleans are TOML's, too."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_toml(k)} = {_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)
