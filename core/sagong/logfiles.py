"""The files of one log: the present one, and those that were rotated, which may be packed.

::

    c.log         is being written
    c.log.1       the one before
    c.log.2.gz    the one before that, packed
    c.log.new     the next one, in the midst of a rotation

Only who writes a log moves its files. What packs them is a process of its own, which the writer ends
before it moves any. Readers need neither: they open all files, and look again if these have moved.
A file is known by the inode that it was written in; a packed one keeps that in its header.
"""

from __future__ import annotations

import contextlib
import os
import struct

__all__ = ["LogFile", "PackedFile", "open_files", "pack", "remove", "rotate"]

_BLOCK = 256 << 10
# RFC 1952: magic, deflate, a name follows, no time, no flags, Unix.
_HEAD = b"\x1f\x8b\x08\x08\x00\x00\x00\x00\x00\x03"
_TAIL = struct.Struct("<II")
_LONGEST_NAME = 24
_TRIES = 8


class LogFile:
    """One that is open for reading, as bytes of the log."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.inode = os.fstat(descriptor).st_ino

    def fileno(self) -> int:
        """Of the file that is open."""
        return self._descriptor

    def size(self) -> int | None:
        """How much there is now; None if only reading tells."""
        return os.fstat(self._descriptor).st_size

    def seek(self, offset: int) -> None:
        """Go on from there."""
        os.lseek(self._descriptor, offset, os.SEEK_SET)

    def read(self, size: int) -> bytes:
        """Some more; b"" at the end."""
        return os.read(self._descriptor, size)

    def close(self) -> None:
        """Let go of it."""
        os.close(self._descriptor)


class PackedFile(LogFile):
    """One that is packed; a damaged one ends where it is damaged."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor)
        self.inode = _inode_within(descriptor)
        self.seek(0)

    def size(self) -> int | None:
        """It is not known."""
        return None

    def seek(self, offset: int) -> None:
        """From the beginning: what is packed can't be entered elsewhere."""
        import zlib

        super().seek(0)
        self._unpacker = zlib.decompressobj(zlib.MAX_WBITS | 16)
        while offset > 0 and (data := self.read(min(offset, _BLOCK))):
            offset -= len(data)

    def read(self, size: int) -> bytes:
        """Some more, unpacked."""
        import zlib

        while not self._unpacker.eof:
            packed = self._unpacker.unconsumed_tail or super().read(size)
            try:
                data = self._unpacker.decompress(packed, size)
            except zlib.error:
                return b""
            if data or not packed:
                return data
        return b""


def _inode_within(descriptor: int) -> int:
    """0 if it does not say."""
    head = os.pread(descriptor, len(_HEAD) + _LONGEST_NAME, 0)
    name = head.removeprefix(_HEAD).partition(b"\0")[0]
    return int(name) if name.isdigit() else 0


def _names(path: str) -> dict[str, int]:
    """The inodes of all files that are there, the present one first.

    In the midst of a rotation one number is nobody's: older ones may stand behind it.
    """
    found: dict[str, int] = {}
    number = missing = 0
    while missing < 2:
        plain = f"{path}.{number}" if number else path
        for name in (plain, f"{plain}.gz"):
            # One whose packing is just being done is there twice.
            with contextlib.suppress(FileNotFoundError):
                found[name] = os.stat(name).st_ino
                missing = 0
                break
        else:
            missing += 1
        number += 1
    return found


def open_files(path: str) -> list[LogFile]:
    """All files, the oldest first, as they were at one moment (if they rest for a moment at all)."""
    for tries in range(_TRIES):
        names = _names(path)
        opened: list[LogFile] = []
        for name in reversed(names):
            kind = PackedFile if name.endswith(".gz") else LogFile
            with contextlib.suppress(FileNotFoundError):
                opened.append(kind(os.open(name, os.O_RDONLY | os.O_CLOEXEC)))
        if _names(path) == names or tries == _TRIES - 1:
            break
        for file in opened:
            file.close()
    return opened


def rotate(path: str, keep: int) -> None:
    """The oldest goes, each other moves one up, and an empty one is the present one of `keep` files.

    With one alone it is emptied. OSError where no file can be made: then none has moved.
    """
    if keep == 1:
        os.truncate(path, 0)
        return
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    os.close(os.open(_fresh(path), flags, 0o640))
    for number in range(keep - 1, 0, -1):
        older = f"{path}.{number - 1}" if number > 1 else path
        for end in ("", ".gz"):
            _move(f"{older}{end}", f"{path}.{number}{end}")
    os.rename(_fresh(path), path)


def _fresh(path: str) -> str:
    """What the file is called that is made before the others move."""
    return f"{path}.new"


def _move(old: str, new: str) -> None:
    """What is not there takes the place of what was."""
    try:
        os.rename(old, new)
    except FileNotFoundError:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)


def pack(path: str, keep: int) -> None:
    """Pack what was rotated and is not yet packed, the oldest first."""
    for number in range(keep - 1, 0, -1):
        with contextlib.suppress(FileNotFoundError):
            _pack(f"{path}.{number}")


def _pack(name: str) -> None:
    """Nobody sees a half of it: the packed file has a name when it is whole."""
    packed = f"{name}.gz"
    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
    inode = os.fstat(descriptor).st_ino
    if not os.path.exists(packed):
        place = os.open(os.path.dirname(name), os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o640)
        _squeeze(descriptor, place)
        # Only with a directory Python calls linkat(2), which follows.
        os.link(f"/proc/self/fd/{place}", packed, src_dir_fd=place, follow_symlinks=True)
        os.close(place)
    os.close(descriptor)
    with contextlib.suppress(FileNotFoundError):
        if os.stat(name).st_ino == inode:
            os.unlink(name)
            return
    # The log was removed meanwhile, or its writer was killed and another one moved the file.
    os.unlink(packed)


def _squeeze(source: int, target: int) -> None:
    import zlib

    squeezer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    checksum = size = 0
    os.write(target, _HEAD + b"%d\0" % os.fstat(source).st_ino)
    while data := os.read(source, _BLOCK):
        checksum = zlib.crc32(data, checksum)
        size += len(data)
        _write(target, squeezer.compress(data))
    _write(target, squeezer.flush() + _TAIL.pack(checksum, size & 0xFFFFFFFF))


def _write(target: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(target, view) :]


def remove(path: str, keep: int, *, packed: bool) -> None:
    """All files of a log; a crash may have left any of them."""
    rotated = [f"{path}.{number}" for number in range(1, keep)]
    for name in (path, _fresh(path), *rotated, *(f"{name}.gz" for name in rotated if packed)):
        with contextlib.suppress(OSError):
            os.unlink(name)
