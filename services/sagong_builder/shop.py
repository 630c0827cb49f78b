"""What all builds share: the slots below, the spool, and the journal of what must be given back."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Sequence,
)
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sagong.contracts.image import (
    ArchiveRequest,
    Images,
    LoadRequest,
    PathStat,
    Prepared,
    PrepareRequest,
    RootRef,
    SaveRequest,
)
from sagong.contracts.node import Node, Ref, RemoveRequest
from sagong.contracts.streams import Address
from sagong.downloading import fetched
from sagong.errors import NotFound, SagongError
from sagong.uploading import blocks, uploading
from sagong_builder.context import open_archive
from sagong_builder.context.archive import Archive
from sagong_builder.journal import Journal
from sagong_builder.settings import Settings
from sagong_builder.spool import Spool

__all__ = ["Lease", "Shop"]

_LEASE, _CONTAINER = "build-", "run-"
_PIECE = 1 << 20


@dataclass(frozen=True)
class Lease:
    """A root filesystem that was lent to a build."""

    id: str
    prepared: Prepared


class Shop:
    """The tools of a build."""

    def __init__(
        self, images: Images, node: Node, spool: Spool, journal: Journal, settings: Settings,
        log: logging.Logger,
    ) -> None:  # fmt: skip
        self.images = images
        self.node = node
        self.spool = spool
        self.journal = journal
        self.settings = settings
        self.log = log
        self._returns: set[asyncio.Task[None]] = set()

    async def _returned(self, work: Coroutine[Any, Any, None]) -> None:
        """Give something back to the end, however often who waits for it is cancelled."""
        task = asyncio.create_task(work)
        self._returns.add(task)
        task.add_done_callback(self._returns.discard)
        await asyncio.shield(task)

    async def settled(self) -> None:
        """All that is being given back is."""
        await asyncio.gather(*self._returns, return_exceptions=True)

    # Root filesystems.

    @contextlib.asynccontextmanager
    async def lent(self, image: str, *, readonly: bool = False) -> AsyncIterator[Lease]:
        """A root filesystem for the time of the block; a commit that consumed it is no error."""
        id_ = f"{_LEASE}{secrets.token_hex(16)}"
        self.journal.note(id_)
        try:
            request = PrepareRequest(id=id_, image=image, readonly=readonly, bare=True)
            yield Lease(id_, await self.images.prepare(request))
        finally:
            await self._returned(self._release(id_))

    async def _release(self, id_: str) -> None:
        try:
            await self.images.release(RootRef(id=id_))
            self.journal.strike(id_)
        except SagongError as error:
            self.log.warning("a root is given back later", extra={"reason": error.message})

    async def stat(self, lease: Lease, path: str) -> PathStat | None:
        """Facts of a path; None if it is not there."""
        try:
            return await self.images.stat(ArchiveRequest(id=lease.id, path=path))
        except NotFound:
            return None

    async def write(self, lease: str, pieces: Iterable[bytes]) -> None:
        """Extract a tar, given in pieces, at the root of a lent filesystem."""
        async with uploading(self.images.upload, blocks(pieces)) as token:
            await self.images.write_archive(ArchiveRequest(id=lease, path="/", upload=token))

    async def read(self, lease: Lease, path: str) -> Archive:
        """A path of a lent filesystem as an archive of ours."""
        request = ArchiveRequest(id=lease.id, path=path)
        with self.spool.file() as file:
            await _fetched(lambda: self.images.read_archive(request), file)
            return await self.opened(file)

    async def saved(self, images: Sequence[str]) -> Archive:
        """An archive of whole images, by their ids."""
        request = SaveRequest(references=tuple(images))
        with self.spool.file() as file:
            await _fetched(lambda: self.images.save(request), file)
            return await self.opened(file)

    async def load(self, path: Path) -> None:
        """Give an archive of images to the image store."""
        async with uploading(self.images.upload, blocks(_read(path))) as token:
            async for _ in self.images.load(LoadRequest(upload=token)):
                continue

    async def opened(self, path: Path) -> Archive:
        """A file, compressed or not, as an archive; the file is gone then."""
        return await asyncio.to_thread(
            open_archive,
            path,
            self.spool.new_file(),
            limit=self.settings.context_limit,
            entries=self.settings.entries_limit,
        )

    # Containers.

    def borrowing(self, container: str) -> None:
        """Note that a container is about to be made."""
        self.journal.note(f"{_CONTAINER}{container}")

    def keeping(self, container: str) -> None:
        """It stays, for whoever asked for it."""
        self.journal.strike(f"{_CONTAINER}{container}")

    async def remove(self, container: str) -> None:
        """Kill and remove a container with its sandbox; one that never was is no error."""
        await self._returned(self._remove(container))

    async def _remove(self, container: str) -> None:
        try:
            with contextlib.suppress(NotFound):
                await self.node.remove(RemoveRequest(id=container, force=True, volumes=True))
            await self.node.remove_sandbox(Ref(id=container))
            self.journal.strike(f"{_CONTAINER}{container}")
        except SagongError as error:
            self.log.warning("a container is removed later", extra={"reason": error.message})

    async def sweep(self, names: Iterable[str]) -> None:
        """Give back what a builder before has borrowed."""
        for name in names:
            if name.startswith(_CONTAINER):
                await self.remove(name.removeprefix(_CONTAINER))
            else:
                await self._release(name)


def _read(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while data := file.read(_PIECE):
            yield data


async def _fetched(ask: Callable[[], Awaitable[Address]], target: Path) -> None:
    """The whole archive that `ask` has the address of, in a file."""
    with target.open("wb", buffering=_PIECE) as file:
        async with contextlib.aclosing(fetched(ask)) as chunks:
            async for data in chunks:
                file.write(data)
