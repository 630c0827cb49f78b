"""Bounds that no control group keeps: how much a unit may log, and how much it may put on the disk.

A log that grows past its limit is cut while its writers go on (they append). A unit whose own
directories hold more than `limits.disk` is ended, and not started until there is room again. What a
single file may grow to is bounded by RLIMIT_FSIZE meanwhile (`Cells.rights`).
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol

from sagong.bus.refusals import Refusals
from sagong.errors import ResourceExhausted
from sagong.kernel.bells import Bells
from sagong.manifest import Manifest, size_bytes

__all__ = ["Bounded", "Bounds", "check_room", "cut", "disk_used"]

_EVERY = 1.0
_MEASURE_EVERY = 30.0
_SUSPICIOUS = 32 << 20
_DEEPEST = 64
_ENTRY = 4096
# Counters of control groups, and what it means when they grow.
_COUNTED = {"max": "forks refused", "oom_kill": "out of memory"}
# Whoever wants more processes than it may will want them at once again, and what it has works on.
_OFFENCES = frozenset({"max"})


class Bounded(Protocol):
    """A living process, as far as bounds go."""

    @property
    def name(self) -> str:
        """Its unit's name."""
        ...

    @property
    def manifest(self) -> Manifest:
        """What its unit asked for."""
        ...

    @property
    def pidfd(self) -> int:
        """It."""
        ...

    @property
    def own(self) -> tuple[Path, ...]:
        """Its own directories."""
        ...

    @property
    def counters(self) -> tuple[str, ...]:
        """Files of its control group that count what its limits refused or ended."""
        ...


class Bounds:
    """Looks every second at what lives (`living`)."""

    def __init__(
        self,
        logs: Path,
        log_limit: int,
        refusals: Refusals,
        living: Callable[[], Iterable[Bounded]],
        offends: Callable[[str, str], None] = lambda name, why: None,
    ) -> None:
        self._logs = logs
        self._log_limit = log_limit
        self._refusals = refusals
        self._living = living
        self._offends = offends
        self._bells = Bells(self._look_at_counter)
        self._free: dict[int, int] = {}
        self._measured = 0.0
        self._counts: dict[tuple[str, str], int] = {}

    async def watch(self) -> None:
        """Until cancelled."""
        try:
            while True:
                await asyncio.sleep(_EVERY)
                await self.look()
        finally:
            self._bells.close()

    async def look(self) -> None:
        """Once."""
        living = list(self._living())
        for name in sorted({one.name for one in living}):
            self._look_at_log(name)
        self._look_at_counters(living)
        bounded = [one for one in living if size_bytes(one.manifest.limits.disk)]
        if self._suspicious(bounded):
            for one in bounded:
                await self._look_at_disk(one)

    def _look_at_log(self, name: str) -> None:
        for log in (f"{name}.log", f"{name}-companion.log"):
            try:
                if cut(self._logs / log, self._log_limit):
                    self._refusals.say("log cut", name, unit=name, more_than=self._log_limit)
            except OSError as error:
                self._refusals.say("log can't be cut", name, unit=name, problem=str(error))

    def _look_at_counters(self, living: Iterable[Bounded]) -> None:
        """All of them; from now on they also ring by themselves, where the kernel can do that."""
        found: dict[str, Bounded] = {path: one for one in living for path in one.counters}
        self._counts = {key: count for key, count in self._counts.items() if key[0] in found}
        for path, one in found.items():
            self._look_at_counter(path, one.name)
        self._bells.watch({path: one.name for path, one in found.items()})

    def _look_at_counter(self, path: str, name: str) -> None:
        for word, count in _counts(path):
            if count > self._counts.get((path, word), 0):
                self._refusals.say(_COUNTED[word], name, unit=name)
                if word in _OFFENCES:
                    self._offends(name, _COUNTED[word])
            self._counts[path, word] = count

    def _suspicious(self, bounded: Iterable[Bounded]) -> bool:
        """Whether it is worth to measure: the disk lost room since, or it is long ago."""
        now = asyncio.get_running_loop().time()
        lost = False
        for place in {path for one in bounded for path in one.own}:
            try:
                found = os.statvfs(place)
                device = os.stat(place).st_dev
            except OSError:
                continue
            free = found.f_bavail * found.f_frsize
            lost |= free < self._free.setdefault(device, free) - _SUSPICIOUS
            self._free[device] = max(free, self._free[device]) if not lost else free
        if lost or now - self._measured > _MEASURE_EVERY:
            self._measured = now
            return True
        return False

    async def _look_at_disk(self, one: Bounded) -> None:
        limit = size_bytes(one.manifest.limits.disk)
        used = await asyncio.to_thread(disk_used, one.own, limit)
        if used > limit:
            self._refusals.say("disk limit passed", one.name, unit=one.name, limits_disk=limit)
            try:
                signal.pidfd_send_signal(one.pidfd, signal.SIGKILL)
            except OSError:
                pass  # it ended meanwhile


def check_room(name: str, manifest: Manifest, own: Iterable[Path]) -> None:
    """Raise ResourceExhausted if a unit may not start because its directories hold too much."""
    limit = size_bytes(manifest.limits.disk)
    own = tuple(own)
    if limit and disk_used(own, limit) > limit:
        places = " and ".join(map(str, own))
        raise ResourceExhausted(
            f"{name}: {places} hold more than limits.disk of its plugin.toml "
            f"({manifest.limits.disk}); remove what is too much, then `sagong restart {name}`"
        )


def disk_used(places: Iterable[Path], limit: int) -> int:
    """Bytes on the disk below some directories; it stops counting past the limit.

    Each entry counts as a block at least. Whoever owns them may change them meanwhile, so nothing is
    followed that is no directory.
    """
    total = 0
    for place in places:
        try:
            top = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue
        total += _below(top, limit - total, _DEEPEST)
        if total > limit:
            break
    return total


def _below(directory: int, limit: int, depth: int) -> int:
    """What is in an open directory, which is closed; past `depth` it is too much."""
    total = 0
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                total += _one(directory, entry, limit - total, depth)
                if total > limit:
                    break
    except OSError:
        pass  # taken away meanwhile
    finally:
        os.close(directory)
    return total


def _one(directory: int, entry: os.DirEntry[str], limit: int, depth: int) -> int:
    try:
        found = entry.stat(follow_symlinks=False)
        total = max(found.st_blocks * 512, _ENTRY)
        if not entry.is_dir(follow_symlinks=False):
            return total
        if depth == 0:
            return limit + 1
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        inner = os.open(entry.name, flags, dir_fd=directory)
    except OSError:
        return 0
    return total + _below(inner, limit - total, depth - 1)


def cut(log: Path, limit: int) -> bool:
    """Cut a log above its limit; its last part becomes the old log. Writers append, and go on."""
    try:
        size = log.stat().st_size
    except FileNotFoundError:
        return False
    if size <= limit:
        return False
    old = log.with_suffix(".log.1")
    with open(log, "r+b") as file:
        file.seek(max(size - limit, 0))
        with open(old.with_suffix(".new"), "wb") as kept:
            kept.write(file.read(limit))
        file.truncate(0)
    os.replace(old.with_suffix(".new"), old)
    return True


def _counts(path: str) -> Iterator[tuple[str, int]]:
    """The counters of a file of `word number` lines that are of interest."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return
    for line in lines:
        word, _, number = line.partition(" ")
        if word in _COUNTED and number.isdecimal():
            yield word, int(number)
