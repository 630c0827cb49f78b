"""What the idle platform takes: `python tests/bench/bench_idle.py [--profile docker]`, as root.

Starts an instance, loads a sample image and uses it once, waits until it is quiet and all who start on
demand sleep (after seconds, not minutes), then prints for each process, deputies too, the PSS in MB
and what it consists of, and for a quiet minute the share of a core, what was written to disk, calls of
write, and wake-ups. `fresh` measures memory before the first use. At last `docker run` wakes them.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tests import sample_image
from tests.system.instance import Instance, environment, instance

KINDS = ("heap", "anonymous", "libraries", "files")
_MAPPING = re.compile(r"[0-9a-f]+-[0-9a-f]+ ")
_TICKS = os.sysconf("SC_CLK_TCK")
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "sample"},
    "spec": {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 0,
        "containers": [
            {
                "name": "sample",
                "image": sample_image.NAME,
                "imagePullPolicy": "IfNotPresent",
                "command": ["sleep", "1000"],
            }
        ],
    },
}


def configuration(profile: str, port: int) -> str:
    """An instance whose ports and subnets meet nobody else's of the same machine."""
    subnet = f"10.{200 + port % 50}.{port % 250}"
    lines = [f'profile = "{profile}"']
    if profile == "single":
        lines += [
            f'[units.kube.listens]\napi = "tcp:127.0.0.1:{port}"\npods = "tcp:{subnet}.1:6443"',
            f'[units.kube.settings]\nservice_ranges = ["10.{100 + port % 50}.0.0/16"]',
            f'[units.node.settings]\nname = "idle"\npod_cidr = "{subnet}.0/24"',
            f'cluster_cidrs = ["{subnet}.0/24"]\nservice_cidrs = ["10.{100 + port % 50}.0.0/16"]',
            f'cluster_dns = ["{subnet}.1"]',
            f'[units.dns.listens]\nudp = "udp:{subnet}.1:53"\ntcp = "tcp:{subnet}.1:53"',
        ]
    return "\n".join(lines) + "\n"


def drowsy(profile: str, seconds: float = 5.0) -> str:
    """Who starts on demand, of what a profile has, sleeps after seconds."""
    units = ["image", "volume", "metrics", "runtime", "state-local", "network"]
    units += ["builder", "docker"] if profile != "appliance" else []
    units += ["auth", "dns", "scheduler", "replication"] if profile == "single" else []
    return "".join(f"[units.{unit}]\nidle_seconds = {seconds}\n" for unit in units)


@dataclass
class Memory:
    """Of one process, in kB: its share in all, and by kind what is its own and dirty."""

    pss: int = 0
    own: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))


def memory(pid: int) -> Memory:
    """Read /proc/PID/smaps."""
    found, kind = Memory(), ""
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if _MAPPING.match(line):
            kind = _kind(line.split(maxsplit=5)[5:])
        elif line.startswith("Pss:"):
            found.pss += int(line.split()[1])
        elif line.startswith("Private_Dirty:"):
            found.own[kind] += int(line.split()[1])
    return found


def _kind(name: list[str]) -> str:
    if not name or name[0].startswith(("[anon", "[stack")):
        return "anonymous"
    if name[0] == "[heap]":
        return "heap"
    return "libraries" if ".so" in name[0] else "files"


class Work(NamedTuple):
    """What a process has done since it began."""

    ticks: int
    written: int
    writes: int
    wakeups: int

    def since(self, earlier: Work) -> Work:
        """The difference."""
        return Work(*(now - then for now, then in zip(self, earlier)))


def work(pid: int) -> Work:
    """Read /proc/PID: utime and stime, io, voluntary switches of all threads."""
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    io = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    wakeups = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        found = re.search(r"^voluntary_ctxt_switches:\s+(\d+)", status.read_text(), re.MULTILINE)
        wakeups += int(found.group(1)) if found else 0
    return Work(int(stat[11]) + int(stat[12]), int(io["write_bytes"]), int(io["syscw"]), wakeups)


def processes(running: Instance) -> dict[str, int]:
    """Their pids by name, in the order of size that `sagong status` has."""
    status = running.status()
    serving = [process for unit in status.units for process in unit.processes]
    found = {process.unit: process.pid for process in [*status.others, *serving]}
    return {**found, **deputies({pid: name for name, pid in found.items()})}


def deputies(units: dict[int, str]) -> dict[str, int]:
    """The deputies of these, by pid, which `sagong status` does not list."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
            title = (place / "cmdline").read_text()
        except OSError:
            continue
        if parent in units and "-deputy" in title:
            found[f"{units[parent]} deputy"] = int(place.name)
    return found


def wait_asleep(running: Instance, seconds: float = 60.0) -> None:
    """Until those that start on demand sleep; who is awake then is among the figures."""
    limit = time.monotonic() + seconds
    units = [line[7:-1] for line in drowsy("single").splitlines() if line.startswith("[units.")]
    while time.monotonic() < limit:
        awake = {unit.name for unit in running.status().units if unit.processes}
        if not awake & set(units):
            return
        time.sleep(1.0)


def use(running: Instance, profile: str) -> None:
    """Load the image, run a container and a pod, and take them away."""
    surroundings = {
        **environment(),
        "DOCKER_HOST": f"unix://{running.paths.run}/docker.sock",
        "KUBECONFIG": str(running.paths.etc / "kubeconfig"),
    }

    def run(*words: str, given: str = "") -> None:
        subprocess.run(
            words, env=surroundings, input=given, check=True, timeout=60, text=True,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip

    with tempfile.TemporaryDirectory() as directory:
        run("docker", "load", "-i", str(sample_image.build(Path(directory)).docker_archive))
    run("docker", "run", "--rm", sample_image.NAME, "true")
    if profile == "single":
        run("kubectl", "apply", "-f", "-", given=json.dumps(POD))
        run("kubectl", "wait", "--for=condition=Ready", "pod/sample", "--timeout=30s")
        run("kubectl", "delete", "pod", "sample")


def wait_quiet(pids: list[int], seconds: float = 60.0) -> None:
    """Until all together take less than 2 % of a core for five seconds."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        before = sum(work(pid).ticks for pid in pids)
        time.sleep(5.0)
        if sum(work(pid).ticks for pid in pids) - before < 5.0 * _TICKS * 0.02:
            return
    print("it did not become quiet; the figures are of a working platform")


def table(heads: list[str], rows: dict[str, list[float]], form: Callable[[float], str]) -> None:
    """Print rows, largest first, and their sum."""
    print(f"{'':22}" + "".join(f"{head:>11}" for head in heads))
    rows = dict(sorted(rows.items(), key=lambda row: -row[1][0]))
    for name, row in {**rows, "all": [sum(column) for column in zip(*rows.values())]}.items():
        print(f"{name:22}" + "".join(f"{form(value):>11}" for value in row))
    print()


def report_memory(title: str, pids: dict[str, int]) -> None:
    """A table of PSS, with own dirty pages by kind, in MB."""
    rows = {}
    for name, pid in pids.items():
        found = memory(pid)
        rows[name] = [found.pss / 1024, *(found.own[kind] / 1024 for kind in KINDS)]
    print(f"{title}: {len(pids)} processes, MB")
    table(["PSS", *(f"own {kind}"[:10] for kind in KINDS)], rows, lambda value: f"{value:.1f}")


def report_work(pids: dict[str, int], seconds: float) -> None:
    """A table of what was done in a quiet time."""
    before = {name: work(pid) for name, pid in pids.items()}
    time.sleep(seconds)
    rows = {}
    for name, pid in pids.items():
        try:
            done = work(pid).since(before[name])
        except FileNotFoundError:
            print(f"{name} fell asleep meanwhile")
            continue
        minute = 60.0 / seconds
        share = done.ticks / _TICKS / seconds * 100
        rows[name] = [
            share,
            *(n * minute for n in (done.written / 1024, done.writes, done.wakeups)),
        ]
    print(f"{seconds:.0f} quiet seconds: % of a core; a minute: KB to disk, writes, wake-ups")
    table(["% core", "KB", "writes", "wake-ups"], rows, lambda value: f"{value:.2f}")


def report_waking(running: Instance, rounds: int = 5) -> None:
    """`docker run` of who sleeps, and again right after it."""
    words = ("docker", "run", "--rm", sample_image.NAME, "true")
    surroundings = {**environment(), "DOCKER_HOST": f"unix://{running.paths.run}/docker.sock"}
    took: dict[str, list[float]] = {"asleep": [], "awake": []}
    for _ in range(rounds):
        wait_asleep(running)
        for name in took:
            began = time.perf_counter()
            subprocess.run(words, env=surroundings, check=True, timeout=60)
            took[name].append((time.perf_counter() - began) * 1000)
    for name, found in took.items():
        print(f"docker run, {name}: {sorted(found)[rounds // 2]:.0f} ms (least {min(found):.0f})")


def main() -> None:
    """Start an instance, measure, take it away."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", default="single")
    parser.add_argument("--port", type=int, default=17443, help="also chooses the subnets")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--unused", action="store_true", help="measure before the first use only")
    options = parser.parse_args()
    began = time.perf_counter()
    wanted = configuration(options.profile, options.port) + drowsy(options.profile)
    with instance(wanted) as running:
        print(f"`sagong up` to ready: {(time.perf_counter() - began) * 1000:.0f} ms")
        running.wait_ready()
        wait_asleep(running)
        pids = processes(running)
        wait_quiet(list(pids.values()))
        report_memory("fresh", pids)
        if not options.unused:
            use(running, options.profile)
            wait_asleep(running)
            pids = processes(running)
            wait_quiet(list(pids.values()))
            report_memory("after use", pids)
        if options.seconds:
            report_work(pids, options.seconds)
        if not options.unused:
            report_waking(running)


if __name__ == "__main__":
    main()
