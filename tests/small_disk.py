"""A small disk for a test that fills it."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

__all__ = ["small_disk"]


@contextlib.contextmanager
def small_disk(path: Path, size: str) -> Iterator[None]:
    """Mount one; needs root."""
    options = f"size={size},mode=755"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "small", str(path)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)
