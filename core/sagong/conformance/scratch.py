"""Scratch directories of rehearsals: what one that was killed left is taken away by the next."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from sagong.config import Paths
from sagong.conformance import network_rig
from sagong.errors import SagongError

__all__ = ["scratch"]

_TOP, _PREFIX = "/tmp", "sagong-dry-"
# A new one is locked by its owner within this time.
_YOUNG_SECONDS = 10.0


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A directory for this rehearsal; locked as long as one of its processes lives."""
    for left in Path(_TOP).glob(f"{_PREFIX}*"):
        _sweep(left)
    base = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_TOP))
    base.chmod(0o755)
    lock = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield base
    finally:
        _take_away(base)
        os.close(lock)


def _sweep(left: Path) -> None:
    """Take away what nobody has locked, and end the platform that may run there."""
    from sagong.cli.lifecycle import end

    with contextlib.suppress(OSError):
        lock = os.open(left, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if time.time() - os.fstat(lock).st_mtime < _YOUNG_SECONDS:
                return
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if (left / "run" / "kernel").exists():
                with contextlib.suppress(SagongError):
                    end(Paths.below(left), 0.0, everything=True)
            _take_away(left)
        finally:
            os.close(lock)


def _take_away(base: Path) -> None:
    network_rig.unmount_below(f"{base}/")
    shutil.rmtree(base, ignore_errors=True)
