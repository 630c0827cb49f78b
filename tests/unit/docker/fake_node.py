"""A node that keeps the contract's behaviour with host processes instead of containers."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from tests.unit.docker.fake_process import Doors, FakeProcess

from sagong.contracts.image import ImageRef, Images, Prepared, PrepareRequest, RootRef
from sagong.contracts.network import Networks
from sagong.contracts.network import Sandbox as NetworkSandbox
from sagong.contracts.node import (
    AccountQuery,
    AttachSpec,
    ConnectSpec,
    ContainerEvent,
    ContainerSpec,
    ContainerStatus,
    DialRequest,
    ExecRef,
    ExecSpec,
    ExecState,
    FileMount,
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
from sagong.contracts.runtime import RuntimeList, User
from sagong.contracts.streams import Address
from sagong.contracts.volume import Volume, VolumeRef, Volumes
from sagong.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound, Unavailable
from sagong.frames import Frame, pack


@dataclass
class Held:
    """A container of the fake."""

    spec: ContainerSpec
    prepared: Prepared
    state: StatusState = StatusState.CREATED
    process: FakeProcess | None = None
    args: tuple[str, ...] = ()
    error: str = ""
    created: float = field(default_factory=time.time)
    started: float = 0.0
    finished: float = 0.0
    run: int = 0
    restarts: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    watching: asyncio.Task[None] | None = None
    stopped: bool = False

    @property
    def alive(self) -> bool:
        return self.state in (StatusState.RUNNING, StatusState.PAUSED)

    def tell(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


class FakeNode:
    """The fake."""

    def __init__(
        self,
        images: Images,
        networks: Networks,
        volumes: Volumes,
        tell: Callable[[ContainerEvent], None],
        directory: Path,
    ) -> None:
        self.images = images
        self.networks = networks
        self.volumes = volumes
        self.tell = tell
        self.doors = Doors(directory / "node.sock")
        self.containers: dict[str, Held] = {}
        self.sandboxes: dict[str, SandboxSpec] = {}
        self.joined: dict[str, NetworkSandbox] = {}
        self.execs: dict[str, FakeProcess] = {}
        # Why no further process can be started.
        self.unable = ""
        self.number = 0
        self.expected: list[str] = []
        # What waits were asked for, and whether they are answered.
        self.waits: list[str] = []
        self.answers = asyncio.Event()
        self.answers.set()
        # Seconds by which ends are noted after output has ended.
        self.late = 0.0

    async def start_serving(self) -> None:
        await self.doors.start()

    async def close(self) -> None:
        for held in list(self.containers.values()):
            if held.process is not None and held.process.code is None:
                await held.process.kill()
            if held.watching is not None:
                held.watching.cancel()
        for process in self.execs.values():
            if process.code is None:
                await process.kill()
        await self.doors.stop()

    def note(self, held: Held, action: str, **facts: str) -> None:
        self.number += 1
        attributes = {
            **dict(held.spec.labels),
            "image": held.spec.image,
            "name": held.spec.name,
            **facts,
        }
        owner = self.sandboxes[held.spec.sandbox].owner
        self.tell(
            ContainerEvent(
                number=self.number,
                time=time.time_ns(),
                action=action,
                id=held.spec.id,
                owner=owner,
                attributes=tuple(attributes.items()),
            )
        )

    def held(self, id_: str) -> Held:
        try:
            return self.containers[id_]
        except KeyError:
            raise NotFound(f"No such container: {id_}") from None

    def running(self, id_: str) -> Held:
        held = self.held(id_)
        if not held.alive:
            raise FailedPrecondition(f"container {id_} is not running")
        return held

    # Sandboxes.

    async def create_sandbox(self, spec: SandboxSpec) -> SandboxStatus:
        known = self.sandboxes.get(spec.id)
        if known is not None and known != spec:
            raise AlreadyExists(f"sandbox {spec.id} exists")
        self.sandboxes[spec.id] = spec
        return SandboxStatus(spec=spec)

    async def remove_sandbox(self, ref: Ref) -> None:
        if any(h.spec.sandbox == ref.id for h in self.containers.values()):
            raise FailedPrecondition(f"sandbox {ref.id} has containers")
        self.sandboxes.pop(ref.id, None)

    async def sandbox(self, ref: Ref) -> SandboxStatus:
        try:
            return SandboxStatus(spec=self.sandboxes[ref.id], network=self.joined.get(ref.id))
        except KeyError:
            raise NotFound(f"No such sandbox: {ref.id}") from None

    async def connect(self, spec: ConnectSpec) -> SandboxStatus:
        sandbox = self.sandboxes[spec.id]
        places = tuple(
            a for a in sandbox.network.attachments if a.network != spec.attachment.network
        )
        if not spec.disconnect:
            places = (*places, spec.attachment)
        network = msgspec.structs.replace(sandbox.network, attachments=places)
        self.sandboxes[spec.id] = msgspec.structs.replace(sandbox, network=network)
        if spec.id in self.joined:
            await self._join(spec.id)
        return await self.sandbox(Ref(id=spec.id))

    async def _join(self, id_: str) -> None:
        self.joined[id_] = await self.networks.join(self.sandboxes[id_].network)

    # Containers.

    async def create(self, spec: ContainerSpec) -> ContainerStatus:
        if spec.id in self.containers:
            return self.status(self.containers[spec.id])
        if spec.own is not None:
            await self.create_sandbox(spec.own)
            spec = msgspec.structs.replace(spec, own=None)
        if spec.sandbox not in self.sandboxes:
            raise NotFound(f"No such sandbox: {spec.sandbox}")
        image = await self.images.inspect(ImageRef(reference=spec.image))
        prepared = await self.images.prepare(PrepareRequest(id=spec.id, image=image.id))
        self.expected += [spec.name] if spec.expected else []
        spec = msgspec.structs.replace(spec, expected=False)
        held = self.containers[spec.id] = Held(spec, prepared)
        self.note(held, "create")
        return self.status(held)

    def status(self, held: Held) -> ContainerStatus:
        process = held.process
        return ContainerStatus(
            spec=held.spec,
            state=held.state,
            pid=process.pid if process and held.alive else 0,
            run=held.run,
            code=(process.code or 0) if process else 0,
            error=held.error,
            created_at=held.created,
            started_at=held.started,
            finished_at=held.finished,
            restart_count=held.restarts,
            image=held.prepared.image,
            args=held.args,
            env=held.spec.command.env,
            mounts=tuple(
                (
                    m.kind,
                    m.source if m.kind == "volume" else "",
                    m.source,
                    m.target,
                    "",
                    not m.readonly,
                    m.propagation,
                )
                for m in held.spec.mounts
            ),
            network=self.joined.get(held.spec.sandbox),
        )

    def _program(self, held: Held) -> tuple[str, ...]:
        command, image = held.spec.command, held.prepared.image.config
        entrypoint, cmd = image.entrypoint or (), image.cmd or ()
        if command.entrypoint is not None:
            entrypoint, cmd = tuple(w for w in command.entrypoint if w), ()
        if command.cmd is not None:
            cmd = command.cmd
        if not (*entrypoint, *cmd):
            raise InvalidArgument("no command specified")
        return (*entrypoint, *cmd)

    async def expect(self, ref: Ref) -> None:
        self.expected.append(self.held(ref.id).spec.name)

    async def start(self, request: StartRequest) -> ContainerStatus:
        held = self.held(request.id)
        if held.alive or 0 < request.run <= held.run:
            return self.status(held)
        command = held.spec.command
        held.args = self._program(held)
        held.stopped = False
        await self._volumes(held)
        await self._join(held.spec.sandbox)
        process = FakeProcess(tty=command.tty, stdin=command.stdin)
        process.held = request.expect_attach
        try:
            await process.run(held.args, command.env, command.cwd)
        except NotFound as error:
            held.error = error.message
            raise
        held.process, held.error, held.started = process, "", time.time()
        held.state, held.run = StatusState.RUNNING, held.run + 1
        held.watching = asyncio.create_task(self._watch(held, process))
        self.note(held, "start")
        held.tell()
        return self.status(held)

    async def _volumes(self, held: Held) -> None:
        for mount in held.spec.mounts:
            if mount.kind != "volume":
                continue
            try:
                await self.volumes.inspect(VolumeRef(name=mount.source))
            except NotFound:
                await self.volumes.create(Volume(name=mount.source, anonymous=mount.anonymous))

    async def _watch(self, held: Held, process: FakeProcess) -> None:
        await process.ended.wait()
        while process.held:
            await asyncio.sleep(0.005)
        await asyncio.sleep(self.late)
        held.state, held.finished = StatusState.EXITED, time.time()
        self.joined.pop(held.spec.sandbox, None)
        policy = held.spec.restart
        again = not held.stopped and (
            policy.name in ("always", "unless-stopped")
            or (
                policy.name == "on-failure"
                and process.code
                and (not policy.maximum or held.restarts < policy.maximum)
            )
        )
        if again:
            held.state = StatusState.RESTARTING
        self.note(held, "die", exitCode=str(process.code))
        held.tell()
        if again:
            await asyncio.sleep(0.05)
            held.restarts += 1
            await self.start(StartRequest(id=held.spec.id))
        elif held.spec.remove:
            await self._remove(held, volumes=True)

    async def _remove(self, held: Held, *, volumes: bool) -> None:
        await self.images.release(RootRef(id=held.spec.id))
        for mount in held.spec.mounts:
            if volumes and mount.anonymous:
                await self.volumes.delete(VolumeRef(name=mount.source))
        self.note(held, "destroy")
        self.containers.pop(held.spec.id, None)
        self.sandboxes.pop(held.spec.sandbox, None)
        held.tell()

    async def stop(self, request: StopRequest) -> ContainerStatus:
        held = self.held(request.id)
        held.stopped = True
        if held.alive and held.process is not None:
            wanted = request.signal or held.spec.stop_signal or "SIGTERM"
            held.process.signal(_number(wanted))
            self.note(held, "kill", signal=str(_number(wanted)))
            seconds = held.spec.stop_timeout if request.seconds is None else request.seconds
            try:
                async with asyncio.timeout(seconds):
                    await held.process.ended.wait()
            except TimeoutError:
                await held.process.kill()
            while held.alive:
                await held.changed.wait()
            self.note(held, "stop")
        return self.status(held)

    async def restart(self, request: StopRequest) -> ContainerStatus:
        await self.stop(request)
        await self.start(StartRequest(id=request.id))
        held = self.held(request.id)
        self.note(held, "restart")
        return self.status(held)

    async def kill(self, request: KillRequest) -> None:
        held = self.running(request.id)
        assert held.process is not None
        number = _number(request.signal)
        held.stopped = True
        held.process.signal(number)
        self.note(held, "kill", signal=str(number))

    async def pause(self, ref: Ref) -> None:
        held = self.running(ref.id)
        if held.state is StatusState.PAUSED:
            raise FailedPrecondition(f"Container {ref.id} is already paused")
        held.state = StatusState.PAUSED
        self.note(held, "pause")

    async def resume(self, ref: Ref) -> None:
        held = self.held(ref.id)
        if held.state is not StatusState.PAUSED:
            raise FailedPrecondition(f"Container {ref.id} is not paused")
        held.state = StatusState.RUNNING
        self.note(held, "unpause")

    async def update(self, spec: UpdateSpec) -> ContainerStatus:
        held = self.held(spec.id)
        changes = {k: v for k in ("limits", "restart", "name") if (v := getattr(spec, k))}
        held.spec = msgspec.structs.replace(held.spec, **changes)
        self.note(held, "rename" if spec.name else "update")
        return self.status(held)

    async def remove(self, request: RemoveRequest) -> None:
        held = self.held(request.id)
        if (held.alive or held.state is StatusState.RESTARTING) and not request.force:
            raise FailedPrecondition(
                f"container {request.id} is {held.state.value}; stop it or use force"
            )
        held.stopped = True
        if held.process is not None and held.process.code is None:
            self.note(held, "kill", signal="9")
            await held.process.kill()
            while held.alive:
                await held.changed.wait()
        if request.id in self.containers:
            await self._remove(held, volumes=request.volumes)

    async def inspect(self, ref: Ref) -> ContainerStatus:
        return self.status(self.held(ref.id))

    def _owners(self, held: Held) -> tuple[str, str]:
        owner = self.sandboxes[held.spec.sandbox].owner
        return owner, owner.partition("/")[0]

    async def list(self, query: NodeQuery) -> StatusList:
        return StatusList(
            containers=tuple(
                self.status(h)
                for h in self.containers.values()
                if query.owner in ("", *self._owners(h))
            )
        )

    # Streams.

    def runtimes(self) -> RuntimeList:
        return RuntimeList(names=("", "second"))

    async def exec(self, spec: ExecSpec) -> ExecState:
        if self.unable:
            raise Unavailable(self.unable)
        held = self.running(spec.id)
        process = FakeProcess(tty=spec.tty, stdin=spec.stdin)
        self.note(held, f"exec_create: {' '.join(spec.args)}", execID=spec.exec_id)
        await process.run(spec.args, spec.env, spec.cwd)
        process.resize(spec.rows, spec.columns)
        self.execs[spec.exec_id] = process
        self.note(held, f"exec_start: {' '.join(spec.args)}", execID=spec.exec_id)
        stream = self.doors.offer(process.attach(stdin=spec.stdin, replay=True))
        return ExecState(exec_id=spec.exec_id, running=True, pid=process.pid, stream=stream)

    async def account(self, query: AccountQuery) -> User:
        self.held(query.id)
        if query.user not in ("", "0", "root"):
            raise InvalidArgument(
                f"unable to find user {query.user}: no matching entries in passwd file"
            )
        return User()

    async def exec_state(self, ref: ExecRef) -> ExecState:
        process = self.execs.get(ref.exec_id)
        if process is None:
            raise NotFound(f"No such exec instance: {ref.exec_id}")
        return ExecState(
            exec_id=ref.exec_id,
            running=process.code is None,
            pid=process.pid,
            code=process.code or 0,
        )

    async def attach(self, spec: AttachSpec) -> Address:
        held = self.running(spec.id)
        assert held.process is not None
        return self.doors.offer(held.process.attach(stdin=spec.stdin, replay=spec.replay))

    async def resize(self, spec: ResizeSpec) -> None:
        held = self.running(spec.id)
        process = self.execs.get(spec.exec_id) if spec.exec_id else held.process
        if process is not None:
            process.resize(spec.rows, spec.columns)

    async def logs(self, request: LogsRequest) -> Address:
        held = self.held(request.id)
        if held.spec.log.driver == "none":
            raise FailedPrecondition("configured logging driver does not support reading")
        process = held.process

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if process is None:
                writer.write(pack(Frame.EOF))
                return
            if request.follow:
                follow = process.attach(stdin=False, replay=True, places=True)
                await follow(reader, writer)
                return
            lines = [
                (kind, line)
                for kind, data in process.output
                if kind != Frame.EXIT
                for line in data.splitlines(keepends=True)
            ]
            for kind, line in lines[-request.tail :] if request.tail > 0 else lines:
                writer.write(pack(kind, line))
            writer.write(pack(Frame.EOF))
            await writer.drain()

        return self.doors.offer(serve)

    async def wait(self, request: WaitRequest) -> AsyncIterator[WaitResult]:
        self.waits.append(request.condition)
        await self.answers.wait()
        held = self.held(request.id)
        first = held.run
        yield WaitResult(waiting=True)
        while not self._over(held, request, first):
            await held.changed.wait()
        yield WaitResult(code=(held.process.code or 0) if held.process else 0)

    def _over(self, held: Held, request: WaitRequest, first: int) -> bool:
        gone = request.id not in self.containers
        if request.condition == "removed" or gone:
            return gone
        if request.condition == "next-exit" and held.run == first and held.finished:
            return False
        if request.condition == "next-exit":
            return not held.alive and held.run > 0
        return not held.alive and held.state is not StatusState.RESTARTING

    async def refresh(self, ref: Ref) -> None:
        """Nothing is mounted here."""
        self.held(ref.id)

    async def show(self, ref: Ref) -> AsyncIterator[ShownMounts]:
        """Nothing is hidden here."""
        status = self.status(self.held(ref.id))
        shown = ((target, source) for _, _, source, target, *_ in status.mounts if source)
        yield ShownMounts(mounts=tuple(shown))

    async def top(self, ref: Ref) -> TopResult:
        held = self.running(ref.id)
        assert held.process is not None
        facts = {
            "user": "root",
            "ppid": "1",
            "tty": "0",
            "seconds": "1.5",
            "started": "10",
            "command": " ".join(held.args),
            "name": held.args[0],
        }
        return TopResult(processes=((held.process.pid, tuple(facts.items())),))

    async def dial(self, request: DialRequest) -> Address:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                writer.write(await reader.read())

        return self.doors.offer(serve)


def _published(mount: FileMount) -> tuple[str, str, str, str, str, bool, str]:
    name = mount.source if mount.kind == "volume" else ""
    source = f"/volumes/{name}/_data" if name else mount.source
    return mount.kind, name, source, mount.target, "", not mount.readonly, mount.propagation


def _number(text: str) -> int:
    if text.isdigit():
        return int(text)
    name = text.upper() if text.upper().startswith("SIG") else f"SIG{text.upper()}"
    try:
        return int(signal.Signals[name])
    except KeyError:
        raise InvalidArgument(f"invalid signal: {text}") from None
