"""HostConfig of a container as it is inspected: what was given over Docker's defaults. Pure."""

from __future__ import annotations

from typing import Any

from sagong.contracts.node import MASKED_PATHS, READONLY_PATHS, ContainerStatus
from sagong_docker.record import ContainerRecord

__all__ = ["host_view"]

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
    "MaskedPaths": list(MASKED_PATHS),
    "ReadonlyPaths": list(READONLY_PATHS),
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
