"""From a container's volumeMounts to the node's mounts. Pure but for looking at subPaths."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from pathlib import Path

import msgspec

from sagong.contracts.node import FileMount
from sagong.errors import FailedPrecondition
from sagong.model.k8s.core_v1 import VolumeMount
from sagong_node.pods.claims import Lent
from sagong_node.pods.environment import expand
from sagong_node.pods.naming import AnyContainer
from sagong_node.pods.subpath import held_subpath

__all__ = ["SHARED_MEMORY", "Source", "lent_parts", "mounts_of"]

# Among the sources by this name, which no volume can have.
SHARED_MEMORY = "/dev/shm"
_PROPAGATION = {"HostToContainer": "rslave", "Bidirectional": "rshared", "None": "rprivate"}


class Source(msgspec.Struct, frozen=True):
    """Where a volume is: a path of the host, or an image. `make` lets the runtime make a missing one.

    `visible`: this process sees the path, so that subPaths can be checked here. `lent`: slot `volume`
    can hold a part of it, so that nobody swaps it for a link. `privileged` sources (hostPath) are the
    machine's own files anyway.
    """

    path: str = ""
    image: str = ""
    readonly: bool = False
    make: bool = False
    visible: bool = False
    privileged: bool = False
    lent: Lent | None = None


Held = Mapping[tuple[str, str], str]


def lent_parts(
    container: AnyContainer, sources: Mapping[str, Source], values: Mapping[str, str]
) -> list[tuple[str, str, Lent]]:
    """(volume, subPath, lent volume) of parts that slot `volume` must hold."""
    found = []
    for mount in container.volume_mounts:
        source, subpath = sources.get(mount.name), _subpath(mount, values)
        if source is not None and source.lent is not None and subpath and not source.privileged:
            found.append((mount.name, subpath, source.lent))
    return found


def mounts_of(
    container: AnyContainer,
    sources: Mapping[str, Source],
    values: Mapping[str, str],
    held: Held,
) -> tuple[FileMount, ...]:
    """Mounts in the spec's order; FailedPrecondition names a volume that can't be mounted so.

    `held` are paths of lent parts by volume and subPath.
    """
    found = [_mount(mount, sources, values, held) for mount in container.volume_mounts]
    shared = sources.get(SHARED_MEMORY)
    if shared is not None and all(mount.target != SHARED_MEMORY for mount in found):
        found.append(FileMount(kind="bind", target=SHARED_MEMORY, source=shared.path))
    return tuple(found)


def _subpath(mount: VolumeMount, values: Mapping[str, str]) -> str:
    return expand(mount.sub_path_expr, values) if mount.sub_path_expr else mount.sub_path


def _mount(
    mount: VolumeMount, sources: Mapping[str, Source], values: Mapping[str, str], held: Held
) -> FileMount:
    source, subpath = sources.get(mount.name), _subpath(mount, values)
    if source is None:
        raise FailedPrecondition(f"volume {mount.name} is not there")
    target = posixpath.normpath(posixpath.join("/", mount.mount_path))
    if source.image:
        return FileMount(
            kind="image", target=target, source=source.image, readonly=True, subpath=subpath
        )
    return FileMount(
        kind="bind",
        target=target,
        source=held.get((mount.name, subpath)) or _path(mount.name, source, subpath),
        readonly=mount.read_only or source.readonly,
        propagation=_PROPAGATION.get(mount.mount_propagation or "", "rprivate"),
        create=source.make or (bool(subpath) and source.privileged),
    )


def _path(name: str, source: Source, subpath: str) -> str:
    if not subpath:
        return source.path
    if source.visible:
        return str(held_subpath(Path(source.path), subpath, create=not source.readonly))
    parts = [part for part in subpath.split("/") if part not in ("", ".")]
    if ".." in parts or subpath.startswith("/"):
        raise FailedPrecondition(f"subPath {subpath!r} of volume {name} must stay inside it")
    if source.privileged:
        return posixpath.join(source.path, *parts)
    raise FailedPrecondition(
        f"subPath {subpath!r} of volume {name}: nobody can make sure that no link leads out of it"
    )
