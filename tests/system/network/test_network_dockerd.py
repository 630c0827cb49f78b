"""A real dockerd on the same machine: neither breaks the other's rules, published ports, containers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat.docker.docker_engine import IMAGE, Engine, engine
from tests.system.network.outer import World, machine, reached, shell

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not shutil.which("dockerd"), reason="no dockerd is installed here"),
]
_SECONDS = 60


class Dockerd:
    """A dockerd with everything of its own below `base`."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.host = f"unix://{base}/docker.sock"
        self._command = [
            "dockerd",
            *("--data-root", f"{base}/data", "--exec-root", f"{base}/exec", "-H", self.host),
            *("--pidfile", f"{base}/pid", "--storage-driver", "vfs", "--bip", "172.30.0.1/24"),
            *("--cgroup-parent", f"/{base.name}", "--exec-opt", "native.cgroupdriver=cgroupfs"),
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Until it answers."""
        with (self.base / "log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        limit = time.monotonic() + _SECONDS
        while subprocess.run(["docker", "-H", self.host, "info"], capture_output=True).returncode:
            assert time.monotonic() < limit, (self.base / "log").read_text()[-4000:]
            time.sleep(0.1)

    def stop(self) -> None:
        """As a service is stopped."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(_SECONDS)
            self._process = None

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A command, whatever comes of it."""
        command = ["docker", "-H", self.host, *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=100)

    def ok(self, *words: str) -> str:
        """A command that must succeed."""
        done = self.run(*words)
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout.strip()


@contextlib.contextmanager
def dockerd() -> Iterator[Dockerd]:
    """Started; nothing of it is left."""
    with tempfile.TemporaryDirectory(prefix="sgdockerd-", dir="/tmp") as name:
        made = Dockerd(Path(name))
        try:
            made.start()
            yield made
        finally:
            made.stop()
            for path in Path("/sys/fs/cgroup").glob(f"*/{made.base.name}"):
                with contextlib.suppress(OSError):
                    os.rmdir(path)


def serve(port: int, word: str) -> list[str]:
    """Options and command of a container that answers with a word."""
    page = f"echo {word} > /tmp/index.html && exec httpd -f -p 80 -h /tmp"
    return ["-d", "--name", word, "-p", f"{port}:80", IMAGE, "sh", "-c", page]


class Both:
    """One container of each engine, and a neighbour of the machine."""

    def __init__(self, ours: Engine, theirs: Dockerd, world: World) -> None:
        self.ours, self.theirs, self.world = ours, theirs, world

    async def wait_serving(self) -> None:
        """Until the programs in both containers have begun to listen."""
        page = ("wget", "-qO-", "http://127.0.0.1/")
        limit = time.monotonic() + _SECONDS
        for run, name in ((self.ours.docker, "ours"), (self.theirs.run, "theirs")):
            while (done := await asyncio.to_thread(run, "exec", name, *page)).returncode:
                assert time.monotonic() < limit, (name, done.stderr)

    async def check(self, when: str) -> None:
        """From outside, from the machine, from each other's containers; and out."""
        for port, word in ((9180, "theirs"), (9181, "ours")):
            page = f"curl -s -m 30 http://{World.machine}:{port}/"
            for path in (self.world.path, ""):
                found = shell(path, page).strip()
                assert found == word, f"{when}: {word} from {path or 'the machine'}: {found!r}"
            inner = ("wget", "-qO-", f"http://{World.machine}:{port}/")
            seen = await asyncio.to_thread(self.ours.ok, "exec", "ours", *inner)
            assert seen == word, f"{when}: {word} from ours"
            seen = await asyncio.to_thread(self.theirs.ok, "exec", "theirs", *inner)
            assert seen == word, f"{when}: {word} from theirs"
        ping = ("ping", "-c", "1", "-W", "20", World.address)
        await asyncio.to_thread(self.ours.ok, "exec", "ours", *ping)
        await asyncio.to_thread(self.theirs.ok, "exec", "theirs", *ping)


def rules() -> list[str]:
    """What dockerd has written, without ours."""
    lines = shell("", "iptables-save").splitlines()
    return [line for line in lines if line.startswith(("-A", ":")) and "sagong" not in line]


async def side_by_side(base: Path) -> None:
    world = World(base)
    shell("", "sysctl -q net.ipv4.ip_forward=0")
    with dockerd() as theirs:
        assert "-P FORWARD DROP" in shell("", "iptables -S FORWARD"), "dockerd drops by default"
        with engine() as ours:
            ours.ok("save", "-o", f"{theirs.base}/image.tar", IMAGE)
            theirs.ok("load", "-i", f"{theirs.base}/image.tar")
            theirs.ok("run", "--restart", "always", *serve(9180, "theirs"))
            before = rules()
            ours.ok("run", *serve(9181, "ours"))
            both = Both(ours, theirs, world)
            await both.wait_serving()
            await both.check("beside each other")
            assert ours.docker("run", "--rm", "-p", "9180:80", IMAGE, "true").returncode == 125
            theirs.stop()
            theirs.start()
            await both.wait_serving()
            await both.check("after a restart of dockerd")
            ours.instance.run("swap", "network", "network_bridge")
            await both.check("after a swap of ours")
            ours.ok("network", "create", "more")
            ours.ok("network", "rm", "more")
            assert rules() == before, "rules of dockerd were touched"
            theirs.ok("rm", "-f", "theirs")
        assert "sagong" not in shell("", "iptables-save"), "rules of ours are left"
    assert (await reached("", "127.0.0.1", 9181))[0] == ""
    world.close()


def test_a_real_dockerd_and_we_live_on_one_machine() -> None:
    machine(side_by_side)
