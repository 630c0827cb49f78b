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
from sagong_network_bridge.links import delete_link, link_index
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
        self._dropping: dict[str, asyncio.Task[None]] = {}
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
        self._dropping[record.sandbox.id] = loop.create_task(self._drop(record.sandbox))
        if record.veths:
            reaper = loop.create_task(self._reap(list(record.veths.values())))
            self._reapers.add(reaper)
            reaper.add_done_callback(self._reapers.discard)

    async def _drop(self, sandbox: Sandbox) -> None:
        """Let the namespace go; its addresses are nobody's only after. A start sweeps what is left."""
        try:
            if sandbox.path:
                with contextlib.suppress(OSError, SagongError):
                    await self._run(self._cells.drop, Path(sandbox.path))
        finally:
            del self._dropping[sandbox.id]
            for endpoint in sandbox.endpoints:
                release_addresses(endpoint, sandbox.id, self._networks)

    async def _reap(self, veths: list[str]) -> None:
        """Delete interfaces whose namespace somebody still holds, after a while."""
        await asyncio.sleep(_GRACE)
        for veth in veths:
            if link_index(self._host, veth):
                with contextlib.suppress(OSError):
                    await self._run(self._host.send, [delete_link(veth)])

    async def wait_dropped(self, identity: str = "") -> None:
        """Until no namespace is left of those that have left, or of one of them."""
        while identity in self._dropping if identity else self._dropping:
            await asyncio.wait(self._dropping.values())

    async def close(self) -> None:
        """Leave interfaces that wait to be deleted to the next start's sweep."""
        await self.wait_dropped()
        for task in list(self._reapers):
            task.cancel()
        await asyncio.gather(*self._reapers, return_exceptions=True)
