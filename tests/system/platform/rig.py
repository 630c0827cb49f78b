"""The whole platform under test: its two command lines, checkers that ask on and on, what is left."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from shutil import which

import pytest
from tests import sample_image
from tests.system.instance import Instance, environment

from sagong_network_bridge.netlink import Channel
from sagong_network_bridge.nft import Nftables

IMAGE = sample_image.NAME
_NETFILTER = 12
needs_docker = pytest.mark.skipif(which("docker") is None, reason="needs the docker command line")
needs_kubectl = pytest.mark.skipif(which("kubectl") is None, reason="needs kubectl")


def single(port: int, subnet: str) -> str:
    """The configuration of a whole platform of its own: the API's port, the first three bytes."""
    services = f"10.{int(subnet.split('.')[1]) - 150}.0.0/16"
    return f"""
profile = "single"
[units.kube]
listens = {{ api = "tcp:127.0.0.1:{port}", pods = "tcp:{subnet}.1:6443" }}
settings = {{ service_ranges = ["{services}"] }}
[units.node.settings]
name = "tested"
pod_cidr = "{subnet}.0/24"
cluster_cidrs = ["{subnet}.0/24"]
service_cidrs = ["{services}"]
cluster_dns = ["{subnet}.1"]
[units.dns]
listens = {{ udp = "udp:{subnet}.1:53", tcp = "tcp:{subnet}.1:53" }}
"""


class Platform:
    """Its two command lines; every command has a bound, since some ignore SIGTERM."""

    def __init__(self, running: Instance, home: Path) -> None:
        self.running = running
        self.home = home
        self.environment = {
            **environment(),
            "HOME": str(home),
            "DOCKER_HOST": f"unix://{running.paths.run}/docker.sock",
            "KUBECONFIG": str(running.paths.etc / "kubeconfig"),
        }

    def run(
        self, *words: str, given: bytes = b"", seconds: float = 100
    ) -> subprocess.CompletedProcess[str]:
        """Run docker, kubectl or skopeo, whatever comes of it."""
        done = subprocess.run(
            words, env=self.environment, capture_output=True, input=given, timeout=seconds
        )
        out, err = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        return subprocess.CompletedProcess(done.args, done.returncode, out, err)

    def __call__(self, *words: str, given: bytes = b"") -> str:
        """The output of a command that must succeed."""
        done = self.run(*words, given=given)
        assert done.returncode == 0, f"{words}: {done.stderr}{done.stdout}"
        return done.stdout

    def refused(self, *words: str, given: bytes = b"", code: int = 1) -> str:
        """What is said by a command that must fail with this exit status."""
        done = self.run(*words, given=given)
        assert done.returncode == code, (words, done)
        return done.stderr + done.stdout

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Run in the background with pipes."""
        pipe = subprocess.PIPE
        return subprocess.Popen(words, env=self.environment, stdin=pipe, stdout=pipe, stderr=pipe)

    def swap(self, unit: str) -> None:
        """Replace a unit by itself."""
        self.running.run("swap", unit, "--quiet")


@contextlib.contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """A background command that is ended whatever happens."""
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def fetch(address: str) -> str:
    """What a web server says."""
    with urllib.request.urlopen(f"http://{address}/", timeout=20) as answer:
        return str(answer.read().decode().strip())


def wait_for(condition: Callable[[], object], seconds: float = 60.0, what: str = "") -> None:
    """Wait until a function is true."""
    limit = time.monotonic() + seconds
    while True:
        last: object = ""
        try:
            if last := condition():
                return
        except (OSError, AssertionError) as error:
            last = error
        assert time.monotonic() < limit, f"not in {seconds:g} s: {what} {last!r}"
        time.sleep(0.1)


class Checker:
    """Asks again and again in threads, and keeps every failure."""

    def __init__(self, ask: Callable[[], object], *, threads: int = 1, pause: float = 0.02) -> None:
        self.failures: list[str] = []
        self.answers = 0
        self._ask = ask
        self._pause = pause
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]

    def __enter__(self) -> Checker:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def wait_answers(self, more: int, seconds: float = 60.0) -> None:
        """Wait until it has had that many more good answers."""
        before, wanted = self.answers, self.answers + more
        try:
            wait_for(lambda: self.answers >= wanted, seconds)
        except AssertionError:
            name = getattr(self._ask, "__qualname__", repr(self._ask))
            told = f"{self.answers - before} answers, failures: {self.failures[-3:]}"
            raise AssertionError(f"{name} in {seconds:g} s had {told}") from None

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._ask()
                self.answers += 1
            except Exception as error:
                self.failures.append(f"{type(error).__name__}: {error}")
            time.sleep(self._pause)


def footprint(running: Instance) -> dict[str, list[str]]:
    """All that containers of this instance have on the machine, to be compared.

    Namespaces are kept in store, and used ones replaced by others: their names are left out.
    """
    paths = running.paths
    nodes = paths.data / "plugins"
    return {
        "mounts": _nameless(_mounts(str(running.root))),
        "namespaces": _nameless(p.name for p in (paths.run / "netns").iterdir()),
        "cgroups": cgroups(paths.cgroup.strip("/")),
        "files": sorted(
            str(p) for p in [*nodes.glob("node*/containers/*"), *nodes.glob("node*/logs/*/*")]
        ),
        "volumes": sorted(str(p) for p in nodes.glob("volume*/volumes/*")),
        "links": _nameless(
            p.name for p in Path("/sys/class/net").iterdir() if p.name.startswith(paths.prefix)
        ),
        "rules": _elements(paths.prefix),
    }


# So many looks in a row, 0.3 s apart, show the same.
_RESTS = 5


def settled(running: Instance) -> dict[str, list[str]]:
    """What they have when it changes no more: namespaces are put in store in the background."""
    found = [footprint(running)]

    def rests() -> bool:
        time.sleep(0.3)
        found.append(footprint(running))
        return len(found) >= _RESTS and all(one == found[-1] for one in found[-_RESTS:])

    wait_for(rests)
    return found[-1]


def wait_footprint(running: Instance, before: dict[str, list[str]]) -> None:
    """Until they have again what they had."""
    try:
        wait_for(lambda: footprint(running) == before)
    except AssertionError:
        assert footprint(running) == before, "something is left"


def _nameless(names: Iterable[str]) -> list[str]:
    return sorted(re.sub(r"[0-9a-f]{10,}", "#", name) for name in names)


def _mounts(root: str) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return sorted(line.split()[4] for line in lines if root in line)


def cgroups(name: str) -> list[str]:
    """Control groups below one of a name, of all hierarchies."""
    tops = Path("/sys/fs/cgroup").glob(f"*/{name}")
    # Groups go while one looks: `os.walk` takes no offence.
    walked = (found for top in tops for found in os.walk(top))
    return sorted(f"{place}/{below}" for place, names, _ in walked for below in names)


def _elements(prefix: str) -> list[str]:
    """Keys of the elements of the instance's sets and maps."""
    with rules(prefix) as table:
        names = list(table.sets())
        return sorted(f"{name} {e.key.hex()}" for name in names for e in table.elements(name))


@contextlib.contextmanager
def rules(prefix: str) -> Iterator[Nftables]:
    """The instance's table of nftables."""
    channel = Channel(_NETFILTER)
    try:
        yield Nftables(channel, prefix)
    finally:
        channel.close()
