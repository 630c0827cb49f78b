"""What the history keeps of a build: its record, with the log, the error, provenance and a trace.

Source: solver/llbsolver/history.go of BuildKit; OpenTelemetry's spans as Go's SDK writes them in JSON.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from sagong.errors import Cancelled, SagongError
from sagong_builder.buildkit import messages as m
from sagong_builder.buildkit.failures import CANCELLED
from sagong_builder.buildkit.history import Blob, History, framed
from sagong_builder.buildkit.progress import Graph, Tally
from sagong_builder.buildkit.protobuf import encode
from sagong_builder.buildkit.provenance import PREDICATE
from sagong_builder.buildkit.records import BuildRecord, Descriptor, ResultEntry, ResultInfo
from sagong_builder.buildkit.rpc import status_of

__all__ = ["Recording"]

_LOG = "application/vnd.buildkit.status.v0"
# The name is misspelt by BuildKit, too: clients know it so.
_ERROR = "application/vnd.googeapis.google.rpc.status+proto"
_STATEMENT = "application/vnd.in-toto+json"
_IMAGE = "application/vnd.docker.container.image.v1+json"
_TRACE = "application/vnd.buildkit.otlp.json.v0"
_VERTEX = "github.com/moby/buildkit/errdefs.Vertex+json"
_PARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")


@dataclass
class Recording:
    """Of one build; `parent` is the client's span, as the header `traceparent` tells it."""

    history: History
    request: m.SolveRequest
    graph: Graph
    parent: str = ""
    _record: BuildRecord = field(default_factory=BuildRecord)

    def begin(self) -> None:
        """The build goes on."""
        given = self.request
        exporters = [m.ExporterSpec(e.type, e.attrs) for e in given.exporters]
        if not exporters and given.exporter:
            exporters = [m.ExporterSpec(given.exporter, given.exporter_attrs)]
        self._record = BuildRecord(
            ref=given.ref,
            frontend=given.frontend,
            frontend_attrs=given.frontend_attrs,
            exporters=exporters,
            created_at=m.now(),
        )
        self.history.begin(self._record)

    def complete(
        self, response: m.SolveResponse, said: Mapping[str, tuple[Mapping[str, Any], bytes]]
    ) -> None:
        """It has ended well; `said` is by platforms how their images were made, and their configs."""
        blobs: list[Blob] = []
        infos: dict[str, ResultInfo] = {}
        for platform, (predicate, config) in said.items():
            document = msgspec.json.format(msgspec.json.encode(predicate))
            provenance, image = Blob(_STATEMENT, document, PREDICATE), Blob(_IMAGE, config)
            infos[platform] = _info(provenance.descriptor, image.descriptor)
            blobs += (provenance, image)
        record = replace(
            self._record,
            exporter_response=response.exporter_response,
            result=infos.pop("", None),
            results=infos,
        )
        self._complete(record, blobs)

    def fail(self, error: BaseException) -> None:
        """It has ended with an error, or was cancelled."""
        known = error if isinstance(error, SagongError) else Cancelled(CANCELLED)
        status = status_of(known)
        status.details += _failed(self.graph.tally)
        blob = Blob(_ERROR, encode(status))
        short = m.RpcStatus(code=status.code, message=status.message)
        record = replace(self._record, error=short, external_error=blob.descriptor)
        self._complete(record, [blob])

    def _complete(self, record: BuildRecord, blobs: list[Blob]) -> None:
        tally = self.graph.tally
        log = Blob(_LOG, framed(self.graph.told))
        record = replace(
            record,
            completed_at=m.now(),
            cached_steps=sum(vertex.cached for vertex in tally.vertexes.values()),
            total_steps=len(tally.vertexes),
            completed_steps=sum(v.completed is not None for v in tally.vertexes.values()),
            warnings=tally.warnings,
            logs=log.descriptor,
        )
        trace = Blob(_TRACE, _trace(record, tally, self.parent))
        record.trace = trace.descriptor
        self.history.complete(record, [log, trace, *blobs])


def _info(provenance: Descriptor, image: Descriptor) -> ResultInfo:
    return ResultInfo(image, [provenance], [ResultEntry(0, image)])


def _failed(tally: Tally) -> list[m.Anything]:
    """The step that is to blame: clients show its output."""
    blamed = (v.digest for v in tally.vertexes.values() if v.error not in ("", CANCELLED))
    return [m.Anything(_VERTEX, msgspec.json.encode({"digest": d})) for d in (*blamed,)[:1]]


# Traces: a span for the build, and one for each step.


def _trace(record: BuildRecord, tally: Tally, parent: str) -> bytes:
    """Spans, one after the other."""
    given = _PARENT.fullmatch(parent)
    trace = given[1] if given else secrets.token_hex(16)
    above = _context(trace, given[2] if given else "0" * 16)
    root = _context(trace, _span_id(record.ref))
    error = record.error.message if record.error is not None else ""
    times = (record.created_at, record.completed_at)
    spans = [_span("build", (root, above), times, error, [("ref", record.ref)])]
    spans[0]["ChildSpanCount"] = len(tally.vertexes)
    for vertex in tally.vertexes.values():
        facts = [("vertex", vertex.digest), ("cached", str(vertex.cached).lower())]
        own = (_context(trace, _span_id(vertex.digest)), root)
        ended = vertex.completed or record.completed_at
        spans.append(_span(vertex.name, own, (vertex.started, ended), vertex.error, facts))
    return b"\n".join(msgspec.json.encode(span) for span in spans) + b"\n"


def _span_id(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:16]


def _context(trace: str, span: str) -> dict[str, Any]:
    return {
        "TraceID": trace if span.strip("0") else "0" * 32,
        "SpanID": span,
        "TraceFlags": "01",
        "TraceState": "",
        "Remote": False,
    }


def _span(
    name: str,
    contexts: tuple[dict[str, Any], dict[str, Any]],
    times: tuple[m.Timestamp | None, m.Timestamp | None],
    error: str,
    facts: Iterable[tuple[str, str]],
) -> dict[str, Any]:
    """A span of its own context and its parent's."""
    return {
        "Name": name,
        "SpanContext": contexts[0],
        "Parent": contexts[1],
        "SpanKind": 1,
        "StartTime": (times[0] or m.now()).text,
        "EndTime": (times[1] or m.now()).text,
        "Attributes": _attributes(facts),
        "Events": None,
        "Links": None,
        "Status": {"Code": "Error" if error else "Unset", "Description": error},
        "DroppedAttributes": 0,
        "DroppedEvents": 0,
        "DroppedLinks": 0,
        "ChildSpanCount": 0,
        "Resource": _attributes([("service.name", "sagong-builder")]),
        "InstrumentationLibrary": {"Name": "", "Version": "", "SchemaURL": "", "Attributes": None},
    }


def _attributes(facts: Iterable[tuple[str, str]]) -> list[dict[str, Any]]:
    return [{"Key": key, "Value": {"Type": "STRING", "Value": value}} for key, value in facts]
