"""Jobs that read root filesystems through their layers: archives, differences, facts, usage."""

from __future__ import annotations

import base64
import contextlib
import os
import stat
from collections.abc import Callable
from typing import Any

from sagong.errors import InvalidArgument, NotFound, ResourceExhausted
from sagong_image_overlay.confine import READER, confine
from sagong_image_overlay.marks import is_whiteout
from sagong_image_overlay.tarout import Member, RawSink, TarWriter
from sagong_image_overlay.tree import Directory, Found, Place, Tree, open_directory, open_file

__all__ = ["JOBS", "member_of", "open_tree", "read_identity", "read_xattrs"]

Report = Callable[[dict[str, Any]], None]
_COUNTED_DEPTH = 1000
_CHANGES_LIMIT = 32 << 20
_XATTRS = (b"user.", b"security.capability", b"system.posix_acl_")


def open_tree(job: dict[str, Any], descriptors: list[int]) -> Tree:
    """The tree of a job, opened before the process enters its root.

    `layers` are paths, the top one first; `mounts` are (path inside, path of what is there).
    """
    layers: list[int] = []
    try:
        layers += [open_directory(path) for path in job["layers"]]
    except OSError:
        for descriptor in layers:
            os.close(descriptor)
        raise
    tree = Tree(layers, writable=bool(job.get("writable")))
    for target, source in sorted(job.get("mounts", ())):
        with contextlib.suppress(NotFound, InvalidArgument):
            tree.mount(os.fsencode(target), _open_source(source))
    return tree


def _open_source(path: str) -> int:
    """What is mounted; -1 if it is hidden from this process."""
    try:
        found = os.open(path, os.O_PATH | os.O_CLOEXEC)
        # Opening a device can do something: a path of it is enough to tell what it is.
        if stat.S_IFMT(os.fstat(found).st_mode) not in (stat.S_IFREG, stat.S_IFDIR):
            return found
        os.close(found)
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return -1


def read_xattrs(opened: int) -> list[tuple[bytes, bytes]]:
    """Attributes of an open file, without those of overlayfs and of security modules."""
    found = []
    with contextlib.suppress(OSError):
        for text in sorted(os.listxattr(opened)):
            key = os.fsencode(text)
            if key.startswith(_XATTRS) and not key.startswith(b"user.overlay."):
                found.append((key, os.getxattr(opened, key)))
    return found


class TreeArchive:
    """Puts parts of a merged tree into a tar; files with several links are put once."""

    def __init__(self, tree: Tree, tar: TarWriter) -> None:
        self._tree = tree
        self._tar = tar
        self._links: dict[tuple[int, int], bytes] = {}

    def put(self, directory: Directory, name: bytes, found: Found, called: bytes) -> None:
        """An entry and all below it, under the name `called`."""
        if found.is_directory:
            with self._tree.enter(directory, name, found) as below:
                self.put_directory(below, found.facts, called)
        elif stat.S_IFMT(found.facts.st_mode) != stat.S_IFSOCK:
            self._put_file(directory, name, found, called)

    def put_directory(self, below: Directory, facts: os.stat_result, called: bytes) -> None:
        """A directory that is open, and all below it."""
        member = member_of(called, facts)
        member.xattrs = read_xattrs(below.parts[0][1])
        if called:
            self._tar.add(member)
        prefix = called if not called or called.endswith(b"/") else called + b"/"
        for name in self._tree.names(below):
            found = self._tree.step(below, name)
            if found is not None:
                with contextlib.suppress(FileNotFoundError):  # a running container deleted it
                    self.put(below, name, found, prefix + name)

    def _put_file(self, directory: Directory, name: bytes, found: Found, called: bytes) -> None:
        facts = found.facts
        member = member_of(called, facts)
        known = (facts.st_dev, facts.st_ino)
        if facts.st_nlink > 1 and known in self._links:
            member.hard, member.link = True, self._links[known]
            self._tar.add(member)
            return
        if stat.S_ISLNK(facts.st_mode):
            member.link = os.readlink(name, dir_fd=directory.holder(found))
        if stat.S_ISREG(facts.st_mode):
            opened = open_file(Place(directory, name, found))
            try:
                # The file may have grown or been replaced since: the header tells what is sent.
                member.size = os.fstat(opened).st_size
                member.xattrs = read_xattrs(opened)
                self._tar.add(member, opened)
            finally:
                os.close(opened)
        else:
            self._tar.add(member)
        if facts.st_nlink > 1:
            self._links[known] = called


def member_of(name: bytes, facts: os.stat_result) -> Member:
    """The header of an entry, as far as stat knows it."""
    return Member(
        name,
        facts.st_mode,
        facts.st_uid,
        facts.st_gid,
        facts.st_mtime_ns // 1_000_000_000,
        device=facts.st_rdev,
    )


def read_identity(tree: Tree) -> dict[str, str]:
    """/etc/passwd and /etc/group in base64; missing ones are empty."""
    found = {"passwd": "", "group": ""}
    for name in found:
        with contextlib.suppress(NotFound, InvalidArgument):
            data = tree.read_file(b"etc/" + name.encode())
            found[name] = base64.b64encode(data).decode()
    return found


def identity(job: dict[str, Any], descriptors: list[int], report: Report) -> dict[str, Any]:
    """The users and groups of a root filesystem."""
    tree = open_tree(job, descriptors)
    confine(READER, job["jail"])
    return dict(read_identity(tree))


def export(job: dict[str, Any], descriptors: list[int], report: Report) -> dict[str, Any]:
    """The whole tree as a tar to the first descriptor."""
    tree = open_tree(job, descriptors)
    confine(READER, job["jail"])
    tar = TarWriter(RawSink(descriptors[0]))
    with tree.root() as root:
        TreeArchive(tree, tar).put_directory(root, os.fstat(root.parts[0][1]), b"")
    tar.close()
    return {"entries": tar.entries}


def archive(job: dict[str, Any], descriptors: list[int], report: Report) -> dict[str, Any]:
    """A path as a tar to the first descriptor, named by its last part as `docker cp` wants it."""
    tree = open_tree(job, descriptors)
    confine(READER, job["jail"])
    path = os.fsencode(job["path"])
    tar = TarWriter(RawSink(descriptors[0]))
    with tree.place(path, follow=False) as place:
        found = _existing(place, job["path"])
        packer = TreeArchive(tree, tar)
        if place.name:
            packer.put(place.directory, place.name, found, _base(path))
        else:
            packer.put_directory(place.directory, found.facts, _base(path))
    tar.close()
    return {"entries": tar.entries}


def _base(path: bytes) -> bytes:
    """What the archive's entries begin with: "." for DIR/., "/" for the root."""
    last = path.rstrip(b"/").rpartition(b"/")[2]
    if not last:
        return b"/"
    return b"." if last in (b".", b"..") else last


def _existing(place: Place, path: str) -> Found:
    if place.found is None:
        raise NotFound(f"Could not find the file {path} in container")
    return place.found


def facts(job: dict[str, Any], descriptors: list[int], report: Report) -> dict[str, Any]:
    """Stat of a path, a last link not followed; `target` is where it leads inside."""
    tree = open_tree(job, descriptors)
    confine(READER, job["jail"])
    path = os.fsencode(job["path"])
    with tree.place(path, follow=False) as place:
        status = _existing(place, job["path"]).facts
    return {**_facts_of(tree, path, status), "real": _real(tree, path)}


def part(job: dict[str, Any], descriptors: list[int], report: Report) -> dict[str, Any]:
    """Where a path lies: the layers that have it, topmost first, and its real path in them."""
    tree = open_tree(job, descriptors)
    confine(READER, job["jail"])
    path = os.fsencode(job["path"])
    with tree.place(path, follow=True) as place:
        found = _existing(place, job["path"])
        real = os.fsdecode(place.path)
        if not found.is_directory:
            layers = [place.directory.parts[found.parts[0]][0]]
            return {"directory": False, "layers": layers, "path": real}
        here = tree.enter(place.directory, place.name, found) if place.name else tree.root()
    with here:
        return {"directory": True, "layers": [layer for layer, _ in here.parts], "path": real}


def names(job: dict[str, Any], descriptors: list[int], report: Report) -> dict[str, Any]:
    """Facts of all entries of a directory."""
    tree = open_tree(job, descriptors)
    confine(READER, job["jail"])
    path = os.fsencode(job["path"])
    with tree.place(path, follow=True) as place:
        found, real = _existing(place, job["path"]), place.path
        if not found.is_directory:
            raise InvalidArgument(f"not a directory: {job['path']}")
        here = tree.enter(place.directory, place.name, found) if place.name else tree.root()
    entries = []
    with here:
        for name in tree.names(here):
            entry = tree.step(here, name)
            if entry is not None:
                entries.append(_facts_of(tree, real + b"/" + name, entry.facts))
    return {"entries": entries}


def _facts_of(tree: Tree, path: bytes, status: os.stat_result) -> dict[str, Any]:
    target = _link_target(tree, path) if stat.S_ISLNK(status.st_mode) else ""
    return {
        "name": os.fsdecode(_base(path)),
        "size": status.st_size,
        "mode": status.st_mode,
        "mtime": status.st_mtime_ns / 1e9,
        "target": target,
        "uid": status.st_uid,
        "gid": status.st_gid,
    }


def _real(tree: Tree, path: bytes) -> str:
    try:
        with tree.place(path, follow=True) as end:
            return "/" + os.fsdecode(end.path)
    except (NotFound, InvalidArgument):
        return ""


def _link_target(tree: Tree, path: bytes) -> str:
    if real := _real(tree, path):
        return real
    with tree.place(path, follow=False) as place:
        assert place.found is not None
        holder = place.directory.holder(place.found)
        return os.fsdecode(os.readlink(place.name, dir_fd=holder))


class Differences:
    """Compares the writable layer with those below it."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._size = 0

    def changes(self) -> list[tuple[bytes, int]]:
        """(path, 0 modified | 1 added | 2 deleted) of everything in the writable layer."""
        found: list[tuple[bytes, int]] = []
        with self._tree.root() as root:
            self._walk(root, found)
        return sorted(found)

    def _walk(self, directory: Directory, found: list[tuple[bytes, int]]) -> None:
        upper = directory.upper
        if upper is None:
            return
        lower = Directory(directory.path, directory.parts[1:])
        for text in os.listdir(upper):
            name = os.fsencode(text)
            path = directory.below(name)
            self._size += len(path)
            if self._size > _CHANGES_LIMIT:
                raise ResourceExhausted(
                    f"the container's changes have more than {_CHANGES_LIMIT} bytes of names"
                )
            before = lower.find(name)
            status = os.lstat(name, dir_fd=upper)
            if is_whiteout(status):
                if before is not None:
                    found.append((path, 2))
                continue
            if before is None or not _unchanged(status, before.facts):
                found.append((path, 1 if before is None else 0))
            if stat.S_ISDIR(status.st_mode):
                self._below(directory, name, before, found)

    def _below(
        self,
        directory: Directory,
        name: bytes,
        before: Found | None,
        found: list[tuple[bytes, int]],
    ) -> None:
        now = directory.find(name)
        if now is None:
            return
        with directory.enter(name, now) as below:
            count = len(found)
            self._walk(below, found)
            if before is not None and before.is_directory:
                if len(now.parts) == 1:
                    self._vanished(directory, name, before, below, found)
                if len(found) > count and (below.path, 0) not in found[count - 1 : count]:
                    found.append((below.path, 0))

    def _vanished(
        self,
        directory: Directory,
        name: bytes,
        before: Found,
        below: Directory,
        found: list[tuple[bytes, int]],
    ) -> None:
        """What an opaque directory hides was deleted."""
        lower = Directory(directory.path, directory.parts[1:])
        present = set(below.names())
        with lower.enter(name, before) as hidden:
            found += [(below.below(n), 2) for n in hidden.names() if n not in present]


def _unchanged(now: os.stat_result, before: os.stat_result) -> bool:
    """A directory that was only copied up because of something below it."""
    if not stat.S_ISDIR(now.st_mode) or not stat.S_ISDIR(before.st_mode):
        return False
    return (now.st_mode, now.st_uid, now.st_gid) == (before.st_mode, before.st_uid, before.st_gid)


def changes(job: dict[str, Any], descriptors: list[int], report: Report) -> dict[str, Any]:
    """What the writable layer changes."""
    tree = open_tree(job, descriptors)
    confine(READER, job["jail"])
    found = Differences(tree).changes()
    return {"changes": [["/" + os.fsdecode(path), kind] for path, kind in found]}


def usage(job: dict[str, Any], descriptors: list[int], report: Report) -> dict[str, Any]:
    """Bytes in each of the directories `paths`; files with several links count once."""
    opened = [(path, open_directory(path)) for path in job["paths"] if os.path.isdir(path)]
    confine(READER, job["jail"])
    return {path: _bytes_below(descriptor, set(), 0) for path, descriptor in opened}


def _bytes_below(directory: int, seen: set[tuple[int, int]], depth: int) -> int:
    total = 0
    if depth > _COUNTED_DEPTH:
        return 0  # nothing honest lies there
    with os.scandir(directory) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    below = open_directory(entry.name, directory)
                    try:
                        total += _bytes_below(below, seen, depth + 1)
                    finally:
                        os.close(below)
                elif (status.st_dev, status.st_ino) not in seen:
                    if status.st_nlink > 1:
                        seen.add((status.st_dev, status.st_ino))
                    total += status.st_size if stat.S_ISREG(status.st_mode) else 0
    return total


JOBS = {
    "identity": identity,
    "export": export,
    "archive": archive,
    "facts": facts,
    "names": names,
    "part": part,
    "changes": changes,
    "usage": usage,
}
