"""Root filesystems that are lent to containers, and the files in them."""

from __future__ import annotations

from sagong.contract import Message
from sagong.contracts.image.description import Image
from sagong.contracts.runtime import Mount

__all__ = [
    "ArchiveRequest",
    "Change",
    "ChangeList",
    "DirectoryList",
    "PathStat",
    "PrepareRequest",
    "Prepared",
    "RootRef",
]


class PrepareRequest(Message):
    """Lend the image's filesystem to container `id`: writable, or `readonly` without a layer.

    `image` "" is an empty one (Dockerfile's `scratch`). `bare` leaves out what runtimes mount upon
    (/dev, /proc, /etc/hosts, …) where the image lacks it: for copies from and into images; nothing
    can run in it.
    `storage_size` limits the writable layer in bytes (0: none), by options of `root` that the runtime
    keeps; InvalidArgument where it can't.
    `subpath`, of a read-only one, lends a directory or file of it alone, as `root` (an overlay, or a
    bind of one directory or file) and `lower`; links are followed inside the image only.
    """

    id: str
    image: str
    readonly: bool = False
    subpath: str = ""
    storage_size: int = 0
    platform: str = ""
    bare: bool = False


class Prepared(Message):
    """`root` is the mount of "/"; `lower` its directories from top to bottom, `upper` the writable.

    Owners of files are on disk as they are inside: a runtime that puts the container into a user
    namespace maps the ids on the mounts of these directories, the writable one included.
    Names of users and groups are resolved by `image`: `passwd` and `group` are its files' bytes.
    """

    root: Mount
    lower: tuple[str, ...] = ()
    upper: str = ""
    image: Image
    passwd: bytes = b""
    group: bytes = b""


class RootRef(Message):
    """Names a lent root filesystem by the container's id."""

    id: str


class Change(Message):
    """A path that the container changed: kind 0 modified, 1 added, 2 deleted (Docker's numbers)."""

    path: str
    kind: int


class ChangeList(Message):
    """Changes of a container against its image, in path order."""

    changes: tuple[Change, ...] = ()


class ArchiveRequest(Message):
    """Bytes of a path inside a lent root filesystem, as a tar. Links are followed inside it only.

    `upload` non-empty: extract that uploaded tar into the directory `path` instead; what its entries
    say of owners, modes, times, links, devices and attributes is kept, also for directories that are
    there; with `copy_uid_gid` all belongs to `uid` and `gid` instead. `make_path`: directories of
    `path` that are missing are made, mode 0755, of `uid` and `gid`.
    `mounts` are the container's bind mounts, so that paths on volumes are found: (target, source).
    """

    id: str
    path: str
    upload: str = ""
    no_overwrite_dir_non_dir: bool = False
    copy_uid_gid: bool = False
    mounts: tuple[tuple[str, str], ...] = ()
    make_path: bool = False
    uid: int = 0
    gid: int = 0


class PathStat(Message):
    """Stat of a path; `mode` is the st_mode of Linux, `real` where its links lead ("": nowhere)."""

    name: str
    size: int
    mode: int
    mtime: float
    link_target: str = ""
    real: str = ""
    uid: int = 0
    gid: int = 0


class DirectoryList(Message):
    """What a directory holds, in order of the names."""

    entries: tuple[PathStat, ...] = ()
