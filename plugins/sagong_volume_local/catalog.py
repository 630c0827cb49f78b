"""The volumes that there are: a directory for each, with a record beside its content.

`volumes/NAME/volume` is the record, `volumes/NAME/_data` the content. A volume appears and goes by
one rename, and records are replaced by one, so a crash leaves the old or the new, never a half.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from pathlib import Path

import msgspec

from sagong.contracts.volume import Volume
from sagong.errors import Internal, NotFound
from sagong.linux.files import replace_file, synchronise

__all__ = ["Catalog", "Publication", "Record"]

_NEW, _GONE = ".new-", ".gone-"


class Publication(msgspec.Struct, frozen=True, kw_only=True):
    """What an owner was given; `pin` is the mount made for it alone, "" if there is none."""

    owner: str
    subpath: str = ""
    readonly: bool = False
    path: str
    pin: str = ""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A volume; `fresh` until somebody has had it, `project` is its quota's number."""

    volume: Volume
    fresh: bool = True
    project: int = 0
    publications: tuple[Publication, ...] = ()


class Catalog:
    """Records on disk and in memory."""

    def __init__(self, data: Path) -> None:
        self._root = data / "volumes"
        self._known: dict[str, Record] = {}

    def load(self) -> list[Path]:
        """Read all records; returned is what a crash left half made or half deleted."""
        left: list[Path] = []
        self._root.mkdir(mode=0o711, parents=True, exist_ok=True)
        for path in sorted(self._root.iterdir()):
            if path.name.startswith((_NEW, _GONE)):
                left.append(path)
                continue
            left += path.glob(".seed*")
            try:
                record = msgspec.msgpack.decode((path / "volume").read_bytes(), type=Record)
            except (msgspec.DecodeError, FileNotFoundError) as error:
                raise Internal(f"{path}/volume is damaged: {error}; restore or remove it") from None
            self._known[record.volume.name] = record
        return left

    def content(self, name: str) -> Path:
        """The directory of a volume's content."""
        return self._root / name / "_data"

    def all(self) -> list[Record]:
        """By name."""
        return [self._known[name] for name in sorted(self._known)]

    def find(self, name: str) -> Record | None:
        """One, or None."""
        return self._known.get(name)

    def get(self, name: str) -> Record:
        """One; NotFound names it."""
        record = self._known.get(name)
        if record is None:
            raise NotFound(f"get {name}: no such volume")
        return record

    def add(self, record: Record) -> None:
        """Make a volume with an empty directory of root's."""
        name = record.volume.name
        new = self._root / f"{_NEW}{secrets.token_hex(8)}"
        try:
            _furnish(new, record)
            new.rename(self._root / name)
        except OSError:
            # A full disk: what is half made must not stay to fill it further.
            shutil.rmtree(new, ignore_errors=True)
            raise
        synchronise(str(self._root))
        self._known[name] = record

    def change(self, record: Record) -> None:
        """Replace a record."""
        name = record.volume.name
        _write(self._root / name / "volume", record)
        self._known[name] = record

    def remove(self, name: str) -> Path:
        """Take a volume out at once; the returned directory is still to be deleted.

        Somebody may have deleted it by hand.
        """
        gone = self._root / f"{_GONE}{secrets.token_hex(8)}"
        with contextlib.suppress(FileNotFoundError):
            (self._root / name).rename(gone)
        synchronise(str(self._root))
        self._known.pop(name, None)
        return gone


def _furnish(new: Path, record: Record) -> None:
    (new / "_data").mkdir(mode=0o755, parents=True)
    os.chmod(new, 0o711)
    os.chmod(new / "_data", 0o755)
    if os.geteuid() != 0:
        os.chown(new / "_data", 0, 0)
    _write(new / "volume", record)


def _write(path: Path, record: Record) -> None:
    content = msgspec.msgpack.encode(record)
    replace_file(str(path), content, beside=str(path.with_name(f".{path.name}~")), durable=True)
