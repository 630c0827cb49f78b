"""How fast containers start: runtime_linux and runtime_oci against `runc run`, alternating in one run;
and `sagong-runtime`, by the same command line as runc, with the processor time of all its processes.

`python tests/bench/bench_runtime.py [rounds [CRUN]]`, as root, with busybox-static and runc. CRUN is
the path of a crun; since it refuses hybrid cgroups, begin there with
`unshare -m sh -c "umount /sys/fs/cgroup/unified; python …"`.
"""

from __future__ import annotations

import asyncio
import json
import re
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / part) for part in ("core", "plugins", ".")]

import uvloop  # noqa: E402
from tests.conformance.runtime_rig import Rig, rig  # noqa: E402
from tests.system.runtime_oci.bundles import program  # noqa: E402

from sagong.conformance.runtime import RuntimeLab  # noqa: E402
from sagong.contracts.runtime import ContainerRef, ExecRequest, Runtime  # noqa: E402
from sagong_runtime_oci import RuntimeOci  # noqa: E402

_MASKED = "asound acpi kcore keys latency_stats timer_list sched_debug scsi"
MASKED = (*(f"/proc/{name}" for name in _MASKED.split()), "/sys/firmware")
READONLY = tuple(f"/proc/{name}" for name in ["bus", "fs", "irq", "sys", "sysrq-trigger"])


class Series:
    """Times of one kind, in milliseconds."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.times: list[float] = []

    def add(self, began: float) -> None:
        """One more, that began then and ends now."""
        self.times.append((time.perf_counter() - began) * 1000)

    def line(self) -> str:
        """Median and the slow end."""
        ordered = sorted(self.times)
        p95 = ordered[int(len(ordered) * 0.95) - 1]
        return f"{self.name:<42} p50 {statistics.median(ordered):7.2f}  p95 {p95:7.2f} ms"


async def start_and_end(
    lab: RuntimeLab, runtime: Runtime, series: dict[str, Series], which: str = ""
) -> None:
    """One container that ends at once, removed after."""
    process = lab.process("/bin/true", "x")
    spec = lab.spec(process, masked_paths=MASKED, readonly_paths=READONLY)
    began = time.perf_counter()
    await runtime.run(spec)
    series[f"{which}run"].add(began)
    await lab.ended(spec.id)
    series[f"{which}ended"].add(began)
    await runtime.remove(ContainerRef(id=spec.id))
    series[f"{which}removed"].add(began)


async def execute(
    lab: RuntimeLab, container_id: str, series: dict[str, Series], which: str = ""
) -> None:
    """One process in a running container."""
    process = lab.process("/bin/true", "x")
    request = ExecRequest(id=container_id, exec_id=lab.new_id(), process=process)
    began = time.perf_counter()
    await lab.runtime.exec(request)
    series[f"{which}exec"].add(began)


def make_bundle(rig: Rig) -> Path:
    """The same container for runc: its default spec with Docker's mounts, no terminal."""
    bundle = rig.base / "bundle"
    bundle.mkdir()
    subprocess.run(["runc", "spec"], cwd=bundle, check=True)
    config: dict[str, Any] = json.loads((bundle / "config.json").read_text())
    config["process"] |= {"terminal": False, "args": ["/bin/true", "x"]}
    config["process"].pop("rlimits", None)
    config["root"] = {"path": str(rig.rootfs), "readonly": False}
    (bundle / "config.json").write_text(json.dumps(config))
    return bundle


def run_bundle(
    runtime: list[str], bundle: Path, number: int, series: Series, processor: Series
) -> None:
    """`RUNTIME run`, from start to end, and the processor time of it and the container."""
    before = _processor_time()
    began = time.perf_counter()
    subprocess.run(
        [*runtime, "--root", f"{bundle}/state", "run", "--bundle", str(bundle), f"bench-{number}"],
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    series.add(began)
    processor.times.append((_processor_time() - before) * 1000)


def _processor_time() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def memory_of(pid: int) -> int:
    """Proportional set size in kB."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"^Pss:\s+(\d+) kB", text, re.M)
    return int(found[1]) if found else 0


async def measure_memory(rig: Rig, lab: RuntimeLab, count: int) -> str:
    """What an idle monitor costs."""
    for _ in range(count):
        await lab.running()
    await asyncio.sleep(0.5)
    sizes = [memory_of(pid) for pid in rig.monitors()]
    assert rig.launcher is not None
    launcher = memory_of(rig.launcher.pid)
    return (
        f"{len(sizes)} idle monitors: {statistics.mean(sizes):.0f} kB PSS; launcher {launcher} kB"
    )


def ratio(one: Series, other: Series) -> float:
    """Of the medians."""
    return statistics.median(one.times) / statistics.median(other.times)


async def measure(rounds: int, crun: str = "") -> None:
    """Everything, alternating with runc where it can be compared."""
    names = {
        "run": "run: request -> program executed",
        "ended": "request -> exit known",
        "removed": "request -> removed",
        "exec": "exec in a running container",
    }
    names |= {f"oci-{key}": f"runtime_oci, {name}" for key, name in names.items()}
    given = ["runc", "sagong-runtime", *(["crun"] if crun else [])]
    names |= {name: f"{name} run, start -> end" for name in given}
    names |= {f"cpu-{name}": f"{name} run, processor time" for name in given}
    series = {key: Series(name) for key, name in names.items()}
    async with rig() as made, rig(RuntimeOci) as other:
        lab, peer = made.lab(), other.lab()
        bundle = make_bundle(made)
        runtimes = {"runc": ["runc"], "sagong-runtime": [str(program(made.base))]}
        if crun:
            runtimes["crun"] = [crun]
        target, peers = await lab.running(), await peer.running()
        for number in range(rounds):
            await start_and_end(lab, lab.runtime, series)
            await execute(lab, target.id, series)
            await start_and_end(peer, peer.runtime, series, "oci-")
            await execute(peer, peers.id, series, "oci-")
            for name, runtime in runtimes.items():
                # Not beside the loop: its own children would count.
                run_bundle(runtime, bundle, number, series[name], series[f"cpu-{name}"])
        await peer.clean()
        began = time.perf_counter()
        specs = [lab.spec(lab.process("/bin/true", "x")) for _ in range(50)]
        await asyncio.gather(*(lab.runtime.run(spec) for spec in specs))
        rate = 50 / (time.perf_counter() - began)
        memory = await measure_memory(made, lab, 20)
        await lab.clean()
    for one in series.values():
        print(one.line())
    for key, name in (("ended", "runtime_linux"), ("oci-ended", "runtime_oci")):
        print(f"{name}, request -> exit known / runc run: {ratio(series[key], series['runc']):.2f}")
    for key, name in (("", ""), ("cpu-", ", processor time")):
        for other_name in given[::2]:
            of = ratio(series[f"{key}sagong-runtime"], series[f"{key}{other_name}"])
            print(f"sagong-runtime run / {other_name} run{name}: {of:.2f}")
    print(f"50 at once: {rate:.0f} containers/s")
    print(memory)


if __name__ == "__main__":
    uvloop.run(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 40, *sys.argv[2:3]))
