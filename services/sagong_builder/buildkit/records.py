"""The messages of the history of builds, and of the content that its records name.

Names and numbers are those of BuildKit's public protocol definitions: packages moby.buildkit.v1 and
containerd.services.content.v1.
"""

# ruff: noqa: RUF009  (`proto` makes dataclass fields)

from __future__ import annotations

from dataclasses import dataclass

from sagong_builder.buildkit import messages as m
from sagong_builder.buildkit.protobuf import Mapped, Repeated, proto

__all__ = [
    "COMPLETE",
    "DELETED",
    "STARTED",
    "BuildEvent",
    "BuildRecord",
    "ContentInfo",
    "Descriptor",
    "HistoryRequest",
    "InfoContentResponse",
    "ResultEntry",
    "ResultInfo",
    "UpdateRequest",
]

STARTED, COMPLETE, DELETED = 0, 1, 2


@dataclass
class Descriptor:
    """A blob: the log of a build, its error, what is said of a result."""

    media_type: str = proto(1, "string")
    digest: str = proto(2, "string")
    size: int = proto(3, "int")
    annotations: dict[str, str] = proto(5, Mapped("string"))


@dataclass
class ResultEntry:
    """An entry of the map of results: the exporter's number, and what it made."""

    exporter: int = proto(1, "int")
    result: Descriptor | None = proto(2, Descriptor)


@dataclass
class ResultInfo:
    """BuildResultInfo: an image's config, for older clients and for newer, and what is said of it."""

    result: Descriptor | None = proto(1, Descriptor)
    attestations: list[Descriptor] = proto(2, Repeated(Descriptor))
    results: list[ResultEntry] = proto(3, Repeated(ResultEntry))


@dataclass
class BuildRecord:
    """BuildHistoryRecord."""

    ref: str = proto(1, "string")
    frontend: str = proto(2, "string")
    frontend_attrs: dict[str, str] = proto(3, Mapped("string"))
    exporters: list[m.ExporterSpec] = proto(4, Repeated(m.ExporterSpec))
    error: m.RpcStatus | None = proto(5, m.RpcStatus)
    created_at: m.Timestamp | None = proto(6, m.Timestamp)
    completed_at: m.Timestamp | None = proto(7, m.Timestamp)
    logs: Descriptor | None = proto(8, Descriptor)
    exporter_response: dict[str, str] = proto(9, Mapped("string"))
    result: ResultInfo | None = proto(10, ResultInfo)
    results: dict[str, ResultInfo] = proto(11, Mapped(ResultInfo))
    generation: int = proto(12, "int")
    trace: Descriptor | None = proto(13, Descriptor)
    pinned: bool = proto(14, "bool")
    cached_steps: int = proto(15, "int")
    total_steps: int = proto(16, "int")
    completed_steps: int = proto(17, "int")
    external_error: Descriptor | None = proto(18, Descriptor)
    warnings: int = proto(19, "int")


@dataclass
class BuildEvent:
    """BuildHistoryEvent; `type` is STARTED, COMPLETE or DELETED."""

    type: int = proto(1, "uint")
    record: BuildRecord | None = proto(2, BuildRecord)


@dataclass
class HistoryRequest:
    """Control.ListenBuildHistory."""

    active_only: bool = proto(1, "bool")
    ref: str = proto(2, "string")
    early_exit: bool = proto(3, "bool")
    filter: list[str] = proto(4, Repeated("string"))
    limit: int = proto(5, "int")


@dataclass
class UpdateRequest:
    """Control.UpdateBuildHistory."""

    ref: str = proto(1, "string")
    pinned: bool = proto(2, "bool")
    delete: bool = proto(3, "bool")
    finalize: bool = proto(4, "bool")


@dataclass
class ContentInfo:
    """containerd.services.content.v1.Info."""

    digest: str = proto(1, "string")
    size: int = proto(2, "int")
    created_at: m.Timestamp | None = proto(3, m.Timestamp)
    updated_at: m.Timestamp | None = proto(4, m.Timestamp)


@dataclass
class InfoContentResponse:
    """Content.Info."""

    info: ContentInfo | None = proto(1, ContentInfo)
