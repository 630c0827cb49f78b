"""The life of a container: start, end, restart by policy, removal. One lock a container.

How somebody brings one to its end stands in `sagong_node.stops`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine
from functools import partial

from sagong.contracts.node import StartRequest, StatusState
from sagong.contracts.runtime import (
    Container,
    ContainerRef,
    ContainerState,
    Exited,
    OutOfMemory,
)
from sagong.contracts.streams import Address
from sagong.errors import (
    Conflict,
    FailedPrecondition,
    NotFound,
    SagongError,
)
from sagong.host import Host
from sagong_node.assembly import command_of
from sagong_node.concert import first_error, together
from sagong_node.ends import KILL, ending
from sagong_node.expectations import Expectations
from sagong_node.ground import Ground
from sagong_node.journal import Journal
from sagong_node.measuring import Measuring
from sagong_node.partings import Partings, moment
from sagong_node.records import ContainerRecord, SandboxRecord
from sagong_node.registry import Registry
from sagong_node.restarts import Restarts, is_wanted
from sagong_node.runtimes import Runtimes
from sagong_node.stops import Stops

__all__ = ["Lifecycle"]

_RECOVERED = 10.0
# From one try to the next to clean up after a container that nobody waits for.
_AGAIN = 1.0


class Lifecycle:
    """Starts, ends and removes containers, and follows their ends."""

    def __init__(self, host: Host, registry: Registry, ground: Ground, journal: Journal) -> None:
        self.changed: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.accounts: dict[str, tuple[bytes, bytes]] = {}
        self.started: list[Callable[[ContainerRecord], None]] = []
        self._host = host
        self._registry = registry
        self._ground = ground
        self._journal = journal
        self.runtimes = Runtimes(host)
        self.measuring = Measuring(host, registry.containers)
        self._locks: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._restarts = Restarts(host, self._restart)
        self.partings = Partings()
        self.expectations = Expectations(
            host, registry, ground, self.runtimes, self._locks, self._clear
        )
        self.stops = Stops(registry, self.runtimes, self._restarts, self.note, self.changed)
        # Those that are started again as soon as they have stopped.
        self._returning: set[str] = set()

    def container(self, id_: str) -> ContainerRecord:
        """The record of a container; NotFound in Docker's words."""
        record = self._registry.containers.get(id_)
        if record is None:
            raise NotFound(f"No such container: {id_}")
        return record

    def sandbox(self, id_: str) -> SandboxRecord:
        """The record of a sandbox."""
        record = self._registry.sandboxes.get(id_)
        if record is None:
            raise NotFound(f"No such sandbox: {id_}")
        return record

    def note(self, record: ContainerRecord, action: str, **facts: str) -> None:
        """Tell an event, and wake whoever waits for this container."""
        self._journal.note(record, self._owner(record), action, **facts)
        event = self.changed.pop(record.spec.id, None)
        if event is not None:
            event.set()

    def note_shortage(self, event: OutOfMemory) -> None:
        """A process of it was killed for memory, or all are held: it may go on for long."""
        record = self._registry.containers.get(event.id)
        if record is not None and record.alive and record.run == event.run:
            record.oom_killed = True
            self._registry.keep(record, later=True)
            self.note(record, "oom")

    async def start(self, request: StartRequest) -> Address | None:
        """Start a container that is not running, unless that run has been already.

        The streams of the attach that the request expects, if the runtime gives them at once.
        """
        id_ = request.id
        async with self._locks[id_]:
            record = self.container(id_)
            if 0 < request.run <= record.run:
                return None
            if record.state is StatusState.PAUSED:
                raise FailedPrecondition("cannot start a paused container, try unpause instead")
            if record.state is StatusState.REMOVING:
                raise Conflict(f"container {id_} is marked for removal and cannot be started")
            self._restarts.cancel(id_)
            if record.alive:
                return None
            record.failures, record.restart_count = 0, 0
            return await self._run(record, request)

    async def restart(self, id_: str, seconds: float | None, signal: str) -> None:
        """Stop, then start; one that is removed at its end is not removed at this one."""
        self._returning.add(id_)
        try:
            await self.stops.stop(self.container(id_), seconds, signal)
            await self.start(StartRequest(id=id_))
        finally:
            self._returning.discard(id_)

    async def remove(self, id_: str, *, force: bool, volumes: bool) -> None:
        """Remove a container and all that is only its own."""
        record = self.container(id_)
        if record.begun and not force:
            raise FailedPrecondition(
                f"cannot remove container {record.spec.name or id_!r}: "
                f"container is {record.state.value}: "
                "stop the container before removing or force remove"
            )
        if record.alive:
            self.stops.unwish(record)
            await self.stops.signal(record, KILL)
            await self.stops.ended_within(record, 10.0)
        self._restarts.cancel(id_)
        async with self._locks[id_]:
            if id_ in self._registry.containers:
                await self._remove(record, volumes=volumes, now=True)
        self._locks.pop(id_, None)

    def finish(self, exited: Exited) -> None:
        """A run has ended: clean up, and restart or remove as its spec has it.

        Nobody waits for that who could ask again, so what others can't do now is tried again.
        """
        self._host.spawn(self._end(exited), f"finish {exited.id[:12]}")

    async def _end(self, exited: Exited) -> None:
        async with self._locks[exited.id]:
            record = self._registry.containers.get(exited.id)
            if record is None or exited.run != record.run or not record.alive:
                return
            await self._finish(record, exited)
        if exited.id not in self._registry.containers:
            self._locks.pop(exited.id, None)

    async def reconcile(self, runtime: str, recovered: Callable[[], object] = lambda: None) -> None:
        """Hold the records against what their runtime knows, at start and after missed events.
        `recovered` is called when all that runs is in them, though not yet all that has ended."""
        # Judged are runs that were known before the list was asked for: later ones aren't in it.
        before = {id_: r.run for id_, r in self._registry.containers.items()}
        holder = self.runtimes.named(runtime)
        known = {c.id: c for c in (await holder.list()).containers}
        await self._recover(known, runtime)
        recovered()
        for record in list(self._registry.containers.values()):
            if before.get(record.spec.id) != record.run or self.runtimes.holder(record) != runtime:
                continue
            found = known.get(record.spec.id)
            if record.alive and (found is None or found.state is ContainerState.EXITED):
                self.finish(ending(record, found))
            elif record.alive and found is not None:
                record.pid, record.cgroup = found.pid, found.cgroup
                await self._know_network(record)
                if record.alive:
                    self._begun(record)
            elif record.spec.sandbox not in self._registry.sandboxes:
                await self._discard(record.spec.id)
            elif record.state is StatusState.RESTARTING:
                self._restarts.later(record)
            elif record.state is StatusState.EXITED and record.spec.remove:
                await self._resume_removal(record.spec.id)
            elif not record.alive and record.spec.id not in self.expectations:
                if record.image is None:
                    await self._complete(record)
                await self.expectations.withdraw(record.spec.id)
        await self._registry.flushed()  # the exit codes of those that are removed here
        for id_ in set(known) - set(self._registry.containers):
            await holder.remove(ContainerRef(id=id_))

    async def _know_network(self, record: ContainerRecord) -> None:
        """The network of what runs is asked for again if a crash came before it was written."""
        sandbox = self._registry.sandboxes.get(record.spec.sandbox)
        if sandbox is None or sandbox.network is not None or sandbox.spec.share_with:
            return
        async with self._locks[record.spec.id]:
            if record.alive:
                with contextlib.suppress(SagongError):
                    await self._ground.join(sandbox)

    async def _recover(self, known: dict[str, Container], runtime: str) -> None:
        """Take in the runs whose start was begun and not written down; others wait a moment for it."""
        lost = [
            self._host.spawn(self._adopt(record, known[id_]), f"adopt {id_[:12]}")
            for id_, record in self._registry.containers.items()
            if id_ in known and self.runtimes.holder(record) == runtime
            if self._start_lost(record, known[id_])
        ]
        if lost:
            await asyncio.wait(lost, timeout=_RECOVERED)

    def _start_lost(self, record: ContainerRecord, found: Container) -> bool:
        """Whether the runtime has the run after the last known: its record fell to a crash."""
        others = (StatusState.RESTARTING, StatusState.REMOVING)
        return record.state not in others and found.run == record.run + 1

    async def _adopt(self, record: ContainerRecord, found: Container) -> None:
        """The same start again finds all as it was, and the container as it is."""
        async with self._locks[found.id]:
            if not self._start_lost(record, found) or found.id not in self._registry.containers:
                return
            try:
                await self._run(record, StartRequest(id=found.id))
            except SagongError as error:
                self._host.log.warning(
                    "a container whose start was not recorded is ended",
                    extra={"container": found.id, "error": error.message},
                )
                with contextlib.suppress(SagongError):  # it is found again at the next look
                    await self.runtimes.of(record).remove(ContainerRef(id=found.id))

    async def _complete(self, record: ContainerRecord) -> None:
        """It was being created when the last node ended; without its image it is removed."""
        async with self._locks[record.spec.id]:
            if self._registry.containers.get(record.spec.id) is not record:
                return  # removed meanwhile
            try:
                await self._ground.complete(record)
                self._registry.keep(record)
            except NotFound:
                await self._remove(record, volumes=True)
            except SagongError:
                return  # its start says what is wrong

    async def _resume_removal(self, id_: str) -> None:
        """A container of `--rm` had ended when a swap or a crash interrupted its removal."""
        async with self._locks[id_]:
            record = self._registry.containers.get(id_)
            if record is None or id_ in self._returning:
                return
            if record.state is StatusState.EXITED:
                await self._remove(record, volumes=True)

    async def _discard(self, id_: str) -> None:
        """Remove one whose sandbox is gone: nothing else can be done with it."""
        async with self._locks[id_]:
            record = self._registry.containers.get(id_)
            if record is not None:
                await self._remove(record, volumes=record.spec.remove)

    def _owner(self, record: ContainerRecord) -> str:
        sandbox = self._registry.sandboxes.get(record.spec.sandbox)
        return sandbox.spec.owner if sandbox else ""

    async def _run(self, record: ContainerRecord, request: StartRequest) -> Address | None:
        sandbox = self.sandbox(record.spec.sandbox)
        record.wanted = True
        try:
            site, spec = await self.expectations.fulfil(record, sandbox, request)
            self.accounts[record.spec.id] = (site.root.passwd, site.root.group)
            merged = command_of(record.spec, site)
            record.args, record.env, record.cwd = merged.args, merged.env, merged.cwd
            container = await self.runtimes.of(record).run(spec)
        except BaseExceptionGroup as group:
            error = first_error(group)
            await self._failed(record, sandbox, error)
            raise error from None
        except SagongError as error:
            await self._failed(record, sandbox, error)
            raise
        self._running(record, container)
        if container.state is ContainerState.EXITED:
            # A start that is repeated after a crash finds a run whose end was told long ago.
            self.finish(ending(record, container))
        return container.stream

    def _running(self, record: ContainerRecord, container: Container) -> None:
        record.run, record.pid = container.run, container.pid
        record.cgroup, record.started_at = container.cgroup, container.started_at
        record.finished_at, record.code, record.error = 0.0, 0, ""
        record.stopping = None
        record.oom_killed, record.exec_ids = False, ()
        record.state = StatusState.RUNNING
        self._registry.keep(record, later=not self._is_asked_for(record))
        self._begun(record)
        self.note(record, "start")

    def _begun(self, record: ContainerRecord) -> None:
        self.measuring.begin(record)
        for listener in self.started:
            listener(record)

    async def _failed(
        self, record: ContainerRecord, sandbox: SandboxRecord, error: SagongError
    ) -> None:
        record.error = error.message
        record.code = 127 if isinstance(error, NotFound) else 126
        if not isinstance(error, NotFound | FailedPrecondition):
            record.code = 128
        record.wanted = False
        self._registry.keep(record)
        await self._clear(record, sandbox)
        if record.spec.remove:
            await self._remove(record, volumes=True)

    def note_volumes(self, record: ContainerRecord) -> None:
        """Tell of the volumes that its image declares, which were made with it."""
        named = {mount.source for mount in record.spec.mounts}
        for name in record.anonymous:
            if name not in named:
                self.note(record, "volume_create", volume=name)

    async def _clear(self, record: ContainerRecord, sandbox: SandboxRecord) -> None:
        await self._ground.clear(record)
        if not sandbox.spec.explicit and not self._others(record):
            await self._ground.leave(sandbox)

    def _others(self, record: ContainerRecord) -> bool:
        """Whether another container of the sandbox lives."""
        return any(
            other.alive and other.spec.sandbox == record.spec.sandbox and other is not record
            for other in self._registry.containers.values()
        )

    async def _finish(self, record: ContainerRecord, exited: Exited) -> None:
        record.state = StatusState.EXITED
        told, record.oom_killed = record.oom_killed, record.oom_killed or exited.oom_killed
        record.code = exited.code
        record.finished_at, record.pid = exited.finished_at, 0
        again = is_wanted(record)
        if again:
            # Kept as that: whoever reads the records after a crash or a reboot goes on with it.
            record.state = StatusState.RESTARTING
        self._registry.keep(record, later=record.spec.remove)
        if record.oom_killed and not told:
            self.note(record, "oom")
        seconds = max(0, int(exited.finished_at - record.started_at))
        self.note(record, "die", execDuration=str(seconds), exitCode=str(exited.code))
        removed = record.spec.remove and not again and record.spec.id not in self._returning
        lingers = removed and self.partings.lingers(record)
        at_once = removed and not lingers
        last = (
            partial(self._remove, record, volumes=True) if at_once else partial(self._leave, record)
        )
        await together(self.measuring.end(record), self._surely(record, last))
        if again:
            self._restarts.later(record)
        if lingers:
            self._host.spawn(self._part(record), f"remove {record.spec.id[:12]}")

    async def _part(self, record: ContainerRecord) -> None:
        """Remove one that has ended, unless somebody did, or began it again."""
        id_, run = record.spec.id, record.run
        await moment()
        async with self._locks[id_]:
            there = self._registry.containers.get(id_) is record
            if there and record.state is StatusState.EXITED and record.run == run:
                await self._surely(record, partial(self._remove, record, volumes=True))
        if id_ not in self._registry.containers:
            self._locks.pop(id_, None)

    async def _surely(
        self, record: ContainerRecord, work: Callable[[], Coroutine[object, object, None]]
    ) -> None:
        """Until it is done: who is to do his part of it may be away, or find no room."""
        while True:
            try:
                return await work()
            except SagongError as error:
                self._host.log.warning(
                    "a container that has ended can't be cleaned up yet",
                    extra={"container": record.spec.id, "error": error.message},
                )
                await asyncio.sleep(_AGAIN)

    async def _leave(self, record: ContainerRecord) -> None:
        sandbox = self._registry.sandboxes.get(record.spec.sandbox)
        if sandbox is not None:
            await self._clear(record, sandbox)

    async def _remove(self, record: ContainerRecord, *, volumes: bool, now: bool = False) -> None:
        id_ = record.spec.id
        record.state = StatusState.REMOVING
        await self.expectations.drop(record)
        runtime, ended = self.runtimes.of(record), record.finished_at > 0
        if not ended:
            await runtime.remove(ContainerRef(id=id_))
        # Its end is known without the runtime, whatever happens.
        known = ended and self._registry.is_durable(record)
        sandbox = self._registry.sandboxes.get(record.spec.sandbox)
        work = [self._ground.remove(record, volumes=volumes)]
        if known:
            work.append(runtime.remove(ContainerRef(id=id_)))
        if sandbox is not None and not sandbox.spec.explicit:
            work.append(self._ground.leave(sandbox, forgotten=True))
        await together(*work)
        there = id_ in self._registry.containers
        buried = self._registry.bury(record)
        if sandbox is not None and not sandbox.spec.explicit:
            self._registry.forget(sandbox)
        self.accounts.pop(id_, None)
        if there:
            self.note(record, "destroy")
        if ended:
            # The runtime forgets the exit code: before that it must be durable elsewhere.
            await self._registry.patiently(buried, hurry=now)
            if not known:
                await runtime.remove(ContainerRef(id=id_))

    def _is_asked_for(self, record: ContainerRecord) -> bool:
        """Whether somebody wants to know after a reboot that it ran: its policy, or a pod's."""
        sandbox = self._registry.sandboxes.get(record.spec.sandbox)
        kept = sandbox is not None and sandbox.spec.explicit
        return kept or record.spec.restart.name not in ("", "no")

    async def _restart(self, id_: str) -> None:
        async with self._locks[id_]:
            record = self._registry.containers.get(id_)
            if record is None or record.state is not StatusState.RESTARTING:
                return
            record.restart_count += 1
            try:
                await self._run(record, StartRequest(id=id_))
            except SagongError:
                # As a run that ended badly: what is not there now may be in a while.
                record.wanted, record.finished_at = True, time.time()
                again = is_wanted(record)
                if not again:
                    record.state = StatusState.EXITED
                self._registry.keep(record)
                if again:
                    self._restarts.later(record)
