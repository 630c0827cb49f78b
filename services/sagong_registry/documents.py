"""Manifests as clients push them: what kind one is, what it needs, what is wrong with it. Pure.

Source: OCI image specification 1.1 (manifest.md, image-index.md, descriptor.md) and Docker's image
manifest version 2, schema 2.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import msgspec

from sagong.errors import InvalidArgument
from sagong.model.oci import MediaType, check_digest, is_index, is_manifest
from sagong_registry.refusal import Refused, refused

__all__ = ["LIMIT", "Facts", "Need", "accepts", "bare_type", "read"]

LIMIT = 4 << 20
_MOST_DESCRIPTORS = 10_000
_DESCRIPTION = "org.opencontainers.image.description"
# Layers that clients fetch from elsewhere and never push.
_FOREIGN = frozenset(
    (
        MediaType.DOCKER_FOREIGN,
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
    )
)


class _Descriptor(msgspec.Struct, frozen=True, rename="camel"):
    media_type: str
    digest: str
    size: int
    annotations: dict[str, str] | None = None
    artifact_type: str = ""


class _Document(msgspec.Struct, frozen=True, rename="camel"):
    """What manifests and indexes have; which of it one has decides what it is."""

    schema_version: int
    media_type: str = ""
    artifact_type: str = ""
    config: _Descriptor | None = None
    layers: tuple[_Descriptor, ...] | None = None
    manifests: tuple[_Descriptor, ...] | None = None
    subject: _Descriptor | None = None
    annotations: dict[str, str] | None = None
    # Of schema 1 and of the retired artifact manifest: recognised to be refused by name.
    fs_layers: msgspec.Raw | None = None
    blobs: msgspec.Raw | None = None


@dataclass(frozen=True, slots=True)
class Need:
    """Something that must be in the repository: a blob, or a manifest, of `size`."""

    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class Facts:
    """What the registry keeps of a manifest. `artifact_type` is as referrers are listed by it."""

    media_type: str
    blobs: tuple[Need, ...]
    manifests: tuple[Need, ...]
    subject: str
    artifact_type: str
    annotations: dict[str, str]

    @property
    def description(self) -> str:
        """What the image says of itself."""
        return self.annotations.get(_DESCRIPTION, "")


def bare_type(header: str) -> str:
    """A media type without its parameters."""
    return header.partition(";")[0].strip().lower()


def accepts(header: str, media_type: str) -> bool:
    """Whether an Accept header admits the type; without one everything goes."""
    wanted = [bare_type(word) for word in header.split(",") if word.strip()]
    major = media_type.partition("/")[0]
    every = ("*/*", f"{major}/*", "application/json", media_type)
    return not wanted or any(word in every for word in wanted)


def read(raw: bytes, content_type: str) -> Facts:
    """What a pushed document is; MANIFEST_INVALID says what is wrong with it."""
    try:
        document = msgspec.json.decode(raw, type=_Document)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise refused("MANIFEST_INVALID", f"the manifest is not valid: {error}") from None
    media_type = _media_type(document, bare_type(content_type))
    for problem in _problems(document, media_type):
        raise refused("MANIFEST_INVALID", f"the manifest is not valid: {problem}")
    return _facts(document, media_type)


def _media_type(document: _Document, header: str) -> str:
    """The type by header and document, which must agree."""
    if header and document.media_type and document.media_type != header:
        raise refused(
            "MANIFEST_INVALID",
            f"Content-Type is {header}, the manifest's mediaType is {document.media_type[:200]}",
        )
    media_type = document.media_type or header
    if not media_type:
        guess = MediaType.OCI_MANIFEST if document.manifests is None else MediaType.OCI_INDEX
        return str(guess)
    if not (is_manifest(media_type) or is_index(media_type)):
        raise _unknown_type(media_type)
    return media_type


def _unknown_type(media_type: str) -> Refused:
    return refused(
        "MANIFEST_INVALID",
        f"manifests of type {media_type[:200]} are not kept: push an OCI image manifest or index, "
        "or Docker's of schema 2",
        status=415,
    )


def _problems(document: _Document, media_type: str) -> Iterator[str]:
    if document.schema_version != 2:
        yield f"schemaVersion is {document.schema_version}, it must be 2"
    if document.fs_layers is not None or document.blobs is not None:
        yield "it mixes documents of several kinds (fsLayers or blobs)"
    if is_index(media_type):
        if document.manifests is None:
            yield "an index has a list `manifests`"
        if document.layers is not None or document.config is not None:
            yield "an index has neither `config` nor `layers`"
    else:
        if document.config is None:
            yield "an image manifest has a `config`"
        if document.manifests is not None:
            yield "an image manifest has no `manifests`"
    listed = list(_descriptors(document))
    if len(listed) > _MOST_DESCRIPTORS:
        yield f"it has {len(listed)} descriptors, the most are {_MOST_DESCRIPTORS}"
    yield from _wrong_descriptors(listed)


def _descriptors(document: _Document) -> Iterator[_Descriptor]:
    for one in (document.config, document.subject):
        if one is not None:
            yield one
    yield from document.layers or ()
    yield from document.manifests or ()


def _wrong_descriptors(listed: Iterable[_Descriptor]) -> Iterator[str]:
    for one in listed:
        try:
            check_digest(one.digest)
        except InvalidArgument as error:
            yield error.message
        if not 0 <= one.size < 1 << 60:
            yield f"the size of {one.digest} is {one.size}"


def _facts(document: _Document, media_type: str) -> Facts:
    config = document.config
    blobs = [] if config is None else [config]
    blobs += [one for one in document.layers or () if one.media_type not in _FOREIGN]
    artifact_type = document.artifact_type
    if not artifact_type and config is not None:
        artifact_type = config.media_type
    return Facts(
        media_type=media_type,
        blobs=tuple(dict.fromkeys(Need(one.digest, one.size) for one in blobs)),
        manifests=tuple(
            dict.fromkeys(Need(one.digest, one.size) for one in document.manifests or ())
        ),
        subject=document.subject.digest if document.subject else "",
        artifact_type=artifact_type,
        annotations=document.annotations or {},
    )
