"""Dispatch: the loop of a scheduler in a cluster. It follows, decides in batches, and commits.

One commit carries the bindings, conditions and events of a batch. A pod is assumed on its node as
soon as it is decided, so the next batch is decided while the last one is being written.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec

from sagong.call import deadline
from sagong.contracts.objects import (
    Commit,
    GetRequest,
    Objects,
    ObjectWatch,
    Outcome,
    Reminder,
    Write,
)
from sagong.errors import SagongError, Unavailable
from sagong.following import Progress, follow
from sagong.scheduling.decision import Decider, Decision, take
from sagong.scheduling.intake import SOURCES, Intake, Source
from sagong.scheduling.shape import Pod
from sagong.scheduling.snapshot import Filter
from sagong.scheduling.volumes import Binding
from sagong.scheduling.writes import bind, claim_writes, refusal_writes, sacrifice_writes

__all__ = ["Dispatch"]

Key = tuple[str, str]
# So long is decided before others (watches, `place`) have their turn.
SLICE_SECONDS: Final = 0.02
COMMITS_AT_ONCE: Final = 4
COMMIT_SECONDS: Final = 10.0
# A pod whose claims are not bound by then is decided anew.
BINDING_SECONDS: Final = 600.0
# Who has more to read anew when it wakes stays awake.
SMALL_CLUSTER: Final = 1000


class _Batch(msgspec.Struct):
    """Writes with what hangs on the outcome of each."""

    writes: list[Write] = []
    owners: list[Pod | None] = []

    def add(self, writes: Iterable[Write], owner: Pod | None = None) -> None:
        """The first write decides about `owner`."""
        for write in writes:
            self.writes.append(write)
            self.owners.append(owner)
            owner = None


class _Waiting(msgspec.Struct):
    """A pod that has its node but not yet its volumes."""

    pod: Pod
    bindings: Sequence[Binding]
    until: float


class Dispatch:
    """Gives pending pods nodes."""

    def __init__(
        self,
        objects: Objects,
        decider: Decider,
        *,
        names: Iterable[str],
        log: logging.Logger,
        clock: Callable[[], float] = time.time,
        filters: tuple[Filter, ...] = (),
    ) -> None:
        self._objects = objects
        self._decider = decider
        self._log = log
        self._clock = clock
        self._intake = Intake(names=names, log=log, clock=clock)
        self._intake.snapshot.filters = filters
        self._changed = asyncio.Event()
        self._commits = asyncio.Semaphore(COMMITS_AT_ONCE)
        self._unsynced = {source.resource for source in SOURCES}
        self._waiting: dict[Key, _Waiting] = {}
        self._sacrifices: list[tuple[Pod, Decision]] = []
        self._progress = Progress()
        self._stirred = False

    async def run(self) -> None:
        """For ever."""
        async with asyncio.TaskGroup() as group:
            nodes, *others = SOURCES
            known = asyncio.Event()
            group.create_task(self._follow(nodes, known))
            # While nobody serves objects only one watch waits for it.
            await known.wait()
            for source in others:
                group.create_task(self._follow(source, asyncio.Event()))
            group.create_task(self._decide_all(group))

    async def _follow(self, source: Source, known: asyncio.Event) -> None:
        watch = ObjectWatch(resource=source.resource, fields=source.fields)
        async for batch in follow(self._objects, watch, log=self._log):
            self._intake.take(source, batch)
            self._progress.note(watch, batch)
            self._stirred |= bool(batch.changes)
            if batch.synced or (batch.refused and not source.needed):
                self._unsynced.discard(source.resource)
                known.set()
            self._changed.set()

    # sleeping

    def busy(self) -> bool:
        """Whether something came since this was last asked, or is under way, or there is too much."""
        stirred, self._stirred = self._stirred, False
        snapshot = self._intake.snapshot
        large = len(snapshot.pods) + len(snapshot.nodes) > SMALL_CLUSTER
        return stirred or large or self._engaged()

    def _engaged(self) -> bool:
        intake = self._intake
        return bool(self._unsynced or intake.queue or intake.assumed or self._waiting)

    async def doze(self) -> float:
        """Leave word of what comes next; with a pod that waits, there is no sleep."""
        if self._engaged():
            return self._clock()
        await self._objects.remind(Reminder(watches=self._progress.watches()))
        return 0.0

    # deciding

    async def _decide_all(self, group: asyncio.TaskGroup) -> None:
        while True:
            await self._wait_work()
            batch = self._decided()
            if batch.writes:
                await self._commits.acquire()
                group.create_task(self._commit(batch))
            while self._sacrifices:
                group.create_task(self._sacrifice(*self._sacrifices.pop()))
            await asyncio.sleep(0)

    async def _wait_work(self) -> None:
        """Until something changed or a back-off is over."""
        next_ = self._intake.queue.next_time()
        times = [waiting.until for waiting in self._waiting.values()]
        times += [next_] if next_ is not None else []
        timeout = max(min(times) - self._clock(), 0.0) if times else None
        try:
            async with asyncio.timeout(timeout):
                await self._changed.wait()
        except TimeoutError:
            pass
        self._changed.clear()

    def _decided(self) -> _Batch:
        """Decide queued pods for a slice of time."""
        batch = _Batch()
        if self._unsynced:
            return batch
        self._bind_waiting(batch)
        queue = self._intake.queue
        limit = time.monotonic() + SLICE_SECONDS
        while time.monotonic() < limit:
            pod = queue.pop(self._clock())
            if pod is None:
                return batch
            self._decide(pod, batch)
        self._changed.set()
        return batch

    def _decide(self, pod: Pod, batch: _Batch) -> None:
        intake, now = self._intake, self._clock()
        decision = self._decider.decide(intake.snapshot, pod)
        if decision.node and not decision.victims:
            self._place(pod, decision.node, batch)
            return
        body = intake.bodies.get(pod.key, b"")
        intake.queue.fail(pod.key, now)
        if decision.victims:
            take(intake.snapshot, pod, decision)
        elif pod.nominated:
            intake.snapshot.dismiss(pod.key)
            pod.nominated = ""
        if body:
            batch.add(refusal_writes(pod, body, decision, now))
        if decision.victims:
            self._sacrifices.append((pod, decision))

    def _place(self, pod: Pod, node: str, batch: _Batch) -> None:
        snapshot = self._intake.snapshot
        bindings: Sequence[Binding] = ()
        if pod.shape.claims:
            claims = self._intake.volumes.of(pod.shape)
            bindings = self._intake.volumes.plan(claims, snapshot.nodes[node]) or ()
        take(snapshot, pod, Decision(node))
        self._intake.queue.remove(pod.key)
        self._intake.assumed[pod.key] = 0
        now = self._clock()
        if bindings:
            for binding in bindings:
                self._intake.volumes.promised[binding.volume] = (binding.namespace, binding.claim)
            self._waiting[pod.key] = _Waiting(pod, bindings, now + BINDING_SECONDS)
            batch.add(claim_writes(bindings, node))
        else:
            batch.add(bind(pod, node, now), pod)

    def _bind_waiting(self, batch: _Batch) -> None:
        """Bind pods whose claims are bound by now; decide those anew that waited too long."""
        intake, now = self._intake, self._clock()
        for key, waiting in list(self._waiting.items()):
            pod = waiting.pod
            if intake.snapshot.pods.get(key) is not pod:
                self._end_waiting(key)
                continue
            claims = intake.volumes.of(pod.shape)
            if not claims.problem and not claims.waiting:
                self._end_waiting(key)
                batch.add(bind(pod, pod.node, now), pod)
            elif waiting.until <= now:
                self._end_waiting(key)
                self._give_back(pod)

    def _end_waiting(self, key: Key) -> None:
        for binding in self._waiting.pop(key).bindings:
            self._intake.volumes.promised.pop(binding.volume, None)

    # writing

    async def _sacrifice(self, pod: Pod, decision: Decision) -> None:
        """Victims' present status is asked for: the snapshot doesn't keep it."""
        batch = _Batch()
        for victim in decision.victims:
            request = GetRequest(resource="v1/pods", name=victim.name, namespace=victim.namespace)
            try:
                body = (await self._objects.get(request)).body
            except SagongError:
                body = b""
            batch.add(sacrifice_writes(pod, victim, body, decision.node, self._clock()))
        await self._commits.acquire()
        await self._commit(batch)

    async def _commit(self, batch: _Batch) -> None:
        try:
            outcomes = await self._written(tuple(batch.writes))
        except SagongError as error:
            self._log.warning("can't commit %d writes: %s", len(batch.writes), error.message)
            for pod in batch.owners:
                if pod is not None:
                    self._give_back(pod)
            return
        finally:
            self._commits.release()
            self._changed.set()
        for write, pod, outcome in zip(batch.writes, batch.owners, outcomes):
            if pod is not None:
                self._bound(pod, outcome)
            elif outcome.error and outcome.error not in ("not_found", "conflict"):
                self._log.warning(
                    "%s %s/%s: %s", write.verb, write.namespace, write.name, outcome.message
                )

    async def _written(self, writes: tuple[Write, ...]) -> tuple[Outcome, ...]:
        """Commit; the same id again when an answer was lost, so nothing is done twice."""
        commit = Commit(id=uuid.uuid4().hex, writes=writes, manager="kube-scheduler")
        pause = 0.1
        while True:
            try:
                with deadline(COMMIT_SECONDS):
                    return (await self._objects.commit(commit)).outcomes
            except Unavailable:
                if pause > COMMIT_SECONDS:
                    raise
            await asyncio.sleep(pause)
            pause *= 2

    def _bound(self, pod: Pod, outcome: Outcome) -> None:
        if not outcome.error:
            if pod.key in self._intake.assumed:
                self._intake.assumed[pod.key] = outcome.revision
                self._intake.bodies.pop(pod.key, None)
            return
        if outcome.error != "not_found":
            self._log.info("binding %s/%s: %s", pod.namespace, pod.name, outcome.message)
        self._give_back(pod)

    def _give_back(self, pod: Pod) -> None:
        """The pod did not get its node: it waits again if it still exists."""
        intake = self._intake
        if intake.assumed.pop(pod.key, None) is None:
            return  # seen bound or gone meanwhile
        if intake.snapshot.pods.get(pod.key) is pod:
            intake.snapshot.remove(pod.key)
        pod.node = ""
        if pod.key in intake.bodies:
            intake.queue.add(pod)
            intake.queue.retry(pod.key, self._clock())
