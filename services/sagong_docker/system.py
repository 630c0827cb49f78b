"""The engine itself: ping, version, disk usage."""

from __future__ import annotations

import platform
from collections import Counter
from pathlib import Path
from typing import Any

from sagong.contracts.image import ImageQuery
from sagong.contracts.node import ContainerStatus
from sagong.contracts.volume import Volume, VolumeRef
from sagong.errors import InvalidArgument, SagongError
from sagong.http import Response
from sagong.http.head import HeaderItems
from sagong_docker import containers, volumes
from sagong_docker.ask import Ask
from sagong_docker.build import records as build_records
from sagong_docker.container_line import list_view
from sagong_docker.engine import Engine
from sagong_docker.image_view import image_line
from sagong_docker.moment import moment_text
from sagong_docker.refusal import answer
from sagong_docker.version import API, ENGINE, KERNEL, MINIMUM, text_of

__all__ = ["disk_usage", "ping", "version"]

_DF_TYPES = ("container", "image", "volume", "build-cache")
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


async def ping(engine: Engine, ask: Ask) -> Response:
    """The first thing that clients ask: which version is spoken here."""
    headers: HeaderItems = {
        "Content-Type": "text/plain; charset=utf-8",
        "Cache-Control": "no-cache, no-store, must-revalidate",
        "Pragma": "no-cache",
        "Builder-Version": "1",
        "Swarm": "inactive",
    }
    return Response(200, b"OK", headers)


async def version(engine: Engine, ask: Ask) -> Response:
    """`docker version`."""
    built = moment_text(_built())
    architecture = _MACHINES.get(platform.machine(), platform.machine())
    details = {
        "ApiVersion": text_of(API),
        "Arch": architecture,
        "BuildTime": built,
        "Experimental": "false",
        "GitCommit": "sagong",
        "GoVersion": f"python{platform.python_version()}",
        "KernelVersion": KERNEL,
        "MinAPIVersion": text_of(MINIMUM),
        "Os": "linux",
    }
    return answer(
        {
            "Platform": {"Name": "sagong"},
            "Components": [{"Name": "Engine", "Version": ENGINE, "Details": details}],
            "Version": ENGINE,
            "ApiVersion": text_of(API),
            "MinAPIVersion": text_of(MINIMUM),
            "GitCommit": "sagong",
            "GoVersion": f"python{platform.python_version()}",
            "Os": "linux",
            "Arch": architecture,
            "KernelVersion": KERNEL,
            "BuildTime": built,
        }
    )


def _built() -> float:
    return Path(__file__).stat().st_mtime


async def disk_usage(engine: Engine, ask: Ask) -> Response:
    """`docker system df`."""
    kinds = ask.request.query.all("type") or list(_DF_TYPES)
    unknown = set(kinds) - set(_DF_TYPES)
    if unknown:
        raise InvalidArgument(f"unknown object type: {sorted(unknown)[0]}")
    statuses = await engine.statuses(foreign_too=True)
    usage = await engine.images.usage()
    view: dict[str, Any] = {}
    if "image" in kinds:
        view["LayersSize"] = usage.layers
        view["Images"] = await _images(engine, ask, statuses)
    if "container" in kinds:
        own = [s for s in statuses if s.spec.id in engine.catalog.containers]
        written = await containers.sizes(engine)
        names = await engine.network_names()
        view["Containers"] = [
            list_view(
                engine.record_of(s), s, names, version=ask.version, size=written.get(s.spec.id, 0)
            )
            for s in own
        ]
    if "volume" in kinds:
        view["Volumes"] = await _volumes(engine, statuses)
    if "build-cache" in kinds:
        view["BuildCache"] = await build_records(engine)
    if ask.version < (1, 42):
        view["BuilderSize"] = 0
    shown = {"LayersSize": 0, **{k: v for k, v in view.items() if v is not None}}
    if ask.version >= (1, 42):
        # What was not asked for is null.
        shown = {**dict.fromkeys(("Images", "Containers", "Volumes", "BuildCache")), **shown}
    return answer(shown)


async def _images(
    engine: Engine, ask: Ask, statuses: list[ContainerStatus]
) -> list[dict[str, Any]]:
    uses = Counter(s.image.id for s in statuses if s.image)
    found = (await engine.images.list(ImageQuery(brief=True))).images
    layers = Counter(layer.diff_id for image in found for layer in image.layers)
    lines = [
        image_line(
            image,
            containers=uses[image.id],
            shared=sum(layer.size for layer in image.layers if layers[layer.diff_id] > 1),
            version=ask.version,
        )
        for image in found
    ]
    # As images were listed before API 1.43.
    return [{**line, "RepoDigests": line["RepoDigests"] or None} for line in lines]


async def _volumes(engine: Engine, statuses: list[ContainerStatus]) -> list[dict[str, Any]]:
    used = volumes.users(statuses)

    async def view(volume: Volume) -> dict[str, Any]:
        try:
            size = (await engine.volumes.usage(VolumeRef(name=volume.name))).size
        except SagongError:
            size = -1
        return volumes.volume_view(volume, (size, len(used.get(volume.name, ()))))

    # As with Docker, what has options (a device, a server) takes no place of this machine's.
    return [await view(volume) for volume in await volumes.own(engine) if not volume.options]
