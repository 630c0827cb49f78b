"""A launcher whose containers' first processes write down what each operation of their plan took.

Only what a launcher has is imported here: see `bench_operations`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable

from sagong_runtime_linux import child, launcher
from sagong_runtime_linux.operations import Operation, Stage, apply_all

__all__ = ["main"]


def main(run: str) -> None:
    """Serve below `run`; `times` in it gets a line for each operation, in nanoseconds."""

    def timed(operations: Iterable[Operation], stage: Stage) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        log = os.open(f"{run}/times", flags, 0o600)
        lines = [f"{time.thread_time_ns()} until its first operation"]
        for operation in operations:
            began = time.thread_time_ns()
            apply_all((operation,), stage)
            lines.append(f"{time.thread_time_ns() - began} {operation.describe()}")
        lines.append(f"{time.thread_time_ns()} all until its program, with the measuring")
        os.write(log, ("\n".join(lines) + "\n").encode())
        os.close(log)

    vars(child)["apply_all"] = timed
    launcher.main(run)
