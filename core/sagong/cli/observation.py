"""`sagong top`, `metrics` and `trace`: what the system does now, did, and did for one request."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from sagong.config import Paths
from sagong.contracts.kernel import (
    ReportQuery,
    Span,
    SpanQuery,
    StatusQuery,
    SystemReport,
    Tracing,
)
from sagong.errors import InvalidArgument, NotFound
from sagong.figures import Rate, exposition, rates
from sagong.operator import Operator, connect

__all__ = [
    "metrics_arguments",
    "run_metrics",
    "run_top",
    "run_trace",
    "top_arguments",
    "trace_arguments",
    "tree",
]


def top_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `top`."""
    parser.add_argument("units", nargs="*", help="only these units")
    parser.add_argument("-d", "--delay", type=float, default=1.0, help="seconds between two looks")
    parser.add_argument("-n", "--count", type=int, default=0, help="how many looks (0: for ever)")
    parser.add_argument("--total", action="store_true", help="since the processes began, once")


def metrics_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `metrics`."""
    parser.add_argument("--json", action="store_true", help="the reports themselves")


def trace_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `trace`."""
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--on", action="store_true", help="record in all processes from now on")
    which.add_argument("--off", action="store_true", help="stop recording")
    which.add_argument("--list", action="store_true", help="requests that were recorded")
    which.add_argument("--id", default="", help="the tree of one request")
    parser.add_argument("--seconds", type=float, default=600.0, help="recording ends by itself")
    parser.add_argument("--json", action="store_true", help="spans for programs")
    parser.add_argument(
        "command", nargs=argparse.REMAINDER, help="run it, and show what the system did for it"
    )


def run_top(options: argparse.Namespace) -> int:
    """Rates of all methods, again and again."""
    asyncio.run(_top(options))
    return 0


async def _top(options: argparse.Namespace) -> None:
    query = ReportQuery(units=tuple(options.units))
    async with connect(Paths.below(options.root)) as operator:
        report = await operator.kernel.report(query)
        if options.units and not report.processes:
            await _check_known(operator, options.units)
            raise NotFound(f"{', '.join(options.units)}: no figures: asleep, or it counts nothing")
        if options.total:
            _print_rates(report, None)
            return
        looks = 0
        while options.count == 0 or looks < options.count:
            await asyncio.sleep(options.delay)
            before, report = report, await operator.kernel.report(query)
            if sys.stdout.isatty():
                sys.stdout.write("\033[H\033[2J")
            _print_rates(report, before)
            sys.stdout.flush()
            looks += 1


async def _check_known(operator: Operator, names: Sequence[str]) -> None:
    """NotFound of the first that is no unit, and nothing else that runs here."""
    status = await operator.kernel.status(StatusQuery())
    known = sorted({one.name for one in status.units} | {one.unit for one in status.others})
    for name in names:
        if name not in known:
            raise NotFound(f"no unit {name}; there are {', '.join(known)}")


def _print_rates(report: SystemReport, before: SystemReport | None) -> None:
    found = rates(report, before)
    flying = sum(p.in_flight for p in report.processes)
    print(
        f"{sum(r.calls for r in found):.1f} calls/s, {sum(r.errors for r in found):.1f} errors/s, "
        f"{flying} in flight, {len(report.processes)} processes"
        + (f"; no answer from {', '.join(report.silent)}" if report.silent else "")
    )
    print(f"{'UNIT':16}{'METHOD':36}{'CALLS/S':>10}{'ERRORS/S':>10}{'P50 ≤':>10}{'P99 ≤':>10}")
    for rate in found[:40]:
        print(_rate_line(rate))


def _rate_line(rate: Rate) -> str:
    times = f"{_time(rate.p50):>10}{_time(rate.p99):>10}"
    return f"{rate.unit:16}{rate.method:36}{rate.calls:>10.1f}{rate.errors:>10.1f}{times}"


def _time(seconds: float) -> str:
    if seconds == float("inf"):
        return "> 68 s"
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} µs"
    return f"{seconds * 1e3:.1f} ms" if seconds < 1 else f"{seconds:.1f} s"


def run_metrics(options: argparse.Namespace) -> int:
    """Print figures of the bus and of every process in Prometheus' text format."""

    async def go() -> str:
        async with connect(Paths.below(options.root)) as operator:
            report = await operator.kernel.report(ReportQuery())
            if options.json:
                return msgspec.json.encode(report).decode() + "\n"
            return exposition(report, await operator.kernel.status(StatusQuery()))

    sys.stdout.write(asyncio.run(go()))
    return 0


def run_trace(options: argparse.Namespace) -> int:
    """Record, or show what was recorded."""
    return asyncio.run(_trace(options))


async def _trace(options: argparse.Namespace) -> int:
    async with connect(Paths.below(options.root)) as operator:
        kernel = operator.kernel
        if options.on or options.off:
            await _switch(operator, Tracing(on=options.on, seconds=options.seconds))
            return 0
        if options.list:
            _print_requests((await kernel.spans(SpanQuery())).spans)
            return 0
        if options.id:
            spans = (await kernel.spans(SpanQuery(cause=options.id))).spans
            if not spans:
                raise NotFound(f"nothing was recorded of {options.id}; see `sagong trace --list`")
            _show(spans, json_form=options.json)
            return 0
        if not options.command:
            raise InvalidArgument("give a command to trace, or --on, --off, --list or --id ID")
        return await _traced_command(operator, options)


async def _switch(operator: Operator, tracing: Tracing) -> None:
    """Record or not, from now on: a report that every process gave comes after it heard of it."""
    await operator.kernel.trace(tracing)
    await operator.kernel.report(ReportQuery())


async def _traced_command(operator: Operator, options: argparse.Namespace) -> int:
    """Run a command while everything is recorded, then show the requests that came meanwhile."""
    words = options.command[1:] if options.command[0] == "--" else options.command
    await _switch(operator, Tracing(on=True, seconds=options.seconds))
    mark = f"trace-{os.urandom(4).hex()}"
    try:
        with tempfile.TemporaryDirectory(prefix="sagong-trace-") as directory:
            environment = _environment(Path(directory), mark)
            try:
                running = await asyncio.create_subprocess_exec(*words, env=environment)
            except OSError as error:
                raise InvalidArgument(f"{words[0]}: {error.strerror}") from None
            code = await running.wait()
        # What a request began may outlast its answer a little: removals, events.
        await asyncio.sleep(0.1)
        spans = (await operator.kernel.spans(SpanQuery())).spans
    finally:
        await operator.kernel.trace(Tracing(on=False))
    own = [s for s in spans if s.cause.startswith(f"{mark}-")]
    _show(own or spans, json_form=options.json)
    return code


def _environment(directory: Path, mark: str) -> dict[str, str]:
    """The docker command line sends headers that its configuration names: a name for its requests."""
    own = os.environ.get("DOCKER_CONFIG") or str(Path.home() / ".docker")
    source = Path(own, "config.json")
    try:
        config = json.loads(source.read_text())
    except (OSError, ValueError):
        config = {}
    config["HttpHeaders"] = {**config.get("HttpHeaders", {}), "X-Request-Id": mark}
    for entry in Path(own).glob("*") if Path(own).is_dir() else ():
        if entry.name != "config.json":
            (directory / entry.name).symlink_to(entry)
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "config.json").chmod(0o600)
    return {**os.environ, "DOCKER_CONFIG": str(directory)}


def _print_requests(spans: Sequence[Span]) -> None:
    for span in spans:
        if span.kind == "request":
            print(f"{span.cause:28} {_time(span.seconds):>9}  {span.unit}: {span.name}")


def _show(spans: Sequence[Span], *, json_form: bool) -> None:
    if json_form:
        print(msgspec.json.encode(list(spans)).decode())
        return
    for line in tree(spans):
        print(line)


def tree(spans: Sequence[Span]) -> Iterator[str]:
    """Spans as a tree in words: offset from the first one, length, who, what."""
    first = min((s.began for s in spans), default=0.0)
    beginnings: dict[str, float] = {}
    for span in spans:
        request = span.cause.partition(".")[0]
        beginnings[request] = min(span.began, beginnings.get(request, span.began))

    def place(span: Span) -> tuple[float, str, tuple[int, ...]]:
        request, *below = span.cause.split(".")
        return beginnings[request], request, tuple(int(n) for n in below if n.isdigit())

    for span in sorted(spans, key=place):
        name = f" [{span.cause}]" if span.kind == "request" else ""
        stream = " (stream)" if span.kind == "stream" else ""
        error = f" ✗ {span.error}" if span.error else ""
        indent = "  " * span.cause.count(".")
        what = f"{indent}{span.unit}: {span.name}{stream}{name}{error}"
        yield f"{(span.began - first) * 1e3:9.1f} ms {_time(span.seconds):>9}  {what}"
