"""What is left of sandboxes that have left: namespaces and interfaces, which go in their own time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from sagong.contracts.network import Sandbox
from sagong.errors import SagongError
from sagong_network_bridge.cells import Cells
from sagong_network_bridge.joining import release_addresses
from sagong_network_bridge.links import delete_link
from sagong_network_bridge.netlink import Channel
from sagong_network_bridge.networks import Networks
from sagong_network_bridge.records import SandboxRecord

__all__ = ["Departures"]

Run = Callable[..., Coroutine[Any, Any, Any]]
# The kernel takes interfaces down with their namespace, in its own time; what holds a namespace
# longer than this loses its interface.
_GRACE = 2.0


class Departures:
    """Sandboxes of which something is still to be taken away."""

    def __init__(self, networks: Networks, cells: Cells, host: Channel, run: Run) -> None:
        self._networks = networks
        self._cells = cells
        self._host = host
        self._run = run
        self._dropping: dict[str, asyncio.Future[None]] = {}
        self._next: list[SandboxRecord] = []
        self._drain: asyncio.Task[None] | None = None
        self._reapers: set[asyncio.Task[None]] = set()

    @property
    def busy(self) -> bool:
        """Whether there are some."""
        return bool(self._dropping or self._reapers)

    @property
    def hold_addresses(self) -> bool:
        """Whether addresses will be free that are not yet."""
        return bool(self._dropping)

    def begin(self, record: SandboxRecord) -> None:
        """One has left: its namespace goes, then its addresses are nobody's."""
        loop = asyncio.get_running_loop()
        self._dropping[record.sandbox.id] = loop.create_future()
        self._next.append(record)
        if self._drain is None:
            self._drain = loop.create_task(self._drop_all())

    async def _drop_all(self) -> None:
        """Those that leave together go together; who comes meanwhile is next."""
        try:
            while self._next:
                leaving, self._next = self._next, []
                await self._drop(leaving)
        finally:
            self._drain = None

    async def _drop(self, leaving: list[SandboxRecord]) -> None:
        """Let namespaces go; their addresses are nobody's only after. A start sweeps what is left."""
        pins = [Path(record.sandbox.path) for record in leaving if record.sandbox.path]
        try:
            with contextlib.suppress(OSError, SagongError):
                await self._run(self._cells.drop, pins)
        finally:
            for record in leaving:
                self._let_go(record.sandbox)
            self._begin_reaping([veth for record in leaving for veth in record.veths.values()])

    def _let_go(self, sandbox: Sandbox) -> None:
        for endpoint in sandbox.endpoints:
            release_addresses(endpoint, sandbox.id, self._networks)
        gone = self._dropping.pop(sandbox.id)
        if not gone.done():
            gone.set_result(None)

    def _begin_reaping(self, veths: list[str]) -> None:
        if veths:
            reaper = asyncio.get_running_loop().create_task(self._reap(veths))
            self._reapers.add(reaper)
            reaper.add_done_callback(self._reapers.discard)

    async def _reap(self, veths: list[str]) -> None:
        """Delete interfaces whose namespace somebody still holds, after a while."""
        await asyncio.sleep(_GRACE)
        with contextlib.suppress(OSError):
            await self._run(self._host.send, [delete_link(veth) for veth in veths])

    async def wait_dropped(self, identity: str = "") -> None:
        """Until no namespace is left of those that have left, or of one of them."""
        while identity in self._dropping if identity else self._dropping:
            gone = [self._dropping[identity]] if identity else self._dropping.values()
            await asyncio.wait(gone)

    async def close(self) -> None:
        """Leave interfaces that wait to be deleted to the next start's sweep."""
        await self.wait_dropped()
        for task in list(self._reapers):
            task.cancel()
        await asyncio.gather(*self._reapers, return_exceptions=True)
