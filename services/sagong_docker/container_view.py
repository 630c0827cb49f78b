"""A container as `GET /containers/{id}/json` shows it. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from sagong.contracts.image import Image, ImageConfig
from sagong.contracts.node import ContainerStatus, HealthState, StatusState
from sagong_docker.host_view import host_view
from sagong_docker.moment import moment_text, nanos_text
from sagong_docker.network_view import endpoint_views, joined, port_map
from sagong_docker.record import ContainerRecord

__all__ = [
    "environment",
    "inspect_view",
    "merged_config",
    "mount_views",
    "planned_args",
]


def inspect_view(
    record: ContainerRecord,
    status: ContainerStatus,
    names: dict[str, str],
    *,
    version: tuple[int, int],
    size: int | None = None,
) -> dict[str, Any]:
    """`docker inspect`; `names` are the networks' by id, `size` of the writable layer if asked."""
    args = status.args or planned_args(record, status.image)
    view: dict[str, Any] = {
        "Id": record.id,
        "Created": nanos_text(record.created),
        "Path": args[0] if args else "",
        "Args": list(args[1:]),
        "State": state_view(status),
        "Image": status.image.id if status.image else "",
        "ResolvConfPath": status.resolv_path,
        "HostnamePath": status.hostname_path,
        "HostsPath": status.hosts_path,
        "LogPath": status.log_path,
        "Name": f"/{record.name}",
        "RestartCount": status.restart_count,
        "Driver": "overlay2",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": status.spec.apparmor,
        "ExecIDs": list(status.exec_ids) or None,
        "HostConfig": host_view(record, status),
        "GraphDriver": _graph(status),
        "Mounts": mount_views(record, status),
        "Config": merged_config(record, status),
        "NetworkSettings": _network_settings(record, status, names, version),
    }
    if size is not None:
        view["SizeRw"] = size
        view["SizeRootFs"] = size + (status.image.size if status.image else 0)
    return view


def state_view(status: ContainerStatus) -> dict[str, Any]:
    """The State object."""
    state = status.state
    running = state in (StatusState.RUNNING, StatusState.PAUSED, StatusState.RESTARTING)
    view: dict[str, Any] = {
        "Status": str(state),
        "Running": running,
        "Paused": state is StatusState.PAUSED,
        "Restarting": state is StatusState.RESTARTING,
        "OOMKilled": status.oom_killed,
        "Dead": state is StatusState.DEAD,
        "Pid": status.pid,
        "ExitCode": status.code,
        "Error": status.error,
        "StartedAt": moment_text(status.started_at),
        "FinishedAt": moment_text(status.finished_at),
    }
    if status.health is not None:
        view["Health"] = _health(status.health)
        if not running and status.started_at:
            view["Health"]["Status"] = "unhealthy"
    return view


def _health(health: HealthState) -> dict[str, Any]:
    return {
        "Status": health.status,
        "FailingStreak": health.failing_streak,
        "Log": [
            {
                "Start": moment_text(start),
                "End": moment_text(end),
                "ExitCode": code,
                "Output": output,
            }
            for start, end, code, output in health.probes
        ],
    }


def merged_config(record: ContainerRecord, status: ContainerStatus) -> dict[str, Any]:
    """Config: the create body's over the image's."""
    given = record.config
    image = status.image.config if status.image else ImageConfig()
    entrypoint, cmd = _program(given, image)
    ports = {**{port: {} for port in image.exposed_ports}, **(given.get("ExposedPorts") or {})}
    volumes = {**{path: {} for path in image.volumes}, **(given.get("Volumes") or {})}
    view: dict[str, Any] = {
        "Hostname": given.get("Hostname") or _hostname(record),
        "Domainname": given.get("Domainname") or "",
        **(_own_names(record) if not status.run else {}),
        "User": given.get("User") or image.user,
        "AttachStdin": bool(given.get("AttachStdin")),
        "AttachStdout": bool(given.get("AttachStdout")),
        "AttachStderr": bool(given.get("AttachStderr")),
        "Tty": bool(given.get("Tty")),
        "OpenStdin": bool(given.get("OpenStdin")),
        "StdinOnce": bool(given.get("StdinOnce")),
        "Env": environment(image, given),
        "Cmd": cmd,
        "Image": record.image,
        "Volumes": volumes or None,
        "WorkingDir": given.get("WorkingDir") or image.working_dir,
        "Entrypoint": entrypoint,
        "OnBuild": list(image.onbuild) or None,
        "Labels": {**dict(image.labels), **record.labels},
    }
    if ports:
        view["ExposedPorts"] = ports
    for key in ("StopSignal", "StopTimeout", "Healthcheck", "Shell", "MacAddress"):
        if given.get(key) not in (None, ""):
            view[key] = given[key]
    if given.get("NetworkDisabled"):
        view["NetworkDisabled"] = True
    if own := _own_mac(record):
        view.setdefault("MacAddress", own)
    if "StopSignal" not in view and image.stop_signal:
        view["StopSignal"] = image.stop_signal
    if image.healthcheck:
        check: dict[str, Any] = msgspec.json.decode(image.healthcheck)
        asked = (given.get("Healthcheck") or {}).items()
        view["Healthcheck"] = check | {key: value for key, value in asked if value}
    return view


def _own_mac(record: ContainerRecord) -> str:
    """The address that was asked for on its main network, which older clients look for here."""
    mode = str(record.host.get("NetworkMode") or "default")
    names = ("bridge", "default") if mode in ("bridge", "default") else (mode,)
    endpoints = record.networking.get("EndpointsConfig") or {}
    given = (endpoints.get(name) or {} for name in names)
    return next((str(found) for each in given if (found := each.get("MacAddress"))), "")


def _own_names(record: ContainerRecord) -> dict[str, str]:
    """Another container's names come with its network, at the first start."""
    if not str(record.host.get("NetworkMode")).startswith("container:"):
        return {}
    return {"Hostname": record.id[:12], "Domainname": ""}


def _hostname(record: ContainerRecord) -> str:
    return "" if record.host.get("NetworkMode") == "host" else record.id[:12]


def environment(image: ImageConfig, given: dict[str, Any]) -> list[str]:
    """Its own variables, then those of the image that it does not name."""
    own = list(given.get("Env") or ())
    keys = {entry.partition("=")[0] for entry in own}
    return [*own, *(entry for entry in image.env if entry.partition("=")[0] not in keys)]


def _program(
    given: dict[str, Any], image: ImageConfig
) -> tuple[list[str] | None, list[str] | None]:
    """Entrypoint and Cmd: an own entrypoint drops the image's Cmd, `[""]` resets the image's."""
    entrypoint, cmd = _listed(given.get("Entrypoint")), _listed(given.get("Cmd"))
    if entrypoint:
        return ([w for w in entrypoint if w] or None), cmd
    base = list(image.entrypoint) if image.entrypoint is not None else None
    if not cmd:
        cmd = list(image.cmd) if image.cmd is not None else None
    if base is None and given.get("Entrypoint") == []:
        base = []
    return base, cmd


def _listed(value: Any) -> list[str] | None:
    if value is None or value == []:
        return None
    return [value] if isinstance(value, str) else list(value)


def planned_args(record: ContainerRecord, image: Image | None) -> tuple[str, ...]:
    """The program and its arguments before the first start."""
    entrypoint, cmd = _program(record.config, image.config if image else ImageConfig())
    return (*(entrypoint or ()), *(cmd or ()))


def _graph(status: ContainerStatus) -> dict[str, Any]:
    """MergedDir is how the machine sees the root filesystem of a running container."""
    data = {
        "LowerDir": ":".join(status.lower),
        "MergedDir": f"/proc/{status.pid}/root" if status.pid else "",
        "UpperDir": status.upper,
        "WorkDir": str(Path(status.upper).with_name("work")) if status.upper else "",
    }
    return {"Name": "overlay2", "Data": {k: v for k, v in data.items() if v} or None}


def mount_views(record: ContainerRecord, status: ContainerStatus) -> list[dict[str, Any]]:
    """Mounts as published; before the first start as asked for.

    What came as `--tmpfs` is HostConfig.Tmpfs alone. The mode is the text of a bind's options; a
    volume that was named has Docker's default label.
    """
    if not (status.mounts or status.spec.mounts):
        return []
    mounts = status.mounts or tuple(
        (m.kind, m.source, m.source, m.target, "", not m.readonly, m.propagation)
        for m in status.spec.mounts
    )
    modes = dict(_modes(record))
    hidden = {posixpath.normpath(target) for target in record.host.get("Tmpfs") or {}}
    return [
        _mount(*mount, mode=modes.get(posixpath.normpath(mount[3]), ""))
        for mount in mounts
        if not (mount[0] == "tmpfs" and posixpath.normpath(mount[3]) in hidden)
    ]


def _modes(record: ContainerRecord) -> Iterator[tuple[str, str]]:
    for text in record.host.get("Binds") or ():
        parts = text.split(":")
        if len(parts) > 1:
            mode = parts[2] if len(parts) > 2 else "" if parts[0].startswith("/") else "z"
            yield posixpath.normpath(parts[1]), mode
    for mount in record.host.get("Mounts") or ():
        if mount.get("Type") == "volume":
            yield posixpath.normpath(mount.get("Target") or ""), "z"


def _mount(
    kind: str,
    name: str,
    source: str,
    target: str,
    _: str,
    writable: bool,
    propagation: str,
    *,
    mode: str,
) -> dict[str, Any]:
    view: dict[str, Any] = {"Type": kind}
    if kind == "volume":
        view["Name"] = name
        view["Driver"] = "local"
    view |= {
        "Source": source if kind != "tmpfs" else "",
        "Destination": target,
        "Mode": mode,
        "RW": writable,
        "Propagation": propagation or ("rprivate" if kind == "bind" else ""),
    }
    return view


def _network_settings(
    record: ContainerRecord,
    status: ContainerStatus,
    names: dict[str, str],
    version: tuple[int, int],
) -> dict[str, Any]:
    networks = endpoint_views(record, status, names, version)
    network = joined(status)
    key = network.path if network else ""
    if network and record.host.get("NetworkMode") == "host":
        key = "/proc/1/ns/net"
    first: dict[str, Any] = networks.get("bridge", {})
    return {
        "Bridge": "",
        "SandboxID": record.id if network else "",
        "SandboxKey": key,
        "Ports": port_map(status, record),
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        "EndpointID": first.get("EndpointID", ""),
        "Gateway": first.get("Gateway", ""),
        "GlobalIPv6Address": first.get("GlobalIPv6Address", ""),
        "GlobalIPv6PrefixLen": first.get("GlobalIPv6PrefixLen", 0),
        "IPAddress": first.get("IPAddress", ""),
        "IPPrefixLen": first.get("IPPrefixLen", 0),
        "IPv6Gateway": first.get("IPv6Gateway", ""),
        "MacAddress": first.get("MacAddress", ""),
        "Networks": networks,
    }
