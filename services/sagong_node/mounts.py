"""From mounts as users ask for them to mounts as the runtime does them. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping, Sequence

from sagong.contracts.node import FileMount
from sagong.contracts.runtime import Mount
from sagong.errors import InvalidArgument

__all__ = ["check", "image_mount", "image_volumes", "ordered", "runtime_mount"]

_PROPAGATIONS = ("", "private", "rprivate", "shared", "rshared", "slave", "rslave")
_KINDS = ("bind", "volume", "tmpfs", "image")
# What may be shown otherwise (lxcfs does), as in runc (libcontainer/rootfs_linux.go).
_WITHIN_PROC = frozenset(
    f"/proc/{name}"
    for name in (
        "cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "slabinfo",
        "net/dev", "sys/kernel/ns_last_pid", "sys/crypto/fips_enabled",
    )
)  # fmt: skip


def check(mounts: Iterable[FileMount]) -> None:
    """Refuse what cannot be, in Docker's words."""
    seen: set[str] = set()
    for mount in mounts:
        target = posixpath.normpath(mount.target)
        if not mount.target.startswith("/"):
            raise InvalidArgument(
                f'invalid mount config for type "{mount.kind}": invalid mount path: '
                f"'{mount.target}' mount path must be absolute"
            )
        if target == "/":
            raise InvalidArgument("invalid specification: destination can't be '/'")
        if target in seen:
            raise InvalidArgument(f"Duplicate mount point: {target}")
        if target.startswith("/proc/") and target not in _WITHIN_PROC:
            raise InvalidArgument(f'"{target}" cannot be mounted because it is inside /proc')
        if mount.kind not in _KINDS:
            raise InvalidArgument(f'invalid mount type "{mount.kind}" for {target}')
        if mount.propagation not in _PROPAGATIONS:
            raise InvalidArgument(f'invalid propagation mode "{mount.propagation}"')
        seen.add(target)


def image_volumes(volumes: Iterable[str], mounts: Sequence[FileMount]) -> list[FileMount]:
    """Anonymous volumes for the image's VOLUME paths that nothing else is mounted on."""
    taken = {posixpath.normpath(mount.target) for mount in mounts}
    return [
        FileMount(kind="volume", target=path, anonymous=True)
        for path in sorted(set(volumes))
        if posixpath.normpath(path) not in taken
    ]


def runtime_mount(mount: FileMount, source: str, *, mapped: bool) -> Mount:
    """One mount; `source` is the directory that a volume or image was published at.

    `mapped` shows its ids as they are to a user namespace.
    """
    if mount.kind == "tmpfs":
        return Mount(
            target=mount.target,
            kind="tmpfs",
            source="tmpfs",
            options=_tmpfs_options(mount),
        )
    recursion = "bind" if "bind" in mount.options else "rbind"
    further = tuple(option for option in mount.options if option not in ("bind", "ro"))
    options = [recursion, mount.propagation or "rprivate"]
    if mount.readonly:
        options.append("ro" if "ro" in mount.options else "rro")
    if mapped:
        options.append("idmap")
    if mount.kind == "bind" and mount.create:
        options.append("source")
    return Mount(target=mount.target, kind="bind", source=source, options=(*options, *further))


def image_mount(mount: FileMount, lent: Mount, *, mapped: bool) -> Mount:
    """An image that was lent, or a part of it, where it is wanted; `mapped` as above."""
    if lent.kind != "bind":
        return Mount(target=mount.target, kind=lent.kind, source=lent.source, options=lent.options)
    options = ("bind", "rprivate", "ro", *(["idmap"] if mapped else []))
    return Mount(target=mount.target, kind="bind", source=lent.source, options=options)


def _tmpfs_options(mount: FileMount) -> tuple[str, ...]:
    base = ("nosuid", "nodev") + (("ro",) if mount.readonly else ())
    if any(option in ("exec", "noexec") for option in mount.options):
        return (*base, *mount.options)
    return (*base, "noexec", *mount.options)


def ordered(
    system: Sequence[Mount], files: Sequence[Mount], mounts: Sequence[Mount]
) -> tuple[Mount, ...]:
    """System mounts that nobody replaces, then all others from outer to inner paths."""
    own = {posixpath.normpath(m.target): m for m in files}
    own.update({posixpath.normpath(m.target): m for m in mounts})
    kept = [mount for mount in system if posixpath.normpath(mount.target) not in own]
    return (*kept, *(own[t] for t in sorted(own, key=lambda t: t.count("/") if t != "/" else 0)))


def published(
    mounts: Iterable[FileMount], paths: Mapping[str, str]
) -> tuple[tuple[str, str, str, str, str, bool, str], ...]:
    """For inspection: (kind, name, source, target, mode, writable, propagation)."""
    return tuple(
        (
            mount.kind,
            mount.source if mount.kind == "volume" else "",
            paths.get(mount.target, mount.source),
            mount.target,
            "ro" if mount.readonly else "z" if "z" in mount.options else "",
            not mount.readonly,
            mount.propagation or ("rprivate" if mount.kind == "bind" else ""),
        )
        for mount in mounts
    )
