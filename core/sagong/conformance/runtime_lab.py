"""The lab of the runtime suite: a candidate, a root filesystem, and how checks talk to both."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import struct
import uuid
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from sagong.contract import Message
from sagong.contracts.runtime import (
    AttachRequest,
    Container,
    ContainerRef,
    ExecRequest,
    Exited,
    LogSpec,
    Mount,
    Process,
    RunSpec,
    Runtime,
)
from sagong.contracts.streams import Address
from sagong.errors import SagongError
from sagong.frames import Frame, FrameReader, pack

__all__ = [
    "DOCKER_CAPABILITIES",
    "PATIENCE",
    "Output",
    "RuntimeLab",
    "Stream",
    "raises",
    "standard_mounts",
    "wait_until",
]

PATIENCE = 40.0
PATH = "PATH=/usr/bin:/bin:/usr/sbin:/sbin"
_DOCKER = """
    CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE
    SYS_CHROOT KILL AUDIT_WRITE
"""
DOCKER_CAPABILITIES = tuple(f"CAP_{name}" for name in _DOCKER.split())


def standard_mounts(root: Mount) -> tuple[Mount, ...]:
    """What every Docker container gets."""
    safe = ("nosuid", "noexec", "nodev")
    pts = ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5")
    shm = (*safe, "mode=1777", "size=67108864")
    return (
        root,
        Mount(target="/proc", kind="proc", options=safe),
        Mount(
            target="/dev",
            kind="tmpfs",
            options=("nosuid", "strictatime", "mode=755", "size=65536k"),
        ),
        Mount(target="/dev/pts", kind="devpts", options=pts),
        Mount(target="/sys", kind="sysfs", options=(*safe, "ro")),
        Mount(target="/sys/fs/cgroup", kind="cgroup", options=(*safe, "ro")),
        Mount(target="/dev/mqueue", kind="mqueue", options=safe),
        Mount(target="/dev/shm", kind="tmpfs", options=shm),
    )


class Output(NamedTuple):
    """What a program wrote and how it ended."""

    stdout: bytes
    stderr: bytes
    code: int | None

    @property
    def text(self) -> str:
        """Standard output as text without the last newline."""
        return self.stdout.decode("utf-8", "replace").rstrip("\n")

    @property
    def lines(self) -> list[str]:
        """Standard output by lines."""
        return self.text.splitlines()


class Stream:
    """A client of an address with protocol "frames"."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._frames = FrameReader()
        self._seen: list[tuple[int, bytes]] = []
        self.stdout = b""
        self.stderr = b""
        self.code: int | None = None

    @classmethod
    async def open(cls, address: Address) -> Stream:
        """Connect and show the token."""
        assert address.protocol == "frames", f"protocol {address.protocol!r} is not frames"
        reader, writer = await asyncio.open_unix_connection(address.path)
        writer.write(address.token.encode() + b"\n")
        return cls(reader, writer)

    async def send(self, kind: int, payload: bytes = b"") -> None:
        """Send one frame."""
        self._writer.write(pack(kind, payload))
        await self._writer.drain()

    async def write(self, data: bytes) -> None:
        """Input for the program."""
        await self.send(Frame.STDIN, data)

    async def end_input(self) -> None:
        """No more input; who has ended by what came before has hung up, perhaps."""
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            await self.send(Frame.EOF)

    async def resize(self, rows: int, columns: int) -> None:
        """A new size of the terminal."""
        await self.send(Frame.RESIZE, struct.pack(">HH", rows, columns))

    async def _more(self) -> bool:
        data = await asyncio.wait_for(self._reader.read(65536), PATIENCE)
        for kind, payload in self._frames.feed(data):
            if kind == Frame.STDOUT:
                self.stdout += payload
            elif kind == Frame.STDERR:
                self.stderr += payload
            elif kind == Frame.EXIT:
                (self.code,) = struct.unpack(">i", payload)
        return bool(data)

    async def until(self, text: bytes) -> None:
        """Read until standard output holds `text`."""
        while text not in self.stdout:
            assert await self._more(), f"the stream ended before {text!r}: {self.stdout!r}"

    async def rest(self) -> Output:
        """Read to the end."""
        with contextlib.suppress(ConnectionResetError):
            while await self._more():
                continue
        await self.close()
        return Output(self.stdout, self.stderr, self.code)

    async def close(self) -> None:
        """Hang up."""
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


@dataclass
class RuntimeLab:
    """A candidate with a root filesystem that has busybox's programs in /bin.

    `scratch` is a directory that checks fill; `emitted` gives the events so far; `restart` throws
    the candidate away without warning and gives its successor (None: checks that need it pass); `swap`
    gives another implementation over the same ground instead, and from that one the candidate again.
    Containers are below the control group `cgroup`, if the lab has one of its own.
    """

    runtime: Runtime
    rootfs: Path
    scratch: Path
    emitted: Callable[[], list[Message]]
    restart: Callable[[], Awaitable[Runtime]] | None = None
    swap: Callable[[], Awaitable[Runtime]] | None = None
    cgroup: str = ""
    made: list[str] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def new_id(self) -> str:
        """64 hex digits, as Docker's."""
        name = uuid.uuid4().hex + uuid.uuid4().hex
        self.made.append(name)
        return name

    def root(self) -> Mount:
        """A fresh writable root."""
        number = next(self.numbers)
        parts = [self.scratch / f"root-{number}" / kind for kind in ("upper", "work")]
        for part in parts:
            part.mkdir(parents=True)
        options = (f"lowerdir={self.rootfs}", f"upperdir={parts[0]}", f"workdir={parts[1]}")
        return Mount(target="/", kind="overlay", options=options)

    def process(self, *args: str, **changes: Any) -> Process:
        """A program as Docker would start it; one argument is a script for sh."""
        words = ("sh", "-c", args[0]) if len(args) == 1 else args
        settings = {"env": (PATH,), "capabilities": DOCKER_CAPABILITIES, **changes}
        return Process(args=words, **settings)

    def spec(self, process: Process | str, **changes: Any) -> RunSpec:
        """A container as Docker would run it."""
        if isinstance(process, str):
            process = self.process(process)
        mounts = changes.pop("mounts", None) or standard_mounts(self.root())
        settings = {"id": self.new_id(), "log": LogSpec(driver="none"), **changes}
        settings.setdefault("cgroup_parent", self.cgroup)
        return RunSpec(mounts=mounts, process=process, **settings)

    async def output(self, spec: RunSpec) -> Output:
        """Run to the end and give what it wrote."""
        stream = await self.attached(spec)
        return await stream.rest()

    async def attached(self, spec: RunSpec, **options: Any) -> Stream:
        """Run with the first client attached, so that nothing is lost."""
        held = RunSpec(
            **{f: getattr(spec, f) for f in spec.__struct_fields__} | {"expect_attach": True}
        )
        await self.runtime.run(held)
        return await self.attach(spec.id, **options)

    async def begun(self, spec: RunSpec) -> Stream:
        """The streams that a run's answer has for the attach it expects, else by an attach."""
        container = await self.runtime.run(spec)
        if container.stream is not None:
            return await Stream.open(container.stream)
        return await self.attach(spec.id, stdin=spec.attach_stdin)

    async def attach(self, container_id: str, **options: Any) -> Stream:
        """Attach to a running container."""
        address = await self.runtime.attach(AttachRequest(id=container_id, **options))
        return await Stream.open(address)

    async def shell(self, script: str, **changes: Any) -> Output:
        """What a script in a fresh container wrote."""
        return await self.output(self.spec(script, **changes))

    async def running(self, **changes: Any) -> Container:
        """A container that runs until somebody ends it."""
        process = changes.pop("process", None) or self.process("sleep", "1000")
        return await self.runtime.run(self.spec(process, **changes))

    async def ended(self, container_id: str) -> Exited:
        """Wait for the end of the present run."""
        found = [item async for item in self.runtime.wait(ContainerRef(id=container_id))]
        assert len(found) == 1, f"wait gave {len(found)} items instead of one"
        return found[0]

    async def exec_output(self, container_id: str, process: Process, **changes: Any) -> Output:
        """What an exec'd program wrote."""
        request = ExecRequest(id=container_id, exec_id=self.new_id(), process=process, **changes)
        status = await self.runtime.exec(request)
        assert status.stream is not None, "exec gave no stream"
        stream = await Stream.open(status.stream)
        return await stream.rest()

    def exits_of(self, container_id: str) -> list[Exited]:
        """The events of a container's ends so far."""
        events = self.emitted()
        return [e for e in events if isinstance(e, Exited) and e.id == container_id]

    async def clean(self) -> None:
        """Remove every container that checks made."""
        while self.made:
            await self.runtime.remove(ContainerRef(id=self.made.pop()))


@contextlib.contextmanager
def raises(kind: type[SagongError], *texts: str) -> Iterator[None]:
    """The block must raise this error, with these texts in its message."""
    try:
        yield
    except kind as error:
        for text in texts:
            assert text in error.message, f"{error.message!r} lacks {text!r}"
    except SagongError as error:
        raise AssertionError(f"{error!r} instead of {kind.__name__}") from error
    else:
        raise AssertionError(f"nothing raised; {kind.__name__} was due")


async def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait for something that happens by itself."""
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"waited in vain: {what}"
        await asyncio.sleep(0.01)
