"""Meters, spans, the tree they make, Prometheus' text, and lines of logs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.core.test_core_bus import Count, Word, bench

from sagong.bus.meter import BUCKETS, Meter, bucket_seconds, quantile
from sagong.call import Call, detached, serving
from sagong.cli.logs import parse
from sagong.cli.observation import tree
from sagong.contracts.kernel import (
    Gauge,
    ProcessReport,
    Span,
    SystemReport,
    SystemStatus,
    UnitStatus,
)
from sagong.errors import NotFound
from sagong.figures import exposition, rates
from sagong.tracing import RECORDER, Recorder


def test_a_meter_sorts_calls_by_how_long_they_took() -> None:
    meter = Meter("echo/1/say")
    for nanoseconds in (1_000, 20_000, 20_000, 5_000_000, 10**13):
        meter.add(nanoseconds, failed=nanoseconds == 20_000)
    found = meter.count()
    assert (found.calls, found.errors, len(found.buckets)) == (5, 2, BUCKETS)
    assert found.buckets[:2] == (1, 2)
    assert quantile(found.buckets, 0.5) == bucket_seconds(1) == 32.768e-6
    assert quantile(found.buckets, 0.99) == float("inf")
    assert quantile((), 0.5) == 0.0


def test_every_bucket_holds_what_its_bound_says() -> None:
    for number in range(BUCKETS - 1):
        meter = Meter("x")
        bound = int(bucket_seconds(number) * 1e9)
        meter.add(bound - 1, failed=False)
        meter.add(bound, failed=False)
        assert meter.buckets[number] == 1, number
        assert meter.buckets[number + 1] == 1, number


@contextlib.contextmanager
def recording() -> Iterator[Recorder]:
    RECORDER.unit = "test"
    RECORDER.switch(on=True)
    try:
        yield RECORDER
    finally:
        RECORDER.switch(on=False)


async def test_calls_are_counted_where_they_are_served(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        _, provider = made.serve()
        await made.echo.say(Word(text="hello"))
        with pytest.raises(NotFound):
            await made.echo.say(Word(text="missing"))
        assert [c.number async for c in made.echo.count(Count(number=3))] == [0, 1, 2]
        counts = {m.method: (m.calls, m.errors) for m in provider.counts()}
    assert counts == {"echo/1/say": (2, 1), "echo/1/count": (1, 0)}


async def test_a_traced_request_leaves_a_tree_of_calls(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        made.serve()
        with recording() as recorder:
            with serving(Call(cause="req-1", children=recorder.children("req-1"))):
                assert (await made.echo.say(Word(text="cause"))).text == "req-1.1"
                with pytest.raises(NotFound):
                    await made.echo.say(Word(text="missing"))
                assert [c.number async for c in made.echo.count(Count(number=1))] == [0]
            with detached("req-10"):
                await made.echo.say(Word(text="another request"))
            spans = recorder.of("req-1")
    assert [(s.cause, s.name, s.kind, s.error) for s in spans] == [
        ("req-1.1", "echo/1/say", "call", ""),
        ("req-1.2", "echo/1/say", "call", "not_found"),
        ("req-1.3", "echo/1/count", "stream", ""),
    ]


async def test_nothing_is_kept_while_tracing_is_off(tmp_path: Path) -> None:
    RECORDER.switch(on=True)
    RECORDER.switch(on=False)
    async with bench(tmp_path) as made:
        made.serve()
        with detached("req-2"):
            assert (await made.echo.say(Word(text="cause"))).text == "req-2"
    assert RECORDER.of("req-2") == ()


def test_the_tree_shows_who_called_whom_and_what_failed() -> None:
    def span(cause: str, name: str, began: float, **more: str) -> Span:
        return Span(cause=cause, unit="u", name=name, began=began, seconds=0.001, **more)

    spans = [
        span("b.1", "state/1/commit", 5.2, error="conflict"),
        span("a.1.1", "image/1/inspect", 1.2),
        span("b", "GET /y", 5.1, kind="request"),
        span("a.2", "network/1/join", 1.3),
        span("a", "POST /x", 1.0, kind="request"),
        span("a.1", "node/1/create", 1.1),
    ]
    assert [line[24:] for line in tree(spans)] == [
        "u: POST /x [a]",
        "  u: node/1/create",
        "    u: image/1/inspect",
        "  u: network/1/join",
        "u: GET /y [b]",
        "  u: state/1/commit ✗ conflict",
    ]


def report_of(calls: int, at: float) -> SystemReport:
    meter = Meter("echo/1/say")
    for _ in range(calls):
        meter.add(100_000, failed=False)
    process = ProcessReport(
        unit="echo",
        generation=1,
        pid=1,
        started=0.0,
        methods=(meter.count(),),
        gauges=(Gauge(name="echo_words", value=2.5, help='Words "kept".'),),
    )
    return SystemReport(at=at, processes=(process,))


def test_rates_are_differences_between_reports() -> None:
    (rate,) = rates(report_of(30, 12.0), report_of(10, 2.0))
    assert (rate.calls, rate.errors, rate.p50) == (2.0, 0.0, 131.072e-6)
    assert rates(report_of(10, 4.0), report_of(10, 2.0)) == []


def test_prometheus_reads_the_exposition() -> None:
    unit = UnitStatus(name="echo", plugin='e"cho', kind="plugin", state="serving")
    status = SystemStatus(version="1", profile="p", boot="", ready=True, units=(unit,))
    lines = exposition(report_of(3, 1.0), status).splitlines()
    assert 'sagong_unit_up{unit="echo",plugin="e\\"cho"} 1' in lines
    labels = 'unit="echo",generation="1",method="echo/1/say"'
    assert f"sagong_bus_calls_total{{{labels}}} 3" in lines
    assert f'sagong_bus_call_seconds_bucket{{{labels},le="+Inf"}} 3' in lines
    assert f"sagong_bus_call_seconds_count{{{labels}}} 3" in lines
    assert 'sagong_echo_words{unit="echo",generation="1"} 2.5' in lines
    buckets = [float(x.split()[-1]) for x in lines if x.startswith("sagong_bus_call_seconds_b")]
    assert len(buckets) == BUCKETS
    assert buckets == sorted(buckets)


def test_a_line_of_a_log_is_taken_apart() -> None:
    text = '2026-01-02T03:04:05.678 WARNING sagong.bus call refused caller="x \\"y" n=3 ok=true'
    line = parse("node", text)
    head = (line.level, line.logger, line.message)
    assert head == ("WARNING", "sagong.bus", "call refused")
    assert line.facts == {"caller": 'x "y', "n": 3, "ok": True}
    assert parse("node", "Traceback", line.at).at == line.at


def test_what_only_looks_like_a_fact_stays_in_the_message() -> None:
    line = parse("node", "2026-01-02T03:04:05.678 INFO x set a=b to c")
    assert (line.message, line.facts) == ("set a=b to c", {})
