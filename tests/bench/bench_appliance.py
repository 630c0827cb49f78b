"""How an appliance starts and rests: `python tests/bench/bench_appliance.py [--starts N]`, as root.

Starts the example of an appliance again and again with its images in the store, from `sagong up` until
both of its pods run; then prints what all processes take, and what they do in a quiet minute, when all
who start on demand and are not needed sleep (after seconds, not minutes).
"""

from __future__ import annotations

import argparse
import statistics
import time

from tests.bench.bench_idle import drowsy, processes, report_memory, report_work, wait_quiet
from tests.system.appliance.sealed import Sealed, sealed

_PODS = 2


def start(box: Sealed) -> tuple[float, float]:
    """Seconds until `sagong up` says that all is ready, and until the pods run."""
    log = box.paths.run / "log" / "node.log"
    ran = log.read_text().count("is Running") if log.exists() else 0
    began = time.perf_counter()
    box.run("up", "--seconds", "60")
    ready = time.perf_counter() - began
    box.wait("is Running", count=ran + _PODS, seconds=60.0)
    return ready, time.perf_counter() - began


def main() -> None:
    """Start it, measure, take it away."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    with sealed() as box:
        with open(box.paths.etc / "sagong.toml", "a") as file:
            file.write(drowsy("appliance", 10.0))
        first = start(box)
        print(f"first start, with the image's archive to load: pods run after {first[1]:.2f} s")
        found = []
        for _ in range(options.starts):
            box.run("down", "--containers")
            found.append(start(box))
        ready, running = (statistics.median(column) for column in zip(*found))
        print(
            f"median of {options.starts}: ready after {ready:.2f} s, pods run after {running:.2f} s"
        )
        time.sleep(25.0)
        pids = processes(box)
        wait_quiet(list(pids.values()))
        report_memory("at rest", pids)
        report_work(pids, options.seconds)


if __name__ == "__main__":
    main()
