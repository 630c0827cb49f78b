"""A container as `GET /containers/{id}/json` and `GET /containers/json` show it. Pure."""

from __future__ import annotations

import posixpath
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from sagong.contracts.image import Image, ImageConfig
from sagong.contracts.node import ContainerStatus, HealthState, StatusState
from sagong_docker.moment import moment_text, nanos_text
from sagong_docker.network_view import endpoint_views, joined, port_list, port_map
from sagong_docker.record import ContainerRecord

__all__ = ["environment", "inspect_view", "list_view", "merged_config", "status_text"]

_HOST_DEFAULTS: dict[str, Any] = {
    "Binds": None,
    "ContainerIDFile": "",
    "LogConfig": {"Type": "json-file", "Config": {}},
    "NetworkMode": "bridge",
    "PortBindings": {},
    "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
    "AutoRemove": False,
    "VolumeDriver": "",
    "VolumesFrom": None,
    "ConsoleSize": [0, 0],
    "CapAdd": None,
    "CapDrop": None,
    "CgroupnsMode": "private",
    "Dns": None,
    "DnsOptions": None,
    "DnsSearch": None,
    "ExtraHosts": None,
    "GroupAdd": None,
    "IpcMode": "private",
    "Cgroup": "",
    "Links": None,
    "OomScoreAdj": 0,
    "PidMode": "",
    "Privileged": False,
    "PublishAllPorts": False,
    "ReadonlyRootfs": False,
    "SecurityOpt": None,
    "UTSMode": "",
    "UsernsMode": "",
    "ShmSize": 64 << 20,
    "Runtime": "runc",
    "Isolation": "",
    "CpuShares": 0,
    "Memory": 0,
    "NanoCpus": 0,
    "CgroupParent": "",
    "BlkioWeight": 0,
    "BlkioWeightDevice": None,
    "BlkioDeviceReadBps": None,
    "BlkioDeviceWriteBps": None,
    "BlkioDeviceReadIOps": None,
    "BlkioDeviceWriteIOps": None,
    "CpuPeriod": 0,
    "CpuQuota": 0,
    "CpuRealtimePeriod": 0,
    "CpuRealtimeRuntime": 0,
    "CpusetCpus": "",
    "CpusetMems": "",
    "Devices": None,
    "DeviceCgroupRules": None,
    "DeviceRequests": None,
    "MemoryReservation": 0,
    "MemorySwap": 0,
    "MemorySwappiness": None,
    "OomKillDisable": False,
    "PidsLimit": None,
    "Ulimits": None,
    "CpuCount": 0,
    "CpuPercent": 0,
    "IOMaximumIOps": 0,
    "IOMaximumBandwidth": 0,
    "MaskedPaths": [
        "/proc/asound",
        "/proc/acpi",
        "/proc/interrupts",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/sys/firmware",
        "/sys/devices/virtual/powercap",
    ],
    "ReadonlyPaths": [
        "/proc/bus",
        "/proc/fs",
        "/proc/irq",
        "/proc/sys",
        "/proc/sysrq-trigger",
    ],
}
_PLACE = {"HostIp": "", "HostPort": ""}
_RATE = {"Path": "", "Rate": 0}
_FIELDS: dict[str, dict[str, Any]] = {
    "Devices": {"PathOnHost": "", "PathInContainer": "", "CgroupPermissions": ""},
    "Ulimits": {"Name": "", "Hard": 0, "Soft": 0},
    "BlkioWeightDevice": {"Path": "", "Weight": 0},
    "BlkioDeviceReadBps": _RATE,
    "BlkioDeviceWriteBps": _RATE,
    "BlkioDeviceReadIOps": _RATE,
    "BlkioDeviceWriteIOps": _RATE,
}


def inspect_view(
    record: ContainerRecord,
    status: ContainerStatus,
    names: dict[str, str],
    *,
    version: tuple[int, int],
    size: int | None = None,
) -> dict[str, Any]:
    """`docker inspect`; `names` are the networks' by id, `size` of the writable layer if asked."""
    args = status.args or _planned_args(record, status.image)
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


def host_view(record: ContainerRecord, status: ContainerStatus) -> dict[str, Any]:
    """HostConfig: what was given over the defaults, and what was updated since."""
    given = {k: v for k, v in record.host.items() if v is not None or k not in _HOST_DEFAULTS}
    view = {**_HOST_DEFAULTS, **given}
    policy = status.spec.restart
    view["RestartPolicy"] = {"Name": policy.name, "MaximumRetryCount": policy.maximum}
    log = status.spec.log
    if not (record.host.get("LogConfig") or {}).get("Type"):
        view["LogConfig"] = {"Type": log.driver, "Config": {}}
    view["LogConfig"] = {
        "Type": view["LogConfig"].get("Type"),
        "Config": view["LogConfig"].get("Config") or {},
    }
    for key, replacement in (
        ("NetworkMode", "bridge"),
        ("IpcMode", "private"),
        ("Runtime", "runc"),
        ("ShmSize", 64 << 20),
    ):
        view[key] = view[key] or replacement
    if view["NetworkMode"] == "default":
        view["NetworkMode"] = "bridge"
    view["CgroupnsMode"] = "host" if status.spec.cgroup_mode == "host" else "private"
    if view["Privileged"] or "systempaths=unconfined" in (view["SecurityOpt"] or ()):
        view |= {"MaskedPaths": None, "ReadonlyPaths": None}
    if "host" in (view["PidMode"], view["IpcMode"]) or view["Privileged"]:
        view["SecurityOpt"] = [*(view["SecurityOpt"] or ()), "label=disable"]
    if view["MemorySwappiness"] == -1:
        view["MemorySwappiness"] = None
    if view["Memory"] and not view["MemorySwap"]:
        view["MemorySwap"] = 2 * int(view["Memory"])
    return view | _whole(view)


def _whole(view: dict[str, Any]) -> dict[str, Any]:
    """What is shown with all its fields, be they given or not."""
    found: dict[str, Any] = {
        key: [{**fields, **each} for each in view[key]]
        for key, fields in _FIELDS.items()
        if view.get(key)
    }
    if view["PortBindings"]:
        found["PortBindings"] = {
            port: places and [{**_PLACE, **each} for each in places]
            for port, places in view["PortBindings"].items()
        }
    return found


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
    if own := _own_mac(record):
        view.setdefault("MacAddress", own)
    if "StopSignal" not in view and image.stop_signal:
        view["StopSignal"] = image.stop_signal
    if "Healthcheck" not in view and status.image and image.healthcheck:
        view["Healthcheck"] = msgspec.json.decode(image.healthcheck)
    return view


def _own_mac(record: ContainerRecord) -> str:
    """The address that was asked for on its main network, which older clients look for here."""
    mode = str(record.host.get("NetworkMode") or "bridge").replace("default", "bridge")
    given = (record.networking.get("EndpointsConfig") or {}).get(mode) or {}
    return str(given.get("MacAddress") or "")


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


def _planned_args(record: ContainerRecord, image: Image | None) -> tuple[str, ...]:
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


def list_view(
    record: ContainerRecord,
    status: ContainerStatus,
    names: dict[str, str],
    *,
    version: tuple[int, int],
    size: int | None = None,
) -> dict[str, Any]:
    """A line of `docker ps`."""
    args = status.args or _planned_args(record, status.image)
    image = status.image
    view: dict[str, Any] = {
        "Id": record.id,
        "Names": [f"/{record.name}"],
        "Image": _shown_image(record, image),
        "ImageID": image.id if image else "",
        "Command": " ".join((*args[:1], *(_quoted(word) for word in args[1:]))),
        "Created": record.created // 10**9,
        "Ports": port_list(status, record),
        "Labels": {**dict(image.config.labels if image else ()), **record.labels},
        "State": str(status.state),
        "Status": status_text(status, time.time()),
        "HostConfig": {
            "NetworkMode": str(record.host.get("NetworkMode") or "bridge").replace(
                "default", "bridge"
            )
        },
        "NetworkSettings": {"Networks": _brief(record, status, names, version)},
        "Mounts": mount_views(record, status),
    }
    if size is not None:
        sizes = {"SizeRw": size, "SizeRootFs": size + (image.size if image else 0)}
        view |= {key: value for key, value in sizes.items() if value}
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


def _shown_image(record: ContainerRecord, image: Image | None) -> str:
    """The name as given; its id when the name now means another image."""
    name = record.image
    if image is None or name.startswith("sha256:"):
        return name
    known = {t for tag in image.tags for t in (tag, tag.removesuffix(":latest"))}
    if name in known or "@" in name or not image.tags or image.id.startswith(f"sha256:{name}"):
        return name
    return name if name.startswith(("docker.io/", "index.docker.io/")) else image.id


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
