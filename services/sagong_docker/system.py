"""The engine itself: ping, version, info, disk usage, login, distribution."""

from __future__ import annotations

import asyncio
import os
import platform
import socket
import time
from collections import Counter
from pathlib import Path
from typing import Any

from sagong.contracts.image import ImageQuery
from sagong.contracts.node import ContainerStatus, StatusState
from sagong.contracts.runtime import RuntimeList
from sagong.contracts.volume import Volume, VolumeRef
from sagong.errors import InvalidArgument, SagongError
from sagong.http import Response
from sagong.http.head import HeaderItems
from sagong_docker import containers, volumes
from sagong_docker.ask import Ask
from sagong_docker.build import records as build_records
from sagong_docker.container_view import list_view
from sagong_docker.engine import Engine
from sagong_docker.image_view import image_line
from sagong_docker.machine import this_machine
from sagong_docker.moment import moment_text
from sagong_docker.refusal import answer
from sagong_docker.settings import Settings
from sagong_docker.version import API, ENGINE, KERNEL, MINIMUM, text_of

__all__ = ["disk_usage", "info", "ping", "version"]

_DF_TYPES = ("container", "image", "volume", "build-cache")
_FIXED: dict[str, Any] = {
    "Driver": "overlay2",
    "DriverStatus": [
        ["Backing Filesystem", "extfs"],
        ["Supports d_type", "true"],
        ["Using metacopy", "false"],
        ["Native Overlay Diff", "true"],
        ["userxattr", "false"],
    ],
    "Plugins": {
        "Volume": ["local"],
        "Network": ["bridge", "host", "ipvlan", "macvlan", "null"],
        "Authorization": None,
        "Log": ["json-file", "local", "none"],
    },
    "Debug": False,
    "CgroupDriver": "cgroupfs",
    "OSVersion": "",
    "OSType": "linux",
    "IndexServerAddress": "https://index.docker.io/v1/",
    "GenericResources": None,
    "HttpProxy": "",
    "HttpsProxy": "",
    "NoProxy": "",
    "ExperimentalBuild": False,
    "Swarm": {
        "NodeID": "",
        "NodeAddr": "",
        "LocalNodeState": "inactive",
        "ControlAvailable": False,
        "Error": "",
        "RemoteManagers": None,
    },
    "LiveRestoreEnabled": True,
    "Isolation": "",
    "InitBinary": "sagong-init",
    "ContainerdCommit": {"ID": ""},
    "RuncCommit": {"ID": ""},
    "InitCommit": {"ID": ""},
    "CDISpecDirs": [],
    "Warnings": None,
}
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


async def info(engine: Engine, ask: Ask) -> Response:
    """`docker info`."""
    statuses, images, machine, runtimes = await asyncio.gather(
        engine.statuses(),
        engine.images.list(ImageQuery(all=True, brief=True)),
        engine.metrics.machine(),
        engine.node.runtimes(),
    )
    states = Counter(_counted(s) for s in statuses)
    view: dict[str, Any] = {
        "ID": engine.id,
        "Containers": len(statuses),
        "ContainersRunning": states["running"],
        "ContainersPaused": states["paused"],
        "ContainersStopped": states["stopped"],
        "Images": len(images.images),
        "NFd": len(os.listdir("/proc/self/fd")),
        "NGoroutines": len(asyncio.all_tasks()),
        "NEventsListener": engine.history.listeners,
        "SystemTime": moment_text(time.time()),
        "KernelVersion": KERNEL,
        "OperatingSystem": _release().get("PRETTY_NAME", "Linux"),
        "Architecture": platform.machine(),
        "NCPU": machine.cores,
        "MemTotal": machine.memory_total,
        "ServerVersion": ENGINE,
        **_FIXED,
        "OSVersion": _release().get("VERSION_ID", ""),
        **_kernel_facts(),
        **_configured(engine.settings, remapped=runtimes.users == "private"),
        **_runtimes(engine.settings, runtimes),
        "Plugins": {
            **_FIXED["Plugins"],
            "Volume": list(engine.volumes.drivers),
            "Network": sorted(engine.network.drivers),
        },
    }
    return answer(view)


def _configured(settings: Settings, *, remapped: bool) -> dict[str, Any]:
    """What the settings say."""
    insecure = {r: _registry(r, secure=False) for r in settings.insecure_registries}
    return {
        "Name": settings.name or socket.gethostname(),
        "Labels": list(settings.labels),
        "LoggingDriver": settings.log_driver,
        "SecurityOptions": _security(settings, remapped=remapped),
        "DockerRootDir": settings.root,
        "RegistryConfig": {
            "InsecureRegistryCIDRs": ["127.0.0.0/8", "::1/128"],
            "IndexConfigs": {"docker.io": _registry("docker.io", secure=True), **insecure},
            "Mirrors": list(settings.registry_mirrors) or None,
        },
    }


def _security(settings: Settings, *, remapped: bool) -> list[str]:
    """What containers get unless they ask for something else."""
    private = (settings.cgroup_mode or ("private" if this_machine().unified else "host")) != "host"
    found = ["name=seccomp,profile=builtin"]
    found += ["name=userns"] if remapped else []
    return [*found, "name=cgroupns"] if private else found


def _runtimes(settings: Settings, found: RuntimeList) -> dict[str, Any]:
    """What `--runtime` may say: the names of the default one, and those of the other instances."""
    names = dict.fromkeys((*settings.runtimes, *filter(None, found.names)))
    return {
        "Runtimes": {name: {"path": name} for name in names},
        "DefaultRuntime": settings.runtimes[0] if settings.runtimes else "",
    }


def _kernel_facts() -> dict[str, Any]:
    unified = os.path.exists("/sys/fs/cgroup/cgroup.controllers")
    names = (
        "MemoryLimit", "SwapLimit", "CpuCfsPeriod", "CpuCfsQuota", "CPUShares", "CPUSet",
        "PidsLimit", "IPv4Forwarding", "BridgeNfIptables", "BridgeNfIp6tables",
    )  # fmt: skip
    return {
        **dict.fromkeys(names, True),
        "OomKillDisable": not unified,
        "CgroupVersion": "2" if unified else "1",
    }


def _registry(name: str, *, secure: bool) -> dict[str, Any]:
    return {"Name": name, "Mirrors": [], "Secure": secure, "Official": name == "docker.io"}


def _counted(status: ContainerStatus) -> str:
    if status.state in (StatusState.RUNNING, StatusState.RESTARTING):
        return "running"
    return "paused" if status.state is StatusState.PAUSED else "stopped"


def _release() -> dict[str, str]:
    """What os-release says of the machine, if it can be read."""
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


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

    return [await view(volume) for volume in await volumes.own(engine)]
