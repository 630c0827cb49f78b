"""From a `RunSpec`'s mounts, devices and paths to operations; pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from sagong.contracts.runtime import Mount, RunSpec
from sagong.errors import InvalidArgument
from sagong.linux import mounts
from sagong_runtime_linux import process_operations
from sagong_runtime_linux.device_operations import (
    DefaultDevices,
    HostDevice,
    HostDevices,
    OpenTerminal,
)
from sagong_runtime_linux.mount_operations import (
    AttachTree,
    DetachOldRoot,
    MaskPath,
    MountCgroups,
    MountFilesystem,
    MountRoot,
    OpenLent,
    OpenOverlay,
    OpenTree,
    PivotRoot,
    ReadOnlyPath,
    ReadOnlyRoot,
    SetPropagation,
)
from sagong_runtime_linux.user_operations import OpenMappedRoot, PlaceRoot

__all__ = ["mounts_after", "mounts_before", "volatile_workdir"]

_MEMORY = "/dev/shm"
# The IPC namespace of a process, which is that of a container.
_PROCESS = re.compile(r"/proc/[0-9]+/ns/ipc")
_MAKE_SOURCE = "source"
_MAP_IDS = "idmap"
_ALL_READ_ONLY = "rro"
_BIND_FLAGS = mounts.MS_BIND | mounts.MS_REC
_NEW_FILESYSTEMS = frozenset({"tmpfs", "proc", "sysfs", "devpts", "mqueue"})


def mounts_before(spec: RunSpec, *, user: bool) -> list[Any]:
    """In the host's tree: a mount namespace, clones of what will be bound, no way back out."""
    return [
        process_operations.Unshare(("mount",)),
        *(_open(mount, user=user) for mount in spec.mounts[1:] if mount.kind == "bind"),
        *_lent(spec),
        SetPropagation("/", "rslave"),
        *(_open_overlay(mount) for mount in spec.mounts[1:] if mount.kind == "overlay"),
        _open_root(spec.mounts[0], user=user),
    ]


def _lent(spec: RunSpec) -> tuple[OpenLent, ...]:
    """Who joins the IPC namespace of another container has its shared memory, too, as in Docker."""
    path = spec.namespaces.ipc.removeprefix("path:")
    asked = any(mount.target == _MEMORY and mount.kind == "tmpfs" for mount in spec.mounts)
    if not asked or not _PROCESS.fullmatch(path):
        return ()
    return (OpenLent(_MEMORY, path.removesuffix("ipc") + "mnt"),)


def volatile_workdir(root: Mount) -> str:
    """The working directory of an overlay that need not outlive the machine, else ""."""
    options = dict(option.partition("=")[::2] for option in root.options)
    return options.get("workdir", "") if root.kind == "overlay" and "volatile" in options else ""


def _open_root(mount: Mount, *, user: bool) -> MountRoot | OpenMappedRoot:
    if mount.kind not in ("overlay", "bind", "tmpfs"):
        raise InvalidArgument(f"the root can't be of kind {mount.kind!r}: overlay, bind, tmpfs")
    options = mounts.flags_of(mount.options)
    if user:
        return OpenMappedRoot(mount.kind, mount.source, options.data)
    return MountRoot(mount.kind, mount.source, options.flags & ~_BIND_FLAGS, options.data)


def _open_overlay(mount: Mount) -> OpenOverlay:
    options = mounts.flags_of(mount.options)
    return OpenOverlay(mount.target, options.flags, options.data)


def _place_root(mount: Mount) -> PlaceRoot:
    options = mounts.flags_of(mount.options)
    return PlaceRoot(mount.kind, mount.source, options.flags & ~_BIND_FLAGS, options.data)


def _open(mount: Mount, *, user: bool) -> OpenTree:
    """A bind's clone, with its attributes on it before anybody can see it."""
    if not mount.source.startswith("/"):
        raise InvalidArgument(f"bind source {mount.source!r} must be an absolute path")
    options = mounts.flags_of(
        name for name in mount.options if name not in (_MAKE_SOURCE, _MAP_IDS, _ALL_READ_ONLY)
    )
    if options.data:
        raise InvalidArgument(f"bind options {options.data!r} of {mount.target} are unknown")
    own, attributes = 0, mounts.MOUNT_ATTR_RDONLY if _ALL_READ_ONLY in mount.options else 0
    for name in mount.options:
        if name == "ro":
            own |= mounts.MOUNT_ATTR_RDONLY
        else:
            attributes |= mounts.ATTRIBUTES.get(name, 0)
    spread = [name for name in mount.options if name in mounts.PROPAGATIONS]
    recursive = "bind" not in mount.options
    return OpenTree(
        mount.target,
        mount.source,
        recursive,
        attributes,
        spread[-1] if spread else "rprivate",
        _MAKE_SOURCE in mount.options,
        user and _MAP_IDS in mount.options,
        own,
    )


def mounts_after(
    spec: RunSpec, hierarchies: Sequence[tuple[str, str, str]], *, cgroup: str, user: bool
) -> list[Any]:
    """In the container's own tree, with the old root still at hand, until it is given up."""
    operations: list[Any] = [_place_root(spec.mounts[0]), PivotRoot()] if user else [PivotRoot()]
    for mount in spec.mounts[1:]:
        operations += _attach(mount, spec, hierarchies, cgroup)
        if mount.target.rstrip("/") == "/dev" and mount.kind == "tmpfs":
            operations += _devices(spec, user=user)
    if spec.process.tty:
        operations.append(_terminal(spec))
    operations += _restrictions(spec)
    operations.append(DetachOldRoot())
    return operations


def _attach(
    mount: Mount,
    spec: RunSpec,
    hierarchies: Sequence[tuple[str, str, str]],
    cgroup: str,
) -> list[Any]:
    if not mount.target.startswith("/"):
        raise InvalidArgument(f"mount target {mount.target!r} must be an absolute path")
    if mount.kind in ("bind", "overlay"):
        return [AttachTree(mount.target, mount.target, mount.create)]
    if mount.target == _MEMORY and _lent(spec):
        return [AttachTree(mount.target, mount.target)]
    options = mounts.flags_of(mount.options)
    if mount.kind == "cgroup":
        path = "" if spec.namespaces.cgroup == "new" else cgroup
        return [MountCgroups(mount.target, options.flags, hierarchies, path)]
    if mount.kind not in _NEW_FILESYSTEMS:
        raise InvalidArgument(f"mount kind {mount.kind!r} at {mount.target} is unknown")
    made: list[Any] = [
        MountFilesystem(mount.kind, mount.source, mount.target, options.flags, options.data)
    ]
    made += [
        SetPropagation(mount.target, name) for name in mount.options if name in mounts.PROPAGATIONS
    ]
    return made


def _devices(spec: RunSpec, *, user: bool) -> list[Any]:
    named = [HostDevice(d.source, d.target, user) for d in spec.devices]
    everything = [HostDevices("/dev", user)] if spec.privileged else []
    return [DefaultDevices("/dev", user), *everything, *named]


def _terminal(spec: RunSpec) -> OpenTerminal:
    what = spec.process
    own_dev = any(m.target.rstrip("/") == "/dev" and m.kind == "tmpfs" for m in spec.mounts)
    console = "/dev/console" if own_dev else ""
    return OpenTerminal(
        "/dev/pts/ptmx", console, what.rows, what.columns, what.user.uid, what.user.gid
    )


def _restrictions(spec: RunSpec) -> list[Any]:
    """Kernel parameters first: /proc/sys may become read-only after."""
    masked = () if spec.privileged else spec.masked_paths
    readonly = () if spec.privileged else spec.readonly_paths
    return [
        *(process_operations.WriteSysctl(key, value) for key, value in spec.sysctls),
        *(ReadOnlyPath(path) for path in readonly),
        *(MaskPath(path) for path in masked),
        *([ReadOnlyRoot()] if spec.readonly_root else []),
    ]
