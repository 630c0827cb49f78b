"""How a build tells what happens: items on a bounded queue, which whoever listens empties."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec

from sagong.contracts.builder import BuildProgress, Happening
from sagong.contracts.image import Progress
from sagong.errors import SagongError

__all__ = ["Reporter"]

_WINDOW = 256
_TEXT = 1 << 17


class Reporter:
    """Tells; a slow listener slows the build."""

    def __init__(self) -> None:
        self.items: asyncio.Queue[BuildProgress] = asyncio.Queue(_WINDOW)
        self._number = 0
        self.total = 0

    async def tell(self, item: BuildProgress) -> None:
        """Any item; a text that is too long for a frame is cut."""
        if len(item.text) > _TEXT:
            item = msgspec.structs.replace(item, text=item.text[:_TEXT] + "…")
        await self.items.put(item)

    async def step(self, text: str, title: str = "") -> None:
        """The next step begins; `title` names it where steps are shown by their stages."""
        self._number += 1
        await self.tell(
            BuildProgress(kind=Happening.STEP, number=self._number, total=self.total, text=text)
        )

    def trigger(self, title: str) -> None:
        """An instruction of the base image's begins, where those are steps."""

    def rest(self) -> None:
        """The present step is done, and the next is not there yet."""

    def fail(self, error: BaseException) -> None:
        """The present step has failed, or was cancelled."""

    async def found(self) -> None:
        """What the stage begins from is here and need not be fetched; nothing that is told."""

    def unresolved(self, name: str, error: SagongError) -> str:
        """How it is told that an image can't be fetched."""
        return error.message

    async def output(self, data: bytes, stderr: bool) -> None:
        """Output of a command."""
        await self.tell(BuildProgress(kind=Happening.OUTPUT, data=data, stderr=stderr))

    async def image(self, image: str) -> None:
        """What a step made."""
        await self.tell(BuildProgress(kind=Happening.IMAGE, image=image))

    async def container(self, kind: Happening, container: str) -> None:
        """A container was made or removed."""
        await self.tell(BuildProgress(kind=kind, container=container))

    async def say(self, kind: Happening, text: str = "", image: str = "") -> None:
        """A text."""
        await self.tell(BuildProgress(kind=kind, text=text, image=image))

    async def pull(self, transfer: Progress) -> None:
        """Progress of a pull."""
        await self.tell(BuildProgress(kind=Happening.PULL, transfer=transfer))

    async def until(self, task: asyncio.Task[None]) -> AsyncIterator[BuildProgress]:
        """All items until the task has ended and none is left."""
        while True:
            taking = asyncio.ensure_future(self.items.get())
            try:
                await asyncio.wait([taking, task], return_when=asyncio.FIRST_COMPLETED)
                if not taking.done():
                    break
                yield taking.result()
            finally:
                taking.cancel()
        while not self.items.empty():
            yield self.items.get_nowait()
