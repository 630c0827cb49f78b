"""OCI and Docker image documents: media types, descriptors, manifests, indexes and configs.

Sources: OCI image specification 1.1 (descriptor.md, manifest.md, image-index.md, config.md),
Docker's image manifest version 2 schema 2, and the archive layouts of both.
Unknown fields are ignored, as the specifications demand; digests are checked by `digest_of`.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterable, Mapping
from typing import TypeVar

import msgspec

from sagong.errors import InvalidArgument

__all__ = [
    "Config",
    "ContainerConfig",
    "Descriptor",
    "History",
    "Index",
    "Manifest",
    "MediaType",
    "Platform",
    "RootFs",
    "SavedImage",
    "annotated",
    "attestation_entry",
    "chain_ids",
    "check_digest",
    "decode",
    "digest_of",
    "encode",
    "is_attestation",
    "is_foreign",
    "is_index",
    "is_layer",
    "is_manifest",
    "normal_platform",
    "parse_platform",
    "platform_text",
]

T = TypeVar("T")


class MediaType:
    """Media types of images, by who defined them."""

    OCI_INDEX = "application/vnd.oci.image.index.v1+json"
    OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
    OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
    OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
    OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
    OCI_LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
    OCI_FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar"
    OCI_FOREIGN_GZIP = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
    OCI_FOREIGN_ZSTD = "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"
    DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
    DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
    DOCKER_MANIFEST_V1 = "application/vnd.docker.distribution.manifest.v1+json"
    DOCKER_MANIFEST_V1_SIGNED = "application/vnd.docker.distribution.manifest.v1+prettyjws"
    DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
    DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
    DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"
    DOCKER_LAYER_ZSTD = "application/vnd.docker.image.rootfs.diff.tar.zstd"
    DOCKER_FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    EMPTY = "application/vnd.oci.empty.v1+json"


_INDEXES = frozenset({MediaType.OCI_INDEX, MediaType.DOCKER_INDEX})
_MANIFESTS = frozenset({MediaType.OCI_MANIFEST, MediaType.DOCKER_MANIFEST})
_LAYERS = frozenset(
    {
        MediaType.OCI_LAYER,
        MediaType.OCI_LAYER_GZIP,
        MediaType.OCI_LAYER_ZSTD,
        MediaType.DOCKER_LAYER,
        MediaType.DOCKER_LAYER_GZIP,
        MediaType.DOCKER_LAYER_ZSTD,
    }
)
_FOREIGN = frozenset(
    {
        MediaType.DOCKER_FOREIGN,
        MediaType.OCI_FOREIGN,
        MediaType.OCI_FOREIGN_GZIP,
        MediaType.OCI_FOREIGN_ZSTD,
    }
)

# The digest of 1024 zero bytes: the uncompressed layer without any entry.
EMPTY_LAYER = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"


class Document(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """Base of the JSON documents with camelCase names."""


class Platform(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an image runs on; `architecture` and `os` in Go's words."""

    architecture: str = ""
    os: str = ""
    variant: str = ""
    os_version: str = msgspec.field(default="", name="os.version")
    os_features: tuple[str, ...] = msgspec.field(default=(), name="os.features")


class Descriptor(Document, frozen=True, kw_only=True):
    """A reference to content by digest."""

    media_type: str
    digest: str
    size: int
    urls: tuple[str, ...] | None = None
    annotations: Mapping[str, str] | None = None
    platform: Platform | None = None
    artifact_type: str = ""


class Manifest(Document, frozen=True, kw_only=True):
    """An image of one platform: its config and its layers from the lowest to the highest."""

    schema_version: int = msgspec.field(name="schemaVersion")
    media_type: str = ""
    config: Descriptor
    layers: tuple[Descriptor, ...] = ()
    annotations: Mapping[str, str] | None = None
    artifact_type: str = ""


class Index(Document, frozen=True, kw_only=True):
    """Manifests of several platforms under one name."""

    schema_version: int = msgspec.field(name="schemaVersion")
    media_type: str = ""
    manifests: tuple[Descriptor, ...] = ()
    annotations: Mapping[str, str] | None = None


class ContainerConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The "config" of an image config: what a container of it runs with."""

    user: str | None = msgspec.field(default=None, name="User")
    exposed_ports: Mapping[str, msgspec.Raw] | None = msgspec.field(
        default=None, name="ExposedPorts"
    )
    env: tuple[str, ...] | None = msgspec.field(default=None, name="Env")
    entrypoint: tuple[str, ...] | None = msgspec.field(default=None, name="Entrypoint")
    cmd: tuple[str, ...] | None = msgspec.field(default=None, name="Cmd")
    volumes: Mapping[str, msgspec.Raw] | None = msgspec.field(default=None, name="Volumes")
    working_dir: str | None = msgspec.field(default=None, name="WorkingDir")
    labels: Mapping[str, str] | None = msgspec.field(default=None, name="Labels")
    stop_signal: str | None = msgspec.field(default=None, name="StopSignal")
    shell: tuple[str, ...] | None = msgspec.field(default=None, name="Shell")
    on_build: tuple[str, ...] | None = msgspec.field(default=None, name="OnBuild")
    healthcheck: msgspec.Raw = msgspec.field(default=msgspec.Raw(b"null"), name="Healthcheck")


class RootFs(msgspec.Struct, frozen=True, kw_only=True):
    """The uncompressed digests of the layers, from the lowest to the highest."""

    type: str = "layers"
    diff_ids: tuple[str, ...] = ()


class History(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How one layer, or none, came to be.

    `step` is a builder's own: what the step was, where `created_by` is shorter than that.
    """

    created: str = ""
    author: str = ""
    created_by: str = ""
    comment: str = ""
    empty_layer: bool = False
    step: str = msgspec.field(default="", name="sagong.step")


class Config(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An image's config; its blob's digest is the image's id."""

    created: str | None = None
    author: str = ""
    architecture: str = ""
    os: str = ""
    variant: str = ""
    os_version: str = msgspec.field(default="", name="os.version")
    config: ContainerConfig | None = None
    rootfs: RootFs = RootFs()
    history: tuple[History, ...] | None = None


class SavedImage(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of docker save's manifest.json: paths inside the archive."""

    config: str = msgspec.field(name="Config")
    repo_tags: tuple[str, ...] | None = msgspec.field(default=None, name="RepoTags")
    layers: tuple[str, ...] | None = msgspec.field(default=None, name="Layers")


def decode(raw: bytes, kind: type[T], what: str) -> T:
    """Decode a document; InvalidArgument names `what` it is and where it is wrong.

    A field that is null is one that is not there: programs in Go write lists without members so.
    """
    try:
        try:
            return msgspec.json.decode(raw, type=kind)
        except msgspec.ValidationError as error:
            if "`null`" not in str(error):
                raise
            return msgspec.json.decode(_without_nulls(raw), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidArgument(f"{what} is not valid: {error}") from None


def _without_nulls(raw: bytes) -> bytes:
    def kept(value: object) -> object:
        if isinstance(value, dict):
            return {key: kept(each) for key, each in value.items() if each is not None}
        return [kept(each) for each in value] if isinstance(value, list) else value

    return msgspec.json.encode(kept(msgspec.json.decode(raw)))


def encode(document: object) -> bytes:
    """The JSON of a document, the same bytes for the same value."""
    return msgspec.json.encode(document)


def is_attestation(entry: Descriptor) -> bool:
    """Whether an index's entry tells of another one, as BuildKit's attestations do, and is no image."""
    return entry.platform is not None and entry.platform.os == "unknown"


def attestation_entry(raw: bytes, annotations: Iterable[tuple[str, str]]) -> Descriptor:
    """How an index names the manifest `raw`, which tells of another one."""
    manifest = decode(raw, Manifest, "the attestation's manifest")
    return Descriptor(
        media_type=manifest.media_type or MediaType.OCI_MANIFEST,
        digest=digest_of(raw),
        size=len(raw),
        annotations=dict(annotations) or None,
        platform=Platform(architecture="unknown", os="unknown"),
    )


def annotated(raw: bytes, annotations: Iterable[tuple[str, str]]) -> bytes:
    """A manifest with more annotations; without any it is the same bytes."""
    more = dict(annotations)
    if not more:
        return raw
    manifest = decode(raw, Manifest, "manifest")
    return encode(
        msgspec.structs.replace(manifest, annotations={**(manifest.annotations or {}), **more})
    )


def is_index(media_type: str) -> bool:
    """Whether content of this type lists manifests."""
    return media_type in _INDEXES


def is_manifest(media_type: str) -> bool:
    """Whether content of this type describes one image."""
    return media_type in _MANIFESTS


def is_layer(media_type: str) -> bool:
    """Whether content of this type is a layer of a filesystem."""
    return media_type in _LAYERS or media_type in _FOREIGN


def is_foreign(media_type: str) -> bool:
    """Whether a layer of this type may only be got from the URLs of its descriptor."""
    return media_type in _FOREIGN


_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")


def check_digest(digest: str) -> str:
    """The digest itself; InvalidArgument if it is none that we can verify."""
    if not _DIGEST.fullmatch(digest):
        raise InvalidArgument(f"digest {digest[:160]!r} is not sha256 or sha512 in lower-case hex")
    return digest


def digest_of(data: bytes, algorithm: str = "sha256") -> str:
    """The digest of bytes."""
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


def chain_ids(diff_ids: tuple[str, ...]) -> tuple[str, ...]:
    """The chain id of each layer with all below it (config.md, "Layer ChainID")."""
    chain: list[str] = []
    for diff_id in diff_ids:
        chain.append(digest_of(f"{chain[-1]} {diff_id}".encode()) if chain else diff_id)
    return tuple(chain)


_ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "armv7l": ("arm", "v7"),
    "i386": ("386", ""),
    "i686": ("386", ""),
}


def normal_platform(platform: Platform) -> Platform:
    """The platform in Go's words, arm64's redundant v8 left out and arm's v7 filled in."""
    architecture, variant = platform.architecture.lower(), platform.variant.lower()
    if architecture in _ARCHITECTURES:
        architecture, implied = _ARCHITECTURES[architecture]
        variant = variant or implied
    if (architecture, variant) in (("arm64", "v8"), ("arm64", "8"), ("amd64", "v1")):
        variant = ""
    if architecture == "arm" and variant in ("", "7"):
        variant = "v7"
    return Platform(architecture=architecture, os=platform.os.lower() or "linux", variant=variant)


# Of Go: what a word that stands alone may be.
_SYSTEMS = (
    "aix", "android", "darwin", "dragonfly", "freebsd", "hurd", "illumos", "ios", "js", "linux",
    "netbsd", "openbsd", "plan9", "solaris", "wasip1", "windows", "zos",
)  # fmt: skip
_KNOWN = (
    "386", "amd64", "arm", "armbe", "arm64", "arm64be", "loong64", "mips", "mipsle", "mips64",
    "mips64le", "ppc", "ppc64", "ppc64le", "riscv", "riscv64", "s390", "s390x", "sparc", "sparc64",
    "wasm",
)  # fmt: skip


def parse_platform(text: str, machine: str) -> Platform:
    """The platform of `os/arch[/variant]`, `arch` or `os`; "" is this `machine` (uname -m)."""
    parts = [part for part in text.strip().split("/") if part]
    if len(parts) > 3 or not all(
        re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.\-]*", part) for part in parts
    ):
        raise InvalidArgument(f"platform {text!r} is not os/architecture[/variant]")
    if not parts:
        return normal_platform(Platform(architecture=machine, os="linux"))
    if len(parts) == 1 and parts[0].lower() in _SYSTEMS:
        return normal_platform(Platform(architecture=machine, os=parts[0]))
    if len(parts) == 1:
        found = normal_platform(Platform(architecture=parts[0], os="linux"))
        if found.architecture not in _KNOWN:
            raise InvalidArgument(
                f'"{parts[0]}": unknown operating system or architecture: invalid argument'
            )
        return found
    variant = parts[2] if len(parts) == 3 else ""
    return normal_platform(Platform(architecture=parts[1], os=parts[0], variant=variant))


def platform_text(platform: Platform) -> str:
    """`os/architecture[/variant]`."""
    parts = (platform.os, platform.architecture, platform.variant)
    return sys.intern("/".join(part for part in parts if part))
