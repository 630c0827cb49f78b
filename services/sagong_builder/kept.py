"""Contexts of builds that have ended: the next one of the same directory is sent what changed.

Each is a directory below the unit's data, named by whose it is::

    contexts/NAME/content   the files' contents, one after the other
    contexts/NAME/table     what the client told of each file, and where its content lies
    contexts/NAME/meta      since when, how often

Whoever takes one moves it away, and puts it back as a whole; so processes need no lock. What the disk
may not have got before the machine went down is known by the boot, and dropped.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from sagong.contracts.builder import CacheRecord

__all__ = ["Facts", "KeptContext", "KeptContexts"]

_COUNT = 16
_BYTES = 2 << 30
_SECONDS = 7 * 24 * 3600.0
# What is written over in a context's file is not given back: when it is most of the file, begin anew.
_SLACK = 16 << 20
_BOOT = Path("/proc/sys/kernel/random/boot_id")

Facts = tuple[int, int, int]
"""Mode, size and time of a file, as the client tells them."""

Files = dict[str, tuple[Facts, int]]
"""Files by path: what was told of each, and where its content lies."""


class _Meta(msgspec.Struct):
    description: str
    boot: str
    id: str
    created_at: float
    used_at: float
    uses: int


@dataclass
class KeptContext:
    """The file with the contents, and its complete files."""

    content: Path
    files: Files
    description: str = ""
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    created_at: float = field(default_factory=time.time)
    uses: int = 0

    @property
    def worth(self) -> bool:
        """Whether the file is mostly what is still used."""
        used = sum(facts[1] for facts, _ in self.files.values())
        return self.content.stat().st_size <= 2 * used + _SLACK


class KeptContexts:
    """All of the unit, below a directory; those not used for the longest go when there are too many."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._boot = _BOOT.read_text().strip()

    def _home(self, key: tuple[str, ...]) -> Path:
        return self._directory / hashlib.sha256("\0".join(key).encode()).hexdigest()[:32]

    def take(self, key: tuple[str, ...], place: Path) -> KeptContext | None:
        """The context of this key, its contents now at `place`; None if there is none worth it."""
        moved = place.with_suffix(".kept")
        try:
            os.rename(self._home(key), moved)
            meta = msgspec.msgpack.decode((moved / "meta").read_bytes(), type=_Meta)
            files = msgspec.msgpack.decode((moved / "table").read_bytes(), type=Files)
            os.rename(moved / "content", place)
        except (OSError, msgspec.DecodeError):
            return None
        finally:
            shutil.rmtree(moved, ignore_errors=True)
        found = KeptContext(place, files, meta.description, meta.id, meta.created_at, meta.uses)
        if meta.boot == self._boot and found.worth:
            return found
        place.unlink()
        return None

    def put(self, key: tuple[str, ...], context: KeptContext) -> None:
        """Keep it; another of the same key goes. One that can't be kept is lost, and no error."""
        made = context.content.with_suffix(".made")
        meta = _Meta(context.description, self._boot, context.id, context.created_at, time.time(),
                     context.uses + 1)  # fmt: skip
        try:
            made.mkdir(mode=0o700)
            os.rename(context.content, made / "content")
            (made / "table").write_bytes(msgspec.msgpack.encode(context.files))
            (made / "meta").write_bytes(msgspec.msgpack.encode(meta))
            self._directory.mkdir(mode=0o700, exist_ok=True)
            self._discard(self._home(key))
            os.rename(made, self._home(key))
        except OSError:
            shutil.rmtree(made, ignore_errors=True)
            context.content.unlink(missing_ok=True)
        self._trim()

    def _discard(self, home: Path) -> None:
        """Away with it at once, for everybody; its files after that."""
        gone = home.with_suffix(f".{secrets.token_hex(4)}")
        with contextlib.suppress(FileNotFoundError):
            os.rename(home, gone)
        shutil.rmtree(gone, ignore_errors=True)

    def _all(self) -> Iterator[tuple[Path, _Meta, int]]:
        """Each with its size, the one that was used last first."""
        found = []
        for home in self._directory.glob("*"):
            with contextlib.suppress(OSError, msgspec.DecodeError):
                meta = msgspec.msgpack.decode((home / "meta").read_bytes(), type=_Meta)
                found.append((home, meta, (home / "content").stat().st_size))
        yield from sorted(found, key=lambda one: -one[1].used_at)

    def _trim(self) -> None:
        room, oldest = _BYTES, time.time() - _SECONDS
        for number, (home, meta, size) in enumerate(self._all()):
            room -= size
            if number >= _COUNT or room < 0 or meta.used_at < oldest or meta.boot != self._boot:
                self._discard(home)

    def records(self) -> list[CacheRecord]:
        """What is kept."""
        return [
            CacheRecord(
                id=meta.id,
                kind="source.local",
                description=f"local source for {meta.description}",
                size=size,
                created_at=meta.created_at,
                used_at=meta.used_at,
                uses=meta.uses,
            )
            for _, meta, size in self._all()
        ]

    def drop(self, id_: str) -> bool:
        """Delete one by its id; False if there is none."""
        for home, meta, _ in self._all():
            if meta.id == id_:
                self._discard(home)
                return True
        return False
