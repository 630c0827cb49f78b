"""Fills a volume with an image's content: its layers, the top one first, merged as overlayfs does."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Iterable
from pathlib import Path

__all__ = ["fill", "usage"]

_OPAQUE = ("trusted.overlay.opaque", "user.overlay.opaque")
_WHITEOUT = ("trusted.overlay.whiteout", "user.overlay.whiteout")


def fill(target: Path, layers: Iterable[Path]) -> bool:
    """Copy the merged content of `layers` into the empty `target`; whether there was any.

    A layer that has no such directory is passed over; one that has something else there ends it.
    """
    found = False
    for layer in layers:
        try:
            info = os.lstat(layer)
        except (FileNotFoundError, NotADirectoryError):
            continue
        if not stat.S_ISDIR(info.st_mode):
            break  # a whiteout or a file: what lies below is not seen
        _merge(layer, target, {})
        if not found:
            _attributes(layer, target, info)
        found = True
        if _opaque(layer):
            break
    _drop_whiteouts(target)
    return found


def usage(directory: Path) -> int:
    """Bytes on disk, each hard-linked file once."""
    seen: set[tuple[int, int]] = set()
    total = 0
    for root, names, files in os.walk(directory):
        for name in (*names, *files):
            with contextlib.suppress(FileNotFoundError):
                info = os.lstat(os.path.join(root, name))
                if (info.st_dev, info.st_ino) not in seen:
                    seen.add((info.st_dev, info.st_ino))
                    total += info.st_blocks * 512
    return total


def _merge(source: Path, target: Path, links: dict[tuple[int, int], Path]) -> None:
    """Add what `target` does not have; what is there came from a layer above."""
    for entry in os.scandir(source):
        place = target / entry.name
        info = entry.stat(follow_symlinks=False)
        if not os.path.lexists(place):
            _copy(Path(entry.path), place, info, links)
        elif stat.S_ISDIR(info.st_mode) and _open_directory(place):
            _merge(Path(entry.path), place, links)


def _open_directory(place: Path) -> bool:
    """A directory that shows what lies below it."""
    return place.is_dir() and not place.is_symlink() and not _opaque(place)


def _copy(
    source: Path, place: Path, info: os.stat_result, links: dict[tuple[int, int], Path]
) -> None:
    inode = (info.st_dev, info.st_ino)
    if info.st_nlink > 1 and inode in links:
        os.link(links[inode], place, follow_symlinks=False)
        return
    links[inode] = place
    kind = stat.S_IFMT(info.st_mode)
    if kind == stat.S_IFDIR:
        place.mkdir()
        _merge(source, place, links)
    elif kind == stat.S_IFLNK:
        place.symlink_to(os.readlink(source))
    elif kind == stat.S_IFREG:
        shutil.copyfile(source, place)
    elif kind == stat.S_IFIFO:
        os.mkfifo(place)
    elif _whiteout(source, info):
        place.touch(mode=0)
        with contextlib.suppress(OSError):
            os.setxattr(place, _WHITEOUT[1], b"y")
        return
    else:
        return  # sockets and device nodes are nobody's content
    _attributes(source, place, info)


def _attributes(source: Path, place: Path, info: os.stat_result) -> None:
    os.chown(place, info.st_uid, info.st_gid, follow_symlinks=False)
    if not stat.S_ISLNK(info.st_mode):
        os.chmod(place, stat.S_IMODE(info.st_mode))
        for name in os.listxattr(source):
            if name not in (*_OPAQUE, *_WHITEOUT):
                with contextlib.suppress(OSError):
                    os.setxattr(place, name, os.getxattr(source, name))
    times = (info.st_atime_ns, info.st_mtime_ns)
    os.utime(place, ns=times, follow_symlinks=False)


def _whiteout(path: Path, info: os.stat_result) -> bool:
    """A deleted name: a character device 0/0 (overlayfs.rst of the kernel)."""
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == 0


def _opaque(path: Path) -> bool:
    for name in _OPAQUE:
        try:
            if os.getxattr(path, name) == b"y":
                return True
        except OSError:
            continue
    return False


def _drop_whiteouts(target: Path) -> None:
    """Whiteouts held their names while lower layers were merged; now they go."""
    for root, _, files in os.walk(target):
        for name in files:
            path = os.path.join(root, name)
            info = os.lstat(path)
            if stat.S_ISREG(info.st_mode) and info.st_size == 0 and not stat.S_IMODE(info.st_mode):
                with contextlib.suppress(OSError):
                    os.getxattr(path, _WHITEOUT[1], follow_symlinks=False)
                    os.unlink(path)
