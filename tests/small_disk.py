"""Disks for a test that fills them, cuts their power, or has them stand still."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

__all__ = ["mounted", "small_disk"]


@contextlib.contextmanager
def small_disk(path: Path, size: str) -> Iterator[None]:
    """Mount one; needs root."""
    with mounted(path, "-t", "tmpfs", "-o", f"size={size},mode=755", "small"):
        yield


@contextlib.contextmanager
def mounted(path: Path, *words: str) -> Iterator[None]:
    """What `mount WORDS… PATH` mounts; unmounted whatever ends this process."""
    heir = 'read done || umount -l -- "$0"'
    with subprocess.Popen(
        ["/bin/sh", "-c", heir, str(path)],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
        text=True,
    ) as waiting:
        assert waiting.stdin is not None
        subprocess.run(["mount", *words, str(path)], check=True)
        try:
            yield
        finally:
            subprocess.run(["umount", "-l", str(path)], check=True)
            waiting.stdin.write("done\n")
