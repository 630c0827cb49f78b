"""The rig of slot `runtime`: a companion, a root filesystem of busybox, and nothing left of either.

A check runs in a process of its own (`enter`) with a mount namespace of its own; whatever the
candidate's companion has started becomes a child of that process, and is ended at last.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from sagong.config import Paths
from sagong.conformance.candidate import Candidate
from sagong.conformance.runtime_lab import RuntimeLab
from sagong.contracts.runtime import Runtime
from sagong.linux import mounts, process, syscalls
from sagong.linux.cgroup import CONTROLLERS, Cgroup, layout_of_machine
from sagong.linux.syscalls import Namespace
from sagong.shim.interpreter import arguments, readonly_view
from sagong.testing import LocalHost, awaited

__all__ = ["enter", "make_rootfs", "missing", "runtime_rig"]

_EXECUTABLE = struct.Struct("=32xQ14xHH")  # elf(5): where program headers are, their size, number
_INTERPRETED = 3


def missing() -> str:
    """What containers need and is not here."""
    if os.geteuid() != 0:
        return "it makes containers: run it as root"
    if not _static(_busybox()):
        return "its containers need a busybox that is linked statically (Debian: busybox-static)"
    return ""


def enter() -> None:
    """Make this process one that nothing of a check escapes from."""
    process.become_subreaper()
    syscalls.unshare(Namespace.MNT)
    mounts.set_propagation("/", "rprivate")


def make_rootfs(directory: Path) -> Path:
    """A root filesystem of busybox alone; static, so nothing else is needed."""
    busybox = _busybox()
    for name in ("bin", "etc", "proc", "sys", "dev", "tmp", "root"):
        (directory / name).mkdir(parents=True)
    shutil.copy(busybox, directory / "bin/busybox")
    listed = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True)
    for name in set(listed.stdout.split()) - {"busybox"}:
        (directory / "bin" / name).symlink_to("busybox")
    (directory / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    return directory


def _busybox() -> Path:
    return Path(shutil.which("busybox") or "/bin/busybox").resolve()


def _static(program: Path) -> bool:
    """Whether it is there and needs no loader: none of its program headers names one."""
    if not program.exists():
        return False
    with open(program, "rb") as file:
        head = file.read(64)
        if head[:5] != b"\x7fELF\x02":
            return False
        start, size, count = _EXECUTABLE.unpack_from(head)
        file.seek(start)
        table = file.read(size * count)
    kinds = [int.from_bytes(table[n * size : n * size + 4], sys.byteorder) for n in range(count)]
    return _INTERPRETED not in kinds


@contextlib.asynccontextmanager
async def runtime_rig(candidate: Candidate) -> AsyncIterator[RuntimeLab]:
    """A runtime with its companion, below a directory and a control group of their own."""
    with tempfile.TemporaryDirectory(prefix="sagong-runtime-", dir="/tmp") as base:
        running = _Running(candidate, Path(base))
        try:
            running.start_companion()
            lab = RuntimeLab(
                runtime=await running.start(),
                rootfs=make_rootfs(Path(base, "rootfs")),
                scratch=running.directory("scratch"),
                emitted=lambda: list(running.events),
                restart=running.restart,
                cgroup=running.cgroup,
            )
            try:
                yield lab
            finally:
                await lab.clean()
        finally:
            with contextlib.suppress(Exception):
                await running.stop()
            running.sweep()


class _Running:
    """Generations of the candidate, one after the other, over one companion."""

    def __init__(self, candidate: Candidate, base: Path) -> None:
        self.cgroup = f"/sagong-check-{uuid.uuid4().hex[:8]}"
        self.events: list[Any] = []
        self._base = base
        self._candidate = candidate
        self._companion: subprocess.Popen[bytes] | None = None
        self._host: LocalHost | None = None
        self._plugin: Any = None
        self._data, self._run = self.directory("data"), self.directory("run")

    def directory(self, name: str) -> Path:
        """One below the base, made."""
        made = self._base / name
        made.mkdir()
        return made

    def start_companion(self) -> None:
        """As the kernel does it, if the manifest names one."""
        places = {"{python}": sys.executable, "{own}": str(self._run), "{uid}": "0"}
        expand = Paths.below(self._base).expand
        words = [expand(places.get(word, word)) for word in self._candidate.companion]
        if words[:1] == ["{lean}"]:
            self._companion = _lean(*words[1:])
        elif words:
            # Imports are found as they are here.
            paths = os.pathsep.join(path for path in sys.path if path)
            self._companion = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": paths}
            )

    async def start(self) -> Runtime:
        """The next generation."""
        self._host = LocalHost(
            "runtime", data=self._data, run=self._run, config=self._candidate.config
        )
        self._host.events = self.events
        self._plugin = self._candidate.plugin(self._host)
        await self._plugin.start()
        return awaited(Runtime, self._plugin)

    async def stop(self) -> None:
        """Away with the present generation."""
        plugin, self._plugin = self._plugin, None
        if plugin is not None and self._host is not None:
            if hasattr(plugin, "stop"):
                await plugin.stop()
            await self._host.close()

    async def restart(self) -> Runtime:
        """Away with it, and a successor."""
        await self.stop()
        return await self.start()

    def sweep(self) -> None:
        """Containers, the companion, and what it has started."""
        group = Cgroup(layout_of_machine(), self.cgroup, (*CONTROLLERS, "unified", "named"))
        group.kill()
        if self._companion is not None:
            self._companion.kill()
            self._companion.wait()
        while children := list(_children()):
            for pid in children:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
        group.remove()


def _children() -> Iterator[int]:
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            yield from map(int, (task / "children").read_text().split())


def _lean(module: str, *words: str) -> subprocess.Popen[bytes]:
    """Its `main` without site packages, as `{lean}` of a manifest says."""
    found = importlib.util.find_spec(module.partition(".")[0])
    assert found is not None and found.origin is not None
    text = f"from {module} import main\nmain(*sys.argv[1:])"
    view = readonly_view()
    try:
        return subprocess.Popen(
            arguments(text, str(Path(found.origin).parents[1]), words),
            executable=f"/proc/{os.getpid()}/fd/{view}",
            stdin=subprocess.DEVNULL,
            env={"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8"},
        )
    finally:
        os.close(view)
