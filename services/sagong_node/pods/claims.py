"""From a pod's volume to what backs it: paths of the host, lent volumes, claims. Pure."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping

import msgspec

from sagong.errors import FailedPrecondition, InvalidArgument
from sagong.model import quantity
from sagong.model.k8s.core_v1 import (
    EmptyDirVolumeSource,
    HostPathVolumeSource,
    PersistentVolume,
    PersistentVolumeClaim,
    Pod,
    Volume,
)

__all__ = [
    "SHARED_MEMORY_SIZE",
    "Lent",
    "attributes_of",
    "bound",
    "check_type",
    "claim_name",
    "lent_memory",
    "lent_persistent",
    "shared_memory",
    "shared_name",
]

_TYPES = {
    "Directory": stat.S_ISDIR,
    "DirectoryOrCreate": stat.S_ISDIR,
    "File": stat.S_ISREG,
    "FileOrCreate": stat.S_ISREG,
    "Socket": stat.S_ISSOCK,
    "CharDevice": stat.S_ISCHR,
    "BlockDevice": stat.S_ISBLK,
}
SHARED_MEMORY_SIZE = 64 << 20
_OWN = ("/tmp/", "/dev/", "/proc/")


class Lent(msgspec.Struct, frozen=True):
    """A volume that slot `volume` lends; `made` ones are this pod's own and go with it.

    What is in `kept` ones outlives the pod: they go with their PersistentVolume.
    """

    name: str
    driver: str = "local"
    options: tuple[tuple[str, str], ...] = ()
    readonly: bool = False
    made: bool = False
    kept: bool = False


def lent_memory(pod: Pod, volume: Volume, source: EmptyDirVolumeSource) -> Lent:
    """An emptyDir in memory: a tmpfs that all containers of the pod see."""
    group = pod.spec.security_context.fs_group if pod.spec.security_context else None
    options = ["mode=2777" if group is not None else "mode=1777"]
    if source.size_limit is not None and quantity.value(source.size_limit):
        options.append(f"size={quantity.value(source.size_limit)}")
    if group is not None:
        options.append(f"gid={group}")
    return Lent(
        name=f"pod-{pod.metadata.uid}-{volume.name}",
        options=(("type", "tmpfs"), ("device", "tmpfs"), ("o", ",".join(options))),
        made=True,
    )


def shared_memory(pod: Pod) -> Lent | None:
    """What all containers of a pod have at /dev/shm; None if there is one, which needs none to share.

    With the host's ipc namespace they have the host's.
    """
    spec = pod.spec
    if spec.host_ipc or len(spec.containers) + len(spec.init_containers) < 2:
        return None
    return Lent(
        name=shared_name(pod.metadata.uid),
        options=(
            ("type", "tmpfs"),
            ("device", "shm"),
            ("o", f"nosuid,nodev,noexec,mode=1777,size={SHARED_MEMORY_SIZE}"),
        ),
        made=True,
    )


def shared_name(uid: str) -> str:
    """The name of that volume; no other volume of a pod has a dot in its name."""
    return f"pod-{uid}.shm"


def claim_name(pod: Pod, volume: Volume) -> str:
    """The claim of a persistent or generic ephemeral volume; "" if it is neither."""
    if volume.persistent_volume_claim:
        return volume.persistent_volume_claim.claim_name
    return f"{pod.metadata.name}-{volume.name}" if volume.ephemeral else ""


def lent_persistent(
    claim: PersistentVolumeClaim, volume: PersistentVolume | None
) -> Lent | HostPathVolumeSource:
    """What backs a bound claim: a path of the machine, or a volume to be lent."""
    name = claim.metadata.name
    if not claim.spec.volume_name or claim.status.phase != "Bound":
        raise FailedPrecondition(f'PersistentVolumeClaim "{name}" is not bound')
    if volume is None:
        raise FailedPrecondition(f'persistentvolume "{claim.spec.volume_name}" not found')
    spec = volume.spec
    if spec.claim_ref is not None and spec.claim_ref.uid not in ("", claim.metadata.uid):
        raise FailedPrecondition(f'PersistentVolumeClaim "{name}" is bound to another volume')
    readonly = "ReadOnlyMany" in spec.access_modes and len(spec.access_modes) == 1
    if spec.host_path:
        return spec.host_path
    if spec.local:
        return HostPathVolumeSource(path=spec.local.path, type="Directory")
    if spec.nfs:
        return nfs(f"pv-{volume.metadata.uid}", spec.nfs.server, spec.nfs.path, readonly=readonly)
    if spec.csi:
        attributes = tuple(sorted(spec.csi.volume_attributes.items()))
        driver = attributes_of(spec.csi.driver)
        return Lent(spec.csi.volume_handle, driver, attributes, readonly=readonly, kept=True)
    raise InvalidArgument(f"persistentvolume {volume.metadata.name} is of an unsupported type")


def bound(volume: PersistentVolume, path: str) -> Lent:
    """A path of the machine as a volume, so that parts of it can be held."""
    options = (("type", "none"), ("device", path), ("o", "bind"))
    return Lent(f"pv-{volume.metadata.uid or volume.metadata.name}", "local", options)


def attributes_of(driver: str) -> str:
    """The name by which slot `volume` knows a CSI driver; instances of its own have plain ones."""
    return driver.removesuffix(".sagong.io")


def nfs(name: str, server: str, path: str, *, readonly: bool) -> Lent:
    """An export as Docker's volumes write it."""
    options = (("type", "nfs"), ("device", f":{path}"), ("o", f"addr={server}"))
    return Lent(name, "local", options, readonly=readonly)


def check_type(source: HostPathVolumeSource, *, found: Mapping[str, int] | None = None) -> None:
    """Refuse a hostPath that is there but of another type.

    What this process does not see is left to the runtime, which refuses what is missing; `found` are
    known modes, for tests.
    """
    wanted = _TYPES.get(source.type or "")
    if source.type and wanted is None:
        raise InvalidArgument(f"hostPath type {source.type!r} is unknown")
    if wanted is None or source.path.startswith(_OWN):
        return
    try:
        mode = found[source.path] if found is not None else os.stat(source.path).st_mode
    except (OSError, KeyError):
        return
    if not wanted(mode):
        kind = (source.type or "").removesuffix("OrCreate")
        raise FailedPrecondition(f"hostPath type check failed: {source.path} is not a {kind}")
