"""Real peers for benchmarks, each with directories of its own: dockerd, podman, etcd, and ours.

All of them expect the machine of `machine.enter()`. Docker Engine runs with its defaults there, so
with iptables and its bridge; the containers' control groups go below one of the benchmark's own.
What belongs below /run is in memory, as it is there, the data of each on the disk.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.ports import free_port
from tests.system.instance import Instance, instance

from sagong.linux import syscalls

__all__ = ["Docker", "dockerd", "etcd", "podman", "sagong", "scratch", "wait_for"]

GROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Docker:
    """A Docker API and the one command line that asks all of them."""

    name: str
    socket: Path
    instance: Instance | None = None

    def start(
        self, *words: str, stdout: int = subprocess.DEVNULL, stderr: int = subprocess.DEVNULL
    ) -> subprocess.Popen[bytes]:
        """The command line, begun."""
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": "/nonexistent",
            "DOCKER_HOST": f"unix://{self.socket}",
        }
        return subprocess.Popen(
            ["docker", *words],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
        )

    def ok(self, *words: str) -> str:
        """The output of a command that must succeed."""
        process = self.start(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        out, err = process.communicate(timeout=180)
        if process.returncode != 0:
            raise RuntimeError(f"{self.name}: docker {' '.join(words)}: {err.decode()}")
        return out.decode().strip()

    def seconds(self, *words: str) -> float:
        """How long a command took."""
        began = time.perf_counter()
        self.ok(*words)
        return time.perf_counter() - began

    def pid(self, container: str) -> int:
        """Of the container's first process."""
        return int(self.ok("inspect", "-f", "{{.State.Pid}}", container))

    def clear(self) -> None:
        """Remove all containers."""
        if left := self.ok("ps", "-aq").split():
            self.ok("rm", "-f", *left)


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A short directory on the disk that goes with what was mounted below."""
    made = Path(tempfile.mkdtemp(prefix="sgb-", dir="/tmp"))
    made.chmod(0o755)
    try:
        yield made
    finally:
        with open("/proc/self/mounts") as table:
            mounted = [line.split()[1] for line in table if line.split()[1].startswith(str(made))]
        for target in reversed(mounted):
            subprocess.run(["umount", "-l", target], check=False)
        shutil.rmtree(made, ignore_errors=True)


def wait_for(ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until a peer answers; what it logged if it ends before or takes too long."""
    limit = time.monotonic() + 30
    while not ready():
        if process.poll() is not None or time.monotonic() > limit:
            raise RuntimeError(f"{process.args!r}: not ready\n{log.read_text()[-3000:]}")
        time.sleep(0.02)


@contextlib.contextmanager
def running(
    command: Sequence[str | Path],
    directory: Path,
    ready: Callable[[], bool],
    path: str = os.environ["PATH"],
) -> Iterator[subprocess.Popen[bytes]]:
    """A server from its first answer until it has ended; `path` is where it finds programs."""
    log = directory / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, "PATH": path}
        )
    try:
        wait_for(ready, process, log)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def answers(peer: Docker) -> Callable[[], bool]:
    """Whether its API does."""
    return lambda: peer.start("version").wait() == 0


@contextlib.contextmanager
def group(name: str) -> Iterator[str]:
    """A parent for containers' control groups, removed in every hierarchy at the end."""
    try:
        yield f"/{name}"
    finally:
        for path in [*GROUPS.glob(f"*/{name}"), *GROUPS.glob(name)]:
            for found, _, _ in os.walk(path, topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(found)


def in_memory(directory: Path) -> None:
    """A filesystem like that of /run; it goes with the scratch directory that it is in."""
    directory.mkdir()
    syscalls.mount("tmpfs", str(directory), "tmpfs", 0, "mode=755")


@contextlib.contextmanager
def dockerd(places: str = "") -> Iterator[Docker]:
    """Docker Engine as its package starts it; its programs may be in directories of their own."""
    path = f"{places}:{os.environ['PATH']}" if places else os.environ["PATH"]
    program = shutil.which("dockerd", path=path) or "dockerd"
    with scratch() as directory, group(directory.name) as parent:
        in_memory(directory / "exec")
        peer = Docker("Docker Engine", directory / "docker.sock")
        flags = {
            "--data-root": directory / "data",
            "--exec-root": directory / "exec",
            "--pidfile": directory / "pid",
            "--host": f"unix://{peer.socket}",
            "--cgroup-parent": parent,
        }
        words = [f"{flag}={value}" for flag, value in flags.items()]
        with running([program, *words], directory, answers(peer), path):
            yield peer
            peer.clear()


@contextlib.contextmanager
def podman() -> Iterator[Docker]:
    """Podman's Docker API: each request begins its engine anew, as its command line does."""
    with scratch() as directory, group("libpod_parent"):
        peer = Docker("Podman", directory / "podman.sock")
        in_memory(directory / "run")
        words = [
            f"--root={directory}/data",
            f"--runroot={directory}/run/root",
            f"--tmpdir={directory}/run/tmp",
            "--cgroup-manager=cgroupfs",
            "--runtime=runc",  # as dockerd; crun refuses hybrid control groups
            "--events-backend=file",
        ]
        service = ["system", "service", "--time=0", f"unix://{peer.socket}"]
        with running(["podman", *words, *service], directory, answers(peer)):
            yield peer
            peer.clear()


@contextlib.contextmanager
def sagong(profile: str = "docker") -> Iterator[Docker]:
    """An instance of ours."""
    with scratch() as directory:
        in_memory(directory / "run")
        with instance(f'profile = "{profile}"\n', directory) as made:
            peer = Docker("sagong", made.paths.run / "docker.sock", made)
            yield peer
            peer.clear()


@contextlib.contextmanager
def etcd() -> Iterator[str]:
    """One etcd with its defaults: each write is on the disk before it is acknowledged. Its URL."""
    with scratch() as directory:
        url, other = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        command = ["etcd", f"--data-dir={directory}/data"]
        command += [f"--listen-client-urls={url}", f"--advertise-client-urls={url}"]
        command += [f"--listen-peer-urls={other}", f"--initial-advertise-peer-urls={other}"]
        command += [f"--initial-cluster=default={other}"]

        def ready() -> bool:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/health") as answer:
                return b"true" in answer.read()
            return False

        with running(command, directory, ready):
            yield url
