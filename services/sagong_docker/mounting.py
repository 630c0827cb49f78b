"""Binds, mounts, volumes and tmpfs of a create body as mounts of the node. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Iterator, Mapping

import msgspec

from sagong.contracts.node import ContainerStatus, FileMount
from sagong.errors import InvalidArgument
from sagong_docker.body import BindOptions, CreateBody, HostConfig, MountBody
from sagong_docker.naming import check_volume_name
from sagong_docker.resources import size_of

__all__ = ["bind", "mounts", "settled", "with_borrowed"]

_PROPAGATIONS = frozenset(("private", "rprivate", "shared", "rshared", "slave", "rslave"))
_CONSISTENCIES = ("consistent", "cached", "delegated")

# Those of mount(8), and tmpfs(5)'s own.
_TMPFS_OPTIONS = frozenset(
    (
        "defaults", "ro", "rw", "suid", "nosuid", "dev", "nodev", "exec", "noexec", "sync", "async",
        "dirsync", "remount", "mand", "nomand", "atime", "noatime", "diratime", "nodiratime", "bind",
        "rbind", "unbindable", "runbindable", "private", "rprivate", "shared", "rshared", "slave",
        "rslave", "relatime", "norelatime", "strictatime", "nostrictatime", "mode", "uid", "gid",
        "nr_inodes", "nr_blocks", "size", "mpol",
    )
)  # fmt: skip

NewName = Callable[[], str]


def mounts(body: CreateBody, host: HostConfig, name: NewName) -> tuple[FileMount, ...]:
    """All mounts asked for; a bind wins over an anonymous volume at the same place."""
    found: dict[str, FileMount] = {}
    for text in host.binds or ():
        _add(found, _anonymous(text, name) or bind(text, host.volume_driver))
    for mount in host.mounts or ():
        _add(found, _mount(mount, host.volume_driver, name))
    for target, options in (host.tmpfs or {}).items():
        _add(found, _tmpfs(target, options))
    for target in body.volumes or {}:
        path = posixpath.normpath(target)
        if wrong := _wrong_target(target):
            raise InvalidArgument(f'invalid mount config for type "volume": {wrong}')
        if path not in found:
            found[path] = FileMount(kind="volume", source=name(), target=path, anonymous=True)
    return tuple(found.values())


def _anonymous(text: str, name: NewName) -> FileMount | None:
    """A bind that is a target alone: a volume without a name."""
    if ":" in text or not text:
        return None
    if wrong := _wrong_target(text):
        raise InvalidArgument(
            f"invalid volume specification: '{text}': "
            f'invalid mount config for type "volume": {wrong}'
        )
    return FileMount(kind="volume", source=name(), target=text, anonymous=True)


def _add(found: dict[str, FileMount], mount: FileMount) -> None:
    path = posixpath.normpath(mount.target)
    if path in found:
        raise InvalidArgument(f"Duplicate mount point: {path}")
    found[path] = msgspec.structs.replace(mount, target=path)


def _wrong_target(target: str) -> str:
    """What is wrong with a place of a mount; "" if nothing."""
    if posixpath.normpath(target) in ("/", "//"):
        return "invalid specification: destination can't be '/'"
    if not target.startswith("/"):
        return f"invalid mount path: '{target}' mount path must be absolute"
    return ""


def bind(text: str, driver: str = "") -> FileMount:
    """`source:target[:options]`, where the source is a path or a volume's name."""
    parts = text.split(":")
    if len(parts) not in (2, 3) or not parts[0] or not parts[1]:
        raise InvalidArgument(f"invalid volume specification: '{text}'")
    source, target = parts[0], parts[1]
    options = parts[2].split(",") if len(parts) == 3 else []
    _check_options(options, parts)
    kind = "bind" if source.startswith("/") else "volume"
    if wrong := _wrong_target(target):
        raise InvalidArgument(
            f"invalid volume specification: '{text}': "
            f'invalid mount config for type "{kind}": {wrong}'
        )
    propagation = next((o for o in options if o in _PROPAGATIONS), "")
    if kind == "bind" and "nocopy" in options:
        raise InvalidArgument(_odd(text, kind, "VolumeOptions"))
    if kind == "volume" and propagation:
        raise InvalidArgument(_odd(text, kind, "BindOptions"))
    if kind == "bind":
        return FileMount(
            kind="bind",
            source=source,
            target=target,
            readonly="ro" in options,
            propagation=propagation,
            create=True,
        )
    check_volume_name(source)
    return FileMount(
        kind="volume",
        source=source,
        target=target,
        readonly="ro" in options,
        copy="nocopy" not in options,
        driver=driver,
    )


def _odd(text: str, kind: str, field: str) -> str:
    return (
        f"invalid volume specification: '{text}': "
        f'invalid mount config for type "{kind}": field {field} must not be specified'
    )


def _check_options(options: list[str], parts: list[str]) -> None:
    """Each of its group at most once: `ro,rw` and `z,Z` contradict themselves."""
    groups = (("ro", "rw"), ("z", "Z"), _PROPAGATIONS, ("nocopy",), _CONSISTENCIES)
    known = {word for group in groups for word in group} | {""}
    doubled = any(sum(word in group for word in options) > 1 for group in groups)
    if doubled or not set(options) <= known:
        raise InvalidArgument(f"invalid mode: {parts[2]}")


def _mount(mount: MountBody, driver: str, name: NewName) -> FileMount:
    kinds: Mapping[str, Callable[[], FileMount]] = {
        "bind": lambda: _bind_mount(mount),
        "volume": lambda: _volume_mount(mount, driver, name),
        "tmpfs": lambda: _tmpfs_mount(mount),
        "image": lambda: _image_mount(mount),
    }
    if mount.bind_options is not None and mount.type != "bind":
        raise InvalidArgument(f'BindOptions must not be specified on mount type "{mount.type}"')
    for complaint in _complaints(mount):
        raise InvalidArgument(f'invalid mount config for type "{mount.type}": {complaint}')
    return kinds[mount.type]()


def _complaints(mount: MountBody) -> Iterator[str]:
    for kind, option, given in (
        ("bind", "BindOptions", mount.bind_options),
        ("volume", "VolumeOptions", mount.volume_options),
        ("image", "ImageOptions", mount.image_options),
        ("tmpfs", "TmpfsOptions", mount.tmpfs_options),
    ):
        if given is not None and mount.type != kind and kind != "bind":
            yield f"field {option} must not be specified"
    if not mount.target:
        yield "field Target must not be empty"
    if wrong := _wrong_target(mount.target):
        yield wrong
    if mount.type not in ("bind", "volume", "tmpfs", "image"):
        yield "mount type unknown"
    if mount.type in ("bind", "image") and not mount.source:
        yield "field Source must not be empty"
    if mount.type == "tmpfs" and mount.source:
        yield "field Source must not be specified"
    yield from _wrong_options(mount)


def _wrong_options(mount: MountBody) -> Iterator[str]:
    if mount.type == "bind":
        propagation = mount.bind_options.propagation if mount.bind_options else ""
        if propagation and propagation not in _PROPAGATIONS:
            yield f"invalid propagation mode: {propagation}"
        if not mount.source.startswith("/"):
            yield f"invalid mount path: '{mount.source}' mount path must be absolute"
        yield from _contradictions(mount.read_only, mount.bind_options or BindOptions())
    options = mount.volume_options or mount.image_options
    subpath = options.subpath if options else ""
    if subpath and mount.type == "volume" and not mount.source:
        yield "must not set Subpath when using anonymous volumes"
    if subpath and (subpath.startswith("/") or ".." in subpath.split("/")):
        yield "subpath must be a relative path within the volume"
    for pair in (mount.tmpfs_options.options if mount.tmpfs_options else None) or ():
        if not 1 <= len(pair) <= 2:
            yield "invalid option array length"
        elif pair[0] not in ("exec", "noexec"):
            yield f"invalid option: {pair[0]}"


def _contradictions(read_only: bool, options: BindOptions) -> Iterator[str]:
    """Docker says so when the container starts."""
    both = "ReadOnlyNonRecursive", "ReadOnlyForceRecursive"
    given = options.read_only_non_recursive, options.read_only_force_recursive
    for name, wanted in zip(both, given, strict=True):
        if wanted and not read_only:
            yield f"mount options conflict: !ReadOnly && BindOptions.{name}"
    if all(given):
        yield f"mount options conflict: {both[0]} && BindOptions.{both[1]}"


def _bind_mount(mount: MountBody) -> FileMount:
    options = mount.bind_options or BindOptions()
    recursion = (("bind", options.non_recursive), ("ro", options.read_only_non_recursive))
    return FileMount(
        kind="bind",
        source=posixpath.normpath(mount.source),
        target=mount.target,
        readonly=mount.read_only,
        propagation=options.propagation,
        create=options.create_mountpoint,
        present=not options.create_mountpoint,
        options=tuple(name for name, wanted in recursion if wanted),
    )


def _volume_mount(mount: MountBody, driver: str, name: NewName) -> FileMount:
    if mount.source:
        check_volume_name(mount.source)
    options = mount.volume_options
    config = options.driver_config if options else None
    return FileMount(
        kind="volume",
        source=mount.source or name(),
        target=mount.target,
        readonly=mount.read_only,
        anonymous=not mount.source,
        copy=not (options and options.no_copy),
        subpath=options.subpath if options else "",
        driver=(config.name if config else "") or driver,
        driver_options=tuple((config.options or {}).items()) if config else (),
        labels=tuple((options.labels or {}).items()) if options else (),
    )


def _tmpfs_mount(mount: MountBody) -> FileMount:
    given = mount.tmpfs_options
    options: list[str] = []
    if given and given.size_bytes:
        options.append(f"size={given.size_bytes}")
    if given and given.mode:
        options.append(f"mode={given.mode:o}")
    for pair in (given.options if given else None) or ():
        options.append("=".join(pair))
    return FileMount(
        kind="tmpfs", target=mount.target, readonly=mount.read_only, options=tuple(options)
    )


def _image_mount(mount: MountBody) -> FileMount:
    return FileMount(
        kind="image",
        source=mount.source,
        target=mount.target,
        readonly=True,
        subpath=mount.image_options.subpath if mount.image_options else "",
    )


def _tmpfs(target: str, options: str) -> FileMount:
    if wrong := _wrong_target(target):
        raise InvalidArgument(wrong)
    given = [_tmpfs_option(o) for o in options.split(",") if o and o not in ("rw", "ro")]
    return FileMount(
        kind="tmpfs", target=target, readonly="ro" in options.split(","), options=tuple(given)
    )


def _tmpfs_option(option: str) -> str:
    key, equals, value = option.partition("=")
    if key not in _TMPFS_OPTIONS:
        raise InvalidArgument(f'invalid tmpfs option "{key}"')
    return f"size={size_of(value)}" if key == "size" and equals and "%" not in value else option


def settled(mount: FileMount, root: str) -> FileMount:
    """A bind that shows the engine's own directory takes part in what is unmounted there.

    Else a container would keep the others' mounts; another propagation is refused, as by Docker.
    """
    source = mount.source
    if mount.kind != "bind" or not (source.startswith(root) or root.startswith(source)):
        return mount
    if mount.propagation in ("rslave", "rshared"):
        return mount
    if mount.propagation:
        raise InvalidArgument(
            'invalid mount config: must use either propagation mode "rslave" or "rshared" when '
            f'mount source is within the daemon root, daemon root: "{root}", bind mount source: '
            f'"{source}", propagation: "{mount.propagation}"'
        )
    return msgspec.structs.replace(mount, propagation="rslave")


def with_borrowed(
    own: Iterable[FileMount], sources: Iterable[tuple[ContainerStatus, str]]
) -> tuple[FileMount, ...]:
    """Own mounts, and those of other containers (`--volumes-from`), each with mode `ro` or not.

    Own ones win, but for volumes without a name: the others' are taken instead.
    """
    wished = {posixpath.normpath(mount.target): mount for mount in own}
    lent: dict[str, FileMount] = {}
    for status, mode in sources:
        for mount in _lent(status):
            path = posixpath.normpath(mount.target)
            if path not in wished or wished[path].anonymous:
                lent[path] = _with_mode(mount, mode)
    return (*(m for path, m in wished.items() if path not in lent), *lent.values())


def _lent(status: ContainerStatus) -> Iterable[FileMount]:
    named = {m.target for m in status.spec.mounts if not m.anonymous}
    for kind, name, source, target, _mode, writable, propagation in status.mounts:
        if kind == "volume":
            yield FileMount(
                kind=kind,
                source=name,
                target=target,
                readonly=not writable,
                anonymous=target not in named,
            )
        elif kind == "bind":
            yield FileMount(
                kind=kind,
                source=source,
                target=target,
                readonly=not writable,
                propagation=propagation,
            )
    if not status.mounts:
        yield from (m for m in status.spec.mounts if m.kind in ("volume", "bind"))


def _with_mode(mount: FileMount, mode: str) -> FileMount:
    return FileMount(
        kind=mount.kind,
        source=mount.source,
        target=mount.target,
        readonly=mount.readonly or mode == "ro",
        propagation=mount.propagation,
        copy=False,
        anonymous=mount.anonymous,
    )
