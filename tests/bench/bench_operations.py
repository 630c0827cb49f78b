"""What each operation of a container's start takes of processor time, in its first process.

`python -m tests.bench.bench_operations [containers]`, as root, with busybox-static. Another tree's
figures are had by the same there. What else the machine does moves the medians by a few
microseconds; what grows with the machine's mounts, threads and namespaces is named in
docs/benchmarks.md.
"""

from __future__ import annotations

import re
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / part) for part in ("core", "plugins", ".")]

import uvloop  # noqa: E402
from tests.bench.bench_runtime import MASKED, READONLY  # noqa: E402
from tests.conformance.runtime_rig import Rig, directories  # noqa: E402

from sagong.contracts.runtime import ContainerRef  # noqa: E402

# The first children of a nurse find nothing of what the interpreter adapts to its use.
_WARM = 5


class TimedRig(Rig):
    """With the launcher that measures."""

    def launcher_text(self) -> str:
        """Its own, in a tree that has the benchmarks."""
        return (
            f"sys.path.append({str(ROOT)!r})\n"
            "from tests.bench.timed_launcher import main\nmain(*sys.argv[1:])"
        )


async def measured(containers: int) -> list[list[tuple[int, str]]]:
    """Nanoseconds and names of each container's operations, in order."""
    with directories() as base:
        rig = TimedRig(base)
        rig.start_launcher()
        try:
            await rig.start_plugin()
            lab = rig.lab()
            for _ in range(containers + _WARM):
                process = lab.process("/bin/true", "x")
                spec = lab.spec(process, masked_paths=MASKED, readonly_paths=READONLY)
                await lab.runtime.run(spec)
                await lab.ended(spec.id)
                await lab.runtime.remove(ContainerRef(id=spec.id))
            lines = (rig.run / "times").read_text().splitlines()
        finally:
            await rig.drop_plugin()
            rig.sweep()
    return by_container(lines)[_WARM:]


def by_container(lines: list[str]) -> list[list[tuple[int, str]]]:
    """Each begins with the same line."""
    found: list[list[tuple[int, str]]] = []
    for line in lines:
        time, _, name = line.partition(" ")
        if name.startswith("until"):
            found.append([])
        found[-1].append((int(time), re.sub(r"[0-9a-f-]{12,}", "…", name)))
    return found


def main() -> None:
    """Print a row for each, in order."""
    containers = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    rows = uvloop.run(measured(containers))
    for column in zip(*rows, strict=True):
        times = [time / 1000 for time, _ in column]
        print(f"{statistics.median(times):8.0f} µs  {column[0][1]}")


if __name__ == "__main__":
    main()
