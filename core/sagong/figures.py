"""What processes have done, for people and for Prometheus: rates, times and counts from reports."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate

from sagong.bus.meter import BUCKETS, bucket_seconds, quantile
from sagong.contracts.kernel import MethodCount, ProcessReport, SystemReport, SystemStatus
from sagong.prometheus import labelled

__all__ = ["Rate", "exposition", "rates"]


class Rate:
    """One method of one unit between two reports: calls and errors a second, times in seconds."""

    def __init__(self, unit: str, now: MethodCount, before: MethodCount | None, seconds: float):
        old = before or MethodCount(method=now.method)
        self.unit = unit
        self.method = now.method
        self.calls = (now.calls - old.calls) / seconds
        self.errors = (now.errors - old.errors) / seconds
        padded = (*old.buckets, *[0] * (len(now.buckets) - len(old.buckets)))
        buckets = tuple(n - o for n, o in zip(now.buckets, padded))
        self.p50 = quantile(buckets, 0.5)
        self.p99 = quantile(buckets, 0.99)


def rates(now: SystemReport, before: SystemReport | None) -> list[Rate]:
    """What was called between two reports (or ever), the busiest first."""
    old = {
        (p.unit, p.generation, m.method): m
        for p in (before.processes if before else ())
        for m in p.methods
    }
    found = [
        Rate(process.unit, method, old.get(key), seconds)
        for process in now.processes
        for method in process.methods
        if (key := (process.unit, process.generation, method.method))
        and (seconds := now.at - (before.at if before else process.started)) > 0
    ]
    return sorted((r for r in found if r.calls > 0), key=lambda r: -r.calls)


def exposition(report: SystemReport, status: SystemStatus) -> str:
    """The Prometheus text format, version 0.0.4."""
    return "\n".join([*_families(report, status), ""])


def _families(report: SystemReport, status: SystemStatus) -> Iterator[str]:
    yield from _family(
        "sagong_unit_up",
        "gauge",
        "Whether a unit answers whoever calls it, after waking up if it is asleep.",
        [
            ({"unit": u.name, "plugin": u.plugin}, float(u.state in ("serving", "asleep")))
            for u in status.units
        ],
    )
    yield from _family(
        "sagong_unit_asleep",
        "gauge",
        "Whether a unit has no process until somebody calls it.",
        [({"unit": u.name}, float(u.state == "asleep")) for u in status.units],
    )
    yield from _family(
        "sagong_unit_restarts_total",
        "counter",
        "Processes of a unit that died and were replaced since the kernel began.",
        [({"unit": u.name}, float(u.restarts)) for u in status.units],
    )
    for name, kind, text, read in _PROCESS:
        values = [(_of(process), float(getattr(process, read))) for process in report.processes]
        yield from _family(name, kind, text, values)
    yield from _methods(report.processes)
    yield from _gauges(report.processes)


_PROCESS = (
    ("sagong_process_cpu_seconds_total", "counter", "CPU time of a process.", "cpu"),
    ("sagong_process_resident_memory_bytes", "gauge", "Resident memory of a process.", "memory"),
    ("sagong_process_start_time_seconds", "gauge", "When a process began.", "started"),
    ("sagong_bus_refused_total", "counter", "Calls without a right, malformed ones.", "refused"),
    ("sagong_bus_in_flight", "gauge", "Calls and streams being served.", "in_flight"),
)


def _methods(processes: Sequence[ProcessReport]) -> Iterator[str]:
    found = [({**_of(p), "method": m.method}, m) for p in processes for m in p.methods]
    yield from _family(
        "sagong_bus_calls_total",
        "counter",
        "Calls and streams that ended, by method.",
        [(labels, float(m.calls)) for labels, m in found],
    )
    yield from _family(
        "sagong_bus_errors_total",
        "counter",
        "Calls and streams answered with an error, by method.",
        [(labels, float(m.errors)) for labels, m in found],
    )
    name = "sagong_bus_call_seconds"
    yield f"# HELP {name} How long calls took where they were served."
    yield f"# TYPE {name} histogram"
    for labels, method in found:
        yield from _histogram(name, labels, method)


def _histogram(name: str, labels: dict[str, str], method: MethodCount) -> Iterator[str]:
    buckets = (*method.buckets, *[0] * (BUCKETS - len(method.buckets)))
    for number, total in enumerate(accumulate(buckets)):
        bound = bucket_seconds(number)
        text = "+Inf" if bound == float("inf") else f"{bound:.6g}"
        yield f"{labelled(f'{name}_bucket', {**labels, 'le': text})} {total}"
    yield f"{labelled(f'{name}_sum', labels)} {method.seconds:.6f}"
    yield f"{labelled(f'{name}_count', labels)} {method.calls}"


def _gauges(processes: Sequence[ProcessReport]) -> Iterator[str]:
    names = dict.fromkeys(g.name for p in processes for g in p.gauges)
    for name in names:
        values = [(_of(p), g) for p in processes for g in p.gauges if g.name == name]
        yield from _family(
            f"sagong_{name}", "gauge", values[0][1].help, [(at, g.value) for at, g in values]
        )


def _family(
    name: str, kind: str, text: str, values: Sequence[tuple[dict[str, str], float]]
) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"
    for labels, value in values:
        yield f"{labelled(name, labels)} {value:.16g}"


def _of(process: ProcessReport) -> dict[str, str]:
    return {"unit": process.unit, "generation": str(process.generation)}
