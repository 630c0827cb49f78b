"""Mounting overlay filesystems: with more layers than mount(2) takes, and with mapped ids."""

from __future__ import annotations

import contextlib
import errno
import os

from sagong.linux import mounts, syscalls

__all__ = [
    "attach_layers",
    "discard_mark",
    "leniently_mapped_tree",
    "mapped_layers",
    "mapped_tree",
    "mount_overlay",
    "new_tmpfs",
]

# mount(2) copies one page of options; longer ones are shortened by way of descriptors.
_OPTIONS_PAGE = 4000
_UNMARKED = "unmarked"


def mount_overlay(source: str, target: str, flags: int, data: str) -> None:
    """mount(2); long lists of lower directories go by descriptors.

    OSError where the kernel could only mount it read-only, as there is no room for its work.
    """
    options = _options(data)
    try:
        _mount(source, target, flags, data)
    except OSError as error:
        # Who mounted it before was killed before he had taken the mark away.
        if error.errno != errno.EINVAL or not _marked(options):
            raise
        _unmark(options)
        _mount(source, target, flags, data)
    if "upperdir" in options and not flags & mounts.MS_RDONLY:
        _require_work(target, options["workdir"])
    _unmark(options)


def _mount(source: str, target: str, flags: int, data: str) -> None:
    opened: list[int] = []
    short = data
    if len(data) > _OPTIONS_PAGE:
        short, opened = _shortened(data)
    try:
        syscalls.mount(source or "overlay", target, "overlay", flags, short)
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _require_work(target: str, workdir: str) -> None:
    """The kernel needs a directory of its own there, and tells nobody but its log why it has none."""
    if not os.statvfs(target).f_flag & os.ST_RDONLY:
        return
    syscalls.umount(target, mounts.MNT_DETACH)
    probe = f"{workdir}/probe"
    os.mkdir(probe)
    os.rmdir(probe)
    # There is room by now.
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), workdir)


def _mark(options: dict[str, str]) -> str:
    """The directory by which the kernel refuses a `volatile` overlay that was mounted before."""
    return f"{options['workdir']}/work/incompat"


def _marked(options: dict[str, str]) -> bool:
    return options.keys() >= {"volatile", "workdir"} and os.path.isdir(_mark(options))


def _unmark(options: dict[str, str]) -> None:
    """Take away the mark of a `volatile` overlay, so that it can be mounted again.

    Nothing but the mark tells whether the machine has failed meanwhile. Who asks for `volatile` says
    that what is written does not outlive that, and mounts it again only while the machine is up.
    Source: Documentation/filesystems/overlayfs.rst, "Volatile mount".
    """
    if "volatile" in options:
        mark = _mark(options)
        try:
            # Beside the kernel's own directory it means nothing. Three removals would cost three times
            # as much, and as long as a journal is written each of them waits.
            os.rename(mark, f"{options['workdir']}/{_UNMARKED}")
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            os.unlink(f"{mark}/volatile/dirty")
            os.rmdir(f"{mark}/volatile")
            os.rmdir(mark)


def discard_mark(workdir: str) -> None:
    """Once it is unmounted: take away what `mount_overlay` put beside, which is root's."""
    mark = f"{workdir}/{_UNMARKED}"
    # What can't be taken away goes with the whole directory.
    with contextlib.suppress(OSError):
        os.unlink(f"{mark}/volatile/dirty")
        os.rmdir(f"{mark}/volatile")
        os.rmdir(mark)


def _shortened(data: str) -> tuple[str, list[int]]:
    """Overlay options with descriptors for long lower directories, and what to close after."""
    opened: list[int] = []
    parts = []
    for option in data.split(","):
        key, _, value = option.partition("=")
        if key == "lowerdir":
            opened = _opened(value.split(":"))
            option = "lowerdir=" + ":".join(f"/proc/self/fd/{number}" for number in opened)
        parts.append(option)
    return ",".join(parts), opened


def _opened(layers: list[str]) -> list[int]:
    """A descriptor of each; none is left if one is missing."""
    opened: list[int] = []
    try:
        for path in layers:
            opened.append(os.open(path, os.O_PATH | os.O_CLOEXEC))
    except OSError:
        for descriptor in opened:
            os.close(descriptor)
        raise
    return opened


def mapped_tree(path: str, user_namespace: int, *, recursive: bool = False) -> int:
    """A clone of a mount on which the host's ids show as those of a user namespace (Linux 5.12)."""
    tree = syscalls.open_tree(path, clone=True, recursive=recursive)
    try:
        _map(tree, user_namespace, recursive=recursive)
    except OSError:
        os.close(tree)
        raise
    return tree


def leniently_mapped_tree(path: str, user_namespace: int, *, recursive: bool) -> int:
    """The same where the filesystem can; what lies below is left as it is when it can't.

    Filesystems without it (overlay, network filesystems of older kernels) stay as they are.
    """
    for deep in (True, False) if recursive else (False,):
        tree = syscalls.open_tree(path, clone=True, recursive=recursive)
        try:
            _map(tree, user_namespace, recursive=deep)
        except OSError as error:
            os.close(tree)
            if error.errno not in (errno.EINVAL, errno.EPERM):
                raise
        else:
            return tree
    return syscalls.open_tree(path, clone=True, recursive=recursive)


def _map(tree: int, user_namespace: int, *, recursive: bool) -> None:
    syscalls.mount_setattr(
        "",
        set_=mounts.MOUNT_ATTR_IDMAP,
        user_namespace=user_namespace,
        recursive=recursive,
        directory=tree,
    )


def mapped_layers(data: str, user_namespace: int) -> dict[str, int]:
    """Clones, with mapped ids, of what an overlay's options name: l0, l1… and u.

    Layers are mapped (Linux 5.19), since overlay itself can't be. ValueError when upper and work lie
    apart: they must share one mount.
    """
    options = _options(data)
    trees: dict[str, int] = {}
    try:
        for number, path in enumerate(options["lowerdir"].split(":")):
            trees[f"l{number}"] = mapped_tree(path, user_namespace)
        if "upperdir" in options:
            trees["u"] = mapped_tree(_common_parent(options), user_namespace)
    except (OSError, ValueError):
        for tree in trees.values():
            os.close(tree)
        raise
    return trees


def _options(data: str) -> dict[str, str]:
    return dict(option.partition("=")[::2] for option in data.split(","))


def _common_parent(options: dict[str, str]) -> str:
    """Where upper and work lie."""
    upper, work = (options.get(name, "").rstrip("/") for name in ("upperdir", "workdir"))
    parent = os.path.dirname(upper)
    if os.path.dirname(work) != parent:
        raise ValueError(
            f"a user namespace needs upperdir and workdir in one directory, not {upper} and {work}"
        )
    return parent


def attach_layers(trees: dict[str, int], data: str) -> str:
    """Attach what `mapped_layers` made below the working directory; the overlay's new options."""
    options = _options(data)
    lowers = [f"l{number}" for number in range(len(options["lowerdir"].split(":")))]
    options["lowerdir"] = ":".join(lowers)
    for name in [*lowers, *(["u"] if "u" in trees else [])]:
        os.mkdir(name)
        tree = trees.pop(name)
        syscalls.move_mount(tree, name)
        os.close(tree)
    for key in ("upperdir", "workdir"):
        if key in options:
            options[key] = "u/" + os.path.basename(options[key].rstrip("/"))
    # trusted.* attributes are the host's alone.
    options.setdefault("userxattr", "")
    return ",".join(f"{key}={value}" if value else key for key, value in options.items())


def new_tmpfs() -> int:
    """A small filesystem, not attached yet, for mount points."""
    context = syscalls.fsopen("tmpfs")
    try:
        syscalls.fsconfig_string(context, "mode", "755")
        syscalls.fsconfig_create(context)
        return syscalls.fsmount(context)
    finally:
        os.close(context)
