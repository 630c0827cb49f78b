"""Which cgroup a container has: by its path, as a scope of systemd's, or none."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sagong.linux.cgroup_devices import DEFAULT_DEVICES
from sagong.linux.cgroup_limits import limit_writes
from sagong.shim.cgroups import resolved_limits
from sagong.shim.failure import StartError
from sagong_runtime_linux.oci.attributes import write_group, writes_of
from sagong_runtime_linux.oci.caller import has_machine
from sagong_runtime_linux.oci.containers import Container
from sagong_runtime_linux.oci.resources import limits_from

if TYPE_CHECKING:
    from sagong.linux.cgroup import CgroupLayout
    from sagong_runtime_linux.oci.scopes import Property

__all__ = ["group_of", "make_scope", "update_limits"]

_ALL_CONTROLLERS = ("cpu", "cpuset", "memory", "blkio", "pids", "devices")


def group_of(
    config: dict[str, Any], name: str, layout: CgroupLayout, *, systemd: bool
) -> dict[str, str]:
    """`cgroup`, its path below the mounts or "" for none; with systemd's manager `unit`, too."""
    path = str((config.get("linux") or {}).get("cgroupsPath") or "")
    if systemd:
        return _scope_group(path, name, layout)
    if not path and not has_machine():
        return {"cgroup": ""}
    if path.count(":") == 2 and "/" not in path:
        raise StartError(
            "invalid_argument",
            f"linux.cgroupsPath {path!r} is systemd's form, which --systemd-cgroup asks for",
        )
    # Of two leading slashes normpath(3) keeps both.
    path = path or f"/sagong-runtime/{name}"
    return {"cgroup": os.path.normpath(f"/{path.strip('/')}").strip("/")}


def _scope_group(path: str, name: str, layout: CgroupLayout) -> dict[str, str]:
    from sagong_runtime_linux.oci.scopes import scope_of
    from sagong_runtime_linux.oci.systemd import connected

    if layout.mode != "v2":
        raise StartError(
            "unimplemented",
            f"--systemd-cgroup needs cgroup version 2 alone, here it is {layout.mode}: "
            "use the cgroupfs manager",
        )
    default = "system.slice" if has_machine() else "user.slice"
    scope = scope_of(path, name, default=default)
    with connected() as manager:
        return {"cgroup": scope.path(manager.control_group()), **scope._asdict()}


def make_scope(container: Container, config: dict[str, Any], pid: int) -> None:
    """Have systemd make it, with the container's first process and its limits."""
    from sagong_runtime_linux.oci.scopes import Scope, properties_of
    from sagong_runtime_linux.oci.systemd import connected

    scope = Scope(container.facts["unit"], container.facts["slice"])
    resources = (config.get("linux") or {}).get("resources") or {}
    properties = properties_of(scope, container.id, config.get("annotations") or {})
    properties += _limits(resources, DEFAULT_DEVICES)
    with connected() as manager:
        manager.start_scope(scope.unit, properties, pid)


def _limits(resources: dict[str, Any], defaults: Sequence[str] | None) -> list[Property]:
    from sagong_runtime_linux.oci.scopes import device_properties, limit_properties
    from sagong_runtime_linux.oci.systemd import device_groups

    given = None if defaults is None else tuple(defaults)
    limits = resolved_limits(limits_from(resources, given))
    files = [(w.file, w.value) for w in limit_writes(limits, dict.fromkeys(_ALL_CONTROLLERS, 2))]
    files += [(write.second, write.value) for write in writes_of(resources)]
    found = limit_properties(files)
    if limits.devices is not None and has_machine():
        found += device_properties(limits.devices, device_groups())
    return found


def update_limits(container: Container, resources: dict[str, Any]) -> None:
    """Other limits; systemd is told first, since it may write its own anew at any time."""
    writes = writes_of(resources)
    unit = container.facts.get("unit")
    if unit:
        from sagong_runtime_linux.oci.systemd import connected

        with connected() as manager:
            manager.set_properties(unit, _limits(resources, None))
    try:
        container.cgroup().limit(resolved_limits(limits_from(resources, None)))
        write_group(container.cgroup(), writes)
    except ValueError as error:
        raise StartError("failed_precondition", str(error)) from None
