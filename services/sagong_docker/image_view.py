"""Images, their history and progress of transfers as the Docker API shows them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from sagong.contracts.image import Image, ImageConfig, Progress
from sagong.errors import InvalidArgument
from sagong.model.times import parse_time
from sagong_docker.moment import moment_text

__all__ = [
    "config_view",
    "created_at",
    "created_seconds",
    "history_view",
    "image_line",
    "image_view",
    "manifest_view",
    "progress",
]

_NONE = "<none>:<none>"
# Fields of a container's Config, which an image's had until API 1.50 and which said nothing.
_OF_CONTAINERS = frozenset(
    (
        "Hostname", "Domainname", "AttachStdin", "AttachStdout", "AttachStderr", "Tty", "OpenStdin",
        "StdinOnce", "Image",
    )
)  # fmt: skip


def created_at(image: Image) -> float:
    """Seconds since the epoch of the image's creation, 0 if unknown."""
    try:
        return parse_time(image.created) if image.created else 0.0
    except InvalidArgument:
        return 0.0


def created_seconds(image: Image) -> int:
    """The same in whole seconds, as lists show it."""
    return int(created_at(image))


def image_line(
    image: Image,
    *,
    containers: int,
    shared: int,
    version: tuple[int, int],
    manifests: Mapping[str, list[str]] | None = None,
) -> dict[str, Any]:
    """A line of `docker images`; `manifests`, if they are to be shown, has containers by image."""
    tags, digests = list(image.tags), list(image.digests)
    if version < (1, 43) and not tags and not digests:
        tags, digests = [_NONE], ["<none>@<none>"]
    view: dict[str, Any] = {
        "Id": image.id,
        "ParentId": image.parent,
        "RepoTags": tags,
        "RepoDigests": digests,
        "Created": created_seconds(image),
        "Size": image.size,
        "SharedSize": shared,
        "Labels": dict(image.config.labels) or None,
        "Containers": containers,
    }
    if version < (1, 44):
        view["VirtualSize"] = image.size
    if version >= (1, 48):
        view["Descriptor"] = descriptor_view(image)
    if manifests is not None and version >= (1, 47):
        view["Manifests"] = [manifest_view(image, manifests.get(image.id, []))]
    return view


def descriptor_view(image: Image) -> dict[str, Any] | None:
    """The manifest's OCI descriptor, if the image came with one."""
    if not image.manifest_digest:
        return None
    return {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": image.manifest_digest,
        "size": 0,
    }


def manifest_view(image: Image, containers: list[str]) -> dict[str, Any]:
    """The one manifest of an image here: its platform, and what it takes."""
    digest = image.manifest_digest or image.id
    # Layers are kept unpacked: as content there is the config alone.
    content = len(image.raw)
    platform = {"architecture": image.architecture, "os": image.os}
    if image.variant:
        platform["variant"] = image.variant
    return {
        "ID": digest,
        "Descriptor": {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": digest,
            "size": 0,
            "platform": platform,
        },
        "Available": True,
        "Size": {"Content": content, "Total": content + image.size},
        "Kind": "image",
        "ImageData": {
            "Platform": platform,
            "Containers": containers,
            "Size": {"Unpacked": image.size},
        },
    }


def image_view(image: Image, version: tuple[int, int]) -> dict[str, Any]:
    """`docker image inspect`."""
    config = config_view(image.config)
    if _escaped(image):
        config["ArgsEscaped"] = True
    if version >= (1, 50):
        config = {key: value for key, value in config.items() if key not in _OF_CONTAINERS}
    view: dict[str, Any] = {
        "Id": image.id,
        "RepoTags": list(image.tags),
        "RepoDigests": list(image.digests),
        "Parent": image.parent,
        "Comment": _comment(image),
        "Created": image.created or "0001-01-01T00:00:00Z",
        "DockerVersion": "",
        "Author": image.author,
        "Config": config,
        "Architecture": image.architecture,
        "Os": image.os,
        "Size": image.size,
        "GraphDriver": {"Name": "overlay2", "Data": {}},
        "RootFS": {"Type": "layers", "Layers": [layer.diff_id for layer in image.layers]},
        "Metadata": {"LastTagTime": moment_text(image.tagged_at)},
    }
    if image.variant:
        view["Variant"] = image.variant
    if version < (1, 44):
        view["VirtualSize"] = image.size
    if version < (1, 45):
        view["Container"] = ""
        view["ContainerConfig"] = config
    return view


class _Marked(msgspec.Struct):
    escaped: bool | None = msgspec.field(default=None, name="ArgsEscaped")


class _Marks(msgspec.Struct):
    config: _Marked | None = None


def _escaped(image: Image) -> bool:
    """A mark for Windows that BuildKit sets, and that is shown here alone."""
    config = msgspec.json.decode(image.raw, type=_Marks).config if image.raw else None
    return config is not None and bool(config.escaped)


def _comment(image: Image) -> str:
    history = _history(image)
    return str(history[-1].get("comment") or "") if history else ""


def config_view(config: ImageConfig) -> dict[str, Any]:
    """An image's Config."""
    view: dict[str, Any] = {
        "Hostname": "",
        "Domainname": "",
        "User": config.user,
        "AttachStdin": False,
        "AttachStdout": False,
        "AttachStderr": False,
        "Tty": False,
        "OpenStdin": False,
        "StdinOnce": False,
        "Env": list(config.env),
        "Cmd": list(config.cmd) if config.cmd is not None else None,
        "Image": "",
        "Volumes": {v: {} for v in config.volumes} or None,
        "WorkingDir": config.working_dir,
        "Entrypoint": list(config.entrypoint) if config.entrypoint is not None else None,
        "OnBuild": list(config.onbuild) or None,
        "Labels": dict(config.labels) or None,
    }
    if config.exposed_ports:
        view["ExposedPorts"] = {p: {} for p in config.exposed_ports}
    if config.stop_signal:
        view["StopSignal"] = config.stop_signal
    if config.healthcheck:
        view["Healthcheck"] = msgspec.json.decode(config.healthcheck)
    if config.shell:
        view["Shell"] = list(config.shell)
    return view


def _history(image: Image) -> list[dict[str, Any]]:
    try:
        found = msgspec.json.decode(image.history or b"[]", type=list[dict[str, Any]] | None)
    except msgspec.DecodeError:
        return []
    return found or []


def history_view(image: Image, parents: Iterable[Image] = ()) -> list[dict[str, Any]]:
    """`docker history`: newest first, each with its layer's size; a parent names its last line."""
    sizes = iter([layer.size for layer in image.layers])
    lines: list[dict[str, Any]] = []
    for entry in _history(image):
        size = 0 if entry.get("empty_layer") else next(sizes, 0)
        lines.append(
            {
                "Id": "<missing>",
                "Created": _created(str(entry.get("created") or "")),
                "CreatedBy": entry.get("created_by") or "",
                "Tags": None,
                "Size": size,
                "Comment": entry.get("comment") or "",
            }
        )
    if not lines:
        lines = [_bare_line(image)]
    _name(lines[-1], image)
    for parent in parents:
        length = len(_history(parent))
        if 0 < length < len(lines):
            _name(lines[length - 1], parent)
    lines.reverse()
    return lines


def _name(line: dict[str, Any], image: Image) -> None:
    line |= {"Id": image.id, "Tags": list(image.tags) or None}


def _bare_line(image: Image) -> dict[str, Any]:
    size = sum(layer.size for layer in image.layers)
    return {
        "Id": "",
        "Created": created_seconds(image),
        "CreatedBy": "",
        "Tags": None,
        "Size": size,
        "Comment": "",
    }


def _created(text: str) -> int:
    try:
        return int(parse_time(text)) if text else 0
    except InvalidArgument:
        return 0


def progress(item: Progress) -> dict[str, Any]:
    """A line of a transfer's progress, with the bar that old clients print."""
    line: dict[str, Any] = {"status": item.status}
    detail: dict[str, int] = {}
    if item.current or item.total:
        detail = {"current": item.current}
        if item.total:
            detail["total"] = item.total
        line["progress"] = _bar(item.current, item.total)
    line["progressDetail"] = detail
    if item.id:
        line["id"] = item.id
    return line


def _bar(current: int, total: int) -> str:
    if total <= 0:
        return _size(current)
    done = min(50, current * 50 // total)
    arrow = ">" if done < 50 else ""
    return (
        f"[{'=' * done}{arrow}{' ' * (50 - done - len(arrow))}] {_size(current):>8}/{_size(total)}"
    )


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.4g}{unit}"
        count /= 1000
    return f"{count:.4g}TB"
