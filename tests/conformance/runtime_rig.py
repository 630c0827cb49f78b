"""A real launcher below a short temporary directory, and labs for the runtime suite."""

from __future__ import annotations

import contextlib
import inspect
import os
import signal
import subprocess
import tempfile
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from sagong.conformance.runtime import RuntimeLab
from sagong.conformance.runtime_lab import wait_until
from sagong.conformance.runtime_rig import make_rootfs
from sagong.contract import Message
from sagong.linux import process
from sagong.linux.cgroup import CONTROLLERS, Cgroup, layout_of_machine
from sagong.shim.interpreter import arguments, readonly_view
from sagong.shim.runtime import MonitoredRuntime
from sagong.testing import LocalHost
from sagong_runtime_linux import RuntimeLinux

__all__ = ["BUSYBOX", "SOURCES", "Rig", "held", "launched", "make_rootfs", "rig"]

BUSYBOX = Path("/bin/busybox")
PLUGINS = Path(__file__).parents[2] / "plugins"
SOURCES = ":".join(str(Path(__file__).parents[2] / part) for part in ("core", "plugins"))


def package_of(make: Callable[[Any], MonitoredRuntime]) -> str:
    """The plugin's package; broken runtimes are derived from a plugin's class."""
    kinds = inspect.getmro(make) if inspect.isclass(make) else (RuntimeLinux,)
    modules = (kind.__module__ for kind in kinds)
    return next(name for name in modules if name.startswith("sagong_")).partition(".")[0]


class Rig:
    """Directories, a launcher, and generations of the plugin over them; swapped with `beside`."""

    def __init__(
        self,
        base: Path,
        make: Callable[[Any], MonitoredRuntime] = RuntimeLinux,
        beside: Callable[[Any], MonitoredRuntime] | None = None,
        **settings: Any,
    ) -> None:
        self.base = base
        self.run = base / "run"
        self.run.mkdir(exist_ok=True)
        self.rootfs = make_rootfs(base / "rootfs")
        self.parent = f"/sagong-test-{uuid.uuid4().hex[:8]}"
        self.events: list[Message] = []
        self.settings: dict[str, Any] = {**settings}
        self.host: LocalHost | None = None
        self.runtime: MonitoredRuntime | None = None
        self.launcher: subprocess.Popen[bytes] | None = None
        self._make, self._beside = make, beside
        # Broken ones are of the test's own module.
        kinds = inspect.getmro(make) if inspect.isclass(make) else (RuntimeLinux,)
        self._package = next(
            k for k in kinds if k.__module__.startswith("sagong_")
        ).__module__.partition(".")[0]

    def launcher_text(self) -> str:
        """What the launcher's interpreter is told."""
        return f"from {self._package}.launcher import main\nmain(*sys.argv[1:])"

    def start_launcher(self) -> None:
        """As the kernel does it."""
        text = self.launcher_text()
        view = readonly_view()
        try:
            self.launcher = subprocess.Popen(
                arguments(text, str(PLUGINS), [str(self.run)]),
                executable=f"/proc/{os.getpid()}/fd/{view}",
                env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8"},
            )
        finally:
            os.close(view)

    def kill_launcher(self) -> None:
        """-9."""
        assert self.launcher is not None
        self.launcher.kill()
        self.launcher.wait()

    async def start_plugin(self) -> MonitoredRuntime:
        """A generation of the plugin."""
        config = {"cgroup_parent": self.parent, **self.settings}
        host = LocalHost("runtime", data=self.base, run=self.run, config=config)
        host.events = self.events
        self.host = host
        self.runtime = self._make(host)
        await self.runtime.start()
        return self.runtime

    async def drop_plugin(self) -> None:
        """Throw the generation away."""
        if self.runtime is not None and self.host is not None:
            await self.runtime.stop()
            await self.host.close()
        self.runtime = self.host = None

    async def restart_plugin(self) -> MonitoredRuntime:
        """Away with it, and a successor."""
        await self.drop_plugin()
        return await self.start_plugin()

    async def swap_plugin(self) -> MonitoredRuntime:
        """Away with it, and one of the other kind."""
        assert self._beside is not None
        self._make, self._beside = self._beside, self._make
        return await self.restart_plugin()

    def lab(self) -> RuntimeLab:
        """A lab of the present generation."""
        assert self.runtime is not None
        scratch = self.base / f"scratch-{uuid.uuid4().hex[:8]}"
        scratch.mkdir()
        return RuntimeLab(
            runtime=self.runtime,
            rootfs=self.rootfs,
            scratch=scratch,
            emitted=lambda: list(self.events),
            restart=self.restart_plugin,
            swap=self.swap_plugin if self._beside is not None else None,
        )

    def monitors(self) -> list[int]:
        """Pids of monitors that serve below our directory, without what they have just forked."""
        found = self.like_monitors()
        return sorted(pid for pid, parent in found.items() if parent not in found)

    def like_monitors(self) -> dict[int, int]:
        """All that look like monitors of ours, with their parents: a child does for a moment, too."""
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (entry / "comm").read_text().startswith("sagong-monitor") and (
                    (entry / "cwd").readlink() == self.run
                ):
                    facts = (entry / "stat").read_text().rpartition(")")[2].split()
                    found[int(entry.name)] = int(facts[1])
        return found

    async def kill_monitors(self) -> None:
        """-9 to all of them; returns when successors serve."""
        before = self.monitors()
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        await wait_until(
            lambda: len(self.monitors()) == len(before) and not set(self.monitors()) & set(before),
            "successors of killed monitors",
        )

    def sweep(self) -> None:
        """Whatever a failed test left: processes, cgroups."""
        group = Cgroup(layout_of_machine(), self.parent, (*CONTROLLERS, "unified", "named"))
        group.kill()
        if self.launcher is not None:
            self.launcher.send_signal(signal.SIGKILL)
            self.launcher.wait()
        for pid in self.like_monitors():
            pidfd = process.open_identified(process.identify(pid))
            if pidfd is not None:
                os.kill(pid, signal.SIGKILL)
                process.wait_ended(pidfd, 60.0)
                os.close(pidfd)
        group.remove()


@contextlib.contextmanager
def directories() -> Iterator[Path]:
    """A short directory of our own."""
    with tempfile.TemporaryDirectory(prefix="sagong-rt-", dir="/tmp") as base:
        yield Path(base)


@contextlib.contextmanager
def launched(
    make: Callable[[Any], MonitoredRuntime] = RuntimeLinux,
    beside: Callable[[Any], MonitoredRuntime] | None = None,
    **settings: Any,
) -> Iterator[Rig]:
    """A launcher for many checks, each of which starts a plugin of its own over it."""
    with directories() as base:
        made = Rig(base, make, beside, **settings)
        try:
            made.start_launcher()
            yield made
        finally:
            made.sweep()


async def held(made: Rig, check: Callable[[RuntimeLab], Awaitable[None]]) -> None:
    """One check by a plugin of its own, which leaves nothing to the next."""
    await made.start_plugin()
    try:
        lab = made.lab()
        try:
            await check(lab)
        finally:
            await lab.clean()
        assert not list((made.run / "containers").iterdir())
    finally:
        with contextlib.suppress(Exception):
            await made.drop_plugin()


@contextlib.asynccontextmanager
async def rig(
    make: Callable[[Any], MonitoredRuntime] = RuntimeLinux,
    beside: Callable[[Any], MonitoredRuntime] | None = None,
    *,
    owner: int = 0,
    disk: Callable[[Path], AbstractContextManager[object]] = contextlib.nullcontext,
    kind: type[Rig] = Rig,
    **settings: Any,
) -> AsyncIterator[Rig]:
    """A launcher and a plugin, both gone after; `disk` mounts something for the run directory."""
    with directories() as base:
        (base / "run").mkdir()
        with disk(base / "run"):
            async with _served(kind(base, make, beside, **settings), owner) as made:
                yield made


@contextlib.asynccontextmanager
async def _served(made: Rig, owner: int) -> AsyncIterator[Rig]:
    os.chown(made.run, owner, -1)
    try:
        made.start_launcher()
        await made.start_plugin()
        yield made
    finally:
        with contextlib.suppress(Exception):
            await made.drop_plugin()
        made.sweep()
