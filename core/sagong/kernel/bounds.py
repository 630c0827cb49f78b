"""Bounds that no control group keeps: how much a unit may log, how much it may put on the disk, and
for how long it may compute before others go first.

A log that grows past its limit is cut while its writers go on (they append). A unit whose own
directories hold more than `limits.disk` is ended, and not started until there is room again. What a
single file may grow to is bounded by RLIMIT_FSIZE meanwhile (`Cells.rights`). Where something is done
counters are looked at up to twenty times a second, else once (`Usage`).
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

from sagong.bus.refusals import Refusals
from sagong.errors import ResourceExhausted
from sagong.kernel.bells import Bells
from sagong.kernel.growth import Growth
from sagong.kernel.usage import SELDOM, Stance, Usage
from sagong.linux.cgroup_statistics import used_seconds
from sagong.manifest import Manifest, size_bytes

__all__ = ["Bounded", "Bounds", "Judge", "check_room", "cut", "disk_used"]

_MEASURE_EVERY = 30.0
_SUSPICIOUS = 8 << 20
_DEEPEST = 64
_ENTRY = 4096
# Counters of control groups, and what it means when they grow.
_COUNTED = {"max": "forks refused", "oom_kill": "out of memory"}


class Bounded(Protocol):
    """A living process, as far as bounds go."""

    @property
    def name(self) -> str:
        """Its unit's name."""
        ...

    @property
    def generation(self) -> int:
        """Which of its unit's processes it is."""
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

    @property
    def usage(self) -> str:
        """The file that counts what it used of the processor, "" for none."""
        ...

    def threads(self) -> Mapping[int, int]:
        """Nanoseconds that each of its threads, by tid, has run or waited for a core."""
        ...


class Judge(Protocol):
    """Is told what a generation of a unit does."""

    def offends(self, name: str, generation: int, why: str) -> None:
        """What nobody does by itself."""
        ...

    def computes(self, name: str, generation: int, stance: Stance) -> None:
        """It uses most of a core all the time, or would, or does no more."""
        ...


class Bounds:
    """Looks every second at what lives (`living`), and at once where something rings."""

    def __init__(
        self,
        logs: Path,
        log_limit: int,
        refusals: Refusals,
        living: Callable[[], Iterable[Bounded]],
        judge: Judge,
    ) -> None:
        self._logs = logs
        self._log_limit = log_limit
        self._refusals = refusals
        self._living = living
        self._judge = judge
        self._bells = Bells(self._rung)
        self._growth = Growth(self._grew)
        self._usage = Usage()
        self._counted: dict[str, Bounded] = {}
        self._peeking: asyncio.TimerHandle | None = None
        self._over = False
        self._places: dict[Path, Bounded] = {}
        self._measuring: dict[int, asyncio.Task[None]] = {}
        self._free: dict[int, int] = {}
        self._measured = 0.0
        self._counts: dict[tuple[str, str], int] = {}

    async def watch(self) -> None:
        """Until cancelled."""
        try:
            while True:
                await asyncio.sleep(SELDOM)
                await self.look()
        finally:
            self._over = True
            if self._peeking is not None:
                self._peeking.cancel()
            self._bells.close()
            self._growth.close()
            for task in self._measuring.values():
                task.cancel()

    async def look(self) -> None:
        """Once."""
        living = list(self._living())
        for name in sorted({one.name for one in living}):
            self._look_at_log(name)
        self._look_at_counters(living)
        if self._peeking is None:
            self._peek()
        bounded = [one for one in living if size_bytes(one.manifest.limits.disk)]
        self._places = {place: one for one in bounded for place in one.own}
        self._growth.watch(self._places)
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

    def follow(self) -> None:
        """A process has come: what it does is looked at from its first moment on."""
        if self._over:
            return  # units may be woken once more while the system ends
        self._look_at_counters(self._living())
        self._usage.hasten()
        self._peek()

    def _look_at_counters(self, living: Iterable[Bounded]) -> None:
        """From now on they tell of themselves when they grow, or when somebody peeks."""
        living = list(living)
        self._counted = {path: one for one in living for path in (*one.counters, one.usage) if path}
        self._counts = {k: count for k, count in self._counts.items() if k[0] in self._counted}
        self._usage.keep({one.generation for one in living})
        self._bells.watch(self._counted)

    def _peek(self) -> None:
        """Read what does not ring, and again soon where something is done."""
        self._bells.peek()
        loop = asyncio.get_running_loop()
        # Who may use all cores is waited for by users: it is called, and computes for that.
        bounded = {o.generation: o for o in self._counted.values() if o.manifest.limits.cpu}
        now = loop.time()
        doubtful = [who for who in self._usage.doubtful(now) if who in bounded]
        changed = self._usage.settle(now, {who: bounded[who].threads() for who in doubtful})
        for who, stance in changed.items():
            if who in bounded:
                self._judge.computes(bounded[who].name, who, stance)
        if self._peeking is not None:
            self._peeking.cancel()
        pause = self._usage.pause
        self._peeking = loop.call_later(pause, self._peek) if pause < SELDOM else None

    def _rung(self, path: str, text: str) -> None:
        one = self._counted[path]
        if path == one.usage:
            self._usage.note(one.generation, used_seconds(text))
            return
        for word, count in _counts(text):
            if count > self._counts.get((path, word), 0):
                self._refusals.say(_COUNTED[word], one.name, unit=one.name)
                self._judge.offends(one.name, one.generation, _COUNTED[word])
            self._counts[path, word] = count

    def _grew(self, place: Path) -> None:
        """Something was written there: measure at once if it may be much."""
        one = self._places.get(place)
        if one is None or one.generation in self._measuring or not self._lost_room([place]):
            return
        task = asyncio.get_running_loop().create_task(self._look_at_disk(one))
        self._measuring[one.generation] = task
        task.add_done_callback(lambda _: self._measuring.pop(one.generation))

    def _suspicious(self, bounded: Iterable[Bounded]) -> bool:
        """Whether it is worth to measure: the disk lost room since, or it is long ago."""
        now = asyncio.get_running_loop().time()
        lost = self._lost_room({path for one in bounded for path in one.own})
        if lost or now - self._measured > _MEASURE_EVERY:
            self._measured = now
            return True
        return False

    def _lost_room(self, places: Iterable[Path]) -> bool:
        """Whether much was written, by anybody, to where these are, since it last was so."""
        lost = False
        for place in places:
            try:
                found = os.statvfs(place)
                device = os.stat(place).st_dev
            except OSError:
                continue
            free = found.f_bavail * found.f_frsize
            gone = free < self._free.setdefault(device, free) - _SUSPICIOUS
            self._free[device] = free if gone else max(free, self._free[device])
            lost |= gone
        return lost

    async def _look_at_disk(self, one: Bounded) -> None:
        limit = size_bytes(one.manifest.limits.disk)
        used = await asyncio.to_thread(disk_used, one.own, limit)
        if used > limit:
            self._refusals.say("disk limit passed", one.name, unit=one.name, limits_disk=limit)
            # Processes that it leaves behind write on until they are found.
            self._judge.offends(one.name, one.generation, "disk limit passed")
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


def _counts(text: str) -> Iterator[tuple[str, int]]:
    """The counters of interest in lines of `word number`."""
    for line in text.splitlines():
        word, _, number = line.partition(" ")
        if word in _COUNTED and number.isdecimal():
            yield word, int(number)
