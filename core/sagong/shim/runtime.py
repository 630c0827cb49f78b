"""The slot's methods over monitors. A runtime adds plans; its launcher has the engine for them."""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import weakref
from collections.abc import AsyncIterator, Coroutine
from typing import Any, Protocol, cast

import msgspec

from sagong.contracts.runtime import (
    AttachRequest,
    Container,
    ContainerList,
    ContainerRef,
    ExecRequest,
    ExecStatus,
    Exited,
    OutOfMemory,
    ProcessList,
    ResizeRequest,
    RunSpec,
    Shown,
    ShowRequest,
    SignalRequest,
    UpdateRequest,
)
from sagong.contracts.streams import Address
from sagong.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    SagongError,
    Unavailable,
)
from sagong.host import Host
from sagong.shim.directory import RunDirectory
from sagong.shim.facts import HostFacts
from sagong.shim.links import Links
from sagong.shim.records import ExecRecord, Made, Record, Records
from sagong.shim.requests import cgroup_path, check_sources, layer_limit
from sagong.shim.rooms import Rooms

__all__ = ["MonitoredRuntime", "Plans"]

_REMOVE_SECONDS = 20.0
_ADOPT_ATTEMPTS = 20
_LAST_SIGNAL = 64
_REMEMBERED_EXECS = 32


class Plans(Protocol):
    """From what is asked to the messages that the runtime's engine understands; pure.

    `maker` names the engine that they are for (`Engine.maker`). Containers of another, found after a
    swap, are looked after, but nothing more can be started in them.
    """

    maker: str

    def run(self, spec: RunSpec, facts: HostFacts) -> dict[str, Any]:
        """The message that makes a monitor start this container."""
        ...

    def exec(
        self, spec: RunSpec, request: ExecRequest, facts: HostFacts, *, cgroup: str
    ) -> dict[str, Any]:
        """The message that makes the monitor start a further process in the container."""
        ...

    @property
    def engine(self) -> dict[str, Any]:
        """What the engine is told with each run, exec and job, by their key "engine"."""
        ...


class MonitoredRuntime:
    """Runs containers by a launcher and its monitors.

    `cgroup_parent` is where containers without a parent of their own go. A monitor watches up to
    `containers_per_monitor` of them, where nothing of the engine waits; a group is never divided.
    """

    def __init__(
        self, host: Host, plans: Plans, *, cgroup_parent: str, containers_per_monitor: int = 1
    ) -> None:
        self._host = host
        self._plans = plans
        self._cgroup_parent = cgroup_parent
        self._directory = RunDirectory(str(host.run))
        self._files = Records(self._directory)
        self._records: dict[str, Record] = {}
        self._rooms = Rooms(containers_per_monitor)
        # A lock lives as long as somebody holds it or waits for it.
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._links = Links(
            self._directory,
            host.log,
            self._event,
            self._monitor_gone,
            self._watched,
            plans.maker,
        )

    # -- life ----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Reach the launcher, then adopt what runs."""
        await self._links.open()
        self._host.spawn(self._links.keep_launcher(), "launcher-link")
        await self._adopt_all()

    async def stop(self) -> None:
        """Containers, monitors and launcher live on."""
        for task in tuple(self._tasks):
            task.cancel()
        self._links.close()

    def busy(self) -> bool:
        """Whether a container lives, or something is done about one."""
        return bool(self._tasks) or any(r.exit is None for r in self._records.values())

    async def export(self) -> bytes:
        """Everything is in the run directory."""
        return b""

    async def restore(self, state: bytes) -> None:
        """Read again what the predecessor did after our own start."""
        await self._adopt_all()

    @property
    def _facts(self) -> HostFacts:
        if self._links.facts is None:
            raise Unavailable("the launcher has not been reached yet")
        return self._links.facts

    async def _job(self, record: Record, name: str, **arguments: Any) -> dict[str, Any]:
        """A short job on a container, with the launcher's rights."""
        request = {
            "job": name,
            "engine": record.made.engine,
            "maker": record.made.maker,
            "id": record.spec.id,
            "cgroup": record.cgroup,
            "pid": record.pid,
            "started": record.started,
            **arguments,
        }
        return await self._links.job(record.key, request)

    def _lock(self, container_id: str) -> asyncio.Lock:
        return self._locks.setdefault(container_id, asyncio.Lock())

    async def _whole(self, work: Coroutine[Any, Any, Any], lock: asyncio.Lock | None = None) -> Any:
        """Finish work, then let `lock` go, even when its caller goes away: half helps nobody."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if lock is not None:
            task.add_done_callback(lambda _: lock.release())
        return await asyncio.shield(task)

    # -- run -----------------------------------------------------------------------------------

    async def run(self, spec: RunSpec) -> Container:
        """Start a container."""
        lock = self._lock(spec.id)
        await lock.acquire()
        return cast(Container, await self._whole(self._start(spec), lock))

    async def _start(self, spec: RunSpec) -> Container:
        former = self._records.get(spec.id)
        if former is not None and former.spec.run == spec.run:
            return former.container()
        if former is not None and former.exit is None:
            raise AlreadyExists(f"run {former.spec.run} of container {spec.id} is running")
        resolved, limit = layer_limit(self._resolve(spec))
        whole = {"maker": self._plans.maker, "group": spec.group or spec.id}
        request = self._plans.run(resolved, self._facts) | whole
        if spec.expect_attach:
            request["attach"] = {"stdin": spec.attach_stdin}
        if former is not None:
            await self._forget(former)
        record = self._new_record(spec)
        self._files.create(spec)
        self._records[spec.id] = record
        try:
            if limit is not None:
                await self._job(record, "bound", **limit)
            answer = await self._ask_start(record, request)
        except SagongError as error:
            await self._undo(record, error)
            raise
        record.pid, record.started_at = answer["pid"], answer["started_at"]
        record.started = answer["started"]
        record.starting = False
        token = answer.get("token")  # monitors of before give none
        stream = None if token is None else self._address(record, token)
        return msgspec.structs.replace(record.container(), stream=stream)

    def _new_record(self, spec: RunSpec) -> Record:
        cgroup = cgroup_path(spec, self._cgroup_parent)
        key = self._rooms.choose(spec, self._records.values())
        return Record(spec, key, cgroup, Made(self._plans.maker, self._plans.engine))

    async def _ask_start(self, record: Record, request: dict[str, Any]) -> dict[str, Any]:
        """The monitor may end or die just now: its successor starts the container."""

        async def again() -> bool:
            if self._files.state(record.spec.id) is not None:
                return False
            await self._job(record, "sweep")
            self._files.create(record.spec)
            return True

        return await self._links.ask(record.key, request, again=again)

    async def _undo(self, record: Record, error: SagongError) -> None:
        """Nothing stays of a failed start, even when its monitor died in the middle."""
        if isinstance(error, Unavailable):
            with contextlib.suppress(SagongError):
                await self._job(record, "sweep")
        self._records.pop(record.spec.id, None)
        self._files.remove(record.spec.id)

    def _resolve(self, spec: RunSpec) -> RunSpec:
        """Namespaces of other containers become paths."""
        changed = {}
        for field in ("network", "pid", "ipc", "uts", "cgroup", "user"):
            value = getattr(spec.namespaces, field)
            kind, _, name = value.partition(":")
            if kind == "container":
                other = self._running(name)
                file = {"network": "net"}.get(field, field)
                changed[field] = f"path:/proc/{other.pid}/ns/{file}"
            elif value == "group" and not spec.group:
                raise InvalidArgument(f"namespace {field} of {spec.id}: the spec names no group")
            elif value not in ("new", "host", "group") and not value.startswith("path:/"):
                raise InvalidArgument(f"namespace {field}={value!r} is not understood")
        if not changed:
            return spec
        spaces = msgspec.structs.replace(spec.namespaces, **changed)
        return msgspec.structs.replace(spec, namespaces=spaces)

    # -- exec and streams ----------------------------------------------------------------------

    async def exec(self, request: ExecRequest) -> ExecStatus:
        """Start a process in a container."""
        if not request.exec_id or "/" in request.exec_id or request.exec_id.startswith("."):
            raise InvalidArgument(f"exec id {request.exec_id!r} can't be a file's name")
        record = self._find(request.id)
        known = record.execs.get(request.exec_id)
        if known is not None:
            return await self._exec_again(record, request, known)
        if record.exit is not None:
            raise FailedPrecondition(f"container {request.id} is not running")
        if record.paused:
            raise FailedPrecondition(
                f"Container {request.id} is paused, unpause the container before exec"
            )
        status: ExecStatus = await self._whole(self._exec(record, request))
        return status

    async def _exec(self, record: Record, request: ExecRequest) -> ExecStatus:
        if record.made.maker != self._plans.maker:
            other = record.made.maker.partition(".")[0]
            raise FailedPrecondition(
                f"container {record.spec.id[:12]} was started by another runtime, {other}: "
                "restart it to execute something in it, or swap back"
            )
        message = self._plans.exec(record.spec, request, self._facts, cgroup=record.cgroup)
        message["maker"] = self._plans.maker
        new = record.execs[request.exec_id] = ExecRecord()

        async def again() -> bool:
            return self._files.withdraw_exec(record.spec.id, request.exec_id)

        try:
            answer = await self._links.ask(record.key, message, again=again)
        except SagongError:
            record.execs.pop(request.exec_id, None)
            # What a monitor started before it died is found by who asks again.
            record.execs = self._files.execs(record.spec.id) | record.execs
            raise
        new.pid = answer["pid"]
        stream = self._address(record, answer["token"])
        return ExecStatus(
            exec_id=request.exec_id,
            running=new.code is None,
            pid=new.pid,
            code=new.code or 0,
            stream=stream,
        )

    async def _exec_again(
        self, record: Record, request: ExecRequest, known: ExecRecord
    ) -> ExecStatus:
        """Its status, with its streams if they are still there."""
        message = {
            "op": "attach",
            "id": request.id,
            "exec_id": request.exec_id,
            "stdin": request.process.stdin,
            "replay": True,
        }
        status = known.status(request.exec_id)
        try:
            answer = await self._links.ask(record.key, message)
        except (NotFound, FailedPrecondition, Unavailable):
            return status
        return msgspec.structs.replace(status, stream=self._address(record, answer["token"]))

    async def exec_status(self, request: ExecRequest) -> ExecStatus:
        """Status of an exec."""
        known = self._find(request.id).execs.get(request.exec_id)
        if known is None:
            raise NotFound(f"No such exec instance: {request.exec_id}")
        if known.code is None:
            # It is written before the streams end, and told after: who has seen their end asks at once.
            written = self._files.execution(request.id, request.exec_id)
            known.code = written.code if written is not None else None
        return known.status(request.exec_id)

    async def attach(self, request: AttachRequest) -> Address:
        """An address for the streams."""
        record = self._find(request.id)
        if record.exit is not None:
            raise FailedPrecondition(f"container {request.id} is not running")
        message = {
            "op": "attach",
            "id": request.id,
            "stdin": request.stdin,
            "replay": request.replay,
        }
        answer = await self._links.ask(record.key, message)
        return self._address(record, answer["token"])

    def _address(self, record: Record, token: str) -> Address:
        path = self._directory.monitor_socket(record.key)
        return Address(path=path, token=token, protocol="frames")

    async def resize(self, request: ResizeRequest) -> None:
        """Resize a terminal."""
        record = self._running(request.id)
        message = {
            "op": "resize",
            "id": request.id,
            "exec_id": request.exec_id,
            "rows": request.rows,
            "columns": request.columns,
        }
        try:
            await self._links.ask(record.key, message)
        except FailedPrecondition as error:
            raise NotFound(error.message) from None

    # -- control -------------------------------------------------------------------------------

    async def signal(self, request: SignalRequest) -> None:
        """Signal a container."""
        if not 0 < request.signal <= _LAST_SIGNAL:
            raise InvalidArgument(f"signal {request.signal} does not exist")
        record = self._running(request.id)
        await self._job(record, "signal", signal=request.signal, all=request.all)
        if request.signal == 9:
            self._set_paused(record, paused=False)

    async def pause(self, container: ContainerRef) -> None:
        """Freeze."""
        record = self._running(container.id)
        await self._job(record, "freeze")
        self._set_paused(record, paused=True)

    async def resume(self, container: ContainerRef) -> None:
        """Thaw."""
        record = self._running(container.id)
        await self._job(record, "thaw")
        self._set_paused(record, paused=False)

    def _set_paused(self, record: Record, *, paused: bool) -> None:
        record.paused = paused
        if paused:
            self._files.mark(record.spec.id, "paused")
        else:
            self._files.unmark(record.spec.id, "paused")

    async def update(self, request: UpdateRequest) -> None:
        """Change limits."""
        record = self._running(request.id)
        limits = msgspec.to_builtins(request.limits)
        await self._job(record, "limit", limits=limits)

    async def inspect(self, container: ContainerRef) -> Container:
        """One container."""
        return self._find(container.id).container()

    async def processes(self, container: ContainerRef) -> ProcessList:
        """The container's processes."""
        record = self._running(container.id)
        answer = await self._job(record, "processes")
        return msgspec.convert(answer, ProcessList)

    async def list(self) -> ContainerList:
        """All containers."""
        found = (r.container() for r in self._records.values() if not r.starting)
        return ContainerList(containers=tuple(found))

    async def purge(self) -> None:
        """End and remove every container."""
        for record in list(self._records.values()):
            await self.remove(ContainerRef(id=record.spec.id))

    async def remove(self, container: ContainerRef) -> None:
        """Kill, forget, clean up."""
        lock = self._lock(container.id)
        await lock.acquire()
        await self._whole(self._remove(container.id), lock)

    async def _remove(self, container_id: str) -> None:
        record = self._records.get(container_id)
        if record is None:
            return
        if record.exit is None:
            await self._job(record, "sweep", remove=False)
            await self._await_end(record)
        await self._forget(record)
        self._records.pop(record.spec.id, None)

    async def _await_end(self, record: Record) -> None:
        """Its output may be held back for somebody to attach; nobody will now."""
        with contextlib.suppress(SagongError):
            await self._links.ask(record.key, {"op": "let_go", "id": record.spec.id})
        try:
            await asyncio.wait_for(record.ended.wait(), _REMOVE_SECONDS)
        except TimeoutError:
            raise Unavailable(
                f"container {record.spec.id} did not end in {_REMOVE_SECONDS:.0f} s after SIGKILL"
            ) from None

    async def _forget(self, record: Record) -> None:
        """After the end: wait until the monitor has cleaned, then remove what is left."""
        try:
            await asyncio.wait_for(record.cleaned.wait(), 5.0)
        except TimeoutError:
            await self._job(record, "sweep")
        self._files.remove(record.spec.id)

    async def wait(self, container: ContainerRef) -> AsyncIterator[Exited]:
        """One item at the end of the present run."""
        record = self._find(container.id)
        await record.ended.wait()
        if record.exit is not None:
            yield record.exit

    async def refresh(self, container: ContainerRef) -> None:
        """By a job in the container's mount namespace."""
        await self._job(self._running(container.id), "refresh")

    async def show(self, request: ShowRequest) -> AsyncIterator[Shown]:
        """By a fork of the launcher, which sees the machine."""
        check_sources(request)
        directory = str(self._host.root / "mounts")
        async with self._links.showing(directory, request.sources) as (paths, ended):
            yield Shown(paths=paths)
            await ended.wait()
        raise Unavailable("what was shown of the machine is hidden again: its process ended")

    def _find(self, container_id: str) -> Record:
        record = self._records.get(container_id)
        if record is None or record.starting:
            raise NotFound(f"No such container: {container_id}")
        return record

    def _running(self, container_id: str) -> Record:
        record = self._find(container_id)
        if record.exit is not None:
            raise NotFound(f"container {container_id} is not running")
        return record

    def _event(self, key: str, message: dict[str, Any]) -> None:
        record = self._records.get(message["id"])
        if record is None:
            return
        match message["event"]:
            case "exited":
                self._ended(record, message)
            case "cleaned":
                record.cleaned.set()
            case "oom":
                record.oom_killed = True
                self._host.emit(OutOfMemory(id=record.spec.id, run=record.spec.run))
            case "exec_exited":
                execution = record.execs.setdefault(message["exec_id"], ExecRecord())
                execution.code = message["code"]
                self._forget_execs(record)

    def _forget_execs(self, record: Record) -> None:
        """Of those that ended only the youngest are remembered; each has files."""
        ended = [exec_id for exec_id, known in record.execs.items() if known.code is not None]
        for exec_id in ended[:-_REMEMBERED_EXECS]:
            del record.execs[exec_id]
            self._files.remove_exec(record.spec.id, exec_id)

    def _ended(self, record: Record, facts: dict[str, Any]) -> None:
        """The mark comes first: a crash in between is healed by listeners' resynchronisation."""
        if record.exit is not None or facts["run"] != record.spec.run:
            return
        record.finish(facts)
        if self._files.mark(record.spec.id, "emitted") and record.exit is not None:
            self._host.emit(record.exit)

    def _monitor_gone(self, key: str) -> None:
        """The end of a monitor's work, or its death: then a successor takes over."""
        left = [r for r in self._records.values() if r.key == key and not r.starting]
        for record in left:
            if record.exit is not None:
                record.cleaned.set()
        if any(record.exit is None for record in left):
            self._host.log.warning("monitor ended early; replacing it", extra={"key": key})
            task = asyncio.get_running_loop().create_task(self._succeed(key))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _watched(self, key: str) -> builtins.list[str]:
        """Containers that a monitor of this key must watch."""
        mine = (r for r in self._records.values() if r.key == key)
        return [r.spec.id for r in mine if r.exit is None and not r.starting]

    async def _succeed(self, key: str) -> None:
        """Let a new monitor adopt the containers of a dead one."""
        for attempt in range(_ADOPT_ATTEMPTS):
            ids = self._watched(key)
            if not ids:
                return
            try:
                link = await self._links.obtain(key)
                await link.ask({"op": "adopt", "ids": ids})
                self._learn_exec_codes(ids)
            except SagongError as error:
                self._host.log.warning(
                    "no successor for a monitor yet: %s", error.message, extra={"key": key}
                )
                await asyncio.sleep(0.05 * (attempt + 1))
            else:
                return

    def _learn_exec_codes(self, ids: builtins.list[str]) -> None:
        """A monitor may die between writing a code and telling it."""
        for container_id in ids:
            known = self._records[container_id].execs
            for exec_id, found in self._files.execs(container_id).items():
                known.setdefault(exec_id, found).code = found.code

    async def _adopt_all(self) -> None:
        """Read the directory: what runs is taken over, what ended is told, the rest swept."""
        keys: dict[str, builtins.list[str]] = {}
        for container_id in self._files.ids():
            spec, state = self._files.spec(container_id), self._files.state(container_id)
            if container_id in self._records:
                continue
            if spec is None or state is None:
                await self._sweep_failed(container_id, spec)
                continue
            record = self._records[container_id] = self._files.load(spec, state)
            keys.setdefault(record.key, []).append(container_id)
        for key, ids in keys.items():
            await self._adopt_key(key, ids)

    async def _sweep_failed(self, container_id: str, spec: RunSpec | None) -> None:
        """A start that a crash interrupted."""
        if spec is not None:
            await self._job(self._new_record(spec), "sweep")
        self._files.remove(container_id)

    async def _adopt_key(self, key: str, ids: builtins.list[str]) -> None:
        """By its living monitor, by the exit file, or by a successor."""
        link = await self._links.find(key)
        alive: dict[str, Any] = {}
        if link is not None:
            with contextlib.suppress(SagongError):
                alive = (await link.ask({"op": "hello"}))["containers"]
        missing = False
        for container_id in ids:
            record = self._records[container_id]
            facts = self._files.exit(container_id)
            watched = alive.get(container_id, {"ended": True})
            if facts is not None and watched["ended"]:
                self._ended(record, facts)
                if container_id not in alive:
                    record.cleaned.set()
                    await self._job(record, "sweep")
            elif container_id not in alive:
                missing = True
        if missing:
            await self._succeed(key)
