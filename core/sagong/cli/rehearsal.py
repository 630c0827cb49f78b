"""The dry run of a swap: the candidate against the conformance suites of the slots it is to fill."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable

from sagong import config
from sagong.config import Paths
from sagong.contracts.kernel import StatusQuery
from sagong.errors import NotFound
from sagong.operator import connect
from sagong.shelf import Record, Shelf

__all__ = ["rehearse"]

# Above every uid that an instance gives to its plugins.
_UID = 1999


async def rehearse(paths: Paths, name: str, plugin: str, only: Iterable[str] = ()) -> int:
    """Run the suites, or `only` some checks, in a process that says each of them; its status."""
    async with connect(paths) as operator:
        status = await operator.kernel.status(StatusQuery())
    unit = next((u for u in status.units if u.name == name), None)
    if unit is None:
        known = ", ".join(sorted(u.name for u in status.units))
        raise NotFound(f"no unit {name}; there are {known or 'none'}")
    uid = config.load(paths, status.profile).uid_base + _UID
    slots = [slot.partition("/")[0] for slot in unit.slots]
    record = _record(Shelf(paths), slots, plugin or unit.plugin)
    # One on the shelf runs with its own environment, where no entry point need name it.
    python = sys.executable if record is None else record.python
    command = [python, "-m", "sagong.conformance", "--uid", str(uid)]
    command += [] if record is None else ["--package", record.package]
    for slot in slots:
        command += ["--short-for", slot]
    command += [f"--only={check}" for check in only]
    child = await asyncio.create_subprocess_exec(*command, plugin or unit.plugin)
    return await child.wait()


def _record(shelf: Shelf, slots: Iterable[str], plugin: str) -> Record | None:
    """The candidate's, if it was installed here; its files are as they were."""
    for name in (*(f"{slot}_{plugin}" for slot in slots), plugin):
        record = shelf.find(name)
        if record is not None:
            shelf.verify(record)
            return record
    return None
