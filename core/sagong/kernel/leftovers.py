"""The kernel sweeps what earlier ones left: directories and control groups of dead generations."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

from sagong.config import Paths
from sagong.linux.cgroup import CONTROLLERS, Cgroup, CgroupLayout, layout_of_machine

__all__ = ["sweep"]

_LOG = logging.getLogger("sagong.kernel")
_GROUP = re.compile(r"(.+)\.(\d+)")
Living = Collection[tuple[str, int]]


def sweep(paths: Paths, living: Living) -> None:
    """Take away all that belongs to generations (unit, number) other than the living ones."""
    for directory in _dead_directories(paths, living):
        shutil.rmtree(directory, ignore_errors=True)
    layout = layout_of_machine()
    for name in sorted(_dead_groups(layout, paths, living)):
        try:
            group = Cgroup(layout, name, (*CONTROLLERS, "unified"))
            group.kill(seconds=1.0)
            group.remove(seconds=1.0)
        except (OSError, TimeoutError):
            _LOG.warning("a control group of an earlier kernel stays", extra={"cgroup": name})
    for file in (paths.run / "kernel").glob("*.new"):
        file.unlink(missing_ok=True)


def _dead_directories(paths: Paths, living: Living) -> Iterator[Path]:
    for directory in paths.run.glob("slots/*/bus/*"):
        unit, generation = directory.parent.parent.name, directory.name
        if generation.isdecimal() and (unit, int(generation)) not in living:
            yield directory
    for lobby in paths.run.glob("kernel/lobbies/*"):
        unit, _, number = lobby.name.rpartition(".")
        if number.isdecimal() and (unit, int(number)) not in living:
            yield lobby


def _dead_groups(layout: CgroupLayout, paths: Paths, living: Living) -> set[str]:
    every = paths.unit_group("*", "*")
    begin = every.index("*")
    found = set()
    for path in layout.groups(every):
        named = _GROUP.fullmatch(path[begin:])
        if named and (named[1], int(named[2])) not in living:
            found.add(path)
    return found
