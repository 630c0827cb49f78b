"""Runs every check and every test in a few streams beside each other: `python -m tests.streams`.

Most tests wait most of the time. A task is a check of the sources, or the tests of one directory in
a process of their own; a stream that is free takes the longest task that is left. One line tells how
a task ended, with the names of what failed. In the end, or when it is interrupted, comes what was
skipped and why, all that failed tasks said, and these names again. `$TEST_STREAMS` says how many
streams there are.
"""

from __future__ import annotations

import collections
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
SOURCES = ("core", "plugins", "services", "tests", "packaging", "examples")
CHECKS = {
    "ruff check": ("ruff", "check", *SOURCES),
    "ruff format": ("ruff", "format", "--check", *SOURCES),
    "mypy": ("mypy",),
    "layers": ("lint-imports", "--no-cache"),
}
# Seconds of the long ones on a slow machine. They begin first; only the order hangs on them.
LONG = {
    "tests/system/vm": 500,
    "tests/system/platform": 400,
    "tests/system/kernel": 390,
    "tests/compat/docker": 340,
    "tests/conformance": 310,
    "tests/system/image": 150,
    "tests/system/network": 130,
    "tests/system/chaos": 125,
    "tests/system/sandbox": 120,
    "tests/system/runtime_oci": 90,
    "tests/compat/registry": 85,
    "tests/unit/core": 70,
    "tests/system/builder": 60,
    "tests/fuzz": 45,
    "mypy": 40,
    "tests/system/runtime": 35,
    "tests/unit/docker": 35,
}


@dataclass(frozen=True)
class Task:
    """A command by the name that it is told of."""

    name: str
    command: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """How a task ended, and all that it said."""

    task: Task
    code: int
    seconds: float
    said: str

    def __str__(self) -> str:
        last = (self.said.strip().splitlines() or ["nothing was said"])[-1].strip("= ")
        mark = "FAILED" if self.code else "ok    "
        return f"{mark} {self.seconds:4.0f} s  {self.task.name}: {last}"

    def lines(self, *beginnings: str) -> list[str]:
        """Those of its lines that begin so."""
        return [line for line in self.said.splitlines() if line.startswith(beginnings)]

    def failures(self) -> list[str]:
        """A line for each; one at least of a task that failed."""
        return self.lines("FAILED ", "ERROR ") or [f"FAILED {self.task.name}"] * bool(self.code)


def tasks() -> list[Task]:
    """All of them, the longest first."""
    found = [Task(name, command) for name, command in CHECKS.items()]
    for directory in sorted({path.parent for path in (REPOSITORY / "tests").rglob("test_*.py")}):
        files = sorted(map(str, directory.glob("test_*.py")))
        command = (sys.executable, "-m", "pytest", "-rsfE", "--color=no", *files)
        found.append(Task(str(directory.relative_to(REPOSITORY)), command))
    return sorted(found, key=lambda task: -LONG.get(task.name, 0))


def run(task: Task, ending: threading.Event) -> Outcome | None:
    """One task, unless no more are to begin."""
    if ending.is_set():
        return None
    began = time.monotonic()
    done = subprocess.run(
        task.command,
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    said = done.stdout.decode(errors="replace")
    return Outcome(task, done.returncode, time.monotonic() - began, said)


def run_all(found: Iterable[Task], streams: int, outcomes: list[Outcome]) -> None:
    """All of them. Interrupted, those that run are awaited: the terminal has interrupted them, too."""
    ending = threading.Event()
    with ThreadPoolExecutor(streams) as executor:
        try:
            for future in as_completed([executor.submit(run, task, ending) for task in found]):
                if outcome := future.result():
                    outcomes.append(outcome)
                    print("\n".join([str(outcome), *outcome.failures()]), flush=True)
        finally:
            ending.set()


def tell(outcomes: Iterable[Outcome]) -> None:
    """What was skipped, what failed tasks said, what failed, and how many of each."""
    outcomes = sorted(outcomes, key=lambda outcome: outcome.task.name)
    failed = [outcome for outcome in outcomes if outcome.code]
    for line in [line for outcome in outcomes for line in outcome.lines("SKIPPED ")]:
        print(line)
    for outcome in failed:
        print(f"\n== {outcome.task.name} ended with {outcome.code}\n{outcome.said.rstrip()}")
    if failed:
        print("\n== what failed")
    for outcome in failed:
        print("\n".join(outcome.failures()))
    sums: collections.Counter[str] = collections.Counter()
    for outcome in outcomes:
        for number, word in re.findall(
            r"(\d+) (passed|failed|skipped|xfailed|error)", str(outcome)
        ):
            sums[word] += int(number)
    print(", ".join(f"{number} {word}" for word, number in sums.items()))


def main() -> int:
    """0 if everything holds."""
    streams = int(os.environ.get("TEST_STREAMS") or max(2, os.cpu_count() or 0))
    began, found = time.monotonic(), tasks()
    print(f"{len(found)} tasks in {streams} streams", flush=True)
    outcomes: list[Outcome] = []
    try:
        run_all(found, streams, outcomes)
    finally:
        tell(outcomes)
        print(f"in {time.monotonic() - began:.0f} s", flush=True)
    return int(any(outcome.code for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
