"""The merged view of a root filesystem that nobody has mounted: overlayfs's rules on plain files.

Layers are directory descriptors, the top one first; every step opens one name of one directory
without following links, so nothing outside is reached, whatever a container does meanwhile.
Source: the kernel's Documentation/filesystems/overlayfs.rst (whiteouts, opaque directories).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType

from sagong.errors import InvalidArgument, NotFound
from sagong_image_overlay.marks import OPAQUE, is_whiteout

__all__ = ["Directory", "Found", "Place", "Tree", "open_directory"]

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LINKS = 255


def open_directory(name: bytes | str, directory: int | None = None) -> int:
    """A descriptor of a directory that is not a link."""
    return os.open(name, _OPEN, dir_fd=directory)


class Directory:
    """A merged directory: (layer number, descriptor) from top to bottom; layer 0 is writable."""

    def __init__(self, path: bytes, parts: list[tuple[int, int]]) -> None:
        self.path = path
        self.parts = parts

    def close(self) -> None:
        """Close its descriptors."""
        for _, descriptor in self.parts:
            os.close(descriptor)
        self.parts = []

    def __enter__(self) -> Directory:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def upper(self) -> int | None:
        """The descriptor in the writable layer, if the directory exists there."""
        return self.parts[0][1] if self.parts and self.parts[0][0] == 0 else None

    def below(self, name: bytes) -> bytes:
        """The path of an entry."""
        return self.path + b"/" + name if self.path else name

    def find(self, name: bytes) -> Found | None:
        """The entry of that name as the merged view shows it."""
        kept: list[int] = []
        first: os.stat_result | None = None
        for index, (_, descriptor) in enumerate(self.parts):
            try:
                facts = os.lstat(name, dir_fd=descriptor)
            except (FileNotFoundError, NotADirectoryError):
                continue
            if is_whiteout(facts):
                break
            if not stat.S_ISDIR(facts.st_mode):
                return Found(facts, [index]) if first is None else Found(first, kept)
            first = first or facts
            kept.append(index)
            if _is_opaque(name, descriptor):
                break
        return Found(first, kept) if first is not None else None

    def enter(self, name: bytes, found: Found) -> Directory:
        """The directory that was found."""
        parts: list[tuple[int, int]] = []
        try:
            for index in found.parts:
                layer, descriptor = self.parts[index]
                parts.append((layer, open_directory(name, descriptor)))
        except OSError:
            Directory(b"", parts).close()
            raise
        return Directory(self.below(name), parts)

    def names(self) -> list[bytes]:
        """All names that the merged view shows, sorted."""
        shown: dict[bytes, bool] = {}
        for _, descriptor in self.parts:
            with os.scandir(descriptor) as entries:
                for entry in entries:
                    name = os.fsencode(entry.name)
                    if name not in shown:
                        shown[name] = not _hides(entry)
        return sorted(name for name, seen in shown.items() if seen)

    def holder(self, found: Found) -> int:
        """The descriptor of the directory that holds the found entry itself."""
        return self.parts[found.parts[0]][1]


@dataclass(slots=True)
class Found:
    """An entry: what stat says of its topmost form, and the parts of the directory that have it.

    `descriptor` is set for a file that is a mount of its own.
    """

    facts: os.stat_result
    parts: list[int]
    descriptor: int | None = None

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory itself."""
        return stat.S_ISDIR(self.facts.st_mode)


def _hides(entry: os.DirEntry[str]) -> bool:
    # Only a character device can be a whiteout: no stat for the rest.
    if entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False):
        return False
    return not entry.is_symlink() and is_whiteout(entry.stat(follow_symlinks=False))


def _is_opaque(name: bytes, descriptor: int) -> bool:
    opened = open_directory(name, descriptor)
    try:
        return os.getxattr(opened, OPAQUE) in (b"y", b"x")
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.ENOTSUP):
            return False
        raise
    finally:
        os.close(opened)


@dataclass(slots=True)
class Place:
    """Where a path ends: a name in a directory; `name` empty is the root. `found` None: missing."""

    directory: Directory
    name: bytes
    found: Found | None

    @property
    def path(self) -> bytes:
        """The real path, links resolved, relative to the root."""
        return self.directory.below(self.name) if self.name else self.directory.path


class Tree:
    """A root filesystem of layers, the first of them writable if `writable`.

    `mount` puts directories and files of elsewhere over it, as the container's mounts do.
    """

    def __init__(self, layers: list[int], *, writable: bool) -> None:
        first = 0 if writable else 1
        self._parts = list(enumerate(layers, first))
        self._mounts: dict[bytes, int] = {}

    def mount(self, path: bytes, descriptor: int) -> None:
        """Show what `descriptor` is at `path`; -1 stands for something that can't be seen."""
        with self.place(path, follow=True) as place:
            self._mounts[place.path] = descriptor

    def close(self) -> None:
        """Close all descriptors."""
        for descriptor in [d for _, d in self._parts] + list(self._mounts.values()):
            if descriptor >= 0:
                os.close(descriptor)
        self._parts, self._mounts = [], {}

    def root(self) -> Directory:
        """The merged root; the caller closes it."""
        return Directory(b"", [(layer, os.dup(fd)) for layer, fd in self._parts])

    def names(self, directory: Directory) -> list[bytes]:
        """All names in a directory, with those that are there by a mount alone."""
        prefix = directory.path + b"/" if directory.path else b""
        here = {path[len(prefix) :] for path in self._mounts if path.startswith(prefix)}
        mounted = {name for name in here if name and b"/" not in name}
        return sorted(mounted.union(directory.names())) if mounted else directory.names()

    def refuse_mounted_file(self, path: bytes) -> None:
        """A file that is a mount can't be replaced, and what it hides is not meant."""
        mounted = self._mounts.get(path, -1)
        if mounted >= 0 and not stat.S_ISDIR(os.fstat(mounted).st_mode):
            raise InvalidArgument(
                f"/{_shown(path)}: device or resource busy: it is mounted from elsewhere"
            )

    def step(self, directory: Directory, name: bytes) -> Found | None:
        """Find a name, mounts first."""
        mounted = self._mounts.get(directory.below(name)) if self._mounts else None
        if mounted is None:
            return directory.find(name)
        if mounted < 0:
            path = _shown(directory.below(name))
            raise InvalidArgument(f"what is mounted at /{path} is hidden from the image plugin")
        return Found(os.fstat(mounted), [], mounted)

    def enter(self, directory: Directory, name: bytes, found: Found) -> Directory:
        """Go into a directory, also one that is a mount."""
        if found.descriptor is None:
            return directory.enter(name, found)
        return Directory(directory.below(name), [(0, open_directory(b".", found.descriptor))])

    @contextlib.contextmanager
    def place(self, path: bytes, *, follow: bool) -> Iterator[Place]:
        """Resolve a path inside the root; NotFound if a directory on the way is missing.

        `follow` also resolves a link that is the last part.
        """
        stack = [self.root()]
        try:
            yield self._walk(stack, path, follow=follow)
        finally:
            for directory in stack:
                directory.close()

    def reach(self, path: bytes) -> tuple[bytes, list[bytes]]:
        """As far as a path leads, links resolved: the real path, and the parts that follow what is
        missing there."""
        stack = [self.root()]
        parts = [part for part in path.split(b"/") if part not in (b"", b".")]
        try:
            real = b""
            for number, part in enumerate(parts, 1):
                place = self._walk(stack, part, follow=True)
                real = place.path
                if place.found is None:
                    return real, parts[number:]
                if not place.found.is_directory and number < len(parts):
                    raise InvalidArgument(f"not a directory: /{_shown(real)}")
            return real, []
        finally:
            for directory in stack:
                directory.close()

    def _walk(self, stack: list[Directory], path: bytes, *, follow: bool) -> Place:
        todo = _parts_of(path)
        follow = follow or path.endswith((b"/", b"/."))
        links = 0
        while todo:
            name = todo.pop()
            if name == b"..":
                if len(stack) > 1:
                    stack.pop().close()
                continue
            found = self.step(stack[-1], name)
            if found is None:
                if todo:
                    raise NotFound(f"no such directory: /{_shown(stack[-1].below(name))}")
                return Place(stack[-1], name, None)
            if stat.S_ISLNK(found.facts.st_mode) and (todo or follow):
                links += 1
                if links > _LINKS:
                    raise InvalidArgument(f"too many levels of symbolic links: /{_shown(path)}")
                target = os.readlink(name, dir_fd=stack[-1].holder(found))
                if target.startswith(b"/"):
                    while len(stack) > 1:
                        stack.pop().close()
                todo += _parts_of(target)
            elif found.is_directory:
                stack.append(self.enter(stack[-1], name, found))
            elif todo:
                raise InvalidArgument(f"not a directory: /{_shown(stack[-1].below(name))}")
            else:
                return Place(stack[-1], name, found)
        return self._at_directory(stack)

    def _at_directory(self, stack: list[Directory]) -> Place:
        """The path ended at the directory on top of the stack: give its parent and its name."""
        here = stack[-1]
        if len(stack) == 1:
            return Place(here, b"", Found(os.fstat(here.parts[0][1]), []))
        name = here.path.rpartition(b"/")[2]
        return Place(stack[-2], name, self.step(stack[-2], name))

    def read_file(self, path: bytes, limit: int = 1 << 20) -> bytes:
        """The content of a regular file, links followed inside; NotFound if there is none."""
        with self.place(path, follow=True) as place:
            if place.found is None or not stat.S_ISREG(place.found.facts.st_mode):
                raise NotFound(f"no such file: /{_shown(path)}")
            opened = open_file(place)
            try:
                return _read_all(opened, limit)
            finally:
                os.close(opened)


def open_file(place: Place) -> int:
    """A descriptor of the regular file at a place."""
    found = place.found
    if found is None:
        raise NotFound(f"no such file: /{_shown(place.path)}")
    if found.descriptor is not None:
        return os.dup(found.descriptor)
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    return os.open(place.name, flags, dir_fd=place.directory.holder(found))


def _read_all(descriptor: int, limit: int) -> bytes:
    parts, have = [], 0
    while have < limit and (data := os.read(descriptor, min(1 << 16, limit - have))):
        parts.append(data)
        have += len(data)
    return b"".join(parts)


def _parts_of(path: bytes) -> list[bytes]:
    """The parts of a path in reverse, so that `pop` gives the next."""
    return [part for part in reversed(path.split(b"/")) if part not in (b"", b".")]


def _shown(path: bytes) -> str:
    return path.lstrip(b"/")[:300].decode("utf-8", "replace")
