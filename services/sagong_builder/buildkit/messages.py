"""The messages of BuildKit's services that are spoken here, with the fields that are needed.

Names and numbers are those of its public protocol definitions: packages moby.buildkit.v1,
moby.buildkit.v1.frontend, moby.filesync.v1, moby.buildkit.secrets.v1, moby.sshforward.v1,
moby.upload.v1, fsutil.types, grpc.health.v1, containerd.services.content.v1.
"""

# ruff: noqa: RUF009  (`proto` makes dataclass fields)

from __future__ import annotations

import time
from dataclasses import dataclass

from sagong_builder.buildkit.protobuf import Mapped, Repeated, proto

__all__ = [
    "Anything",
    "BuildkitVersion",
    "Bytes",
    "CacheOptions",
    "CacheOptionsEntry",
    "Cap",
    "CredentialsRequest",
    "CredentialsResponse",
    "Definition",
    "DiskUsageRequest",
    "DiskUsageResponse",
    "Empty",
    "ExporterSpec",
    "GatewaySolveRequest",
    "GatewaySolveResponse",
    "Health",
    "InfoContentRequest",
    "InfoResponse",
    "Input",
    "ListWorkersResponse",
    "Op",
    "OpMetadata",
    "Packet",
    "Platform",
    "PongResponse",
    "PruneRequest",
    "ReadContentRequest",
    "ReadContentResponse",
    "Ref",
    "RefMap",
    "Result",
    "ReturnRequest",
    "RpcStatus",
    "SecretRequest",
    "SecretResponse",
    "SolveRequest",
    "SolveResponse",
    "SourceOp",
    "Stat",
    "StatusRequest",
    "StatusResponse",
    "Timestamp",
    "UsageRecord",
    "Vertex",
    "VertexLog",
    "VertexStatus",
    "VertexWarning",
    "WorkerRecord",
    "WriteContentRequest",
    "WriteContentResponse",
    "now",
]


@dataclass
class Empty:
    """No fields."""


@dataclass
class Bytes:
    """BytesMessage of several packages."""

    data: bytes = proto(1, "bytes")


@dataclass
class Timestamp:
    """google.protobuf.Timestamp."""

    seconds: int = proto(1, "int")
    nanos: int = proto(2, "int")

    @property
    def text(self) -> str:
        """As RFC 3339 writes it."""
        whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(self.seconds))
        return f"{whole}.{self.nanos:09}Z"


def now() -> Timestamp:
    """This moment."""
    moment = time.time_ns()
    return Timestamp(moment // 10**9, moment % 10**9)


# Graphs: only so much of them as names an image.


@dataclass
class Input:
    """pb.Input: the digest of the operation that it is made by."""

    digest: str = proto(1, "string")
    index: int = proto(2, "int")


@dataclass
class SourceOp:
    """pb.SourceOp."""

    identifier: str = proto(1, "string")


@dataclass
class Op:
    """pb.Op."""

    inputs: list[Input] = proto(1, Repeated(Input))
    source: SourceOp | None = proto(3, SourceOp)


@dataclass
class OpMetadata:
    """pb.OpMetadata."""

    ignore_cache: bool = proto(1, "bool")


@dataclass
class Definition:
    """pb.Definition: operations as bytes, the last one's input being the result."""

    ops: list[bytes] = proto(1, Repeated("bytes"))
    metadata: dict[str, OpMetadata] = proto(2, Mapped(OpMetadata))


# Control: solving.


@dataclass
class ExporterSpec:
    """Exporter."""

    type: str = proto(1, "string")
    attrs: dict[str, str] = proto(2, Mapped("string"))


@dataclass
class CacheOptionsEntry:
    """Where cache comes from."""

    type: str = proto(1, "string")
    attrs: dict[str, str] = proto(2, Mapped("string"))


@dataclass
class CacheOptions:
    """Imports and exports of cache."""

    exports: list[CacheOptionsEntry] = proto(4, Repeated(CacheOptionsEntry))
    imports: list[CacheOptionsEntry] = proto(5, Repeated(CacheOptionsEntry))


@dataclass
class SolveRequest:
    """Control.Solve; `definition` is the client's own graph; no history keeps `internal` ones."""

    ref: str = proto(1, "string")
    definition: Definition | None = proto(2, Definition)
    exporter: str = proto(3, "string")
    exporter_attrs: dict[str, str] = proto(4, Mapped("string"))
    session: str = proto(5, "string")
    frontend: str = proto(6, "string")
    frontend_attrs: dict[str, str] = proto(7, Mapped("string"))
    cache: CacheOptions | None = proto(8, CacheOptions)
    entitlements: list[str] = proto(9, Repeated("string"))
    frontend_inputs: dict[str, Definition] = proto(10, Mapped(Definition))
    internal: bool = proto(11, "bool")
    exporters: list[ExporterSpec] = proto(13, Repeated(ExporterSpec))


@dataclass
class SolveResponse:
    """What the exporter tells."""

    exporter_response: dict[str, str] = proto(1, Mapped("string"))


@dataclass
class Health:
    """HealthCheckResponse; 1 is well."""

    status: int = proto(1, "uint")


# Control: progress.


@dataclass
class Vertex:
    """A step."""

    digest: str = proto(1, "string")
    inputs: list[str] = proto(2, Repeated("string"))
    name: str = proto(3, "string")
    cached: bool = proto(4, "bool")
    started: Timestamp | None = proto(5, Timestamp)
    completed: Timestamp | None = proto(6, Timestamp)
    error: str = proto(7, "string")


@dataclass
class VertexStatus:
    """Progress within a step."""

    id: str = proto(1, "string")
    vertex: str = proto(2, "string")
    name: str = proto(3, "string")
    current: int = proto(4, "int")
    total: int = proto(5, "int")
    timestamp: Timestamp | None = proto(6, Timestamp)
    started: Timestamp | None = proto(7, Timestamp)
    completed: Timestamp | None = proto(8, Timestamp)


@dataclass
class VertexLog:
    """Output of a step; stream 1 or 2."""

    vertex: str = proto(1, "string")
    timestamp: Timestamp | None = proto(2, Timestamp)
    stream: int = proto(3, "int")
    msg: bytes = proto(4, "bytes")


@dataclass
class SourcePosition:
    """pb.Position."""

    line: int = proto(1, "int")


@dataclass
class SourceRange:
    """pb.Range: lines of a file."""

    start: SourcePosition | None = proto(1, SourcePosition)
    end: SourcePosition | None = proto(2, SourcePosition)


@dataclass
class SourceInfo:
    """pb.SourceInfo: a file that is pointed into."""

    filename: str = proto(1, "string")
    data: bytes = proto(2, "bytes")
    definition: Definition | None = proto(3, Definition)
    language: str = proto(4, "string")


@dataclass
class VertexWarning:
    """A warning of a step."""

    vertex: str = proto(1, "string")
    level: int = proto(2, "int")
    short: bytes = proto(3, "bytes")
    detail: list[bytes] = proto(4, Repeated("bytes"))
    url: str = proto(5, "string")
    info: SourceInfo | None = proto(6, SourceInfo)
    ranges: list[SourceRange] = proto(7, Repeated(SourceRange))


@dataclass
class StatusRequest:
    """Control.Status."""

    ref: str = proto(1, "string")


@dataclass
class StatusResponse:
    """What happened since the last one."""

    vertexes: list[Vertex] = proto(1, Repeated(Vertex))
    statuses: list[VertexStatus] = proto(2, Repeated(VertexStatus))
    logs: list[VertexLog] = proto(3, Repeated(VertexLog))
    warnings: list[VertexWarning] = proto(4, Repeated(VertexWarning))


# Control: the worker and its cache.


@dataclass
class Platform:
    """pb.Platform."""

    architecture: str = proto(1, "string")
    os: str = proto(2, "string")
    variant: str = proto(3, "string")


@dataclass
class BuildkitVersion:
    """Who speaks."""

    package: str = proto(1, "string")
    version: str = proto(2, "string")
    revision: str = proto(3, "string")


@dataclass
class WorkerRecord:
    """A worker."""

    id: str = proto(1, "string")
    labels: dict[str, str] = proto(2, Mapped("string"))
    platforms: list[Platform] = proto(3, Repeated(Platform))
    buildkit_version: BuildkitVersion | None = proto(5, BuildkitVersion)


@dataclass
class ListWorkersResponse:
    """Control.ListWorkers."""

    record: list[WorkerRecord] = proto(1, Repeated(WorkerRecord))


@dataclass
class InfoResponse:
    """Control.Info."""

    buildkit_version: BuildkitVersion | None = proto(1, BuildkitVersion)


@dataclass
class UsageRecord:
    """A cache record."""

    id: str = proto(1, "string")
    mutable: bool = proto(2, "bool")
    in_use: bool = proto(3, "bool")
    size: int = proto(4, "int")
    created_at: Timestamp | None = proto(6, Timestamp)
    last_used_at: Timestamp | None = proto(7, Timestamp)
    usage_count: int = proto(8, "int")
    description: str = proto(9, "string")
    record_type: str = proto(10, "string")


@dataclass
class DiskUsageRequest:
    """Control.DiskUsage."""

    filter: list[str] = proto(1, Repeated("string"))


@dataclass
class DiskUsageResponse:
    """Control.DiskUsage."""

    record: list[UsageRecord] = proto(1, Repeated(UsageRecord))


@dataclass
class PruneRequest:
    """Control.Prune."""

    filter: list[str] = proto(1, Repeated("string"))
    all: bool = proto(2, "bool")
    keep_duration: int = proto(3, "int")
    reserved_space: int = proto(4, "int")


# The gateway: how buildx asks for the frontend.


@dataclass
class Cap:
    """Something that this side can do."""

    id: str = proto(1, "string")
    enabled: bool = proto(2, "bool")


@dataclass
class PongResponse:
    """LLBBridge.Ping."""

    frontend_caps: list[Cap] = proto(1, Repeated(Cap))
    llb_caps: list[Cap] = proto(2, Repeated(Cap))
    workers: list[WorkerRecord] = proto(3, Repeated(WorkerRecord))


@dataclass
class GatewaySolveRequest:
    """LLBBridge.Solve."""

    definition: Definition | None = proto(1, Definition)
    frontend: str = proto(2, "string")
    frontend_opt: dict[str, str] = proto(3, Mapped("string"))
    cache_imports: list[CacheOptionsEntry] = proto(12, Repeated(CacheOptionsEntry))
    frontend_inputs: dict[str, Definition] = proto(13, Mapped(Definition))
    evaluate: bool = proto(14, "bool")


@dataclass
class Ref:
    """A result that this side keeps; `definition` is how the client may name it to another build."""

    id: str = proto(1, "string")
    definition: Definition | None = proto(2, Definition)


@dataclass
class RefMap:
    """Results by platform."""

    refs: dict[str, Ref] = proto(1, Mapped(Ref))


@dataclass
class Result:
    """What a frontend made: one, or one for each platform."""

    ref: Ref | None = proto(3, Ref)
    refs: RefMap | None = proto(4, RefMap)
    metadata: dict[str, bytes] = proto(10, Mapped("bytes"))


@dataclass
class GatewaySolveResponse:
    """LLBBridge.Solve."""

    result: Result | None = proto(3, Result)


@dataclass
class Anything:
    """google.protobuf.Any."""

    type_url: str = proto(1, "string")
    value: bytes = proto(2, "bytes")


@dataclass
class RpcStatus:
    """google.rpc.Status."""

    code: int = proto(1, "int")
    message: str = proto(2, "string")
    details: list[Anything] = proto(3, Repeated(Anything))


@dataclass
class ReturnRequest:
    """LLBBridge.Return: the client's build function has ended."""

    result: Result | None = proto(1, Result)
    error: RpcStatus | None = proto(2, RpcStatus)


# Sessions: what the client lends.


@dataclass
class Stat:
    """fsutil.types.Stat; `mode` has Go's bits, `mod_time` is in nanoseconds."""

    path: str = proto(1, "string")
    mode: int = proto(2, "uint")
    uid: int = proto(3, "uint")
    gid: int = proto(4, "uint")
    size: int = proto(5, "int")
    mod_time: int = proto(6, "int")
    linkname: str = proto(7, "string")
    devmajor: int = proto(8, "int")
    devminor: int = proto(9, "int")
    xattrs: dict[str, bytes] = proto(10, Mapped("bytes"))


@dataclass
class Packet:
    """fsutil.types.Packet: 0 stat, 1 request, 2 data, 3 end, 4 error."""

    type: int = proto(1, "uint")
    stat: Stat | None = proto(2, Stat)
    id: int = proto(3, "uint")
    data: bytes = proto(4, "bytes")


@dataclass
class CredentialsRequest:
    """Auth.Credentials."""

    host: str = proto(1, "string")


@dataclass
class CredentialsResponse:
    """A user without a name has a token."""

    username: str = proto(1, "string")
    secret: str = proto(2, "string")


@dataclass
class SecretRequest:
    """Secrets.GetSecret."""

    id: str = proto(1, "string")


@dataclass
class SecretResponse:
    """Its bytes."""

    data: bytes = proto(1, "bytes")


# Content stores of the client's.


@dataclass
class InfoContentRequest:
    """Content.Info; the answer's fields are not needed."""

    digest: str = proto(1, "string")


@dataclass
class ReadContentRequest:
    """Content.Read."""

    digest: str = proto(1, "string")
    offset: int = proto(2, "int")
    size: int = proto(3, "int")


@dataclass
class ReadContentResponse:
    """A piece of a blob."""

    offset: int = proto(1, "int")
    data: bytes = proto(2, "bytes")


@dataclass
class WriteContentRequest:
    """Content.Write: 0 asks how far it is, 1 writes, 2 makes the blob of what was written."""

    action: int = proto(1, "uint")
    ref: str = proto(2, "string")
    total: int = proto(3, "int")
    expected: str = proto(4, "string")
    offset: int = proto(5, "int")
    data: bytes = proto(6, "bytes")


@dataclass
class WriteContentResponse:
    """How far it is now."""

    action: int = proto(1, "uint")
    offset: int = proto(4, "int")
