"""What clients of typed languages read answers into: each field's type, and whether it may be null.

The client libraries of Rust, Java, .NET and Go refuse an answer as a whole when a field that they
count on is missing, is null where they have no room for that, or is of another type. These tables
say what API 1.51 promises (and what Docker Engine keeps): a name with `?` may be missing, `Maybe`
may be null, `OneOf` is an enumeration, `MOMENT` a time of RFC 3339, a dictionary with the key `str`
has any keys.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

__all__ = ["ANSWERS", "CONTAINER", "EVENT", "STATS", "Maybe", "OneOf", "faults"]


@dataclass(frozen=True)
class Maybe:
    """It, or null."""

    of: Any


@dataclass(frozen=True)
class OneOf:
    """One of these."""

    values: tuple[Any, ...]


MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_ID = re.compile(r"[0-9a-f]{64}")
_LABELS = {str: str}


def faults(wanted: Any, found: Any, path: str = "") -> Iterator[str]:
    """Where an answer is not what the table says."""
    match wanted:
        case Maybe():
            if found is not None:
                yield from faults(wanted.of, found, path)
        case OneOf():
            if found not in wanted.values:
                yield f"{path}: {found!r} is none of {wanted.values}"
        case re.Pattern():
            if not isinstance(found, str) or not wanted.fullmatch(found):
                yield f"{path}: {found!r}"
        case list():
            yield from _in_list(wanted[0], found, path)
        case dict():
            yield from _in_object(wanted, found, path)
        case _:
            # A bool is an int to Python alone.
            if type(found) is not wanted and not (wanted is float and type(found) is int):
                yield f"{path}: {found!r} is no {wanted.__name__}"


def _in_list(wanted: Any, found: Any, path: str) -> Iterator[str]:
    if not isinstance(found, list):
        yield f"{path}: {found!r} is no list"
        return
    for number, one in enumerate(found):
        yield from faults(wanted, one, f"{path}[{number}]")


def _in_object(wanted: dict[Any, Any], found: Any, path: str) -> Iterator[str]:
    if not isinstance(found, dict):
        yield f"{path}: {found!r} is no object"
        return
    if str in wanted:
        for key, one in found.items():
            yield from faults(wanted[str], one, f"{path}.{key}")
        return
    for key, type_ in wanted.items():
        name = key.removesuffix("?")
        if name in found:
            yield from faults(type_, found[name], f"{path}.{name}")
        elif name == key:
            yield f"{path}.{name} is missing"


def _all(type_: Any, names: str) -> dict[str, Any]:
    return dict.fromkeys(names.split(), type_)


_ADDRESSES = Maybe([{"Addr": str, "PrefixLen": int}])
_PORTS = {str: Maybe([{"HostIp": str, "HostPort": str}])}
_HEALTHCHECK = {"Test?": Maybe([str]), **_all(int, "Interval? Timeout? StartPeriod? Retries?")}
_IMAGE_CONFIG = {
    **_all(str, "User WorkingDir"),
    **_all(Maybe([str]), "Env Cmd Entrypoint"),
    "Volumes": Maybe({str: {}}),
    "Labels": Maybe(_LABELS),
    **_all(Maybe([str]), "OnBuild Shell?"),
    "ExposedPorts?": {str: {}},
    "Healthcheck?": _HEALTHCHECK,
    "StopSignal?": str,
}
_CONFIG = {
    **_IMAGE_CONFIG,
    **_all(str, "Hostname Domainname Image"),
    **_all(bool, "AttachStdin AttachStdout AttachStderr Tty OpenStdin StdinOnce"),
    "Labels": _LABELS,
    "StopTimeout?": int,
}
_HOST = {
    **_all(str, "NetworkMode VolumeDriver CgroupnsMode IpcMode Cgroup PidMode UTSMode UsernsMode"),
    **_all(str, "ContainerIDFile CgroupParent CpusetCpus CpusetMems Runtime? Isolation"),
    **_all(bool, "AutoRemove Privileged PublishAllPorts ReadonlyRootfs"),
    **_all(
        int, "CpuShares Memory NanoCpus BlkioWeight CpuPeriod CpuQuota CpuRealtimePeriod ShmSize"
    ),
    **_all(int, "CpuRealtimeRuntime MemoryReservation MemorySwap CpuCount CpuPercent OomScoreAdj"),
    **_all(int, "IOMaximumIOps IOMaximumBandwidth"),
    **_all(Maybe(int), "MemorySwappiness PidsLimit"),
    **_all(Maybe(bool), "OomKillDisable Init?"),
    **_all(Maybe([str]), "Binds VolumesFrom CapAdd CapDrop Dns DnsOptions DnsSearch ExtraHosts"),
    **_all(Maybe([str]), "GroupAdd Links SecurityOpt DeviceCgroupRules MaskedPaths ReadonlyPaths"),
    **_all(Maybe([{"Path": str, "Rate": int}]), "BlkioDeviceReadBps BlkioDeviceWriteBps"),
    **_all(Maybe([{"Path": str, "Rate": int}]), "BlkioDeviceReadIOps BlkioDeviceWriteIOps"),
    "BlkioWeightDevice": Maybe([{"Path": str, "Weight": int}]),
    "ConsoleSize": [int],
    "LogConfig": {"Type": str, "Config": Maybe(_LABELS)},
    "PortBindings": Maybe(_PORTS),
    "RestartPolicy": {
        "Name": OneOf(("", "no", "always", "unless-stopped", "on-failure")),
        "MaximumRetryCount": int,
    },
    "Devices": Maybe([_all(str, "PathOnHost PathInContainer CgroupPermissions")]),
    "DeviceRequests": Maybe([{"Driver": str, "Count": int}]),
    "Ulimits": Maybe([{"Name": str, "Hard": int, "Soft": int}]),
    "Mounts?": Maybe([{"Type": OneOf(("bind", "volume", "tmpfs", "image")), "Target": str}]),
    **_all(_LABELS, "Tmpfs? Sysctls? StorageOpt? Annotations?"),
}
_ENDPOINT = {
    **_all(str, "MacAddress NetworkID EndpointID Gateway IPAddress IPv6Gateway GlobalIPv6Address"),
    **_all(int, "IPPrefixLen GlobalIPv6PrefixLen GwPriority"),
    **_all(Maybe([str]), "Links Aliases DNSNames"),
    "DriverOpts": Maybe(_LABELS),
    "IPAMConfig": Maybe({"IPv4Address?": str, "IPv6Address?": str, "LinkLocalIPs?": Maybe([str])}),
}
_MOUNT = {
    "Type": OneOf(("bind", "volume", "tmpfs", "image")),
    **_all(str, "Name? Source Destination Driver? Mode Propagation"),
    "RW": bool,
}
_HEALTH = {
    "Status": OneOf(("none", "starting", "healthy", "unhealthy")),
    "FailingStreak": int,
    "Log": Maybe([{"Start": MOMENT, "End": MOMENT, "ExitCode": int, "Output": str}]),
}
_STATES = OneOf(("created", "running", "paused", "restarting", "removing", "exited", "dead"))
_STATE = {
    "Status": _STATES,
    **_all(bool, "Running Paused Restarting OOMKilled Dead"),
    **_all(int, "Pid ExitCode"),
    "Error": str,
    **_all(MOMENT, "StartedAt FinishedAt"),
    "Health?": _HEALTH,
}
_GRAPH = {"Name": str, "Data": {str: str}}
CONTAINER = {
    "Id": _ID,
    "Image": _DIGEST,
    "Created": MOMENT,
    **_all(str, "Path ResolvConfPath HostnamePath HostsPath LogPath Name Driver Platform"),
    **_all(str, "MountLabel ProcessLabel AppArmorProfile"),
    "RestartCount": int,
    "Args": [str],
    "ExecIDs": Maybe([_ID]),
    "State": _STATE,
    "HostConfig": _HOST,
    "Config": _CONFIG,
    "GraphDriver": _GRAPH,
    "Mounts": [_MOUNT],
    **_all(int, "SizeRw? SizeRootFs?"),
    "NetworkSettings": {
        **_all(str, "Bridge SandboxID SandboxKey EndpointID Gateway GlobalIPv6Address IPAddress"),
        **_all(str, "IPv6Gateway MacAddress LinkLocalIPv6Address"),
        **_all(int, "GlobalIPv6PrefixLen IPPrefixLen LinkLocalIPv6PrefixLen"),
        **_all(_ADDRESSES, "SecondaryIPAddresses SecondaryIPv6Addresses"),
        "HairpinMode": bool,
        "Ports": Maybe(_PORTS),
        "Networks": {str: _ENDPOINT},
    },
}
_LINE = {
    "Id": _ID,
    "Names": [str],
    **_all(str, "Image Command Status"),
    "ImageID": _DIGEST,
    "Created": int,
    "Ports": [
        {
            **_all(int, "PrivatePort PublicPort?"),
            "IP?": str,
            "Type": OneOf(("tcp", "udp", "sctp")),
        }
    ],
    "Labels": _LABELS,
    "State": _STATES,
    "HostConfig": {"NetworkMode": str, "Annotations?": _LABELS},
    "NetworkSettings": {"Networks": {str: _ENDPOINT}},
    "Mounts": [_MOUNT],
    **_all(int, "SizeRw? SizeRootFs?"),
}
_IMAGE_LINE = {
    "Id": _DIGEST,
    "ParentId": str,
    **_all([str], "RepoTags RepoDigests"),
    **_all(int, "Created Size SharedSize Containers"),
    "Labels": Maybe(_LABELS),
}
_IMAGE = {
    "Id": _DIGEST,
    **_all([str], "RepoTags RepoDigests"),
    **_all(str, "Parent Comment DockerVersion Author Architecture Os"),
    "Created": MOMENT,
    "Size": int,
    "GraphDriver": _GRAPH,
    "RootFS": {"Type": str, "Layers": [_DIGEST]},
    "Metadata": {"LastTagTime": MOMENT},
    "Config": {**_IMAGE_CONFIG, "User": str},
}
_HISTORY = {
    **_all(str, "Id CreatedBy Comment"),
    **_all(int, "Created Size"),
    "Tags": Maybe([str]),
}
_SUBNET = {"Subnet": str, **_all(str, "IPRange? Gateway?"), "AuxiliaryAddresses?": _LABELS}
_NETWORK_LINE = {
    **_all(str, "Name Driver"),
    "Id": _ID,
    "Created": MOMENT,
    "Scope": OneOf(("local", "swarm", "global")),
    **_all(bool, "EnableIPv4 EnableIPv6 Internal Attachable Ingress ConfigOnly"),
    "IPAM": {"Driver": str, "Options": Maybe(_LABELS), "Config": Maybe([_SUBNET])},
    "ConfigFrom": {"Network": str},
    **_all(_LABELS, "Options Labels"),
}
_JOINED = _all(str, "Name EndpointID MacAddress IPv4Address IPv6Address")
_NETWORK = {**_NETWORK_LINE, "Containers": {str: _JOINED}}
_VOLUME = {
    **_all(str, "Name Driver Mountpoint"),
    "CreatedAt": MOMENT,
    "Scope": OneOf(("local", "global")),
    **_all(Maybe(_LABELS), "Labels Options"),
    "UsageData?": {"Size": int, "RefCount": int},
}
_EXEC = {
    **_all(_ID, "ID ContainerID"),
    **_all(bool, "Running OpenStdin OpenStderr OpenStdout CanRemove"),
    "ExitCode": Maybe(int),
    "DetachKeys": str,
    "Pid": int,
    "ProcessConfig": {
        **_all(bool, "tty privileged"),
        "entrypoint": str,
        "arguments": [str],
        "user?": str,
    },
}
_REGISTRIES = {
    "InsecureRegistryCIDRs": [str],
    "IndexConfigs": {
        str: {"Name": str, "Mirrors": [str], "Secure": bool, "Official": bool},
    },
    "Mirrors": Maybe([str]),
}
_INFO = {
    **_all(str, "ID Name Driver SystemTime LoggingDriver KernelVersion OperatingSystem OSType"),
    **_all(str, "OSVersion Architecture IndexServerAddress DockerRootDir HttpProxy HttpsProxy"),
    **_all(str, "NoProxy ServerVersion DefaultRuntime InitBinary Isolation"),
    "CgroupDriver": OneOf(("cgroupfs", "systemd", "none")),
    "CgroupVersion": OneOf(("1", "2")),
    **_all(int, "Containers ContainersRunning ContainersPaused ContainersStopped Images NFd NCPU"),
    **_all(int, "NGoroutines NEventsListener MemTotal"),
    **_all(bool, "MemoryLimit SwapLimit CpuCfsPeriod CpuCfsQuota CPUShares CPUSet PidsLimit"),
    **_all(bool, "OomKillDisable IPv4Forwarding Debug LiveRestoreEnabled ExperimentalBuild"),
    "DriverStatus": [[str]],
    "Plugins": _all(Maybe([str]), "Volume Network Authorization Log"),
    "RegistryConfig": _REGISTRIES,
    "GenericResources": Maybe([{}]),
    "Labels": [str],
    "Runtimes": {str: {"path?": str}},
    "Swarm": {
        **_all(str, "NodeID NodeAddr Error"),
        "LocalNodeState": OneOf(("inactive",)),
        "ControlAvailable": bool,
        "RemoteManagers": Maybe([{}]),
    },
    **_all({"ID": str}, "ContainerdCommit RuncCommit InitCommit"),
    **_all(Maybe([str]), "SecurityOptions Warnings"),
    "DefaultAddressPools?": [{"Base": str, "Size": int}],
}
_VERSION = {
    **_all(str, "Version ApiVersion MinAPIVersion GitCommit GoVersion Os Arch KernelVersion"),
    "BuildTime": str,
    "Platform": {"Name": str},
    "Components": [{"Name": str, "Version": str, "Details?": Maybe(_LABELS)}],
}
_USE = {
    "LayersSize": int,
    # Docker Engine has null here for an image without a digest, and [] in a list of images.
    "Images": [{**_IMAGE_LINE, "RepoDigests": Maybe([str])}],
    "Containers": [_LINE],
    "Volumes": [{**_VOLUME, "UsageData": {"Size": int, "RefCount": int}}],
    "BuildCache": Maybe([{"ID": str, "Type": str, "InUse": bool, "Shared": bool, "Size": int}]),
}
_CPU = {
    "cpu_usage": {
        **_all(int, "total_usage usage_in_kernelmode usage_in_usermode"),
        "percpu_usage?": Maybe([int]),
    },
    "throttling_data": _all(int, "periods throttled_periods throttled_time"),
    **_all(int, "system_cpu_usage? online_cpus?"),
}
_BLOCKS = Maybe([{"major": int, "minor": int, "op": str, "value": int}])
STATS = {
    "id": _ID,
    "name": str,
    **_all(MOMENT, "read preread"),
    "pids_stats": _all(int, "current? limit?"),
    "num_procs": int,
    **_all(_CPU, "cpu_stats precpu_stats"),
    "memory_stats": {**_all(int, "usage? limit? max_usage? failcnt?"), "stats?": {str: int}},
    "blkio_stats": _all(
        _BLOCKS,
        "io_service_bytes_recursive io_serviced_recursive io_queue_recursive "
        "io_service_time_recursive io_wait_time_recursive io_merged_recursive io_time_recursive "
        "sectors_recursive",
    ),
    "storage_stats": {},
    "networks?": {
        str: _all(
            int,
            "rx_bytes rx_packets rx_errors rx_dropped tx_bytes tx_packets tx_errors tx_dropped",
        )
    },
}
EVENT = {
    "Type": OneOf(("builder", "container", "daemon", "image", "network", "plugin", "volume")),
    "Action": str,
    "Actor": {"ID": str, "Attributes": _LABELS},
    "scope": OneOf(("local", "swarm")),
    **_all(int, "time timeNano"),
}

# By the request; `rich`, `least` and `gone` are containers, `exec` is an exec of `rich`.
ANSWERS: dict[str, Any] = {
    "GET /containers/rich/json?size=1": CONTAINER,
    "GET /containers/least/json": CONTAINER,
    "GET /containers/gone/json": CONTAINER,
    "GET /containers/json?all=1&size=1": [_LINE],
    "GET /containers/rich/top": {"Titles": [str], "Processes": [[str]]},
    "GET /containers/rich/changes": Maybe([{"Path": str, "Kind": OneOf((0, 1, 2))}]),
    "GET /containers/rich/stats?stream=0": STATS,
    "GET /containers/gone/stats?stream=0": STATS,
    "POST /containers/gone/wait": {"StatusCode": int, "Error?": Maybe({"Message?": str})},
    "POST /containers/rich/update {}": {"Warnings": Maybe([str])},
    "GET /exec/$exec/json": _EXEC,
    "GET /images/json?all=1&shared-size=1": [_IMAGE_LINE],
    "GET /images/$image/json": _IMAGE,
    "GET /images/committed:1/json": _IMAGE,
    "GET /images/committed:1/history": [_HISTORY],
    "GET /networks": [_NETWORK_LINE],
    "GET /networks/net": _NETWORK,
    "GET /networks/host": _NETWORK,
    "GET /volumes": {"Volumes": [_VOLUME], "Warnings": Maybe([str])},
    "GET /volumes/vol": _VOLUME,
    "GET /info": _INFO,
    "GET /version": _VERSION,
    "GET /system/df": _USE,
    "GET /plugins": [{}],
    "POST /containers/prune": {"ContainersDeleted": Maybe([_ID]), "SpaceReclaimed": int},
    "POST /networks/prune": {"NetworksDeleted": Maybe([str])},
    "POST /volumes/prune": {"VolumesDeleted": Maybe([str]), "SpaceReclaimed": int},
    "DELETE /images/committed:1": [{"Untagged?": str, "Deleted?": str}],
    "POST /images/prune": {
        "ImagesDeleted": Maybe([{"Untagged?": str, "Deleted?": str}]),
        "SpaceReclaimed": int,
    },
    "POST /build/prune": {"CachesDeleted": Maybe([str]), "SpaceReclaimed": int},
}
