"""The Docker API beside Docker Engine and Podman, by the same docker command line, taking turns.

`tests/bench/run docker [--rounds N] [--dockerd DIRECTORY:DIRECTORY]`, as root. Peers that are not
installed are left out. `--dockerd`, as often as wanted, names where a further Docker Engine has its
programs.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests import sample_image
from tests.bench import docker_client, machine, peers
from tests.bench.cpu import Spent
from tests.bench.figures import Budget, Figure, report
from tests.bench.peers import Docker

IMAGE = sample_image.NAME
TOGETHER, IN_FLIGHT = 50, 20
LISTED = 200
LINE, LINES = 100, 1_000_000
SLEEP = ("sleep", "1000")
ENDS_WELL = ("sh", "-c", "trap 'exit 0' TERM; sleep 1000 & wait")
ENGINES = {"dockerd": peers.dockerd, "podman": peers.podman, "sagong": peers.sagong}


@contextlib.contextmanager
def engines(
    *, leave_out: tuple[str, ...] = (), others: Sequence[str] = ()
) -> Iterator[dict[str, Docker]]:
    """All that are installed, and further Docker Engines by their places, with the image in each."""
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        archive = sample_image.build(directory).docker_archive
        found = {}
        for name, start in ENGINES.items():
            if name in leave_out:
                continue
            if name == "sagong" or shutil.which(name):
                found[name] = stack.enter_context(start())
                found[name].ok("load", "-i", str(archive))
            else:
                print(f"{name} is not installed: left out")
        for places in others:
            engine = stack.enter_context(peers.dockerd(places))
            version = engine.ok("version", "-f", "{{.Server.Version}}")
            engine.ok("load", "-i", str(archive))
            found[f"Docker Engine {'.'.join(version.split('.')[:2])}"] = engine
        yield found


class Rounds:
    """Values by engine, taken in turn, so that what else the machine does meets all."""

    def __init__(self, found: dict[str, Docker]) -> None:
        self._engines = found

    def take(
        self, rounds: int, work: Callable[[Docker], float], *, alone: tuple[str, ...] = ()
    ) -> dict[str, list[float]]:
        """`rounds` of all engines, or of those named."""
        values: dict[str, list[float]] = {name: [] for name in alone or self._engines}
        for number in range(rounds + 1):
            for name, found in values.items():
                value = work(self._engines[name])
                if number or rounds == 1:  # the first warms up
                    found.append(value)
        return {name: found for name, found in values.items() if name in self._engines}


def figures(
    what: str, unit: str, values: dict[str, list[float]], budget: Budget | None = None
) -> Iterator[Figure]:
    """A row for each peer; the budget is held against Docker Engine."""
    ours = values["sagong"]
    names = {"dockerd": "Docker Engine 20.10", "podman": "Podman 4.3"}
    names |= {name: name for name in values if name not in ("sagong", *names)}
    rows = [(names[n], values[n], None if n == "podman" else budget) for n in names if n in values]
    for peer, theirs, limit in rows or [("", [], None)]:
        yield Figure(what=what, unit=unit, ours=ours, theirs=theirs, peer=peer, budget=limit)


def run_milliseconds(*options: str) -> Callable[[Docker], float]:
    """`docker run --rm busybox true`."""
    return lambda engine: engine.seconds("run", "--rm", *options, IMAGE, "true") * 1e3


def in_flight(engine: Docker, count: int, *words: str) -> float:
    """Commands a second of so many, twenty at once."""
    began = time.perf_counter()
    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        list(pool.map(lambda _: engine.ok(*words), range(count)))
    return count / (time.perf_counter() - began)


def started_together(engine: Docker) -> float:
    """Containers a second of `docker run -d`."""
    return in_flight(engine, TOGETHER, "run", "-d", IMAGE, *SLEEP)


def started_by_api(engine: Docker) -> float:
    """The same by one client of the API: what is left is the engine's."""
    spent = Spent()
    rate = docker_client.started_together(engine.socket, IMAGE, SLEEP, TOGETHER, IN_FLIGHT)
    print(f"processor time of one container by one client, {engine.name}:")
    print(spent.table(TOGETHER))
    engine.ok("rm", "-f", *engine.ok("ps", "-q").split())
    return rate


def removed_together(engine: Docker) -> float:
    """Seconds of one `docker rm -f` of all that run."""
    return engine.seconds("rm", "-f", *engine.ok("ps", "-q").split())


def proportional_kilobytes(pid: int) -> int:
    """PSS of a process."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"^Pss:\s+(\d+) kB", text, re.M)
    return int(found[1]) if found else 0


def parent(pid: int) -> int:
    """Of a process."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def helper_megabytes(engine: Docker) -> float:
    """PSS of the parents of running containers (shims, conmons, monitors), for each container."""
    containers = engine.ok("ps", "-q").split()
    inspected = engine.ok("inspect", "-f", "{{.State.Pid}}", *containers)
    helpers = {parent(int(pid)) for pid in inspected.split()}
    return sum(proportional_kilobytes(pid) for pid in helpers) / len(containers) / 1024


def listing_milliseconds(engine: Docker) -> float:
    """`docker ps -a` of all."""
    return engine.seconds("ps", "-a") * 1e3


def create_many(engine: Docker) -> float:
    """Containers a second of `docker create`, until there are 200 with those that run."""
    return in_flight(engine, LISTED - TOGETHER, "create", IMAGE, *SLEEP)


def in_one_container(engine: Docker) -> dict[str, float]:
    """Milliseconds of exec, stop and rm."""
    container = engine.ok("run", "-d", IMAGE, *ENDS_WELL)
    times = {
        "exec": engine.seconds("exec", container, "true"),
        "stop": engine.seconds("stop", container),
        "rm": engine.seconds("rm", container),
    }
    return {name: seconds * 1e3 for name, seconds in times.items()}


def logged(engine: Docker) -> tuple[float, float]:
    """MB/s of a container that writes 100 MB, and of `docker logs` of it; nothing may be missing."""
    script = f"yes {'x' * (LINE - 1)} | head -n {LINES}"
    began = time.perf_counter()
    container = engine.ok("run", "-d", IMAGE, "sh", "-c", script)
    engine.ok("wait", container)
    written = time.perf_counter() - began
    began = time.perf_counter()
    process = engine.start("logs", container, stdout=subprocess.PIPE)
    assert process.stdout is not None
    count = 0
    while block := os.read(process.stdout.fileno(), 1 << 20):
        count += len(block)
    read = time.perf_counter() - began
    assert process.wait() == 0
    assert count == LINE * LINES, f"{engine.name}: {count} of {LINE * LINES} bytes logged"
    engine.ok("rm", container)
    return LINE * LINES / 1e6 / written, LINE * LINES / 1e6 / read


def crowd(found: dict[str, Docker]) -> list[Figure]:
    """Fifty together, their helpers, listing two hundred, removing them."""
    both = {name: found[name] for name in found if name != "podman"}
    by_api = Rounds(both).take(3, started_by_api)
    rates = {name: [started_together(engine)] for name, engine in both.items()}
    helpers = {name: [helper_megabytes(engine)] for name, engine in both.items()}
    created = {name: [create_many(engine)] for name, engine in both.items()}
    listing = Rounds(both).take(5, listing_milliseconds)
    removed = {name: [removed_together(engine)] for name, engine in both.items()}
    for engine in both.values():
        engine.clear()
    least = Budget(limit=15, ratio=True, least=True)
    commands, client = f"{IN_FLIGHT} commands at once", f"one API client, {IN_FLIGHT} in flight"
    against_commands = rates | {"sagong": by_api["sagong"]}
    return [
        *figures(f"docker run -d, {TOGETHER} by {commands}", "/s", rates, least),
        *figures(f"{TOGETHER} by {client}", "/s", by_api, least),
        *figures(f"the same; theirs by {commands}", "/s", against_commands, least),
        *figures("resident helper of a container, PSS", "MB", helpers, Budget(limit=0.8)),
        *figures(f"docker create, {IN_FLIGHT} commands at once", "/s", created),
        *figures(f"docker ps -a of {LISTED}, {TOGETHER} of them running", "ms", listing),
        *figures(f"docker rm -f of {TOGETHER} running", "s", removed),
    ]


def single(found: dict[str, Docker], rounds: int) -> list[Figure]:
    """One container at a time."""
    turns = Rounds(found)
    run = turns.take(rounds, run_milliseconds())
    bare = turns.take(max(rounds // 2, 3), run_milliseconds("--network=none"))
    parts: dict[str, dict[str, list[float]]] = {"exec": {}, "stop": {}, "rm": {}}
    for _ in range(max(rounds // 2, 3)):
        for name, engine in found.items():
            if name != "podman":
                for part, value in in_one_container(engine).items():
                    parts[part].setdefault(name, []).append(value)
    cli = [found["sagong"].seconds("version") * 1e3 for _ in range(rounds)]
    return [
        *figures("docker run --rm busybox true", "ms", run, Budget(limit=0.12, ratio=True)),
        *figures("the same with --network=none", "ms", bare),
        Figure(what="docker version, so the command line itself", unit="ms", ours=cli),
        *(row for part in parts for row in figures(f"docker {part}", "ms", parts[part])),
    ]


def output(found: dict[str, Docker]) -> list[Figure]:
    """A hundred megabytes of lines."""
    rates = {name: logged(engine) for name, engine in found.items() if name != "podman"}
    written = {name: [rate[0]] for name, rate in rates.items()}
    read = {name: [rate[1]] for name, rate in rates.items()}
    return [
        *figures("a container that writes 100 MB of lines to its log", "MB/s", written),
        *figures("docker logs of them", "MB/s", read),
    ]


def main() -> None:
    """Measure all engines in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--dockerd", action="append", default=[], metavar="DIRECTORY:DIRECTORY")
    options = parser.parse_args()
    machine.enter()
    with engines(others=options.dockerd) as found:
        for figures_of in (lambda all_: single(all_, options.rounds), crowd, output):
            report("docker", figures_of(found))  # each at once: a slow machine loses no figure


if __name__ == "__main__":
    main()
