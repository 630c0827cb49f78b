"""Answers of services beside storms of connections at HTTP listeners: `tests/bench/run storm`, as root.

A plugin with the machine's network begins handshakes at Docker's own TLS listener, or at the Kubernetes
API's, and never finishes them, or connects to the registry and asks, again and again; each against
quiet answers just before: Docker's ping by its Unix socket, the API's version from another address.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import socket
import ssl
import sys
import tempfile
import time
from pathlib import Path

import uvloop

sys.path.append(str(Path(__file__).parents[1] / "plugins"))

from hostile_contract import Attack, Hostile
from tests.bench import machine
from tests.bench.bench_hostile import SHARES, calm_down, figure, p99, spent, weight
from tests.bench.figures import Figure, report
from tests.system.instance import Instance, instance
from tests.unit.http.test_http_tls_websocket import certificate, pem

from sagong.operator import connect

TLS, KUBE, PLAIN = 2376, 6443, 5000
# The attack, where, its name in the table, and who is asked meanwhile.
STORMS = (
    ("handshakes", TLS, "TLS handshakes at docker", "docker"),
    ("handshakes", KUBE, "TLS handshakes at kube", "kube"),
    ("requests", PLAIN, "requests at registry", "docker"),
)
CONFIGURATION = f"""
profile = "single"
cpu_shares = {8 * SHARES}
[units.registry]
enabled = true
[units.docker]
listens = {{ network = "tcp:127.0.0.1:{TLS}" }}
[units.docker.settings]
certificate = "{{etc}}/docker/cert.pem"
key = "{{etc}}/docker/key.pem"
client_ca = "{{etc}}/docker/cert.pem"
[units.hostile]
plugin = "hostile_outside"
"""


class Local(http.client.HTTPConnection):
    """A connection to Docker's socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("docker")
        self._path = str(path)

    def connect(self) -> None:
        """By the Unix socket."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


def pings(path: Path, seconds: float) -> list[float]:
    """What Docker's pings took, each with a connection of its own, in µs."""
    taken = []
    end = time.perf_counter() + seconds
    while (began := time.perf_counter()) < end:
        client = Local(path)
        client.request("GET", "/_ping")
        assert client.getresponse().read() == b"OK"
        client.close()
        taken.append((time.perf_counter() - began) * 1e6)
    return taken


def versions(seconds: float) -> list[float]:
    """What the Kubernetes API took to tell its version on a connection that stands, in µs."""
    context = ssl._create_unverified_context()
    other = ("127.0.0.2", 0)
    client = http.client.HTTPSConnection("127.0.0.1", KUBE, context=context, source_address=other)
    taken = []
    end = time.perf_counter() + seconds
    while (began := time.perf_counter()) < end:
        client.request("GET", "/version")
        assert b"gitVersion" in client.getresponse().read()
        taken.append((time.perf_counter() - began) * 1e6)
    client.close()
    return taken


async def one(
    running: Instance, storm: tuple[str, int, str, str], options: argparse.Namespace
) -> list[Figure]:
    """One storm, several times, each right after a quiet while."""
    name, port, words, unit = storm
    path, pid = running.paths.run / "docker.sock", running.pid(unit)
    tails: list[list[float]] = [[], []]
    costs: list[list[float]] = [[], []]

    async def ask(seconds: float, kind: int) -> None:
        before = spent([pid])
        asked = (pings, path, seconds) if unit == "docker" else (versions, seconds)
        taken = await asyncio.to_thread(*asked)
        costs[kind].append((spent([pid]) - before) / len(taken))
        tails[kind].append(p99(taken))

    for _ in range(options.rounds):
        await calm_down(running)
        async with connect(running.paths) as operator:
            await ask(options.seconds / 2, 0)
            hostile = await operator.use(Hostile)
            await hostile.begin(Attack(name=name, again=True, facts={"port": str(port)}))
            await ask(options.seconds, 1)
    return [
        figure(f"p99 of {unit}'s answers beside: {words}", *tails),
        figure(f"processor time of {unit} for one beside: {words}", *costs),
    ]


async def measure(running: Instance, options: argparse.Namespace) -> list[Figure]:
    """All."""
    return [found for storm in STORMS for found in await one(running, storm, options)]


def main() -> None:
    """Start an instance with certificates, measure, take it away."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="how long a storm goes on")
    parser.add_argument("--rounds", type=int, default=4)
    options = parser.parse_args()
    machine.enter()
    root = Path(tempfile.mkdtemp(prefix="sgt-", dir="/tmp"))
    (root / "etc/docker").mkdir(parents=True)
    pair = pem(*certificate("localhost", None))
    (root / "etc/docker/cert.pem").write_text(pair.certificate)
    (root / "etc/docker/key.pem").write_text(pair.key)
    with weight(), instance(CONFIGURATION, root) as running:
        report("storm", uvloop.run(measure(running, options)))


if __name__ == "__main__":
    main()
