"""Jobs that unpack archives: a parser without rights, a pipe, and a writer in its directory."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Callable
from typing import Any

from sagong.linux import process, syscalls
from sagong_image_overlay import parser
from sagong_image_overlay.confine import WRITER, confine
from sagong_image_overlay.deletion import remove_tree
from sagong_image_overlay.entry import RecordReader
from sagong_image_overlay.tarstream import Bounds
from sagong_image_overlay.writer import LayerWriter, Outcome

__all__ = ["JOBS", "Report", "outcome_facts", "start_parser", "throttled"]

Report = Callable[[dict[str, Any]], None]
_PIPE = 1 << 20


def start_parser(job: dict[str, Any], source: int) -> RecordReader:
    """Fork the parser of the archive `source`; the reader of its records."""
    reading, writing = os.pipe()
    problems, errors = os.pipe()
    with contextlib.suppress(OSError):  # the user's sum of pipe buffers is limited
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _PIPE)
    if os.fork() == 0:
        try:
            process.set_death_signal(signal.SIGKILL)
            _keep_only(source, writing, errors)
            bounds = Bounds(
                job.get("max_entries", 1 << 21),
                job.get("max_size", 1 << 40),
                job.get("max_ratio", 0),
            )
            parser.run(
                source,
                writing,
                errors,
                whiteouts=job["whiteouts"],
                bounds=bounds,
                jail=job["jail"],
            )
        finally:
            os._exit(1)
    os.close(writing)
    os.close(errors)
    return RecordReader(reading, problems)


def _keep_only(*kept: int) -> None:
    """Close all but standard error and these: the parser must not reach the result's stream."""
    begin = 0
    for descriptor in sorted((2, *kept)):
        if begin < descriptor:
            syscalls.close_range(begin, descriptor - 1)
        begin = descriptor + 1
    syscalls.close_range(begin, 1 << 20)


def throttled(report: Report) -> Callable[[int], None]:
    """Progress in bytes of the archive, at most ten times a second."""
    last = 0.0

    def tell(done: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last > 0.1:
            last = now
            report({"current": done})

    return tell


def outcome_facts(outcome: Outcome) -> dict[str, Any]:
    """An outcome as JSON."""
    return {
        "digest": outcome.digest,
        "size": outcome.size,
        "entries": outcome.entries,
        "implied": [os.fsdecode(name) for name in outcome.implied],
        "foreign": outcome.foreign,
        "root": outcome.root,
    }


def unpack(job: dict[str, Any], descriptors: list[int], report: Report) -> dict[str, Any]:
    """Unpack the archive that the first descriptor holds into the directory `root`.

    With `own` all stays this process's own: regular files, directories and links only.
    """
    records = start_parser(job, descriptors[0])
    confine(WRITER, job["root"])
    writer = LayerWriter(
        records,
        own=job.get("own", False),
        reserve=job.get("reserve", 0),
        most=job["max_entries"],
        progress=throttled(report),
    )
    return outcome_facts(writer.run())


def remove(job: dict[str, Any], descriptors: list[int], report: Report) -> dict[str, Any]:
    """Remove everything in the directory `root`, which itself stays."""
    confine(WRITER, job["root"])
    for name in os.listdir(b"."):
        remove_tree(name)
    return {}


def flush(job: dict[str, Any], descriptors: list[int], report: Report) -> dict[str, Any]:
    """Write all that was written to the filesystem of the first descriptor to the disk."""
    syscalls.call("syncfs", descriptors[0])
    return {}


JOBS = {"unpack": unpack, "remove": remove, "flush": flush}
