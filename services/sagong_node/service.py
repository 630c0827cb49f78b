"""The contract `node`: each method finds the record, checks its state, and asks who does the work."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from sagong.call import leaving
from sagong.contracts.network import ConnectRequest, DisconnectRequest, Sandbox
from sagong.contracts.node import (
    AccountQuery,
    AttachSpec,
    ConnectSpec,
    ContainerSpec,
    ContainerStatus,
    DialRequest,
    ExecRef,
    ExecSpec,
    ExecState,
    KillRequest,
    LogsRequest,
    NodeQuery,
    Ref,
    RemoveRequest,
    ResizeSpec,
    SandboxSpec,
    SandboxStatus,
    ShownMounts,
    StartRequest,
    StatusList,
    StatusState,
    StopRequest,
    TopResult,
    UpdateSpec,
    WaitRequest,
    WaitResult,
)
from sagong.contracts.runtime import (
    AttachRequest,
    ContainerRef,
    ResizeRequest,
    RuntimeList,
    ShowRequest,
    UpdateRequest,
    User,
)
from sagong.contracts.streams import Address
from sagong.drivers import EveryNetwork
from sagong.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    SagongError,
)
from sagong.host import Host
from sagong.streams import send
from sagong_node import defaults, mounts
from sagong_node.creation import Creation
from sagong_node.execution import Execution
from sagong_node.ground import Ground
from sagong_node.lifecycle import Lifecycle
from sagong_node.logs import LogReader
from sagong_node.processes import shown_process
from sagong_node.records import ContainerRecord, SandboxRecord
from sagong_node.registry import Registry
from sagong_node.streams import StreamServer

__all__ = ["NodeService"]


class NodeService:
    """Methods of the slot; made and fed by `sagong_node.plugin`."""

    def __init__(
        self,
        host: Host,
        registry: Registry,
        ground: Ground,
        life: Lifecycle,
        streams: StreamServer,
    ) -> None:
        self._registry = registry
        self._networks = EveryNetwork(host)
        self._ground = ground
        self._life = life
        self._creation = Creation(life, registry, ground)
        self._execution = Execution(life, registry, ground)
        self._streams = streams

    async def expect(self, ref: Ref) -> None:
        """Make ready what a start needs."""
        await self._life.expectations.expect(ref.id)

    async def start(self, request: StartRequest) -> ContainerStatus:
        """Start a container."""
        stream = await self._life.start(request)
        status = self._status(self._life.container(request.id))
        return status if stream is None else msgspec.structs.replace(status, stream=stream)

    async def stop(self, request: StopRequest) -> ContainerStatus:
        """Stop a container; one that removes itself at its end answers as it was last."""
        record = self._life.container(request.id)
        await self._life.stops.stop(record, request.seconds, request.signal)
        return self._status(record)

    async def create_sandbox(self, spec: SandboxSpec) -> SandboxStatus:
        """Make a sandbox; an explicit one joins its networks now."""
        known = self._registry.sandboxes.get(spec.id)
        if known is not None and known.spec != spec:
            raise AlreadyExists(f"sandbox {spec.id} exists with another specification")
        record = known or SandboxRecord(spec=spec)
        if known is None:
            self._ground.check(spec)
            # One that joins nothing yet is written with its first container.
            self._registry.keep(record, later=not spec.explicit)
        if spec.explicit:
            try:
                await self._ground.join(record)
            except SagongError:
                self._registry.forget(record)
                raise
        return record.status()

    async def remove_sandbox(self, ref: Ref) -> None:
        """Remove an empty sandbox."""
        record = self._registry.sandboxes.get(ref.id)
        if record is None:
            return
        inside = [r for r in self._registry.containers.values() if r.spec.sandbox == ref.id]
        if inside:
            raise FailedPrecondition(f"sandbox {ref.id} has {len(inside)} containers; remove them")
        await self._ground.leave(record, forgotten=True)
        self._registry.forget(record)
        await self._registry.settled()

    def sandbox(self, ref: Ref) -> SandboxStatus:
        """One sandbox."""
        return self._life.sandbox(ref.id).status()

    async def connect(self, spec: ConnectSpec) -> SandboxStatus:
        """Change the networks of a sandbox, now or for its next start."""
        record = self._life.sandbox(spec.id)
        await self._life.expectations.give_up(spec.id)
        wanted = [
            a for a in record.spec.network.attachments if a.network != spec.attachment.network
        ]
        before = record.network
        if before is not None:
            record.network = await self._connect_now(spec)
        if not spec.disconnect:
            wanted.append(spec.attachment)
        network = msgspec.structs.replace(record.spec.network, attachments=tuple(wanted))
        record.spec = msgspec.structs.replace(record.spec, network=network)
        self._registry.keep(record)
        for container in self._registry.containers.values():
            if container.alive and container.spec.sandbox == spec.id:
                self._ground.network_files.rewrite_hosts(container, record)
                if record.network and before and record.network.dns != before.dns:
                    self._ground.network_files.lead_to_resolver(container, record)
        await self._registry.stored()
        return record.status()

    async def _connect_now(self, spec: ConnectSpec) -> Sandbox:
        if spec.disconnect:
            return await self._networks.disconnect(
                DisconnectRequest(id=spec.id, network=spec.attachment.network, force=spec.force)
            )
        return await self._networks.connect(ConnectRequest(id=spec.id, attachment=spec.attachment))

    async def create(self, spec: ContainerSpec) -> ContainerStatus:
        """Make a container; its root filesystem is there from now on."""
        known = self._registry.containers.get(spec.id)
        if spec.own is not None and known is None:
            await self.create_sandbox(spec.own)
        expected = spec.expected
        spec = msgspec.structs.replace(spec, own=None, expected=False)
        if known is not None:
            if msgspec.structs.replace(known.spec, runtime=spec.runtime) != spec:
                raise AlreadyExists(f"container {spec.id} exists with another specification")
            if known.image is not None:
                return self._status(known)
        self._ground.check(self._life.sandbox(spec.sandbox).spec, spec)
        instance = self._life.runtimes.instance(spec.runtime)
        mounts.check(spec.mounts)
        defaults.capabilities(
            spec.add_capabilities, spec.drop_capabilities, privileged=spec.privileged
        )
        spec = msgspec.structs.replace(spec, runtime=instance)
        record = known or ContainerRecord(spec=spec, created_at=time.time())
        await self._creation.make(record, expected=expected)
        self._life.note_volumes(record)
        self._life.note(record, "create")
        return self._status(record)

    def _change_name(self, record: ContainerRecord, name: str) -> None:
        """From its next start on it is found by that on its networks."""
        sandbox = self._life.sandbox(record.spec.sandbox)
        names = tuple(name if n == record.spec.name else n for n in sandbox.spec.network.names)
        if names != sandbox.spec.network.names:
            network = msgspec.structs.replace(sandbox.spec.network, names=names)
            sandbox.spec = msgspec.structs.replace(sandbox.spec, network=network)
            self._registry.keep(sandbox)

    async def _change_hosts(
        self, record: ContainerRecord, hosts: tuple[tuple[str, str], ...]
    ) -> None:
        """What was made ready for its start has the lines of before."""
        sandbox = self._life.sandbox(record.spec.sandbox)
        await self._life.expectations.give_up(record.spec.sandbox)
        sandbox.spec = msgspec.structs.replace(sandbox.spec, hosts=hosts)
        self._registry.keep(sandbox)
        if record.alive and record.hosts_path:
            self._ground.network_files.rewrite_hosts(record, sandbox)

    async def restart(self, request: StopRequest) -> ContainerStatus:
        """Stop, then start."""
        await self._life.restart(request.id, request.seconds, request.signal)
        record = self._life.container(request.id)
        self._life.note(record, "restart")
        return self._status(record)

    async def kill(self, request: KillRequest) -> None:
        """Signal a container."""
        await self._life.stops.kill(self._life.container(request.id), request.signal)

    async def pause(self, ref: Ref) -> None:
        """Freeze."""
        if self._life.container(ref.id).state is StatusState.RESTARTING:
            raise FailedPrecondition(
                f"Container {ref.id} is restarting, wait until the container is running"
            )
        record = self._running(ref.id)
        if record.state is StatusState.PAUSED:
            raise FailedPrecondition(f"Container {ref.id} is already paused")
        await self._life.runtimes.of(record).pause(ContainerRef(id=ref.id))
        # It may have ended meanwhile, or somebody else may have paused it.
        record = self._running(ref.id)
        if record.state is StatusState.PAUSED:
            raise FailedPrecondition(f"Container {ref.id} is already paused")
        record.state = StatusState.PAUSED
        self._registry.keep(record)
        self._life.note(record, "pause")

    async def resume(self, ref: Ref) -> None:
        """Thaw."""
        record = self._life.container(ref.id)
        if record.state is not StatusState.PAUSED:
            raise FailedPrecondition(f"Container {ref.id} is not paused")
        await self._life.stops.resume(record)

    async def update(self, spec: UpdateSpec) -> ContainerStatus:
        """Change limits, restart policy or name."""
        record = self._life.container(spec.id)
        changed = record.spec
        if spec.limits is not None:
            if record.alive:
                runtime = self._life.runtimes.of(record)
                await runtime.update(UpdateRequest(id=spec.id, limits=spec.limits))
            given = {
                name: value
                for name in spec.limits.__struct_fields__
                if (value := getattr(spec.limits, name)) not in (None, ())
            }
            limits = msgspec.structs.replace(changed.limits, **given)
            changed = msgspec.structs.replace(changed, limits=limits)
        if spec.restart is not None:
            changed = msgspec.structs.replace(changed, restart=spec.restart)
        if spec.name:
            changed = msgspec.structs.replace(changed, name=spec.name)
            self._change_name(record, spec.name)
        if spec.env is not None:
            command = msgspec.structs.replace(changed.command, env=spec.env)
            changed = msgspec.structs.replace(changed, command=command)
        record.spec = changed
        if spec.hosts is not None:
            await self._change_hosts(record, spec.hosts)
        self._registry.keep(record)
        await self._registry.stored()
        if spec.name or spec.limits or spec.restart:
            self._life.note(record, "rename" if spec.name else "update")
        return self._status(record)

    async def remove(self, request: RemoveRequest) -> None:
        """Remove a container."""
        await self._life.remove(request.id, force=request.force, volumes=request.volumes)
        await self._registry.settled()

    def inspect(self, ref: Ref) -> ContainerStatus:
        """One container."""
        return self._status(self._life.container(ref.id))

    def list(self, query: NodeQuery) -> StatusList:
        """All containers, in order of creation."""
        return StatusList(
            containers=tuple(
                self._status(record)
                for record in self._registry.containers.values()
                if _within(self._owner(record), query.owner) and (record.begun or not query.begun)
            )
        )

    def runtimes(self) -> RuntimeList:
        """The runtimes there are, and whose users containers have."""
        return RuntimeList(names=self._life.runtimes.names, users=self._ground.users)

    async def exec(self, spec: ExecSpec) -> ExecState:
        """Start a process in a running container."""
        return await self._execution.start(self._running(spec.id), spec)

    async def account(self, query: AccountQuery) -> User:
        """Who a user is in a container."""
        record = self._life.container(query.id)
        return (await self._execution.account(record, query.user)).user

    async def exec_state(self, ref: ExecRef) -> ExecState:
        """An exec's state."""
        return await self._execution.state(ref)

    async def attach(self, spec: AttachSpec) -> Address:
        """Streams of a running container."""
        record = self._running(spec.id)
        return await self._life.runtimes.of(record).attach(
            AttachRequest(id=spec.id, stdin=spec.stdin, replay=spec.replay)
        )

    async def resize(self, spec: ResizeSpec) -> None:
        """Resize a terminal."""
        record = self._running(spec.id)
        await self._life.runtimes.of(record).resize(
            ResizeRequest(id=spec.id, exec_id=spec.exec_id, rows=spec.rows, columns=spec.columns)
        )
        # Of the container's own terminal alone, as in Docker.
        if not spec.exec_id:
            self._life.note(record, "resize", height=str(spec.rows), width=str(spec.columns))

    def logs(self, request: LogsRequest) -> Address:
        """A stream of the log."""
        record = self._life.container(request.id)
        driver = record.spec.log.driver
        if driver not in ("json-file", "cri", "local"):
            raise FailedPrecondition("configured logging driver does not support reading")
        path = Path(record.log_path or self._ground.directory(record) / "none")
        reader = LogReader(path, driver, request, lambda: record.alive)
        return self._streams.offer(reader.serve, "frames", lasting=request.follow)

    async def wait(self, request: WaitRequest) -> AsyncIterator[WaitResult]:
        """First that it waits, then the end."""
        if request.condition not in ("not-running", "next-exit", "removed"):
            raise InvalidArgument(f"invalid condition: {request.condition!r}")
        ended = self._registry.ended.get(request.id)
        if ended is not None:
            yield WaitResult(waiting=True)
            yield WaitResult(code=ended.code, error=ended.error)
            return
        record = self._life.container(request.id)
        run = request.run or record.run + (not record.alive)
        with self._life.partings.awaited(request.id, request.condition):
            yield WaitResult(waiting=True, run=run)
            while not self._over(record, request, run):
                await self._life.changed[request.id].wait()
        yield WaitResult(code=record.code, error=record.error)

    def _over(self, record: ContainerRecord, request: WaitRequest, run: int) -> bool:
        gone = request.id not in self._registry.containers
        if request.condition == "removed" or gone:
            return gone
        # A restart by policy is an end, too, as in Docker: this run's, not that of the container.
        ended = record.run > run or (record.run == run and not record.alive)
        if request.condition == "next-exit":
            return ended
        return ended or not (record.alive or record.state is StatusState.RESTARTING)

    async def top(self, ref: Ref) -> TopResult:
        """Processes of a container."""
        record = self._running(ref.id)
        found = await self._life.runtimes.of(record).processes(ContainerRef(id=ref.id))
        return TopResult(processes=tuple(map(shown_process, found.facts)))

    def dial(self, request: DialRequest) -> Address:
        """A raw stream to a port of a sandbox."""
        sandbox = self._life.sandbox(request.id)
        network = sandbox.network
        if network is None:
            raise FailedPrecondition(f"sandbox {request.id} has no network now")
        addresses = [e.ipv4 or e.ipv6 for e in network.endpoints] or ["127.0.0.1"]

        async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await _forward(reader, writer, addresses[0], request.port)

        return self._streams.offer(forward, "raw")

    async def refresh(self, ref: Ref) -> None:
        """By the runtime, which has the mount; one that is prepared would not be seen to change."""
        record = self._life.container(ref.id)
        await self._life.expectations.give_up(record.spec.sandbox)
        if record.alive and record.pid:
            with contextlib.suppress(NotFound):  # it has just ended
                await self._life.runtimes.of(record).refresh(ContainerRef(id=ref.id))

    async def show(self, ref: Ref) -> AsyncIterator[ShownMounts]:
        """Binds by the runtime, which alone sees the machine."""
        record = self._life.container(ref.id)
        there, hidden = self._ground.seen(record)
        if not hidden:
            yield ShownMounts(mounts=there)
            return
        request = ShowRequest(
            sources=tuple(source for _, source in hidden),
            made=tuple(m.source for m in record.spec.mounts if m.kind == "bind" and m.create),
        )
        async with leaving(self._life.runtimes.of(record).show(request)) as stream:
            async for shown in stream:
                places = zip((target for target, _ in hidden), shown.paths, strict=True)
                yield ShownMounts(mounts=(*there, *places))

    def _running(self, id_: str) -> ContainerRecord:
        record = self._life.container(id_)
        if not record.alive:
            raise FailedPrecondition(f"container {id_} is not running")
        return record

    def _owner(self, record: ContainerRecord) -> str:
        sandbox = self._registry.sandboxes.get(record.spec.sandbox)
        return sandbox.spec.owner if sandbox else ""

    def _status(self, record: ContainerRecord) -> ContainerStatus:
        sandbox = self._registry.sandboxes.get(record.spec.sandbox)
        return record.status(sandbox.network if sandbox else None)


def _within(owner: str, asked: str) -> bool:
    """Whether what belongs to `owner` is asked for, see `SandboxSpec`."""
    return asked in ("", owner, owner.partition("/")[0])


async def _forward(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, address: str, port: int
) -> None:
    """Bytes both ways, half-closes too."""
    far_reader, far_writer = await asyncio.open_connection(address, port)

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(1 << 16):
            await send(sink, data)
        if sink.can_write_eof() and not sink.is_closing():
            sink.write_eof()

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(pump(reader, far_writer))
            group.create_task(pump(far_reader, writer))
    except* OSError:
        pass
    finally:
        far_writer.close()
