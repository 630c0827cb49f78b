"""The history of builds: what is kept, for how long, and who is told of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sagong.errors import InvalidArgument, NotFound
from sagong_builder.buildkit import messages as m
from sagong_builder.buildkit.failures import failure
from sagong_builder.buildkit.filters import matching_records
from sagong_builder.buildkit.history import Blob, Bounds, History, framed, frames
from sagong_builder.buildkit.progress import Graph
from sagong_builder.buildkit.protobuf import decode
from sagong_builder.buildkit.recording import Recording
from sagong_builder.buildkit.records import (
    COMPLETE,
    DELETED,
    STARTED,
    BuildEvent,
    BuildRecord,
    HistoryRequest,
)
from sagong_builder.buildkit.rpc import RpcError

WIDE = Bounds(entries=50, seconds=3600.0, size=1 << 20)


def history(place: Path, bounds: Bounds = WIDE, process: str = "one") -> History:
    """That of a unit whose data is `place`, as one of its processes has it."""
    (place / process).mkdir(exist_ok=True)
    return History(place / "history", place / process, bounds)


def ended(ref: str, ago: float = 0.0, **facts: Any) -> BuildRecord:
    """A record of a build that has ended so many seconds ago."""
    at = m.Timestamp(int(time.time() - ago), 0)
    return BuildRecord(ref=ref, created_at=at, completed_at=at, **facts)


def events(of: History, request: HistoryRequest) -> list[tuple[int, str]]:
    """What a listener is told, if it wants no more than there is."""

    async def listen() -> list[BuildEvent]:
        return [event async for event in of.listen(request)]

    told = asyncio.run(listen())
    return [(event.type, event.record.ref if event.record else "") for event in told]


NOW = HistoryRequest(early_exit=True)


def test_the_last_and_the_young_are_kept(tmp_path: Path) -> None:
    kept = history(tmp_path, Bounds(entries=2, seconds=1000.0, size=1 << 20))
    for number in range(4):
        kept.complete(ended(f"old{number}", ago=5000.0 - number), [])
    kept.complete(ended("young", ago=500.0), [])
    kept.complete(ended("new"), [])
    assert events(kept, NOW) == [(COMPLETE, "new"), (COMPLETE, "young")]
    kept.complete(ended("newer"), [])
    assert len(events(kept, NOW)) == 3, "both bounds must be passed"


def test_what_is_pinned_stays_and_bytes_are_bounded(tmp_path: Path) -> None:
    kept = history(tmp_path, Bounds(entries=50, seconds=1000.0, size=4000))
    kept.complete(ended("pinned", ago=3.0), [Blob("x", b"p" * 3000)])
    kept.pin("pinned", pinned=True)
    kept.complete(ended("large", ago=2.0), [Blob("x", b"l" * 3000)])
    kept.complete(ended("last"), [Blob("x", b"n" * 3000)])
    assert sorted(ref for _, ref in events(kept, NOW)) == ["last", "pinned"]
    found = kept.find("pinned")
    assert found is not None and found.pinned and found.generation == 1
    with pytest.raises(NotFound):
        kept.pin("other", pinned=True)


def test_another_process_finds_it_and_damage_is_dropped(tmp_path: Path) -> None:
    first = history(tmp_path)
    blob = Blob("text/plain", b"said", "a predicate")
    first.complete(ended("a", logs=Blob("x", framed([b"one", b""])).descriptor), [blob])
    second = history(tmp_path, process="two")
    assert events(second, NOW) == [(COMPLETE, "a")]
    assert second.blob(blob.descriptor.digest).read_bytes() == b"said"
    assert blob.descriptor.annotations == {"in-toto.io/predicate-type": "a predicate"}
    second.complete(ended("b"), [])
    home = next(home for home in (tmp_path / "history").iterdir() if len([*home.iterdir()]) == 1)
    (home / "record").write_bytes(b"")
    assert events(first, NOW) == [(COMPLETE, "a")], (
        "the disk may not have got it before a power cut"
    )
    assert not home.exists()
    first.delete("a")
    assert events(second, NOW) == []
    with pytest.raises(NotFound):
        second.delete("a")
    with pytest.raises(NotFound):
        second.blob(blob.descriptor.digest)
    assert not any((tmp_path / "one").iterdir()) and not any((tmp_path / "two").iterdir())


def test_a_full_disk_costs_the_record_and_not_the_build(tmp_path: Path) -> None:
    kept = history(tmp_path)
    (tmp_path / "history").write_text("no directory")
    kept.complete(ended("a"), [Blob("x", b"x")])
    assert kept.find("a") is None and not any((tmp_path / "one").iterdir())


def test_listeners_hear_what_happens_until_the_process_goes(tmp_path: Path) -> None:
    async def story() -> list[tuple[int, str]]:
        kept = history(tmp_path)
        kept.begin(BuildRecord(ref="before"))
        told: list[tuple[int, str]] = []

        async def listen(request: HistoryRequest, into: list[tuple[int, str]]) -> None:
            async for event in kept.listen(request):
                assert event.record is not None
                into.append((event.type, event.record.ref))

        only: list[tuple[int, str]] = []
        listeners: list[Coroutine[Any, Any, None]] = [
            listen(HistoryRequest(), told),
            listen(HistoryRequest(ref="b"), only),
        ]
        tasks = [asyncio.create_task(one) for one in listeners]
        await asyncio.sleep(0)
        kept.begin(BuildRecord(ref="b"))
        kept.complete(ended("b"), [])
        kept.delete("b")
        kept.close()
        await asyncio.sleep(0)
        assert not tasks[0].done(), "a build goes on still"
        kept.complete(ended("before"), [])
        await asyncio.gather(*tasks)
        assert only == [(STARTED, "b"), (COMPLETE, "b"), (DELETED, "b")]
        return told

    told = asyncio.run(story())
    assert told == [
        (STARTED, "before"),
        (STARTED, "b"),
        (COMPLETE, "b"),
        (DELETED, "b"),
        (COMPLETE, "before"),
    ]


def test_records_are_filtered_as_by_buildkit(tmp_path: Path) -> None:
    failed, gone = m.RpcStatus(message="no"), m.RpcStatus(message="x: context canceled")
    records = [
        ended("well", frontend_attrs={"vcs:source": "https://h.test/a.git"}),
        ended("failed", ago=7200.0, error=failed),
        ended("gone", error=gone),
    ]

    def found(*filters: str) -> list[str]:
        return [record.ref for record in matching_records(records, filters)]

    assert found() == ["well", "failed", "gone"]
    assert found("status==completed") == ["well"]
    assert found("status==error") == ["failed"]
    assert found("status==canceled") == ["gone"]
    assert found("status!=error") == ["well", "gone"]
    assert found("ref~=ell", "status==canceled") == ["well", "gone"]
    assert found("repository~=a.git") == ["well"]
    assert found("startedAt<1h") == ["failed"]
    assert found("startedAt>=1h30m,status!=canceled") == ["well"]
    assert found("completedAt>2020-01-01T00:00:00Z,duration<=1s,ref==well") == ["well"]
    assert found("nope==1") == []
    for bad in ("startedAt>soon", "duration>x", "=="):
        with pytest.raises(InvalidArgument):
            found(bad)
    kept = history(tmp_path)
    for record in records:
        kept.complete(record, [])
    assert events(kept, HistoryRequest(early_exit=True, limit=1)) != []
    with pytest.raises(InvalidArgument):
        events(kept, HistoryRequest(early_exit=True, limit=-1))


def test_what_a_build_told_is_kept(tmp_path: Path) -> None:
    kept, graph = history(tmp_path), Graph()
    request = m.SolveRequest(ref="r", frontend_attrs={"target": "t"}, exporter="moby")
    parent = f"00-{'a' * 32}-{'b' * 16}-01"
    recording = Recording(kept, request, graph, parent)
    recording.begin()
    graph.begin("[1/2] FROM x")
    asyncio.run(graph.found())
    graph.begin("[2/2] RUN y")
    graph.log(b"out\n", 1)
    graph.warn("look")
    graph.complete("failed")
    graph.end()
    recording.fail(failure(RpcError("no", status=3), "", b""))
    record = kept.find("r")
    assert record is not None and record.error is not None and record.external_error is not None
    assert (record.cached_steps, record.completed_steps, record.total_steps) == (1, 2, 2)
    assert (record.warnings, record.error.code, record.error.details) == (1, 3, [])
    assert record.exporters == [m.ExporterSpec("moby", {})]
    whole = decode(m.RpcStatus, kept.blob(record.external_error.digest).read_bytes())
    blamed = next(v for v in graph.tally.vertexes.values() if v.name == "[2/2] RUN y")
    assert msgspec.json.decode(whole.details[0].value) == {"digest": blamed.digest}
    told = [decode(m.StatusResponse, raw) for raw in kept.log(record)]
    assert [log.msg for response in told for log in response.logs] == [b"out\n"]
    assert record.trace is not None
    spans = [
        msgspec.json.decode(line)
        for line in kept.blob(record.trace.digest).read_bytes().splitlines()
    ]
    assert [span["Name"] for span in spans] == ["build", "[1/2] FROM x", "[2/2] RUN y"]
    assert {span["SpanContext"]["TraceID"] for span in spans} == {"a" * 32}
    assert spans[0]["Parent"]["SpanID"] == "b" * 16
    assert spans[2]["Parent"] == spans[0]["SpanContext"]
    assert spans[2]["Status"] == {"Code": "Error", "Description": "failed"}


def test_how_a_result_was_made_is_kept_by_its_platform(tmp_path: Path) -> None:
    kept = history(tmp_path)
    recording = Recording(kept, m.SolveRequest(ref="r"), Graph())
    recording.begin()
    said: dict[str, tuple[dict[str, Any], bytes]] = {
        "": ({"builder": {}}, b"{}"),
        "linux/arm64": ({"builder": {"id": "x"}}, b"{ }"),
    }
    recording.complete(m.SolveResponse({"k": "v"}), said)
    record = kept.find("r")
    assert record is not None and record.result is not None and record.error is None
    assert record.exporter_response == {"k": "v"}
    assert list(record.results) == ["linux/arm64"]
    provenance, config = record.result.attestations[0], record.result.result
    assert kept.blob(provenance.digest).read_bytes() == b'{\n  "builder": {}\n}'
    assert config is not None and kept.blob(config.digest).read_bytes() == b"{}"
    assert record.result.results[0].result == config


def test_a_torn_log_ends_where_it_is_torn() -> None:
    log = framed([b"one", b"", b"three"])
    assert list(frames(log)) == [b"one", b"", b"three"]
    assert list(frames(log[:-1])) == [b"one", b""]
    assert list(frames(log[:5])) == []


def test_of_very_much_output_the_beginning_and_the_end_are_told() -> None:
    graph = Graph()
    graph.begin("step")
    line = b"x" * 1023 + b"\n"
    for _ in range(3000):
        graph.log(line, 1)
    graph.log(b"the last\n", 1)
    graph.log(b"short\n", 2)
    graph.complete()
    told = [log for raw in graph.told for log in decode(m.StatusResponse, raw).logs]
    out = b"".join(log.msg for log in told if log.stream == 1)
    assert out[: 2 << 20] == line * 2048
    assert out[2 << 20 :].startswith(b"\n[output clipped, log limit 2MiB reached]\n")
    assert out.endswith(b"the last\n")
    assert len(out) < (2 << 20) + (256 << 10) + 100
    assert b"".join(log.msg for log in told if log.stream == 2) == b"short\n"


def test_who_is_answered_has_the_whole_progress() -> None:
    async def story() -> list[str]:
        graph, heard = Graph(), []

        async def listen() -> None:
            async for told in graph.follow():
                await asyncio.sleep(0.01)  # a slow connection
                heard.append(decode(m.StatusResponse, told))

        listening = asyncio.create_task(listen())
        await asyncio.sleep(0)
        graph.begin("one")
        for number in range(200):
            graph.log(b"%d\n" % number, 1)
        graph.complete()
        graph.end()
        await graph.wait_told()
        logs = [log.msg for response in heard for log in response.logs]
        assert logs == [b"%d\n" % number for number in range(200)]
        assert len(heard) < 20, "messages that wait travel together"
        await listening
        return [v.name for response in heard for v in response.vertexes if v.completed]

    assert asyncio.run(story()) == ["one"]
