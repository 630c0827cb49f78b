"""Resolves a subPath inside a volume that a container can write: no link may lead out of it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from sagong.errors import FailedPrecondition, InvalidArgument

__all__ = ["held_subpath"]


def held_subpath(root: Path, subpath: str, *, create: bool) -> Path:
    """The path of `subpath` below `root`, links followed only as long as they stay inside.

    A missing directory is made with the volume's mode if `create`. Each step of the result is looked
    at without following links.
    """
    parts = [part for part in subpath.split("/") if part not in ("", ".")]
    if subpath.startswith("/") or ".." in parts:
        raise InvalidArgument(f"subPath {subpath!r} must be relative and stay inside the volume")
    base = Path(os.path.realpath(root))
    wanted = Path(os.path.realpath(base.joinpath(*parts)))
    if not wanted.is_relative_to(base):
        raise FailedPrecondition(f"subPath {subpath!r} leads out of its volume by a symbolic link")
    _walk(base, wanted.relative_to(base).parts, create=create)
    return wanted


def _walk(base: Path, parts: tuple[str, ...], *, create: bool) -> None:
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
    here = os.open(base, flags | os.O_DIRECTORY)
    try:
        mode = stat.S_IMODE(os.fstat(here).st_mode) | 0o700
        for part in parts:
            try:
                there = os.open(part, flags, dir_fd=here)
            except FileNotFoundError:
                if not create:
                    raise FailedPrecondition(f"subPath: {part!r} does not exist") from None
                os.mkdir(part, 0o700, dir_fd=here)
                os.chmod(part, mode, dir_fd=here)
                there = os.open(part, flags, dir_fd=here)
            os.close(here)
            here = there
            if stat.S_ISLNK(os.fstat(here).st_mode):
                raise FailedPrecondition(f"subPath: {part!r} became a symbolic link")
    finally:
        os.close(here)
