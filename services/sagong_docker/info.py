"""`docker info`: what the engine is, what the machine has, and how many things there are."""

from __future__ import annotations

import asyncio
import os
import platform
import socket
import time
from collections import Counter
from typing import Any

from sagong.contracts.image import ImageQuery
from sagong.contracts.node import ContainerStatus, StatusState
from sagong.contracts.runtime import RuntimeList
from sagong.http import Response
from sagong_docker.ask import Ask
from sagong_docker.engine import Engine
from sagong_docker.machine import this_machine
from sagong_docker.moment import moment_text
from sagong_docker.refusal import answer
from sagong_docker.settings import Settings
from sagong_docker.version import ENGINE, KERNEL

__all__ = ["info", "of_version"]

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
    "FirewallBackend": {"Driver": "nftables"},
    "Warnings": None,
}


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
    return answer(of_version(view, ask.version))


def of_version(view: dict[str, Any], version: tuple[int, int]) -> dict[str, Any]:
    """What is said in the words of a version of the API: later ones left out much."""
    shown = dict(view)
    if version < (1, 25):
        options = (option.partition(",")[0] for option in view["SecurityOptions"])
        shown["SecurityOptions"] = [option.removeprefix("name=") for option in options]
    if version < (1, 47):
        # Null, as Go shows what was never set.
        names = ("AllowNondistributableArtifactsCIDRs", "AllowNondistributableArtifactsHostnames")
        shown["RegistryConfig"] = view["RegistryConfig"] | dict.fromkeys(names)
    if version < (1, 49):
        del shown["FirewallBackend"]
        for key in ("ContainerdCommit", "RuncCommit", "InitCommit"):
            shown[key] = view[key] | {"Expected": view[key]["ID"]}
    if version < (1, 50):
        shown |= {"BridgeNfIptables": False, "BridgeNfIp6tables": False}
    return shown


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
        "PidsLimit", "IPv4Forwarding",
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
