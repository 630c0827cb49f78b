"""Deletes files and directories with all that is below them, following no link."""

from __future__ import annotations

import os
import secrets
import stat

from sagong_image_overlay.marks import is_directory

__all__ = ["remove_tree"]

_DEPTH = 100


def remove_tree(name: bytes, directory: int | None = None) -> None:
    """Remove a file or a directory with all below, without following links."""
    try:
        os.unlink(name, dir_fd=directory)
        return
    except IsADirectoryError:
        pass
    except PermissionError:
        if not stat.S_ISDIR(os.lstat(name, dir_fd=directory).st_mode):
            raise
    except FileNotFoundError:
        return
    pending = [name]
    while pending:
        _remove_directory(pending.pop(), directory, (directory, pending), 0)


def _remove_directory(
    name: bytes, directory: int | None, top: tuple[int | None, list[bytes]], depth: int
) -> None:
    """What lies too deep is moved to the top first: a container can nest without end."""
    opened = os.open(
        name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory
    )
    try:
        for below in map(os.fsencode, os.listdir(opened)):
            if not is_directory(below, opened):
                os.unlink(below, dir_fd=opened)
            elif depth < _DEPTH:
                _remove_directory(below, opened, top, depth + 1)
            else:
                moved = b".removed-" + secrets.token_hex(8).encode()
                os.rename(below, moved, src_dir_fd=opened, dst_dir_fd=top[0])
                top[1].append(moved)
    finally:
        os.close(opened)
    os.rmdir(name, dir_fd=directory)
