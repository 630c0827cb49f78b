"""A create body as clients of older versions of the API mean it. Pure.

Fields that a version does not know are ignored, or refused where ignoring them would surprise.
"""

from __future__ import annotations

from typing import Any

from sagong.errors import InvalidArgument

__all__ = ["shaped"]

_WITHOUT_INTERFACE = ("container", "host", "none")
_OPTIONS = {"VolumeOptions": "volume", "BindOptions": "bind", "TmpfsOptions": "tmpfs"}


def shaped(document: dict[str, Any], version: tuple[int, int]) -> dict[str, Any]:
    """The body without what its version of the API does not have."""
    host = dict(_table(document, "HostConfig"))
    networking = dict(_table(document, "NetworkingConfig"))
    _check_mounts(host, version)
    mode = str(host.get("NetworkMode") or "").partition(":")[0]
    if version < (1, 44) and document.get("MacAddress") and mode in _WITHOUT_INTERFACE:
        raise InvalidArgument("conflicting options: mac-address and the network mode")
    endpoints = networking.get("EndpointsConfig")
    if version < (1, 44) and isinstance(endpoints, dict) and len(endpoints) > 1:
        names = ", ".join(sorted(endpoints))
        raise InvalidArgument(
            f"Container cannot be created with multiple network endpoints: {names}"
        )
    if version < (1, 42):
        host.pop("ConsoleSize", None)
    if version < (1, 43):
        host.pop("Annotations", None)
    if version < (1, 40) and not host.get("IpcMode"):
        host["IpcMode"] = "shareable"
    changed = {**document, "HostConfig": host, "NetworkingConfig": networking}
    health = document.get("Healthcheck")
    if version < (1, 44) and isinstance(health, dict):
        changed["Healthcheck"] = {k: v for k, v in health.items() if k != "StartInterval"}
    return changed


def _table(document: dict[str, Any], key: str) -> dict[str, Any]:
    found = document.get(key)
    if found is not None and not isinstance(found, dict):
        raise InvalidArgument(f"invalid JSON: {key} is an object")
    return found or {}


def _check_mounts(host: dict[str, Any], version: tuple[int, int]) -> None:
    """Options of another type of mount; types and options that came later."""
    mounts = host.get("Mounts")
    if not isinstance(mounts, list):
        return
    kept = []
    for mount in mounts:
        if not isinstance(mount, dict):
            raise InvalidArgument("invalid JSON: HostConfig.Mounts is a list of objects")
        kind = mount.get("Type")
        foreign = [name for name, of in _OPTIONS.items() if mount.get(name) and kind != of]
        if foreign and version >= (1, 42):
            raise InvalidArgument(f'{foreign[0]} must not be specified on mount type "{kind}"')
        if version < (1, 48) and kind == "image":
            raise InvalidArgument('Mount type "Image" needs API v1.48 or newer')
        volume = mount.get("VolumeOptions")
        if version < (1, 45) and isinstance(volume, dict) and volume.get("Subpath"):
            raise InvalidArgument("VolumeOptions.Subpath needs API v1.45 or newer")
        dropped = [name for name in foreign if name != "BindOptions"]
        kept.append({k: v for k, v in mount.items() if k not in dropped})
    host["Mounts"] = kept if version >= (1, 44) else [_read_only_itself(each) for each in kept]


def _read_only_itself(mount: dict[str, Any]) -> dict[str, Any]:
    """Before 1.44 what is mounted below a read-only bind stays as it is."""
    options = mount.get("BindOptions") or {}
    if mount.get("Type") != "bind" or not isinstance(options, dict):
        return mount
    if options.get("ReadOnlyForceRecursive"):
        raise InvalidArgument("BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer")
    if not mount.get("ReadOnly"):
        return mount
    return {**mount, "BindOptions": {**options, "ReadOnlyNonRecursive": True}}
