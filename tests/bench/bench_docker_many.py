"""Hundreds of containers beside Docker Engine: what they cost idle, and how long listing them takes.

`tests/bench/run docker_many [--idle N] [--listed N]`, as root.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from tests.bench import machine
from tests.bench.bench_docker import (
    IMAGE,
    SLEEP,
    Rounds,
    engines,
    figures,
    in_flight,
    listing_milliseconds,
    proportional_kilobytes,
)
from tests.bench.figures import Figure, report
from tests.bench.peers import Docker

# Seconds after the last start, when what only helps to start the next container has ended.
REST = 20.0

# Whose memory it is: the first letters of the names of an engine's processes.
NAMES = {"dockerd": ("dockerd", "containerd", "docker-proxy"), "sagong": ("sagong",)}


def engine_megabytes(name: str) -> float:
    """PSS of all processes of an engine; the containers' own are not among them."""
    found = 0
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "comm").read_text().startswith(NAMES[name]):
                found += proportional_kilobytes(int(entry.name))
        except OSError:
            continue
    return found / 1024


def idle(found: dict[str, Docker], count: int) -> list[Figure]:
    """Start so many that sleep, and see what all processes of the engine have grown by."""
    rates, grown = {}, {}
    for name, engine in found.items():
        before = engine_megabytes(name)
        rates[name] = [in_flight(engine, count, "run", "-d", IMAGE, *SLEEP)]
        time.sleep(REST)
        grown[name] = [engine_megabytes(name) - before]
    return [
        *figures(f"docker run -d of {count}, 20 commands at once", "/s", rates),
        *figures(f"memory of {count} idle containers, all processes", "MB", grown),
    ]


def listed(found: dict[str, Docker], count: int) -> list[Figure]:
    """`docker ps` and `docker ps -a` with so many that don't run beside those that do."""
    for engine in found.values():
        in_flight(engine, count, "create", IMAGE, *SLEEP)
    turns = Rounds(found)
    running = turns.take(5, lambda engine: engine.seconds("ps") * 1e3)
    everything = turns.take(5, listing_milliseconds)
    return [
        *figures(f"docker ps beside {count} stopped", "ms", running),
        *figures("docker ps -a of all", "ms", everything),
    ]


def main() -> None:
    """Measure both engines in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--idle", type=int, default=200)
    parser.add_argument("--listed", type=int, default=500)
    options = parser.parse_args()
    machine.enter()
    with engines(leave_out=("podman",)) as found:
        report("docker_many", idle(found, options.idle))
        report("docker_many", listed(found, options.listed))


if __name__ == "__main__":
    main()
