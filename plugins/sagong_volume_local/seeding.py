"""Copies what an image has at a mount point into a new volume: layers merged, nothing lost.

Owners, modes, times, extended attributes, hard links, holes, device nodes. The top layer comes
first; what it removed (a 0/0 device) or made opaque stays away. No link is ever followed.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress

from sagong_volume_local.places import open_plain

__all__ = ["followed", "seed"]

_OVERLAY = ("trusted.overlay.", "user.overlay.")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_CHUNK = 1 << 30
# As path_resolution(7) has it.
_MOST_LINKS = 40


def seed(target: int, layers: Sequence[str], path: str, base: str) -> bool:
    """Fill the directory `target` from what the layers have at a path, top first; whether any had it.

    Layers without that directory are passed over; one that hides it ends the search.
    """
    place = followed(layers, path)
    with ExitStack() as stack:
        sources = []
        for layer in layers:
            descriptor, hides = _opened(f"{layer}/{place}".rstrip("/"), base)
            if descriptor is not None:
                stack.callback(os.close, descriptor)
                sources.append(descriptor)
            if hides:
                break
        if not sources:
            return False
        _Copy().directory(sources, target)
        return True


def followed(layers: Sequence[str], path: str) -> str:
    """The path without links: those of the layers, seen as one, are followed inside of them only."""
    left = path.split("/")[::-1]
    done: list[str] = []
    links = 0
    while left:
        part = left.pop()
        if part == "..":
            del done[-1:]
        elif part not in ("", "."):
            link = _link(layers, [*done, part])
            if link is None:
                done.append(part)
                continue
            links += 1
            if links > _MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            if link.startswith("/"):
                done.clear()
            left += link.split("/")[::-1]
    return "/".join(done)


def _link(layers: Sequence[str], parts: Sequence[str]) -> str | None:
    """Where an entry leads that is a link in the topmost layer that says something of it."""
    for layer in layers:
        opaque = False
        for position in range(1, len(parts) + 1):
            path = os.path.join(layer, *parts[:position])
            try:
                found = os.lstat(path)
            except FileNotFoundError:
                break
            if position == len(parts):
                return os.readlink(path) if stat.S_ISLNK(found.st_mode) else None
            if not stat.S_ISDIR(found.st_mode):
                return None
            opaque = opaque or _is_opaque(path)
        if opaque:
            return None
    return None


def _opened(layer: str, base: str) -> tuple[int | None, bool]:
    """The layer's directory if it has it, and whether it hides what lower layers have there."""
    inner = layer[len(base) :] if base and layer.startswith(f"{base}/") else layer
    steps = [part for part in inner.split("/") if part]
    start = layer[: len(layer) - len(inner)] or "/"
    for position in range(len(steps) + 1):
        path = os.path.join(start, *steps[:position])
        try:
            found = os.lstat(path)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                raise
            return None, False
        if not stat.S_ISDIR(found.st_mode) and position:
            # A removed directory, a file or a link in its place: what is below has no such place.
            return None, True
    descriptor = open_plain(layer, base)
    paths = (os.path.join(start, *steps[:position]) for position in range(len(steps) + 1))
    return descriptor, any(_is_opaque(path) for path in paths)


def _is_opaque(path: str | int) -> bool:
    for prefix in _OVERLAY:
        with suppress(OSError):
            if os.getxattr(path, f"{prefix}opaque") == b"y":
                return True
    return False


def _is_whiteout(found: os.stat_result, directory: int, name: str) -> bool:
    if stat.S_ISCHR(found.st_mode) and found.st_rdev == 0:
        return True
    if not stat.S_ISREG(found.st_mode) or found.st_size:
        return False
    attributes = _listed(f"/proc/self/fd/{directory}/{name}")
    return any(f"{prefix}whiteout" in attributes for prefix in _OVERLAY)


def _listed(path: str | int) -> list[str]:
    try:
        if isinstance(path, str):
            return os.listxattr(path, follow_symlinks=False)
        return os.listxattr(path)
    except OSError:
        return []


class _Copy:
    """One seeding; remembers files with several names."""

    def __init__(self) -> None:
        self._links: dict[tuple[int, int], tuple[int, str]] = {}
        self._held: list[int] = []

    def directory(self, sources: Sequence[int], target: int) -> None:
        """Merge directories, top first, into an existing one."""
        try:
            self._merge(sources, target)
        finally:
            for descriptor in self._held:
                os.close(descriptor)
            self._held = []

    def _merge(self, sources: Sequence[int], target: int) -> None:
        seen: set[str] = set()
        for position, source in enumerate(sources):
            for name in sorted(os.listdir(source)):
                if name not in seen:
                    seen.add(name)
                    self._entry(sources[position:], name, target)
        _copy_attributes(sources[0], target)
        _copy_facts(os.fstat(sources[0]), target)

    def _entry(self, sources: Sequence[int], name: str, target: int) -> None:
        found = os.lstat(name, dir_fd=sources[0])
        if _is_whiteout(found, sources[0], name):
            return
        if stat.S_ISDIR(found.st_mode):
            self._subdirectory(sources, name, target)
            return
        key = (found.st_dev, found.st_ino)
        if found.st_nlink > 1 and key in self._links:
            directory, first = self._links[key]
            os.link(first, name, src_dir_fd=directory, dst_dir_fd=target)
            return
        if self._file(sources[0], name, target, found) and found.st_nlink > 1:
            held = os.dup(target)
            self._held.append(held)
            self._links[key] = (held, name)

    def _subdirectory(self, sources: Sequence[int], name: str, target: int) -> None:
        os.mkdir(name, 0o700, dir_fd=target)
        with ExitStack() as stack:
            inner = os.open(name, _DIRECTORY, dir_fd=target)
            stack.callback(os.close, inner)
            below = []
            for descriptor in _lower_directories(sources, name):
                stack.callback(os.close, descriptor)
                below.append(descriptor)
            self._merge(below, inner)

    def _file(self, source: int, name: str, target: int, found: os.stat_result) -> bool:
        """Copy what is not a directory; sockets belong to a process and are left out."""
        kind = stat.S_IFMT(found.st_mode)
        if kind == stat.S_IFREG:
            _copy_content(source, name, target, found)
            return True
        if kind == stat.S_IFLNK:
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
        elif kind in (stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK):
            os.mknod(name, kind | 0o600, found.st_rdev, dir_fd=target)
        else:
            return False
        path = f"/proc/self/fd/{target}/{name}"
        os.chown(name, found.st_uid, found.st_gid, dir_fd=target, follow_symlinks=False)
        if kind != stat.S_IFLNK:
            os.chmod(path, stat.S_IMODE(found.st_mode))
        times = (found.st_atime_ns, found.st_mtime_ns)
        os.utime(name, ns=times, dir_fd=target, follow_symlinks=False)
        return True


def _lower_directories(sources: Sequence[int], name: str) -> Iterator[int]:
    """The directory in each layer from the top, until one hides the rest."""
    for source in sources:
        try:
            descriptor = os.open(name, _DIRECTORY, dir_fd=source)
        except FileNotFoundError:
            continue
        except (NotADirectoryError, OSError) as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                return
            raise
        yield descriptor
        if _is_opaque(descriptor):
            return


def _copy_content(source: int, name: str, target: int, found: os.stat_result) -> None:
    reader = os.open(name, _FILE, dir_fd=source)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        writer = os.open(name, flags, 0o600, dir_fd=target)
        try:
            for start, end in _data_ranges(reader, found.st_size):
                _copy_range(reader, writer, start, end)
            os.ftruncate(writer, found.st_size)
            # Capabilities are lost when the owner changes, so attributes come last but for times.
            os.fchown(writer, found.st_uid, found.st_gid)
            _copy_attributes(reader, writer)
            _copy_facts(found, writer)
        finally:
            os.close(writer)
    finally:
        os.close(reader)


def _data_ranges(reader: int, size: int) -> Iterator[tuple[int, int]]:
    """Where a file has data; holes stay holes."""
    position = 0
    while position < size:
        try:
            start = os.lseek(reader, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        position = os.lseek(reader, start, os.SEEK_HOLE)
        yield start, position


def _copy_range(reader: int, writer: int, start: int, end: int) -> None:
    """Within the kernel, by reference where the filesystem can."""
    position = start
    while position < end:
        try:
            done = os.copy_file_range(
                reader, writer, min(end - position, _CHUNK), position, position
            )
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            done = os.pwrite(writer, os.pread(reader, 1 << 20, position), position)
        if not done:
            return
        position += done


def _copy_attributes(source: int, target: int) -> None:
    for name in _listed(source):
        if name.startswith(_OVERLAY):
            continue
        try:
            os.setxattr(target, name, os.getxattr(source, name))
        except OSError as error:
            # A label or a namespace of attributes that this filesystem doesn't keep.
            if error.errno not in (errno.EOPNOTSUPP, errno.EPERM, errno.ENODATA):
                raise


def _copy_facts(found: os.stat_result, target: int) -> None:
    if (os.fstat(target).st_uid, os.fstat(target).st_gid) != (found.st_uid, found.st_gid):
        os.fchown(target, found.st_uid, found.st_gid)
    os.fchmod(target, stat.S_IMODE(found.st_mode))
    os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))
