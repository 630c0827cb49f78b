"""Writes a volume's files so that readers see all of the old or all of the new, never a mixture.

The layout is upstream's, on which readers rely (they watch `..data`)::

    VOLUME/key ──► ..data/key
    VOLUME/..data ──► ..2024_03_01_10_20_30.1234567
    VOLUME/..2024_03_01_10_20_30.1234567/key
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from sagong_node.pods.payload import Entry

__all__ = ["write_content"]

_DATA, _NEXT = "..data", "..data_tmp"


def write_content(
    directory: Path, content: Mapping[str, Entry], *, group: int | None = None
) -> bool:
    """Make the directory show exactly `content`; whether anything changed.

    `group` owns the files and may read them (fsGroup).
    """
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o755)
    current = _current(directory)
    if current is not None and _same(current, content, group):
        return False
    fresh = _fresh(directory)
    for path, entry in content.items():
        _write(fresh, path, entry, group)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(directory / _NEXT)
    os.symlink(fresh.name, directory / _NEXT)
    os.rename(directory / _NEXT, directory / _DATA)
    _link(directory, content)
    for old in directory.glob("..[0-9]*"):
        if old.name != fresh.name:
            shutil.rmtree(old, ignore_errors=True)
    return True


def _current(directory: Path) -> Path | None:
    try:
        return directory / os.readlink(directory / _DATA)
    except OSError:
        return None


def _fresh(directory: Path) -> Path:
    stamp = time.strftime("..%Y_%m_%d_%H_%M_%S.", time.gmtime())
    fresh = Path(tempfile.mkdtemp(prefix=stamp, dir=directory))
    fresh.chmod(0o755)
    return fresh


def _mode(entry: Entry, group: int | None) -> int:
    return entry.mode | 0o040 if group is not None else entry.mode


def _write(base: Path, path: str, entry: Entry, group: int | None) -> None:
    target = base / path
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    with open(target, "xb") as file:
        file.write(entry.data)
        os.fchmod(file.fileno(), _mode(entry, group))
        _give(file.fileno(), group)


def _give(descriptor: int, group: int | None) -> None:
    """Files are root's, as readers expect; without the right to give them away they stay ours."""
    with contextlib.suppress(PermissionError):
        os.fchown(descriptor, 0, 0 if group is None else group)


def _same(current: Path, content: Mapping[str, Entry], group: int | None) -> bool:
    found = {str(p.relative_to(current)): p for p in current.rglob("*") if not p.is_dir()}
    if found.keys() != content.keys():
        return False
    for path, entry in content.items():
        try:
            mode = stat.S_IMODE(found[path].stat().st_mode)
            if mode != _mode(entry, group) or found[path].read_bytes() != entry.data:
                return False
        except OSError:
            return False
    return True


def _link(directory: Path, content: Mapping[str, Entry]) -> None:
    """One link for each first part of a path; links to what is gone are removed."""
    wanted = {path.partition("/")[0] for path in content}
    for name in wanted:
        if not (directory / name).is_symlink():
            os.symlink(f"{_DATA}/{name}", directory / name)
    for path in directory.iterdir():
        if not path.name.startswith("..") and path.name not in wanted:
            path.unlink()
