"""What checks of slot `image` work with: the candidate, archives made by hand, byte streams."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from sagong.contracts.image import (
    ArchiveRequest,
    Image,
    ImageRef,
    Images,
    LoadRequest,
    Prepared,
    PrepareRequest,
    Progress,
)
from sagong.contracts.streams import Address
from sagong.errors import NotFound, SagongError

__all__ = [
    "Archive",
    "ImageLab",
    "digest",
    "docker_archive",
    "entry",
    "fetch",
    "layer",
    "lent",
    "load",
    "loaded",
    "missing",
    "oci_archive",
    "read_tar",
    "read_text",
    "refused",
    "send",
    "uploaded",
    "written",
]

_TIME = 1_600_000_000
_OCI = "application/vnd.oci.image."


@dataclass
class ImageLab:
    """The candidate, and what else it lets a check do.

    `registry` is host:port of a registry of the distribution specification that lets everybody
    write; without one the checks of pull and push hold of themselves. `restart` stops the candidate
    and starts it on the same data. The candidate runs where a check can write into its writable
    layers (as root, in the same mount namespace).
    """

    images: Images
    registry: str = ""
    restart: Callable[[], Awaitable[Images]] | None = None


@dataclass
class Archive:
    """An image to be loaded: its layers as tars, and what its config says."""

    layers: Sequence[bytes] = ()
    config: Mapping[str, object] = field(default_factory=dict)
    names: Sequence[str] = ()
    created: str = "2024-01-01T00:00:00Z"
    architecture: str = "amd64"

    @property
    def diff_ids(self) -> list[str]:
        """The digests of the layers."""
        return [digest(raw) for raw in self.layers]

    def config_blob(self) -> bytes:
        """The config's bytes; their digest is the image's id."""
        config = {
            "architecture": self.architecture,
            "os": "linux",
            "created": self.created,
            "config": self.config,
            "rootfs": {"type": "layers", "diff_ids": self.diff_ids},
            "history": [{"created": self.created, "created_by": "suite"} for _ in self.layers],
        }
        return json.dumps(config).encode()

    @property
    def id(self) -> str:
        """The image's id."""
        return digest(self.config_blob())


def digest(raw: bytes) -> str:
    """The sha256 digest."""
    return "sha256:" + hashlib.sha256(raw).hexdigest()


def entry(
    name: str, mode: int = 0o644, kind: bytes = tarfile.REGTYPE, **facts: object
) -> tarfile.TarInfo:
    """A tar header; further facts are attributes of `tarfile.TarInfo`."""
    info = tarfile.TarInfo(name)
    info.mode, info.type, info.mtime = mode, kind, _TIME
    for key, value in facts.items():
        setattr(info, key, value)
    return info


def layer(*members: str | tuple[str, str] | tuple[object, bytes]) -> bytes:
    """A tar of directories ("name/"), text files ((name, text)) and headers with content."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for member in members:
            info, raw = _member(member)
            info.size = len(raw)
            tar.addfile(info, io.BytesIO(raw))
    return buffer.getvalue()


def _member(member: str | tuple[object, object]) -> tuple[tarfile.TarInfo, bytes]:
    if isinstance(member, str):
        made = entry(member.rstrip("/"), 0o755, tarfile.DIRTYPE)
        return _info(made), b""
    first, content = member
    raw = content.encode() if isinstance(content, str) else content
    assert isinstance(raw, bytes)
    return _info(entry(first) if isinstance(first, str) else first), raw


def _info(made: object) -> tarfile.TarInfo:
    assert isinstance(made, tarfile.TarInfo)
    return made


def _tar_of(files: Iterable[tuple[str, bytes]]) -> bytes:
    return layer(*((entry(name), raw) for name, raw in files))


def docker_archive(*images: Archive, lacking: Sequence[bytes] = ()) -> bytes:
    """An archive as of `docker save`, without the files of the layers that it is to lack."""
    files: dict[str, bytes] = {}
    saved = []
    for image in images:
        config = image.config_blob()
        name = f"{digest(config)[7:]}.json"
        paths = [f"{digest(raw)[7:]}/layer.tar" for raw in image.layers]
        layers = {path: raw for path, raw in zip(paths, image.layers) if raw not in lacking}
        files |= {name: config, **layers}
        saved.append({"Config": name, "RepoTags": list(image.names) or None, "Layers": paths})
    files["manifest.json"] = json.dumps(saved).encode()
    return _tar_of(files.items())


def oci_archive(image: Archive) -> bytes:
    """A tar of an OCI layout with gzip layers; the image's first name stands in the index."""
    files: dict[str, bytes] = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}'}

    def put(raw: bytes, kind: str) -> dict[str, object]:
        files[f"blobs/sha256/{digest(raw)[7:]}"] = raw
        return {"mediaType": _OCI + kind, "digest": digest(raw), "size": len(raw)}

    manifest = {
        "schemaVersion": 2,
        "mediaType": _OCI + "manifest.v1+json",
        "config": put(image.config_blob(), "config.v1+json"),
        "layers": [put(gzip.compress(raw, mtime=0), "layer.v1.tar+gzip") for raw in image.layers],
    }
    descriptor = put(json.dumps(manifest).encode(), "manifest.v1+json")
    if image.names:
        descriptor["annotations"] = {"io.containerd.image.name": image.names[0]}
    index = {"schemaVersion": 2, "manifests": [descriptor]}
    files["index.json"] = json.dumps(index).encode()
    return _tar_of(files.items())


async def send(address: Address, data: bytes) -> None:
    """Send bytes to an address, and wait until they are taken."""
    reader, writer = await asyncio.open_unix_connection(address.path)
    writer.write(address.token.encode() + b"\n" + data)
    writer.write_eof()
    await writer.drain()
    await reader.read()
    writer.close()


async def fetch(address: Address) -> bytes:
    """All bytes of an address."""
    reader, writer = await asyncio.open_unix_connection(address.path)
    writer.write(address.token.encode() + b"\n")
    data = await reader.read()
    writer.close()
    return data


async def uploaded(lab: ImageLab, data: bytes) -> str:
    """Upload bytes; the name for other requests."""
    address = await lab.images.upload()
    await send(address, data)
    return address.token


async def load(lab: ImageLab, data: bytes) -> list[Progress]:
    """Load an archive."""
    request = LoadRequest(upload=await uploaded(lab, data))
    return [progress async for progress in lab.images.load(request)]


async def loaded(lab: ImageLab, image: Archive) -> Image:
    """Load one image and inspect it."""
    await load(lab, docker_archive(image))
    return await lab.images.inspect(ImageRef(reference=image.id))


async def lent(lab: ImageLab, identity: str, image: Archive) -> Prepared:
    """Load an image and lend its root filesystem to a container."""
    await loaded(lab, image)
    return await lab.images.prepare(PrepareRequest(id=identity, image=image.id))


async def written(lab: ImageLab, request: ArchiveRequest, data: bytes) -> None:
    """Extract a tar into a container."""
    token = await uploaded(lab, data)
    await lab.images.write_archive(msgspec.structs.replace(request, upload=token))


def read_tar(data: bytes) -> dict[str, tuple[tarfile.TarInfo, bytes]]:
    """Members of a tar by name, with content."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for info in tar.getmembers():
            file = tar.extractfile(info) if info.isfile() else None
            name = info.name.removeprefix("./")
            found[name] = (info, file.read() if file else b"")
    return found


async def read_text(lab: ImageLab, identity: str, path: str) -> str:
    """A file of a container by `read_archive`."""
    address = await lab.images.read_archive(ArchiveRequest(id=identity, path=path))
    members = read_tar(await fetch(address))
    (content,) = (raw for _, raw in members.values())
    return content.decode()


async def refused(kind: type[SagongError], work: Awaitable[object]) -> SagongError:
    """The error that the work must raise."""
    try:
        await work
    except kind as error:
        return error
    except SagongError as error:
        raise AssertionError(f"raised {error.code} instead of {kind.code}: {error}") from error
    raise AssertionError(f"was not refused; expected {kind.code}")


async def missing(lab: ImageLab, identity: str, path: str) -> bool:
    """Whether a container lacks a path."""
    with contextlib.suppress(NotFound):
        await lab.images.stat(ArchiveRequest(id=identity, path=path))
        return False
    return True
