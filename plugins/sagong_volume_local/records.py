"""What is known of each volume, in a file beside its data; written whole, and durable."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import msgspec

from sagong.contracts.volume import Volume
from sagong.errors import InvalidArgument

__all__ = ["Record", "Records", "check_name"]

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}")


class Record(msgspec.Struct, kw_only=True):
    """A volume and whom it is published to; `filled` once it was seeded or written."""

    volume: Volume
    owners: list[str] = []
    filled: bool = False


def check_name(name: str) -> None:
    """Names as Docker allows them."""
    if not _NAME.fullmatch(name):
        raise InvalidArgument(
            f'create {name}: "{name}" includes invalid characters for a local volume name, only '
            '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, '
            "use absolute path"
        )


class Records:
    """All records; a directory whose record is missing is left over from a crash and swept."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.all: dict[str, Record] = {}
        for path in sorted(directory.iterdir()):
            record = self._read(path)
            if record is None:
                shutil.rmtree(path, ignore_errors=True)
            else:
                self.all[record.volume.name] = record

    def data(self, name: str) -> Path:
        """The directory of a volume's content."""
        return self._directory / name / "_data"

    def write(self, record: Record) -> None:
        """Keep a record."""
        directory = self._directory / record.volume.name
        temporary = directory / "volume.json.new"
        with open(temporary, "wb") as file:
            file.write(msgspec.json.encode(record))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(directory / "volume.json")
        self.all[record.volume.name] = record

    def make(self, record: Record) -> None:
        """A new volume: its directory first, the record last."""
        self.data(record.volume.name).mkdir(parents=True, exist_ok=True)
        self.data(record.volume.name).chmod(0o755)
        self.write(record)

    def delete(self, name: str) -> None:
        """Forget, then delete the content."""
        self.all.pop(name, None)
        (self._directory / name / "volume.json").unlink(missing_ok=True)
        shutil.rmtree(self._directory / name, ignore_errors=True)

    def _read(self, directory: Path) -> Record | None:
        try:
            return msgspec.json.decode((directory / "volume.json").read_bytes(), type=Record)
        except (FileNotFoundError, NotADirectoryError, msgspec.MsgspecError):
            return None
