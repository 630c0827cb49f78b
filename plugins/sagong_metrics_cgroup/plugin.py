"""The measurer: keeps the targets, answers questions, samples while somebody is interested."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from pathlib import Path

import msgspec

from sagong.contracts.metrics import (
    Machine,
    Sample,
    SampleQuery,
    SampleSet,
    Target,
    TargetRef,
)
from sagong.errors import InvalidArgument, NotFound
from sagong.host import Host
from sagong.linux.cgroup import layout_of_machine
from sagong_metrics_cgroup.reading import rated, read_machine, read_target

__all__ = ["MetricsCgroup", "Settings"]

_GLANCE = 0.1
_HANDED_OVER = 10


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`interval`: seconds between samples while somebody asks; `history`: samples that are kept;
    `linger`: seconds for which it goes on afterwards."""

    interval: float = 10.0
    history: int = 60
    linger: float = 120.0


class Handover(msgspec.Struct, frozen=True):
    """What a successor goes on with: who is measured, and the last samples of each."""

    targets: tuple[Target, ...]
    samples: dict[str, list[Sample]]


class MetricsCgroup:
    """Fills slot `metrics`."""

    def __init__(self, host: Host) -> None:
        self._settings = host.config(Settings)
        if self._settings.interval < 0.1 or self._settings.history < 2:
            raise InvalidArgument("metrics: give interval >= 0.1 and history >= 2")
        self._host = host
        self._disk = host.data
        self._layout = layout_of_machine()
        self._targets: dict[str, Target] = {}
        self._history: dict[str, deque[Sample]] = {}
        self._kept = host.run / "machine"
        self._machine = _recall(self._kept)
        self._asked = 0.0
        self._sampling: asyncio.Task[None] | None = None

    def busy(self) -> bool:
        """Whether it samples for somebody who wants a history."""
        return self._sampling is not None

    async def export(self) -> bytes:
        """For a successor."""
        samples = {id_: list(history)[-_HANDED_OVER:] for id_, history in self._history.items()}
        return msgspec.msgpack.encode(Handover(tuple(self._targets.values()), samples))

    async def restore(self, state: bytes) -> None:
        """From a predecessor; of another form it is left, since the node tells all anew."""
        try:
            given = msgspec.msgpack.decode(state, type=Handover)
        except msgspec.MsgspecError:
            return
        for target in given.targets:
            self.track(target)
            self._history[target.id].extend(given.samples.get(target.id, ()))

    def track(self, target: Target) -> None:
        """Watch a container; the same again keeps its history."""
        self._targets[target.id] = target
        self._history.setdefault(target.id, deque(maxlen=self._settings.history))

    def untrack(self, target: TargetRef) -> None:
        """Stop watching."""
        self._targets.pop(target.id, None)
        self._history.pop(target.id, None)

    async def sample(self, query: SampleQuery) -> SampleSet:
        """Statistics of some targets, or of all."""
        targets = [self._target(id_) for id_ in query.ids] or list(self._targets.values())
        if query.history_seconds:
            self._interest()
        if not query.fresh and any(not self._history[t.id] for t in targets):
            self._read(targets)
            await asyncio.sleep(_GLANCE)
        stale = query.fresh or self._sampling is None
        self._read(targets if stale else [t for t in targets if len(self._history[t.id]) < 2])
        found: list[Sample] = []
        for target in targets:
            found += self._answers(target.id, query.history_seconds)
        return SampleSet(samples=tuple(found))

    async def machine(self) -> Machine:
        """The machine's own; its rate is since the last question, or over a glance.

        The last question may have been a predecessor's: what it was answered is kept until a reboot.
        """
        before = self._machine
        if before is None:
            before = read_machine(self._disk, None)
            await asyncio.sleep(_GLANCE)
        found = read_machine(self._disk, before)
        # /proc counts in ticks of ten milliseconds.
        if before is self._machine and found.time - before.time < _GLANCE:
            return msgspec.structs.replace(found, cpu_rate=before.cpu_rate)
        self._machine = found
        self._keep(found)
        return found

    def _keep(self, machine: Machine) -> None:
        new = self._kept.with_suffix(".new")
        new.write_bytes(msgspec.msgpack.encode(machine))
        new.replace(self._kept)

    def _target(self, id_: str) -> Target:
        target = self._targets.get(id_)
        if target is None:
            raise NotFound(f"no statistics of {id_}: it does not run, or nobody said so")
        return target

    def _read(self, targets: list[Target]) -> None:
        for target in targets:
            history = self._history.get(target.id)
            sample = read_target(target, self._layout)
            if history is not None and sample is not None:
                history.append(rated(sample, history[-1] if history else None))

    def _answers(self, id_: str, seconds: float) -> list[Sample]:
        history = self._history.get(id_)
        if not history:
            return []
        if not seconds:
            return [history[-1]]
        return [sample for sample in history if sample.time >= time.time() - seconds]

    def _interest(self) -> None:
        """Somebody wants a history: sample from now on, until nobody asks any more."""
        self._asked = time.monotonic()
        if self._sampling is None:
            self._sampling = self._host.spawn(self._sample_all(), "sample")

    async def _sample_all(self) -> None:
        try:
            while time.monotonic() - self._asked < self._settings.linger:
                self._read(list(self._targets.values()))
                await asyncio.sleep(self._settings.interval)
        finally:
            self._sampling = None


def _recall(kept: Path) -> Machine | None:
    """What a predecessor read last; None if there was none, or it had another form."""
    try:
        return msgspec.msgpack.decode(kept.read_bytes(), type=Machine)
    except (OSError, msgspec.MsgspecError):
        return None
