"""Jobs that write through layers: archives into a container, layers that need those below them."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable
from typing import Any

from sagong.errors import InvalidArgument, NotFound
from sagong_image_overlay.confine import READER, WRITER, confine
from sagong_image_overlay.deletion import remove_tree
from sagong_image_overlay.entry import Entry, Kind, RecordReader
from sagong_image_overlay.marks import is_whiteout, set_opaque
from sagong_image_overlay.reading import open_tree, read_identity, read_xattrs
from sagong_image_overlay.tree import Directory, Found, Place, Tree, open_directory, open_file
from sagong_image_overlay.unpacking import Report, outcome_facts, start_parser, throttled
from sagong_image_overlay.writer import (
    Outcome,
    Writer,
    not_linked,
    set_xattr,
    when_ns,
)

__all__ = ["JOBS", "MergedWriter", "make_directories"]

_OPEN_DIRECTORIES = 512


def _copy_attributes(source: int, target: int) -> None:
    status = os.fstat(source)
    os.fchown(target, status.st_uid, status.st_gid)
    os.fchmod(target, stat.S_IMODE(status.st_mode))
    for key, value in read_xattrs(source):
        set_xattr(target, key, value)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def make_directories(
    tree: Tree,
    path: bytes,
    owner: tuple[int, int] = (0, 0),
    count: Callable[[], None] = lambda: None,
) -> Directory:
    """The directory at a path without links, made (for an owner) or copied up to the writable layer.

    `count` is called before one is made.
    """
    here = tree.root()
    try:
        for name in (part for part in path.split(b"/") if part):
            there = _made(tree, here, name, owner, count)
            here.close()
            here = there
        return here
    except BaseException:
        here.close()
        raise


def _made(
    tree: Tree, here: Directory, name: bytes, owner: tuple[int, int], count: Callable[[], None]
) -> Directory:
    upper = here.upper
    if upper is None:
        raise InvalidArgument("container rootfs is marked read-only")
    found = tree.step(here, name)
    if found is None:
        count()
        _new_directory(upper, name, owner)
        found = here.find(name)
        assert found is not None
    if not found.is_directory:
        raise InvalidArgument(f"not a directory: /{os.fsdecode(here.below(name))}")
    there = tree.enter(here, name, found)
    if there.upper is None:
        os.mkdir(name, 0o700, dir_fd=upper)
        copied = open_directory(name, upper)
        _copy_attributes(there.parts[0][1], copied)
        there.parts.insert(0, (0, copied))
    return there


def _new_directory(upper: int, name: bytes, owner: tuple[int, int]) -> None:
    hidden = False
    with contextlib.suppress(FileNotFoundError):
        hidden = is_whiteout(os.lstat(name, dir_fd=upper))
    if hidden:
        os.unlink(name, dir_fd=upper)
    os.mkdir(name, 0o755, dir_fd=upper)
    os.chown(name, *owner, dir_fd=upper)
    if hidden:
        set_opaque(name, upper)


def resolved(tree: Tree, path: bytes) -> bytes:
    """The path with links resolved; what does not exist yet stays as it is."""
    real, rest = tree.reach(path)
    if b".." in rest:
        raise NotFound(f"no such directory: /{os.fsdecode(real)}")
    return b"/".join((real, *rest))


def _open_same(path: bytes, directory: int | None) -> int | None:
    """A regular file of one name, to be written anew as it lies there; None if it can't be."""
    flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        # Opening a device can do something: what is none is opened alone.
        if not stat.S_ISREG(os.lstat(path, dir_fd=directory).st_mode):
            return None
        target = os.open(path, flags, dir_fd=directory)
    except OSError:
        return None
    status = os.fstat(target)
    if stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
        return target
    os.close(target)
    return None


class MergedWriter(Writer):
    """Writes into the writable layer of a tree, below the directory `base`.

    With `keep_times` directories that were only copied up keep their times: a layer says nothing
    of them. `strict` refuses to replace directories by files and the other way round.
    """

    def __init__(
        self,
        source: RecordReader,
        tree: Tree,
        base: bytes,
        *,
        strict: bool = False,
        keep_times: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(source, **options)
        self._tree = tree
        self._base = base
        self._strict = strict
        self._keep_times = keep_times
        self._opened: dict[bytes, Directory] = {}
        self._retired: list[Directory] = []

    def locate(self, name: bytes) -> tuple[bytes, int | None] | None:
        """The name in the writable layer's directory."""
        parent, _, base = name.rpartition(b"/")
        upper = self._upper_of(parent)
        self._tree.refuse_mounted_file(self._opened[parent].below(base))
        return base, upper

    def _upper_of(self, name: bytes) -> int:
        upper = self._directory_of(name).upper
        if upper is None:
            raise InvalidArgument("container rootfs is marked read-only")
        return upper

    def _directory_of(self, name: bytes) -> Directory:
        """The directory, links on the way resolved inside the root."""
        known = self._opened.get(name)
        if known is None:
            if len(self._opened) >= _OPEN_DIRECTORIES:
                self._close_retired()
                self._retire()
            real = self._real(name)
            known = make_directories(self._tree, real, count=self.count_implied)
            self._opened[name] = known
        return known

    def _real(self, name: bytes) -> bytes:
        """The path with links resolved; what does not exist yet stays as it is."""
        wanted = self._base + b"/" + name if name else self._base
        try:
            return resolved(self._tree, wanted)
        except NotFound as error:
            raise InvalidArgument(
                f"archive has entries below /{os.fsdecode(name)}, a link that leads nowhere "
                f"({error.message})"
            ) from None

    def close(self) -> None:
        """Close directories."""
        self._retire()
        self._close_retired()

    def _retire(self) -> None:
        """Know the directories no more; who works on the entry in hand may still use them."""
        self._retired += self._opened.values()
        self._opened = {}

    def _close_retired(self) -> None:
        for directory in self._retired:
            directory.close()
        self._retired = []

    def _file(self, entry: Entry, path: bytes, directory: int | None) -> None:
        """A file that the container has open or mounted stays the same file where that goes."""
        target = _open_same(path, directory)
        if target is None:
            super()._file(entry, path, directory)
            return
        try:
            os.ftruncate(target, 0)
            self._fill(entry, target)
            os.fchown(target, entry.uid, entry.gid)
            for key, _ in read_xattrs(target):
                os.removexattr(target, key)
            os.fchmod(target, entry.mode)
            for key, value in entry.xattrs:
                set_xattr(target, key, value)
            os.utime(target, ns=when_ns((entry.seconds, entry.nanoseconds)))
        finally:
            os.close(target)

    def forget(self, name: bytes) -> None:
        """Names may have led through links: what was replaced can be any of them."""
        super().forget(name)
        self._retire()

    def _apply(self, entry: Entry) -> None:
        self._close_retired()
        if self._strict and entry.name and entry.kind <= Kind.FIFO:
            self._refuse_replacing(entry)
        super()._apply(entry)

    def _refuse_replacing(self, entry: Entry) -> None:
        try:
            with self._tree.place(self._base + b"/" + entry.name, follow=False) as place:
                found = place.found
        except NotFound:
            return
        if found is None or found.is_directory == (entry.kind == Kind.DIRECTORY):
            return
        old, new = ("directory", "non-directory")
        if not found.is_directory:
            old, new = new, old
        base = os.fsdecode(self._base)
        name = f"{base}/{os.fsdecode(entry.name)}".lstrip("/")
        raise InvalidArgument(f'cannot overwrite {old} "/{name}" with {new} "/{base}"')

    def _root(self, entry: Entry) -> None:
        self._source.skip(entry.stored)
        if entry.kind == Kind.DIRECTORY and self._keep_times:
            self.outcome.root = True
            self._set_root(entry)

    def _set_root(self, entry: Entry) -> None:
        self._attributes(entry, b".", self._upper_of(b""))

    def clear(self, entry: Entry, path: bytes, directory: int | None) -> bool:
        """Make room in the writable layer; what it hid below must stay hidden."""
        status = os.lstat(path, dir_fd=directory)
        wanted = entry.kind == Kind.DIRECTORY
        if stat.S_ISDIR(status.st_mode):
            if wanted:
                return True
            self.forget(entry.name)
        remove_tree(path, directory)
        if wanted:
            os.mkdir(path, 0o700, dir_fd=directory)
            set_opaque(path, directory)
        return wanted

    def _hardlink(self, entry: Entry, path: bytes, directory: int | None) -> None:
        """A link to a file of a lower layer copies it up first, as overlayfs does."""
        place = self.locate(entry.link)
        assert place is not None
        base, upper = place
        parent = self._directory_of(entry.link.rpartition(b"/")[0])
        found = parent.find(base)
        if found is None or found.is_directory:
            raise not_linked(entry)
        assert upper is not None
        if parent.holder(found) != upper:
            copy_up(parent, base, found, upper)
        super()._hardlink(entry, path, directory)


def copy_data(source: int, target: int, size: int) -> None:
    """Copy a file's content; its holes stay holes."""
    at = 0
    while at < size:
        try:
            at = os.lseek(source, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            break  # a hole up to the end
        end = min(os.lseek(source, at, os.SEEK_HOLE), size)
        os.lseek(target, at, os.SEEK_SET)
        while at < end and (sent := os.sendfile(target, source, at, end - at)):
            at += sent
        if at < end:
            break
    os.ftruncate(target, size)


def copy_up(parent: Directory, name: bytes, found: Found, upper: int) -> None:
    """Copy a file of a lower layer to the writable one."""
    facts = found.facts
    if not stat.S_ISREG(facts.st_mode):
        if stat.S_ISLNK(facts.st_mode):
            os.symlink(os.readlink(name, dir_fd=parent.holder(found)), name, dir_fd=upper)
        else:
            os.mknod(name, facts.st_mode, facts.st_rdev, dir_fd=upper)
        os.chown(name, facts.st_uid, facts.st_gid, dir_fd=upper, follow_symlinks=False)
        when = (facts.st_atime_ns, facts.st_mtime_ns)
        os.utime(name, ns=when, dir_fd=upper, follow_symlinks=False)
        return
    source = open_file(Place(parent, name, found))
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        target = os.open(name, flags, 0o600, dir_fd=upper)
        try:
            copy_data(source, target, facts.st_size)
            _copy_attributes(source, target)
        finally:
            os.close(target)
    finally:
        os.close(source)


def _run(writer: MergedWriter) -> Outcome:
    try:
        return writer.run()
    finally:
        writer.close()


def merge(job: dict[str, Any], descriptors: list[int], report: Report) -> dict[str, Any]:
    """Unpack a layer over those below it: `layers[0]` is the new one's empty directory."""
    records = start_parser(job, descriptors[0])
    tree = open_tree({**job, "writable": True}, descriptors)
    confine(WRITER, job["jail"])
    writer = MergedWriter(
        records,
        tree,
        b"",
        keep_times=True,
        reserve=job.get("reserve", 0),
        most=job["max_entries"],
        progress=throttled(report),
    )
    return outcome_facts(_run(writer))


def extract(job: dict[str, Any], descriptors: list[int], report: Report) -> dict[str, Any]:
    """Extract an archive (the first descriptor) into the directory `path` of a root filesystem."""
    records = start_parser({**job, "whiteouts": False}, descriptors[0])
    tree = open_tree(job, descriptors)
    confine(WRITER, job["jail"])
    path = os.fsencode(job["path"])
    if job.get("make_path"):
        path = resolved(tree, path)
        make_directories(tree, path, tuple(job["owner"])).close()
    with tree.place(path, follow=True) as place:
        if place.found is None:
            raise NotFound(f"Could not find the file {job['path']} in container")
        if not place.found.is_directory:
            raise InvalidArgument(f"extraction point is not a directory: {job['path']}")
        base = place.path
    writer = MergedWriter(
        records,
        tree,
        base,
        strict=job.get("strict", False),
        owner=tuple(job["owner"]) if job.get("owned") else None,
        reserve=job.get("reserve", 0),
        most=job["max_entries"],
        progress=throttled(report),
    )
    return outcome_facts(_run(writer))


def depends(job: dict[str, Any], descriptors: list[int], report: Report) -> dict[str, Any]:
    """Whether directories that a layer only implies are something else in the layers below.

    The first descriptor holds their names, each ended by NUL.
    """
    with os.fdopen(os.dup(descriptors[0]), "rb") as file:
        names = [name for name in file.read().split(b"\0") if name]
    tree = open_tree(job, descriptors)
    confine(READER, job["jail"])
    return {"depends": any(_differs(tree, name) for name in names)}


def _differs(tree: Tree, name: bytes) -> bool:
    try:
        with tree.place(name, follow=False) as place:
            found, path = place.found, place.path
    except NotFound:
        return False
    except InvalidArgument:
        return True
    if found is None:
        return False
    status = found.facts
    plain = (status.st_mode, status.st_uid, status.st_gid) == (stat.S_IFDIR | 0o755, 0, 0)
    return not plain or path != name


def points(job: dict[str, Any], descriptors: list[int], report: Report) -> dict[str, Any]:
    """Make what is missing of `paths` in the new layer `layers[0]`: what runtimes mount upon.

    A path that ends in "/" is a directory, one with "->" a link, others are empty files. Tells
    /etc/passwd and /etc/group, too.
    """
    tree = open_tree({**job, "writable": True}, descriptors)
    confine(WRITER, job["jail"])
    made = 0
    for text in job["paths"]:
        path, _, link = text.partition("->")
        made += _make_point(tree, os.fsencode(path), os.fsencode(link))
    files = read_identity(tree)
    return {"entries": made, **files}


def _make_point(tree: Tree, path: bytes, link: bytes) -> int:
    try:
        with tree.place(path.rstrip(b"/"), follow=False) as place:
            if place.found is not None:
                return 0
    except InvalidArgument:
        return 0
    except NotFound:
        pass
    parent, _, name = path.rstrip(b"/").rpartition(b"/")
    try:
        with tree.place(parent, follow=True) as where:
            real = where.path
    except NotFound:
        real = parent
    except InvalidArgument:
        return 0
    with make_directories(tree, real) as directory:
        upper = directory.upper
        assert upper is not None
        before = os.fstat(upper)
        if path.endswith(b"/"):
            os.mkdir(name, 0o755, dir_fd=upper)
        elif link:
            os.symlink(link, name, dir_fd=upper)
        else:
            os.mknod(name, stat.S_IFREG | 0o755, dir_fd=upper)
        os.chown(name, 0, 0, dir_fd=upper, follow_symlinks=False)
        # Of no moment: the same points are made anew for each image, and should be the same.
        os.utime(name, (0, 0), dir_fd=upper, follow_symlinks=False)
        os.utime(upper, ns=(before.st_atime_ns, before.st_mtime_ns))
    return 1


JOBS = {"merge": merge, "extract": extract, "depends": depends, "points": points}
