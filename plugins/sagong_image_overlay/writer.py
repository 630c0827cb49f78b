"""The writer: applies checked records below its root with little more than file capabilities.

`LayerWriter` fills an empty directory that becomes an overlayfs lower directory. Layers are
unpacked independently of each other; what then depends on the layers below (parents without an
entry, links to files of other layers) is only noted, see `Outcome`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

from sagong.errors import InvalidArgument, ResourceExhausted, SagongError, from_code
from sagong_image_overlay.deletion import remove_tree
from sagong_image_overlay.entry import Entry, Kind, RecordReader
from sagong_image_overlay.marks import (
    OPAQUE,
    WHITEOUT_DEVICE,
    is_directory,
    is_whiteout,
    set_opaque,
)
from sagong_image_overlay.room import CHECK_EVERY, check_room

__all__ = ["LayerWriter", "Outcome", "Writer"]

_SMALL = 1 << 18
# Of names that are told of a layer, and of those whose place is known.
_TOLD_LIMIT = 20_000
_KNOWN_LIMIT = 20_000
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass
class Outcome:
    """What was written.

    `implied` are directories that had no entry; with `foreign` an entry needs the layers below
    (a hard link to one of their files, a parent that is one of their links): unpack it over them.
    """

    digest: str = ""
    size: int = 0
    entries: int = 0
    implied: list[bytes] = field(default_factory=list)
    foreign: bool = False
    root: bool = False


def explain(error: OSError, entry: Entry) -> SagongError:
    """The error of an entry that can't be written."""
    shown = entry.name[:200].decode("utf-8", "replace")
    if error.errno in _FULL:
        return ResourceExhausted(f"failed to write /{shown}: {os.strerror(error.errno or 0)}")
    return InvalidArgument(f"failed to unpack /{shown}: {os.strerror(error.errno or 0)}")


class Writer(ABC):
    """Applies records; subclasses say where a name lies and what may be there already."""

    def __init__(
        self,
        source: RecordReader,
        *,
        own: bool = False,
        owner: tuple[int, int] | None = None,
        reserve: int = 0,
        most: int = 1 << 21,
        progress: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._source = source
        self._own = own
        # Whose all entries are, whatever they say of themselves.
        self._owner = owner
        self._reserve = reserve
        self._most = most
        self._implied_count = 0
        self._progress = progress
        self._since_check = 0
        # With the number of the entry: what has happened to the directory since is told by `_gone`.
        self._times: dict[bytes, tuple[int, int, int]] = {}
        self._gone: dict[bytes, int] = {}
        self.outcome = Outcome()
        self._make = {
            Kind.FILE: self._file,
            Kind.DIRECTORY: self._directory,
            Kind.SYMLINK: self._symlink,
            Kind.HARDLINK: self._hardlink,
            Kind.CHARACTER: self._node,
            Kind.BLOCK: self._node,
            Kind.FIFO: self._node,
            Kind.WHITEOUT: self._whiteout,
            Kind.OPAQUE: self._opaque,
        }

    # What subclasses decide.

    @abstractmethod
    def locate(self, name: bytes) -> tuple[bytes, int | None] | None:
        """Path and directory descriptor for a name whose parent exists; None to leave it out."""

    @abstractmethod
    def clear(self, entry: Entry, path: bytes, directory: int | None) -> bool:
        """Make room for `entry`; True if it is a directory that stays."""

    # The work.

    def run(self) -> Outcome:
        """Apply all records; raises what the parser or the filesystem said."""
        source, outcome = self._source, self.outcome
        while True:
            entry = source.next()
            if entry.kind <= Kind.OPAQUE:
                outcome.entries += 1
                if self._owner is not None:
                    entry.uid, entry.gid = self._owner
                self._apply(entry)
            elif entry.kind == Kind.PROGRESS:
                if entry.size:
                    self._progress(entry.size)
            elif entry.kind == Kind.END:
                self.finish()
                outcome.digest = entry.name.decode()
                return outcome
            else:
                raise from_code(entry.name.decode(), entry.link.decode("utf-8", "replace"))

    def finish(self) -> None:
        """Set the directories' times, which their entries have changed."""
        for name, (number, seconds, nanoseconds) in self._times.items():
            if not self.is_gone(name, number):
                self._set_times(name, when_ns((seconds, nanoseconds)))

    def _set_times(self, name: bytes, moment: tuple[int, int]) -> None:
        place = self.locate(name) if name else (b".", None)
        if place is not None:
            # A later entry may have replaced the directory by another name of it.
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                path, directory = place
                os.utime(_here(path), ns=moment, dir_fd=directory, follow_symlinks=False)

    def _apply(self, entry: Entry) -> None:
        name = entry.name
        # The parser has checked them; this process has the rights, so it checks again.
        if _leaves(name) or (entry.kind == Kind.HARDLINK and _leaves(entry.link)):
            raise InvalidArgument("the archive's parser sent a path that leaves the root")
        try:
            if not name:
                self._root(entry)
                return
            place = self.locate(name)
            if place is None:
                self._source.skip(entry.stored)
                return
            self._make[entry.kind](entry, *place)
        except OSError as error:
            raise explain(error, entry) from error

    def count_implied(self) -> None:
        """A directory is made that has no entry: a name of some KB can ask for thousands."""
        self._implied_count += 1
        if self._implied_count > self._most:
            raise ResourceExhausted(f"the archive needs more than {self._most} directories")

    def _root(self, entry: Entry) -> None:
        self._source.skip(entry.stored)
        if entry.kind == Kind.OPAQUE:
            os.setxattr(b".", OPAQUE, b"y")
        if entry.kind == Kind.DIRECTORY:
            self.outcome.root = True
            self._attributes(entry, b".", None)
            self._note_times(entry)

    def _file(self, entry: Entry, path: bytes, directory: int | None) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        mode = 0o600 if self._own else entry.mode & 0o777
        try:
            target = os.open(path, flags, mode, dir_fd=directory)
        except FileExistsError:
            self.clear(entry, path, directory)
            target = os.open(path, flags, mode, dir_fd=directory)
        try:
            self._fill(entry, target)
            if not self._own:
                os.fchown(target, entry.uid, entry.gid)
                if entry.mode != mode:
                    os.fchmod(target, entry.mode)
                for key, value in entry.xattrs:
                    set_xattr(target, key, value)
            os.utime(target, ns=when_ns((entry.seconds, entry.nanoseconds)))
        finally:
            os.close(target)

    def _fill(self, entry: Entry, target: int) -> None:
        size = entry.stored
        self.outcome.size += size
        self._since_check += size
        if self._since_check > CHECK_EVERY:
            self._since_check = 0
            check_room(target, self._reserve, size)
        if entry.segments is not None:
            for offset, length in entry.segments:
                self._source.copy(length, target, offset)
            os.ftruncate(target, entry.size)
        elif size < _SMALL:
            data = self._source.content(size)
            if data and os.write(target, data) != size:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        else:
            self._source.copy(size, target)

    def _directory(self, entry: Entry, path: bytes, directory: int | None) -> None:
        try:
            os.mkdir(path, 0o700, dir_fd=directory)
        except FileExistsError:
            if not self.clear(entry, path, directory):
                os.mkdir(path, 0o700, dir_fd=directory)
        self._attributes(entry, path, directory)
        self._note_times(entry)

    def _note_times(self, entry: Entry) -> None:
        self._times[entry.name] = (self.outcome.entries, entry.seconds, entry.nanoseconds)

    def forget(self, name: bytes) -> None:
        """The directory of that name is replaced by something else, with all that is below it."""
        self._gone[name] = self.outcome.entries

    def is_gone(self, name: bytes, number: int) -> bool:
        """Whether a directory that was noted at an entry was replaced since, or one above it."""
        while self._gone and name:
            if self._gone.get(name, 0) > number:
                return True
            name = name.rpartition(b"/")[0]
        return False

    def _attributes(self, entry: Entry, path: bytes, directory: int | None) -> None:
        """Owner, mode and attributes of a directory that nobody else can replace meanwhile."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        opened = os.open(path, flags, dir_fd=directory)
        try:
            if not self._own:
                os.fchown(opened, entry.uid, entry.gid)
                os.fchmod(opened, entry.mode)
                for key, value in entry.xattrs:
                    set_xattr(opened, key, value)
        finally:
            os.close(opened)

    def _symlink(self, entry: Entry, path: bytes, directory: int | None) -> None:
        try:
            os.symlink(entry.link, path, dir_fd=directory)
        except FileExistsError:
            self.clear(entry, path, directory)
            os.symlink(entry.link, path, dir_fd=directory)
        self._finish_node(entry, path, directory)

    def _node(self, entry: Entry, path: bytes, directory: int | None) -> None:
        if self._own:
            return
        kind = {Kind.CHARACTER: stat.S_IFCHR, Kind.BLOCK: stat.S_IFBLK}.get(
            entry.kind, stat.S_IFIFO
        )
        device = os.makedev(entry.major, entry.minor)
        if kind == stat.S_IFCHR and device == WHITEOUT_DEVICE:
            raise InvalidArgument(
                f"archive entry /{entry.name[:200].decode('utf-8', 'replace')} is device 0:0, "
                "which overlayfs takes for a whiteout"
            )
        mode = kind | (entry.mode & 0o777)
        try:
            os.mknod(path, mode, device, dir_fd=directory)
        except FileExistsError:
            self.clear(entry, path, directory)
            os.mknod(path, mode, device, dir_fd=directory)
        self._finish_node(entry, path, directory)
        if entry.mode & 0o7000:
            os.chmod(path, entry.mode, dir_fd=directory)

    def _finish_node(self, entry: Entry, path: bytes, directory: int | None) -> None:
        if not self._own:
            os.chown(path, entry.uid, entry.gid, dir_fd=directory, follow_symlinks=False)
        moment = when_ns((entry.seconds, entry.nanoseconds))
        os.utime(path, ns=moment, dir_fd=directory, follow_symlinks=False)

    def _hardlink(self, entry: Entry, path: bytes, directory: int | None) -> None:
        target = self.locate(entry.link)
        if target is None:
            return
        source, source_directory = target
        flags = {"src_dir_fd": source_directory, "dst_dir_fd": directory}
        try:
            os.link(source, path, follow_symlinks=False, **flags)
        except FileExistsError:
            if _same(source, source_directory, path, directory):
                return
            self.clear(entry, path, directory)
            os.link(source, path, follow_symlinks=False, **flags)

    def _whiteout(self, entry: Entry, path: bytes, directory: int | None) -> None:
        try:
            os.mknod(path, stat.S_IFCHR, WHITEOUT_DEVICE, dir_fd=directory)
        except FileExistsError:
            # What this layer has itself stays; only what lies below is hidden.
            if is_directory(path, directory):
                set_opaque(path, directory)

    def _opaque(self, entry: Entry, path: bytes, directory: int | None) -> None:
        try:
            os.mkdir(path, 0o755, dir_fd=directory)
            if not self._own:
                os.chown(path, 0, 0, dir_fd=directory)
        except FileExistsError:
            if not is_directory(path, directory):
                return
        set_opaque(path, directory)


def _leaves(name: bytes) -> bool:
    return name.startswith(b"/") or (b".." in name and b".." in name.split(b"/"))


def _here(path: bytes) -> bytes:
    return path or b"."


def not_linked(entry: Entry) -> SagongError:
    """The error of a hard link to what is not there, or is a directory."""
    name, link = (raw[:200].decode("utf-8", "replace") for raw in (entry.name, entry.link))
    return InvalidArgument(f"archive links /{name} to /{link}, which is no file")


def when_ns(when: tuple[int, int]) -> tuple[int, int]:
    """Access and modification time in nanoseconds."""
    moment = when[0] * 1_000_000_000 + when[1]
    return moment, moment


def _same(one: bytes, one_fd: int | None, two: bytes, two_fd: int | None) -> bool:
    first, second = os.lstat(one, dir_fd=one_fd), os.lstat(two, dir_fd=two_fd)
    return (first.st_dev, first.st_ino) == (second.st_dev, second.st_ino)


def set_xattr(target: int, key: bytes, value: bytes) -> None:
    """Set an attribute; filesystems without user attributes or ACLs just lack them."""
    try:
        os.setxattr(target, key, value)
    except OSError as error:
        if error.errno != errno.ENOTSUP or key.startswith(b"security."):
            raise


class LayerWriter(Writer):
    """Fills one empty directory, which is this process's root and working directory."""

    def __init__(self, source: RecordReader, **options: object) -> None:
        super().__init__(source, **options)  # type: ignore[arg-type]
        # Directory -> where it really is, for those that were met already.
        self._real: dict[bytes, bytes] = {b"": b""}
        self._implied: dict[bytes, int] = {}

    def finish(self) -> None:
        """Note what has no entry of its own."""
        super().finish()
        self.outcome.implied = [n for n, at in self._implied.items() if not self.is_gone(n, at)]

    def locate(self, name: bytes) -> tuple[bytes, int | None] | None:
        """The path below the root, its parents made or followed."""
        parent, _, base = name.rpartition(b"/")
        real = self._real.get(parent)
        if real is None:
            real = self._parent(parent)
            if real is None:
                self.outcome.foreign = True
                return None
        return (real + b"/" + base if real else base), None

    def _parent(self, name: bytes) -> bytes | None:
        """Where a directory really is; None if that lies in a layer below."""
        place = self.locate(name)
        if place is None:
            return None
        path = place[0]
        try:
            facts = os.lstat(path)
        except FileNotFoundError:
            return self._imply(name, path)
        if stat.S_ISLNK(facts.st_mode):
            found = self._followed(path)
        elif stat.S_ISDIR(facts.st_mode):
            found = path
        elif is_whiteout(facts):
            os.unlink(path)
            found = self._imply(name, path)
            set_opaque(path, None)
        else:
            raise InvalidArgument(
                f"archive has entries below /{name[:200].decode('utf-8', 'replace')}, "
                "which is not a directory"
            )
        if found is not None and stat.S_ISDIR(facts.st_mode):
            self._know(name, found)
        return found

    def _know(self, name: bytes, path: bytes) -> None:
        if len(self._real) >= _KNOWN_LIMIT:
            self._real = {b"": b""}
        self._real[name] = path

    def _followed(self, path: bytes) -> bytes | None:
        # The link can't leave this process's root; its end must be a directory of this layer. The
        # kernel is asked first: it follows no chain of more than forty.
        path = b"/" + path
        return os.path.realpath(path)[1:] if os.path.isdir(path) else None

    def _imply(self, name: bytes, path: bytes) -> bytes:
        self.count_implied()
        os.mkdir(path, 0o755)
        if not self._own:
            os.chown(path, 0, 0)
        if len(self._implied) < _TOLD_LIMIT:
            self._implied[name] = self.outcome.entries
        else:
            self.outcome.foreign = True
        self._know(name, path)
        return path

    def clear(self, entry: Entry, path: bytes, directory: int | None) -> bool:
        """Later entries replace earlier ones; directories stay directories."""
        facts = os.lstat(path)
        if stat.S_ISDIR(facts.st_mode) and entry.kind == Kind.DIRECTORY:
            self._implied.pop(entry.name, None)
            return True
        if entry.kind == Kind.DIRECTORY:
            # A file hid what is below, and so does what takes its place.
            os.unlink(path)
            os.mkdir(path, 0o700)
            set_opaque(path, None)
            return True
        if stat.S_ISDIR(facts.st_mode):
            self.forget(entry.name)
        remove_tree(path)
        return False

    def forget(self, name: bytes) -> None:
        """Names may have led through links: what was replaced can be any of them."""
        super().forget(name)
        self._real = {b"": b""}

    def _hardlink(self, entry: Entry, path: bytes, directory: int | None) -> None:
        try:
            self._refuse_hidden(entry)
            super()._hardlink(entry, path, directory)
        except FileNotFoundError:
            self.outcome.foreign = True

    def _refuse_hidden(self, entry: Entry) -> None:
        """A link to what the layer takes away would take away what has the link's name."""
        place = self.locate(entry.link)
        if place is not None and is_whiteout(os.lstat(place[0])):
            raise not_linked(entry)
