"""A container as `GET /containers/json` shows it: a line of `docker ps`. Pure."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping, Sequence
from typing import Any

from sagong.contracts.image import Image
from sagong.contracts.node import ContainerStatus, StatusState
from sagong.errors import InvalidArgument
from sagong.model import references
from sagong_docker.container_view import mount_views, planned_args
from sagong_docker.network_view import endpoint_views, port_list
from sagong_docker.record import ContainerRecord

__all__ = ["list_view", "status_text"]


def list_view(
    record: ContainerRecord,
    status: ContainerStatus,
    names: dict[str, str],
    *,
    version: tuple[int, int],
    called: Sequence[str] = (),
    images: Mapping[str, str] | None = None,
    size: int | None = None,
) -> dict[str, Any]:
    """A line of `docker ps`; `called` are further names, `images` all images' ids by their names."""
    args = status.args or planned_args(record, status.image)
    image = status.image
    view: dict[str, Any] = {
        "Id": record.id,
        "Names": [f"/{record.name}", *called],
        "Image": _shown_image(record, image, images),
        "ImageID": image.id if image else "",
        "Command": " ".join((*args[:1], *(_quoted(word) for word in args[1:]))),
        "Created": record.created // 10**9,
        "Ports": port_list(status, record),
        "Labels": {**dict(image.config.labels if image else ()), **record.labels},
        "State": str(status.state),
        "Status": status_text(status, time.time()),
        "HostConfig": _host(record, version),
        "NetworkSettings": {"Networks": _brief(record, status, names, version)},
        "Mounts": mount_views(record, status),
    }
    if size is not None:
        sizes = {"SizeRw": size, "SizeRootFs": size + (image.size if image else 0)}
        view |= {key: value for key, value in sizes.items() if value}
    return view


def _host(record: ContainerRecord, version: tuple[int, int]) -> dict[str, Any]:
    mode = str(record.host.get("NetworkMode") or "bridge").replace("default", "bridge")
    view: dict[str, Any] = {"NetworkMode": mode}
    if version >= (1, 46) and record.host.get("Annotations"):
        view["Annotations"] = record.host["Annotations"]
    return view


def _brief(
    record: ContainerRecord,
    status: ContainerStatus,
    names: dict[str, str],
    version: tuple[int, int],
) -> dict[str, Any]:
    """Endpoints in a list: what they got, without what was asked for."""
    networks = endpoint_views(record, status, names, version)
    for view in networks.values():
        view["Aliases"] = view["Links"] = view["DriverOpts"] = None
        if version >= (1, 44):
            view["DNSNames"] = None
    return networks


def _shown_image(
    record: ContainerRecord, image: Image | None, images: Mapping[str, str] | None
) -> str:
    """The name as given; its id when the name now means another image, or none."""
    name = record.image
    if image is None or images is None or name.startswith("sha256:"):
        return name
    if "@" in name or image.id.startswith(f"sha256:{name}"):
        return name
    return name if images.get(_tagged(name)) == image.id else image.id


@functools.lru_cache(maxsize=1024)
def _tagged(name: str) -> str:
    """A name as images are listed by it."""
    try:
        return references.parse(name).tagged.familiar
    except InvalidArgument:
        return name


def _quoted(word: str) -> str:
    return f"'{word}'" if " " in word else word


def status_text(status: ContainerStatus, now: float) -> str:
    """`Up 5 minutes (healthy)`, `Exited (1) 2 hours ago`, `Created`."""
    state = status.state
    if state in (StatusState.RUNNING, StatusState.PAUSED):
        text = f"Up {_human(now - status.started_at)}"
        if state is StatusState.PAUSED:
            return f"{text} (Paused)"
        if status.health is not None:
            shown = status.health.status
            return f"{text} (health: starting)" if shown == "starting" else f"{text} ({shown})"
        return text
    if state is StatusState.RESTARTING:
        return f"Restarting ({status.code}) {_human(now - status.finished_at)} ago"
    if state is StatusState.REMOVING:
        return "Removal In Progress"
    if state is StatusState.DEAD:
        return "Dead"
    if state is StatusState.CREATED or not status.started_at:
        return "Created"
    return f"Exited ({status.code}) {_human(now - status.finished_at)} ago"


def _human(seconds: float) -> str:
    """As the go-units package says it."""
    whole = int(max(seconds, 0))
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < 60:
        return f"{whole} seconds"
    minutes = whole // 60
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = (whole + 1800) // 3600
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    days = whole // 86400
    if days < 14:
        return f"{days} days"
    if days < 60:
        return f"{days // 7} weeks"
    if days < 730:
        return f"{days // 30} months"
    return f"{days // 365} years"
