"""A whole sagong of its own for a test: root directory, configuration, `up` and `down`."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from sagong.call import deadline
from sagong.config import Paths
from sagong.contracts.kernel import ProcessStatus, StatusQuery, SystemStatus
from sagong.errors import SagongError
from sagong.operator import connect

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCES = ("core", "plugins", "services", "examples/01-scheduler-in-20-lines", "tests/plugins")


@dataclass(frozen=True)
class Instance:
    """A running instance below `root`; `packages` are directories of more Python packages."""

    root: Path
    packages: tuple[Path, ...] = ()

    @property
    def paths(self) -> Paths:
        """Its directories."""
        return Paths.below(self.root)

    def run(
        self, *words: str, check: bool = True, seconds: float = 180.0
    ) -> subprocess.CompletedProcess[str]:
        """Run the command line on it."""
        done = subprocess.run(
            [sys.executable, "-m", "sagong.cli", "--root", str(self.root), *words],
            env=environment(self.packages),
            capture_output=True,
            text=True,
            timeout=seconds,
        )
        assert done.returncode == 0 or not check, f"{words}: {done.stderr}{done.stdout}"
        return done

    def status(self) -> SystemStatus:
        """What runs; SagongError when the kernel does not say it.

        Asked for often: the command would measure everything, and take twenty times as long.
        """

        async def ask() -> SystemStatus:
            async with connect(self.paths) as operator:
                with deadline(30.0):
                    return await operator.kernel.status(StatusQuery())

        # A test may have a loop of its own.
        with ThreadPoolExecutor(1) as beside:
            return beside.submit(asyncio.run, ask()).result()

    def pid(self, name: str) -> int:
        """The pid of a unit's serving process, or of keeper, kernel, zygote; who sleeps is woken."""
        unit, status = name.removesuffix("-companion"), self.status()
        if any(one.name == unit and one.state == "asleep" for one in status.units):
            self.run("restart", unit)
            status = self.status()
        for process in _processes(status):
            if process.unit == name and process.state in ("serving", "running"):
                return process.pid
        raise LookupError(name)

    def wait_ready(self, seconds: float = 60.0, *, gone: int = 0) -> SystemStatus:
        """Wait until every unit serves again, and none is named that has just been killed.

        `gone` is who was, and may take a moment to die of it.
        """
        limit = time.monotonic() + seconds
        while True:
            with contextlib.suppress(SagongError):
                status = self.status()
                named = {process.pid for process in _processes(status)}
                if status.ready and gone not in named and all(map(lives, named)):
                    return status
            assert time.monotonic() < limit, self.logs()
            time.sleep(0.05)

    def logs(self) -> str:
        """The ends of all its logs, for a failed test's report."""
        parts = []
        for path in sorted((self.paths.run / "log").glob("*.log")):
            parts.append(f"== {path.name}\n" + path.read_text(errors="replace")[-3000:])
        return "\n".join(parts)


def local_slots(prefix: str, subnet: str, *, uid_base: int = 58000) -> str:
    """A sagong.toml: all slots of one machine and its node, and no API; more units may follow."""
    return f"""
profile = "bare"
uid_base = {uid_base}
[units.state-local]
plugin = "state_sqlite"
instance = "local"
[units.image]
plugin = "image_overlay"
[units.runtime]
plugin = "runtime_linux"
settings = {{ cgroup_parent = "{{cgroup}}" }}
[units.volume]
plugin = "volume_local"
[units.network]
plugin = "network_bridge"
settings = {{ prefix = "{prefix}", bridge = "{prefix}0", subnet = "{subnet}" }}
[units.metrics]
plugin = "metrics_cgroup"
[units.node]
"""


def _processes(status: SystemStatus) -> list[ProcessStatus]:
    return [*status.others, *(p for unit in status.units for p in unit.processes)]


def lives(pid: int) -> bool:
    """Whether it has not ended, be it reaped or not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def environment(packages: Iterable[Path] = ()) -> dict[str, str]:
    """The test's environment with the source roots, and some packages more, on the path."""
    places = [*map(str, packages), *(str(REPOSITORY / source) for source in SOURCES)]
    path = os.pathsep.join(places)
    return {**os.environ, "PYTHONPATH": path, "UV_USE_IO_URING": "0"}


@contextlib.contextmanager
def turn() -> Iterator[None]:
    """One instance starts at a time: two that look for free addresses at once find the same ones."""
    with open(Path(tempfile.gettempdir()) / "sagong-tests.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def instance(
    configuration: str, root: Path | None = None, packages: tuple[Path, ...] = ()
) -> Iterator[Instance]:
    """Start an instance with this sagong.toml; take it away with all it made."""
    root = root or Path(tempfile.mkdtemp(prefix="sgt-", dir="/tmp"))
    root.chmod(0o755)
    (root / "etc").mkdir(exist_ok=True)
    (root / "etc" / "sagong.toml").write_text(configuration)
    running = Instance(root, packages)
    with heir(running), taken_away(running):
        with turn():
            started = running.run("up", "--seconds", "90", check=False)
        assert started.returncode == 0, started.stderr + running.logs()
        yield running


@contextlib.contextmanager
def taken_away(running: Instance) -> Iterator[None]:
    """At the end, with all it made."""
    try:
        yield
    finally:
        running.run("down", "--all", check=False)
        shutil.rmtree(running.root, ignore_errors=True)


@contextlib.contextmanager
def heir(running: Instance) -> Iterator[None]:
    """Somebody who takes an instance away if this process is killed before it has done so."""
    down = [sys.executable, "-m", "sagong.cli", "--root", str(running.root), "down", "--all"]
    script = 'read done || { "$@"; rm -rf -- "$0"; }'
    with subprocess.Popen(
        ["/bin/sh", "-c", script, str(running.root), *down],
        env=environment(running.packages),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
        text=True,
    ) as waiting:
        yield
        assert waiting.stdin is not None
        waiting.stdin.write("done\n")
