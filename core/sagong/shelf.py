"""The shelf: plugins that the operator installed, each in an environment of its own, pinned.

Below the instance's data: `shelf/NAME/record.json` says what was installed; `shelf/NAME/NUMBER` is the
virtual environment that the record names. An environment sees the platform's own packages behind
its own (by a `.pth` file), so a plugin brings its own dependencies, in its own versions, and need not
bring sagong. Every file of it is in the record with its digest: the kernel starts a plugin only when
its files are those that were installed.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path

import msgspec

from sagong import manifest
from sagong.config import Paths
from sagong.errors import FailedPrecondition, NotFound
from sagong.manifest import Manifest

__all__ = ["Record", "Shelf"]

_OWN = re.compile(
    r"^(?!lib/[^/]+/site-packages/)|__pycache__/|/zz-sagong\.pth$"
    r"|\.dist-info/(RECORD|INSTALLER|REQUESTED|direct_url\.json)$"
)


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """An installed plugin. `files` are digests (SHA-256, hex) or links' targets, by path below `home`.

    `home` is the environment, `package` the plugin's package in it, `directory` where that lies.
    `installed` in seconds since the epoch.
    """

    name: str
    version: str
    package: str
    home: str
    directory: str
    source: str
    installed: float
    files: dict[str, str]

    @property
    def python(self) -> str:
        """The environment's interpreter."""
        return f"{self.home}/bin/python"

    @property
    def digest(self) -> str:
        """One digest for all that was brought: what `sagong plugins` shows, to be compared by people.

        What each environment has of its own is left out: bytecode, pip's notes, names of places.
        """
        brought = sorted((p, d) for p, d in self.files.items() if not _OWN.search(p))
        text = "".join(
            f"{path.partition('site-packages/')[2]}\0{digest}\n" for path, digest in brought
        )
        return hashlib.sha256(text.encode()).hexdigest()

    def manifest(self) -> Manifest:
        """Its `plugin.toml`."""
        path = Path(self.directory, "plugin.toml")
        try:
            return manifest.parse(path.read_text(), where=str(path))
        except OSError as error:
            raise FailedPrecondition(
                f"plugin {self.name}: {path}: {error.strerror}; install it again"
            ) from None

    def contracts(self) -> set[str]:
        """Slots whose contracts it brings itself."""
        found = distributions(path=[str(Path(self.directory).parent)])
        groups = (d.entry_points.select(group="sagong.contracts") for d in found)
        return {point.name for points in groups for point in points}


class Shelf:
    """All that is installed in one instance of the platform."""

    def __init__(self, paths: Paths) -> None:
        self.directory = paths.data / "shelf"

    def records(self) -> dict[str, Record]:
        """What is installed, by the plugin's name."""
        found = {}
        for path in sorted(self.directory.glob("*/record.json")):
            try:
                record = msgspec.json.decode(path.read_bytes(), type=Record)
            except (OSError, msgspec.MsgspecError):
                continue  # `sagong check` says so; the others are not hindered
            found[record.name] = record
        return found

    def find(self, name: str) -> Record | None:
        """The record of a plugin; None if it was not installed here."""
        path = self.directory / name / "record.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=Record)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError) as error:
            raise FailedPrecondition(
                f"{path} can't be read: {error}; install {name} again"
            ) from None

    def lacks(self, name: str) -> NotFound:
        """Who asked for a plugin that is not here is told which ones are."""
        there = ", ".join(self.records()) or "none"
        return NotFound(f"plugin {name} was not installed here; those that were: {there}")

    def verify(self, record: Record) -> None:
        """Hold the files against the record; FailedPrecondition names some that differ."""
        now = digests(Path(record.home))
        wrong = [f"{path} is new" for path in now.keys() - record.files.keys()]
        wrong += [f"{path} is missing" for path in record.files.keys() - now.keys()]
        wrong += [
            f"{path} was changed"
            for path in record.files.keys() & now.keys()
            if record.files[path] != now[path]
        ]
        if wrong:
            some = ", ".join(sorted(wrong)[:3])
            more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
            raise FailedPrecondition(
                f"plugin {record.name} is not what was installed: {some}{more}; "
                f"install it again from {record.source}"
            )

    def place(self, name: str) -> Path:
        """A directory for a new environment of a plugin; it does not exist yet."""
        own = self.directory / name
        own.mkdir(parents=True, exist_ok=True)
        numbers = [int(path.name) for path in own.iterdir() if path.name.isdigit()]
        return own / str(max(numbers, default=0) + 1)

    def put(self, record: Record) -> None:
        """Make a record the one that counts, at once; older environments go."""
        own = self.directory / record.name
        new = own / "record.new"
        with open(new, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(record), indent=1))
            file.flush()
            os.fsync(file.fileno())
        new.replace(own / "record.json")
        for path in own.iterdir():
            if path.is_dir() and str(path) != record.home:
                shutil.rmtree(path, ignore_errors=True)

    def remove(self, name: str) -> None:
        """Take a plugin away; NotFound if it is not here."""
        if self.find(name) is None:
            raise self.lacks(name)
        (self.directory / name / "record.json").unlink()
        shutil.rmtree(self.directory / name)


def digests(home: Path) -> dict[str, str]:
    """Digest of every file below a directory, target of every link, by path."""
    return dict(_digests(home))


def _digests(home: Path) -> Iterator[tuple[str, str]]:
    for directory, directories, files in os.walk(home):
        for name in (*files, *(d for d in directories if Path(directory, d).is_symlink())):
            path = Path(directory, name)
            where = str(path.relative_to(home))
            if path.is_symlink():
                yield where, f"-> {os.readlink(path)}"
            elif path.is_file():
                with open(path, "rb") as file:
                    yield where, hashlib.file_digest(file, "sha256").hexdigest()
            else:
                yield where, "neither file nor link"
