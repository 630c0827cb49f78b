"""Files that are replaced as a whole, and directories whose children come and go."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct

__all__ = ["remove_directory", "replace_file", "scatter", "synchronise", "write_all"]

# linux/fs.h; the flag is that of `chattr +T`.
_GET_FLAGS, _SET_FLAGS, _TOP_OF_TREES = 0x80086601, 0x40086602, 0x00020000
_FLAGS = struct.Struct("l")


def replace_file(
    path: str, content: bytes, *, beside: str, mode: int = 0o600, durable: bool = False
) -> None:
    """Readers see the old file or the new one, never a half; also where the disk gets full.

    It is written as `beside`, in the same directory, which an error leaves not behind; with `durable`
    what is there after a power cut is one of both, too.
    """
    try:
        _write(beside, content, mode, durable=durable)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise
    os.rename(beside, path)
    if durable:
        synchronise(os.path.dirname(path))


def synchronise(directory: str) -> None:
    """What was renamed, made and removed there survives a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_directory(path: str) -> None:
    """Remove a directory and what is in it, as far as possible; a missing one is no error.

    Somebody else may take parts of it away meanwhile, as a monitor does with its FIFOs. Most
    directories of a container hold a few files: walking them by descriptors costs more than deleting
    them.
    """
    try:
        for name in os.listdir(path):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{path}/{name}")
        os.rmdir(path)
    except FileNotFoundError:
        return
    except OSError:
        import shutil  # with compression and more, which launchers do without

        shutil.rmtree(path, ignore_errors=True)


def scatter(directory: str) -> None:
    """Have each child of a directory placed anew; what cannot do so is left as it is.

    ext4 puts children beside their parent and gives an inode that was freed in the last minutes to
    nobody: where containers come and go, each new one passes over hundreds of them, which took a
    millisecond of processor time (`find_inode_bit`).
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            raw = fcntl.ioctl(descriptor, _GET_FLAGS, _FLAGS.pack(0))
            (flags,) = _FLAGS.unpack(raw)
            fcntl.ioctl(descriptor, _SET_FLAGS, _FLAGS.pack(flags | _TOP_OF_TREES))
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes) -> None:
    """Write everything to a descriptor that blocks, in as many parts as it takes."""
    view = memoryview(data)
    while view:
        # write(2) takes a part where the disk is nearly full; the next one tells why.
        view = view[os.write(descriptor, view) :]


def _write(path: str, content: bytes, mode: int, *, durable: bool) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        write_all(descriptor, content)
        if durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
