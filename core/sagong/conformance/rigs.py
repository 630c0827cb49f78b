"""Rigs: from a plugin's class to the lab of its slot's suite, on directories and machines of their own.

The tests of this project use them, `sagong swap --dry-run` does, and so may a stranger's. A slot has
a rig if any plugin of it can be hosted in one process; what only a plugin itself knows, such as how
its snapshot is read again, it ships as a module `rig` of its package.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

from sagong.call import Call, serving
from sagong.conformance import network_rig, platform_rig, runtime_rig
from sagong.conformance.auth import AuthLab
from sagong.conformance.candidate import Candidate
from sagong.conformance.content import ContentLab
from sagong.conformance.image import ImageLab
from sagong.conformance.metrics import MetricsLab
from sagong.conformance.objects_in_memory import NoObjects, ObjectsInMemory
from sagong.conformance.state import StateLab
from sagong.conformance.volume import VolumeLab
from sagong.contract import conforms, filling
from sagong.contracts.auth import Auth
from sagong.contracts.content import Content
from sagong.contracts.image import Images
from sagong.contracts.metrics import Metrics, Target
from sagong.contracts.objects import Objects
from sagong.contracts.replication import Replication
from sagong.contracts.scheduler import Scheduler
from sagong.contracts.volume import Volumes
from sagong.linux.cgroup import Cgroup, layout_of_machine
from sagong.testing import awaited, local

__all__ = [
    "RIGS",
    "Candidate",
    "Rig",
    "Worker",
    "auth_rig",
    "called_by",
    "content_rig",
    "image_lab",
    "metrics_lab",
    "replication_rig",
    "scheduler_rig",
    "state_rig",
    "volume_rig",
    "working",
]

S = TypeVar("S")
_SPINNER = (
    "import sys, time\n"
    "for line in sys.stdin:\n"
    "    end = time.process_time() + float(line)\n"
    "    while time.process_time() < end: pass\n"
    "    print('done', flush=True)\n"
)


@contextlib.asynccontextmanager
async def scheduler_rig(candidate: Candidate) -> AsyncIterator[Scheduler]:
    """A scheduler where no API server runs."""
    async with _beside(Scheduler, candidate, NoObjects()) as scheduler:
        yield scheduler


@contextlib.asynccontextmanager
async def replication_rig(candidate: Candidate) -> AsyncIterator[Replication]:
    """Controllers where no API server runs."""
    async with _beside(Replication, candidate, NoObjects()) as replication:
        yield replication


@contextlib.asynccontextmanager
async def auth_rig(candidate: Candidate) -> AsyncIterator[AuthLab]:
    """Authentication over objects in memory."""
    objects = ObjectsInMemory()
    async with _beside(Auth, candidate, objects) as auth:
        await objects.wait_watched()
        yield AuthLab(auth, objects.put, objects.drop, ssl.PEM_cert_to_DER_cert)


@contextlib.asynccontextmanager
async def state_rig(candidate: Candidate) -> AsyncIterator[StateLab]:
    """A store on a directory of its own; stopping it is the mild form of a crash."""
    with tempfile.TemporaryDirectory(prefix="sagong-state-") as data:
        async with _Restarting(candidate, data=Path(data)) as running:
            yield StateLab(
                state=await running.start(), restart=running.restart, restored=candidate.restored
            )


@contextlib.asynccontextmanager
async def volume_rig(candidate: Candidate) -> AsyncIterator[VolumeLab]:
    """Volumes on a directory of their own; what a failed check leaves mounted is taken away."""
    with tempfile.TemporaryDirectory(prefix="sagong-volume-", dir="/tmp") as base:
        root = Path(base)
        for name in ("plugins/data", "run", "plugins/scratch"):
            (root / name).mkdir(parents=True)
        data, run = root / "plugins/data", root / "run"
        try:
            async with _Restarting(candidate, data=data, run=run) as running:
                volumes: Volumes = await running.start()
                scratch, root_user = root / "plugins/scratch", os.geteuid() == 0
                yield VolumeLab(volumes, scratch, running.restart, mounts=root_user)
        finally:
            network_rig.unmount_below(f"{base}/")


@contextlib.asynccontextmanager
async def image_lab(candidate: Candidate, data: Path, registry: str) -> AsyncIterator[ImageLab]:
    """A store of images in `data`; where its streams are stays the same, too."""
    async with contextlib.AsyncExitStack() as stack:
        run = stack.enter_context(tempfile.TemporaryDirectory(prefix="sagong-run-", dir="/tmp"))
        restarting = _Restarting(candidate, data=data, run=Path(run))
        running = await stack.enter_async_context(restarting)
        images: Any = filling(await running.start(), Images)

        async def restart() -> Images:
            return cast(Images, filling(await running.restart(), Images))

        yield ImageLab(images=images, registry=registry, restart=restart)


@contextlib.asynccontextmanager
async def _image_rig(candidate: Candidate) -> AsyncIterator[ImageLab]:
    with tempfile.TemporaryDirectory(prefix="sagong-image-", dir="/tmp") as base:
        async with image_lab(candidate, Path(base), "") as lab:
            yield lab


@contextlib.asynccontextmanager
async def content_rig(chosen: Candidate) -> AsyncIterator[ContentLab]:
    """A content store on a directory of its own, called by two plugins."""
    with tempfile.TemporaryDirectory(prefix="sagong-content-", dir="/tmp") as base:
        async with _Restarting(chosen, data=Path(base)) as running:
            living = [await running.start()]

            async def restart() -> None:
                living.append(await running.restart())

            def candidate() -> object:
                return filling(living[-1], Content)

            first, second = (called_by(name, Content, candidate) for name in ("first", "second"))
            yield ContentLab(first, second, restart)


def called_by(name: str, slot: type[S], candidate: Callable[[], Any]) -> S:
    """The candidate of now as another plugin of that name sees it."""

    class Caller:
        def __getattr__(self, method: str) -> Any:
            async def call(*arguments: Any) -> Any:
                with serving(Call(caller=name)):
                    return await getattr(awaited(slot, candidate()), method)(*arguments)

            return call

    return cast(S, Caller())


Worker = tuple[Target, Callable[[float], None]]


@contextlib.asynccontextmanager
async def metrics_lab(candidate: Candidate, worker: Worker) -> AsyncIterator[MetricsLab]:
    """Statistics of a process that works on demand."""
    async with local(candidate.plugin, config=candidate.config) as plugin:
        yield MetricsLab(awaited(Metrics, plugin), *worker)


@contextlib.asynccontextmanager
async def _metrics_rig(candidate: Candidate) -> AsyncIterator[MetricsLab]:
    with working() as worker:
        async with metrics_lab(candidate, worker) as lab:
            yield lab


@contextlib.contextmanager
def working() -> Iterator[Worker]:
    """A process in a cgroup of its own that works on demand."""
    name = f"sagong-test-{uuid.uuid4().hex[:8]}"
    group = Cgroup(layout_of_machine(), name)
    group.create()
    process = subprocess.Popen(
        [sys.executable, "-c", _SPINNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    group.attach(process.pid)

    def work(seconds: float) -> None:
        assert process.stdin and process.stdout
        process.stdin.write(f"{seconds}\n")
        process.stdin.flush()
        process.stdout.readline()

    try:
        work(0.05)
        labels = (("k", "v"),)
        yield Target(id="a" * 64, cgroup=name, labels=labels, group="pod"), work
    finally:
        process.kill()
        process.wait()
        time.sleep(0.05)
        group.remove()


class _Restarting:
    """A plugin that can be stopped and started again on the same directories."""

    def __init__(self, candidate: Candidate, *, data: Path, run: Path | None = None) -> None:
        self._candidate = candidate
        self._data, self._run = data, run
        self._running = contextlib.AsyncExitStack()

    async def __aenter__(self) -> _Restarting:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._running.aclose()

    async def start(self) -> Any:
        """The plugin, started."""
        candidate = self._candidate
        made = local(candidate.plugin, config=candidate.config, data=self._data, run=self._run)
        return await self._running.enter_async_context(made)

    async def restart(self) -> Any:
        """Away with it, and a successor."""
        await self._running.aclose()
        return await self.start()


@contextlib.asynccontextmanager
async def _beside(slot: type[S], candidate: Candidate, objects: object) -> AsyncIterator[S]:
    uses: dict[type, Any] = {Objects: objects}
    async with local(candidate.plugin, config=candidate.config, uses=uses) as plugin:
        conforms(slot, plugin)
        await asyncio.sleep(0)
        yield awaited(slot, plugin)


class Rig(NamedTuple):
    """How a slot's candidate is put to its suite, and whether its sandbox allows that.

    A suite that makes mounts or control groups of its own to look at needs more than the candidate
    is granted, so it runs outside. With `enter` each check has a process of its own, and that is
    what the process does first; with `shared`, too, all checks have that process and one lab.
    `missing` says what this machine lacks for it, "" if nothing. `program` is the rig for candidates
    that are programs of their own, where there is another than for classes.
    """

    lab: Callable[[Candidate], AbstractAsyncContextManager[Any]]
    sandboxed: bool
    enter: Callable[[], None] | None = None
    missing: Callable[[], str] = str
    shared: bool = False
    program: Rig | None = None


def _on_a_platform(lab: Callable[[Candidate], AbstractAsyncContextManager[Any]]) -> Rig:
    """A rig whose candidate runs as a unit of a platform, classes and programs alike."""
    rig = Rig(lab, False, network_rig.enter, platform_rig.missing, shared=True)
    return rig._replace(program=rig)


RIGS: dict[str, Rig] = {
    "auth": Rig(auth_rig, sandboxed=True),
    "builder": _on_a_platform(platform_rig.builder_rig),
    "content": Rig(content_rig, sandboxed=True),
    "image": Rig(_image_rig, sandboxed=False),
    "metrics": Rig(_metrics_rig, sandboxed=False),
    "network": Rig(
        network_rig.network_rig,
        sandboxed=False,
        enter=network_rig.enter,
        missing=network_rig.missing,
    ),
    "node": _on_a_platform(platform_rig.node_rig),
    "objects": _on_a_platform(platform_rig.objects_rig),
    "registry": _on_a_platform(platform_rig.registry_rig),
    "replication": Rig(replication_rig, sandboxed=True),
    "runtime": Rig(
        runtime_rig.runtime_rig,
        sandboxed=False,
        enter=runtime_rig.enter,
        missing=runtime_rig.missing,
    ),
    "scheduler": Rig(
        scheduler_rig, sandboxed=True, program=_on_a_platform(platform_rig.scheduler_program)
    ),
    "state": Rig(state_rig, sandboxed=True),
    "volume": Rig(volume_rig, sandboxed=False),
}
