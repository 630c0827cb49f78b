"""The logs that node chose the places of: on shelves, begun by monitors, removed here.

A log's place follows from its container's id, so whoever removes the container finds it, whether or not
a start was written down. Who is killed between the removal of a container and that of its log, or
finds a monitor begin one late, leaves a log without a container: the next node sweeps those.
"""

from __future__ import annotations

import asyncio
import contextlib
import glob
import os
import zlib
from collections.abc import Callable
from pathlib import Path

from sagong import logfiles
from sagong_node.records import ContainerRecord

__all__ = ["Shelves"]

# A directory for each log costs twice what all else of a container's files does; one for all would
# have ext4 pass over every inode that was freed there in the last minutes.
_SHELVES = 64
_LARGE_LOG = 4 << 20
_KINDS = {"cri": "cri", "local": "container"}


class Shelves:
    """Owns the files below `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._made: set[str] = set()

    def place(self, record: ContainerRecord) -> str:
        """Where a container's log is, or will be."""
        id_ = record.spec.id
        shelf = f"{self._directory}/{zlib.crc32(id_.encode()) % _SHELVES:02x}"
        return f"{shelf}/{id_}-{_KINDS.get(record.spec.log.driver, 'json')}.log"

    def provide(self, record: ContainerRecord) -> str:
        """The place, on a shelf that is there; OSError if it can't be made."""
        path = self.place(record)
        shelf = os.path.dirname(path)
        if shelf not in self._made:
            os.makedirs(shelf, mode=0o711, exist_ok=True)
            self._made.add(shelf)
        return path

    def written(self, record: ContainerRecord) -> str:
        """The place, if anything was written there."""
        path = self.place(record)
        return path if _size(path) else ""

    async def remove(self, record: ContainerRecord) -> None:
        """All files of the container's log; one that was never begun is no error."""
        path, log = self.place(record), record.spec.log
        if log.max_files > 1 or _size(path) > _LARGE_LOG:
            await asyncio.to_thread(logfiles.remove, path, log.max_files, packed=log.compress)
        else:
            logfiles.remove(path, 1, packed=False)

    async def sweep(self, known: Callable[[str], bool]) -> None:
        """Remove the logs of containers that are not known by the time that their logs are seen:
        nobody begins one before his container is known, or being made."""
        for path in await asyncio.to_thread(self._files):
            if not known(os.path.basename(path).rpartition("-")[0]):
                with contextlib.suppress(OSError):
                    os.unlink(path)

    def _files(self) -> list[str]:
        # Pods have directories of their own beside the shelves.
        return glob.glob(f"{glob.escape(str(self._directory))}/[0-9a-f][0-9a-f]/*")


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
