"""What stands in an instance's directories, in terms that no run changes: how much of each kind."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

__all__ = ["places"]

# Ids, hashes and random names; numbers; then what is counted by its kind.
_NAMES = ((re.compile(r"[0-9a-f]{8}[0-9a-f-]*"), "#"), (re.compile(r"\d+"), "0"))
# What comes and goes with processes, which are counted elsewhere, or is made when it is needed first.
_ASIDE = re.compile(
    r"[^/]+|log/.*|netns/.*|slots/[^/]+/bus(/.*)?|kernel(/.*)?|keeper.pid|.*\.sock|.*-(wal|shm)|node/logs/[0-9a-f]{2}|"
    r"slots/[^/]+(/run(/[^/]+)?)?|slots/runtime/run/[^/]+/s/.*|builder/work/.*|"
    r"image_overlay/uploads/[^/]+\.answer"
)
# Where empty directories are kept for those to come.
_SPARE = re.compile(r"image_overlay/c/[^/]+")


def places(directory: Path, depth: int) -> tuple[str, ...]:
    """`PATH: how many` of everything down to some depth, by names without their numbers."""
    counts = Counter(
        _kind(path) for path in _walked(directory, depth) if not _is_spare(directory, path)
    )
    return tuple(f"{kind}: {number}" for kind, number in sorted(counts.items()) if kind)


def _is_spare(directory: Path, path: str) -> bool:
    try:
        return bool(_SPARE.fullmatch(path)) and not os.listdir(directory / path)
    except OSError:
        return False


def _kind(path: str) -> str:
    if _ASIDE.fullmatch(path):
        return ""
    for pattern, name in _NAMES:
        path = pattern.sub(name, path)
    return path


def _walked(directory: Path, depth: int) -> Iterator[str]:
    """Relative paths; what goes meanwhile is left out."""
    try:
        entries = list(os.scandir(directory))
    except OSError:
        return
    for entry in entries:
        yield entry.name
        if depth > 1 and entry.is_dir(follow_symlinks=False):
            below = _walked(Path(entry.path), depth - 1)
            yield from (f"{entry.name}/{path}" for path in below)
