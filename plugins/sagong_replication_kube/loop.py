"""The loop: follows all kinds into the world, lets controllers look at what changed, commits.

One commit is under way at a time, and its outcomes are taken into the world before anything else is
decided; so nothing is made twice although watches come later. What only tells a status waits until
changes cease for a moment, which spares most of the writes. Without changes nothing wakes up.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import random
import time
import uuid
from collections.abc import Callable
from typing import Final, NamedTuple

from sagong.call import deadline
from sagong.contracts.metrics import Metrics, Sample, SampleQuery
from sagong.contracts.objects import (
    Commit,
    GetRequest,
    ListRequest,
    Objects,
    ObjectWatch,
    Outcome,
    Reminder,
    Silence,
    Verb,
    Write,
)
from sagong.errors import InvalidArgument, NotFound, SagongError
from sagong.following import Followed, Progress, follow
from sagong_replication_kube.autoscaler import MEASURE
from sagong_replication_kube.controllers import Task, concerned, reconcile
from sagong_replication_kube.item import Item
from sagong_replication_kube.nodes import GRACE_SECONDS, LEASE_SPACE, LEASES
from sagong_replication_kube.pods import PODS
from sagong_replication_kube.resources import BY_RESOURCE, KINDS, Kind, custom
from sagong_replication_kube.work import Ask, Work
from sagong_replication_kube.world import Change, World

__all__ = ["Loop"]

Key = tuple[str, str]
MANAGER: Final = "kube-controller-manager"
CUSTOM: Final = "apiextensions.k8s.io/v1/customresourcedefinitions"
SLICE_SECONDS: Final = 0.02
COMMIT_SECONDS: Final = 30.0
MOST_WRITES: Final = 1000
# Telling waits for so long without a change, and not longer than that in all.
QUIET_SECONDS: Final = 0.05
LATEST_SECONDS: Final = 0.5
FIRST_RETRY: Final = 0.05
LONGEST_RETRY: Final = 60.0
# Who has more to read anew when it wakes, or something to do before that, stays awake.
SMALL_CLUSTER: Final = 1000
SHORT_SECONDS: Final = 60.0
# These say that the world here is late; the change that is missing is on its way.
_LATE: Final = frozenset(("conflict", "not_found", "already_exists", "aborted"))


class _Step(NamedTuple):
    """A write, and for which task and object (uid) it is."""

    write: Write
    task: Task
    uid: str


class Loop:
    """All controllers of a cluster."""

    def __init__(
        self,
        objects: Objects,
        metrics: Metrics | None = None,
        *,
        log: logging.Logger,
        clock: Callable[[], float] = time.time,
        chance: random.Random | None = None,
    ) -> None:
        self._objects = objects
        self._metrics = metrics
        self._log = log
        self._clock = clock
        self.world = World(chance=chance)
        self._tasks: dict[Task, None] = {}
        self._delayed: list[tuple[float, Task]] = []
        # Nodes that are to give a sign of life by then.
        self._expected: dict[Task, float] = {}
        self._telling: dict[Task, tuple[float, float]] = {}
        self._due: set[Task] = set()
        self._tries: dict[Task, int] = {}
        # Questions, and who waits for their answers.
        self._asked: dict[Ask, set[Task]] = {}
        self._asking: list[Ask] = []
        self._failures: list[_Step] = []
        self._changed = asyncio.Event()
        self._unsynced = {kind.resource for kind in KINDS}
        self._customs: dict[Key, tuple[Kind, asyncio.Task[None]]] = {}
        self._progress = Progress()
        self._stirred = self._committing = False

    async def run(self) -> None:
        """For ever."""
        async with asyncio.TaskGroup() as group:
            first, *others = KINDS
            known = asyncio.Event()
            group.create_task(self._follow(group, first, known))
            # While nobody serves objects only one watch waits for it.
            await known.wait()
            for kind in others:
                group.create_task(self._follow(group, kind, asyncio.Event()))
            group.create_task(self._work(group))

    # following

    async def _follow(self, group: asyncio.TaskGroup, kind: Kind, known: asyncio.Event) -> None:
        whole: set[Key] | None = None
        watch = ObjectWatch(resource=kind.resource)
        async for batch in follow(self._objects, watch, log=self._log):
            if batch.fresh:
                whole = set()
            self._take(kind, batch, whole)
            if batch.synced and whole is not None:
                self._drop(kind, whole, batch.revision)
                whole = None
            if batch.synced or (batch.refused and not kind.needed):
                self._unsynced.discard(kind.resource)
                known.set()
            if kind.resource == CUSTOM and batch.changes:
                self._follow_customs(group)
            self._progress.note(watch, batch)
            if batch.changes or batch.synced:
                self._changed.set()
                self._stirred |= kind.resource != LEASES

    def _take(self, kind: Kind, batch: Followed, whole: set[Key] | None) -> None:
        self.world.now = self._clock()
        for change in batch.changes:
            try:
                item = Item(kind, change.body)
            except InvalidArgument as error:
                self._log.warning("%s: %s", kind.resource, error.message)
                continue
            if change.kind == "DELETED":
                self._note(self.world.bury(kind, item.key, item.revision))
                continue
            if whole is not None:
                whole.add(item.key)
            self._note(self.world.put(item))

    def _drop(self, kind: Kind, whole: set[Key], revision: int = 0) -> None:
        """What a new whole does not contain was deleted while nobody looked."""
        for key in self.world.keys(kind.resource) - whole:
            self._note(self.world.bury(kind, key, revision))

    def _follow_customs(self, group: asyncio.TaskGroup) -> None:
        """Follow what CustomResourceDefinitions define: it can own, be owned, and fill namespaces."""
        present = {item.key: item for item in self.world.all(CUSTOM)}
        for key in [key for key in self._customs if key not in present]:
            kind, task = self._customs.pop(key)
            task.cancel()
            self._progress.drop(kind.resource)
            self.world.kinds.pop((kind.api_version, kind.kind), None)
            self._drop(kind, set())
        for key, item in present.items():
            if key not in self._customs:
                found = _defined(item)
                if found is not None:
                    self.world.kinds[found.api_version, found.kind] = found
                    following = self._follow(group, found, asyncio.Event())
                    self._customs[key] = (found, group.create_task(following))

    def _note(self, change: Change | None) -> None:
        if change is None:
            return
        for task in concerned(self.world, change):
            self._tasks[task] = None
        if change.after is None:
            self._is_absent(change.item.uid)
            self.world.scaling.pop(change.item.uid, None)
            self.world.failures.pop(change.item.uid, None)

    # sleeping

    def busy(self) -> bool:
        """Whether something came since this was last asked, or is under way, or there is too much."""
        stirred, self._stirred = self._stirred, False
        large = sum(1 for resource in self.world.resources() for _ in self.world.all(resource))
        soon = self._due_at() < self._clock() + SHORT_SECONDS
        return stirred or soon or large > SMALL_CLUSTER or self._engaged()

    def _engaged(self) -> bool:
        queued = self._tasks or self._due or self._telling or self._asked or self._failures
        return bool(queued or self._unsynced or self._committing)

    def _due_at(self) -> float:
        return self._delayed[0][0] if self._delayed else float("inf")

    async def doze(self) -> float:
        """Leave word of what comes next, and of nodes that fall silent; with work there is no sleep."""
        if self._engaged():
            return self._clock()
        watches, now = self._progress.watches(), self._clock()
        until = self._due_at() if self._delayed else 0.0
        await self._objects.remind(
            Reminder(
                watches=tuple(watch for watch in watches if watch.resource != LEASES),
                # Renewals are no news.
                comings=tuple(watch for watch in watches if watch.resource == LEASES),
                silences=tuple(
                    Silence(
                        resource=LEASES,
                        namespace=LEASE_SPACE,
                        name=task.key[1],
                        first=max(latest - now, 0.0),
                        seconds=GRACE_SECONDS,
                    )
                    for task, latest in self._expected.items()
                ),
            )
        )
        return until

    # deciding

    async def _work(self, group: asyncio.TaskGroup) -> None:
        while True:
            await self._wait_work()
            steps = self._decided()
            if steps:
                self._committing = True
                await self._commit(steps)
                self._committing = False
            while self._asking:
                group.create_task(self._ask(self._asking.pop()))
            if not self._asked:
                self.world.settle()
            await asyncio.sleep(0)

    async def _wait_work(self) -> None:
        now = self._clock()
        self._ripen(now)
        while self._unsynced or not (self._tasks or self._due or self._asking):
            times = [*self._expected.values(), *(due for _, due in self._telling.values())]
            times += [self._delayed[0][0]] if self._delayed else []
            timeout = max(min(times) - now, 0.0) if times and not self._unsynced else None
            self._changed.clear()
            try:
                async with asyncio.timeout(timeout):
                    await self._changed.wait()
            except TimeoutError:
                pass
            now = self._clock()
            self._ripen(now)

    def _ripen(self, now: float) -> None:
        while self._delayed and self._delayed[0][0] <= now:
            self._tasks[heapq.heappop(self._delayed)[1]] = None
        for task, latest in list(self._expected.items()):
            if latest <= now:
                del self._expected[task]
                self._tasks[task] = None
        for task, (_, due) in list(self._telling.items()):
            if due <= now:
                del self._telling[task]
                self._due.add(task)

    def _decided(self) -> list[_Step]:
        """Let controllers look at what is queued, for a slice of time."""
        steps, self._failures = self._failures, []
        limit = time.monotonic() + SLICE_SECONDS
        self.world.now = self._clock()
        while self._tasks or self._due:
            if self._due:
                task = self._due.pop()
                self._tasks.pop(task, None)
                steps += self._looked(task, tells=True)
            else:
                task = next(iter(self._tasks))
                del self._tasks[task]
                steps += self._looked(task, tells=False)
            if time.monotonic() > limit or len(steps) >= MOST_WRITES:
                break
        return steps

    def _looked(self, task: Task, *, tells: bool) -> list[_Step]:
        try:
            work = reconcile(self.world, task)
        except Exception:
            # One object that a controller stumbles over must not stop the others.
            self._log.exception("%s %s/%s can't be looked after", task.controller, *task.key)
            self._later(task)
            return []
        self._expected.pop(task, None)
        if work is None:
            self._tries.pop(task, None)
            return []
        self._remember(task, work)
        writes = [*work.writes, *work.events]
        if tells:
            writes += work.statuses
        elif work.statuses:
            self._tell_later(task)
        return [_Step(write, task, work.uid) for write in writes]

    def _remember(self, task: Task, work: Work) -> None:
        if work.again is not None:
            heapq.heappush(self._delayed, (self._clock() + work.again, task))
        if work.within is not None:
            self._expected[task] = self._clock() + work.within
        for ask in work.asks:
            if ask not in self._asked:
                self._asked[ask] = set()
                self._asking.append(ask)
            self._asked[ask].add(task)

    def _tell_later(self, task: Task) -> None:
        now = self._clock()
        latest = self._telling.get(task, (now + LATEST_SECONDS, 0.0))[0]
        self._telling[task] = (latest, min(now + QUIET_SECONDS, latest))

    def _later(self, task: Task) -> None:
        tries = self._tries[task] = self._tries.get(task, 0) + 1
        pause = min(FIRST_RETRY * 2 ** (tries - 1), LONGEST_RETRY)
        heapq.heappush(self._delayed, (self._clock() + pause, task))

    # writing

    async def _commit(self, steps: list[_Step]) -> None:
        outcomes = await self._written(tuple(step.write for step in steps))
        failed: set[Task] = set()
        for step, outcome in zip(steps, outcomes):
            if outcome.error:
                self._failed(step, outcome)
                failed.add(step.task)
            else:
                self._succeeded(step, outcome)
        for task in {step.task for step in steps}:
            if task in failed:
                self._later(task)
            else:
                self._tries.pop(task, None)

    async def _written(self, writes: tuple[Write, ...]) -> tuple[Outcome, ...]:
        """Commit, again with the same id until an answer comes: so it is done exactly once."""
        commit = Commit(id=uuid.uuid4().hex, writes=writes, manager=MANAGER)
        pause = FIRST_RETRY
        while True:
            try:
                with deadline(COMMIT_SECONDS):
                    return (await self._objects.commit(commit)).outcomes
            except InvalidArgument as error:
                self._log.error("a commit of %d writes is refused: %s", len(writes), error.message)
                return tuple(Outcome(error=error.code, message=error.message) for _ in writes)
            except SagongError as error:
                self._log.warning("can't commit %d writes: %s", len(writes), error.message)
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))
            pause = min(pause * 2, 5.0)

    def _succeeded(self, step: _Step, outcome: Outcome) -> None:
        kind = self._kind(step.write.resource)
        if kind is None or not outcome.body:
            return
        item = Item(kind, outcome.body)
        item.revision = item.revision or outcome.revision
        if step.write.verb is Verb.CREATE and step.write.resource == PODS:
            self.world.failures.pop(step.uid, None)
        self._note(self.world.put(item))

    def _failed(self, step: _Step, outcome: Outcome) -> None:
        write = step.write
        if write.resource == "v1/events":
            return
        if outcome.error in _LATE:
            return
        self._log.warning(
            "%s of %s %s/%s: %s",
            write.verb,
            write.resource,
            write.namespace,
            write.name,
            outcome.message,
        )
        if write.verb is Verb.CREATE and self.world.failures.get(step.uid) != outcome.message:
            self.world.failures[step.uid] = outcome.message
            self._tell_failure(step, outcome.message)
            self._tell_later(step.task)

    def _tell_failure(self, step: _Step, message: str) -> None:
        item = self.world.get(step.task.resource, step.task.key)
        if item is not None:
            work = Work(self.world, item.uid)
            work.event(item, "Warning", "FailedCreate", f"Error creating: {message}")
            self._failures.extend(_Step(event, step.task, item.uid) for event in work.events)

    def _kind(self, resource: str) -> Kind | None:
        found = BY_RESOURCE.get(resource)
        customs = (kind for kind, _ in self._customs.values() if kind.resource == resource)
        return found or next(customs, None)

    # asking

    async def _ask(self, ask: Ask) -> None:
        try:
            if ask == MEASURE:
                await self._measure()
            elif ask.uid:
                await self._ask_owner(ask)
            else:
                await self._empty(ask)
        except SagongError as error:
            self._log.warning("asking for %s %s: %s", ask.resource, ask.name, error.message)
            for task in self._asked.pop(ask):
                self._later(task)
        else:
            self._tasks |= dict.fromkeys(self._asked.pop(ask))
        finally:
            self._changed.set()

    async def _measure(self) -> None:
        """What containers use; where nobody measures, autoscalers are told that nothing is known."""
        samples: tuple[Sample, ...] = ()
        try:
            if self._metrics is not None:
                samples = (await self._metrics.sample(SampleQuery(fresh=True))).samples
        finally:
            self.world.usage.take_samples(samples, self._clock())

    async def _ask_owner(self, ask: Ask) -> None:
        request = GetRequest(resource=ask.resource, name=ask.name, namespace=ask.namespace)
        try:
            found = await self._objects.get(request)
        except NotFound:
            self._is_absent(ask.uid)
            return
        kind = self._kind(ask.resource)
        if kind is not None:
            item = Item(kind, found.body)
            item.revision = item.revision or found.revision
            self._note(self.world.put(item))
            if item.uid != ask.uid:
                self._is_absent(ask.uid)

    def _is_absent(self, uid: str) -> None:
        if len(self.world.absent) > 10_000:
            self.world.absent.clear()
        self.world.absent.add(uid)

    async def _empty(self, ask: Ask) -> None:
        """Delete an unfollowed resource's objects of a namespace that ends."""
        request = ListRequest(resource=ask.resource, namespace=ask.namespace, limit=MOST_WRITES)
        items = (await self._objects.list(request)).items
        if not items:
            self.world.emptied.add((ask.resource, ask.namespace))
            return
        kind = Kind(ask.resource, "")
        names = [Item(kind, body).meta.name for body in items]
        await self._written(
            tuple(
                Write(
                    verb=Verb.DELETE,
                    resource=ask.resource,
                    name=name,
                    namespace=ask.namespace,
                )
                for name in names
            )
        )


def _defined(item: Item) -> Kind | None:
    """The kind that a CustomResourceDefinition defines, once it is served."""
    document = item.document()
    conditions = (document.get("status") or {}).get("conditions") or ()
    if not any(c.get("type") == "Established" and c.get("status") == "True" for c in conditions):
        return None
    spec = document["spec"]
    served = [v["name"] for v in spec["versions"] if v.get("served")]
    if not served:
        return None
    names = spec["names"]
    namespaced = spec.get("scope") == "Namespaced"
    return custom(spec["group"], served[0], names["plural"], names["kind"], namespaced=namespaced)
