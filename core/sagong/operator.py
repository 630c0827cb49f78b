"""The operator's connection: call the kernel and any slot from a tool, as root."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from typing import Any, TypeVar, cast

import zmq

from sagong.bus import Route, proxy
from sagong.bus.watch import wait_disconnected
from sagong.config import Paths
from sagong.contract import slot_of
from sagong.contracts.kernel import DownEntry, Kernel, RouteEntry, RouteTable, SwapRequest
from sagong.errors import NotFound, Unavailable

__all__ = ["Operator", "connect"]

S = TypeVar("S")
_KERNEL_SECONDS = 10.0


class Operator:
    """`kernel` is the kernel's proxy; `use` gives those of slots, which follow crashes and swaps."""

    def __init__(self, context: zmq.Context[Any], path: str) -> None:
        self._context = context
        self._path = path
        self._kernel = Route(context, "kernel")
        self.kernel: Kernel = proxy(Kernel, self._kernel)
        self._routes: dict[tuple[str, int, str], Route] = {}
        self._table: tuple[RouteEntry, ...] = ()
        self._down: tuple[DownEntry, ...] = ()
        self._known = asyncio.Event()
        self._following = asyncio.get_running_loop().create_task(self._follow())

    async def use(self, protocol: type[S], instance: str = "") -> S:
        """A slot's proxy; `NotFound` if nothing serves it now."""
        spec = slot_of(cast(type, protocol))
        try:
            async with asyncio.timeout(_KERNEL_SECONDS):
                await self._known.wait()
        except TimeoutError:
            raise Unavailable(
                f"the kernel at {self._path} does not answer; see `sagong logs kernel`"
            ) from None
        found = [
            entry
            for entry in self._table
            if (entry.slot, entry.version) == (spec.name, spec.version)
            and instance in ("", entry.instance)
        ]
        if not found:
            why = [e.reason for e in self._down if (e.slot, e.version) == (spec.name, spec.version)]
            problem = why[0] if why else f"nothing serves {spec.wire_name} now"
            raise NotFound(f"{problem}; see `sagong status`")
        key = (spec.name, spec.version, found[0].instance)
        route = self._routes.setdefault(key, Route(self._context, spec.name))
        route.switch(found[0].generation, found[0].path)
        return proxy(protocol, route)

    async def swap(self, unit: str, plugin: str = "") -> AsyncIterator[str]:
        """Replace what fills a unit, live; what happens, step by step."""
        async for step in self.kernel.swap(SwapRequest(unit=unit, plugin=plugin)):
            yield step.text

    async def close(self) -> None:
        """Close all connections."""
        self._following.cancel()
        await asyncio.gather(self._following, return_exceptions=True)
        for route in (*self._routes.values(), self._kernel):
            route.close()
        self._context.destroy(linger=100)

    async def _follow(self) -> None:
        while True:
            link = self._kernel.renew(self._path)
            watch = asyncio.get_running_loop().create_task(wait_disconnected(link))
            try:
                async for table in self.kernel.routes():
                    self._take(table)
            except Unavailable:
                await asyncio.sleep(0.05)
            finally:
                watch.cancel()

    def _take(self, table: RouteTable) -> None:
        self._table, self._down = table.routes, table.down
        reasons = {(e.slot, e.version, e.instance): e.reason for e in table.down}
        for key, route in self._routes.items():
            route.down = reasons.get(key, "")
        for route in self._routes.values():
            for path in table.dead:
                route.bury(path)
            for path in table.deserted:
                route.bury(path, executed=False)
        for entry in table.routes:
            known = self._routes.get((entry.slot, entry.version, entry.instance))
            if known is not None:
                known.switch(entry.generation, entry.path)
        self._known.set()


@contextlib.asynccontextmanager
async def connect(paths: Paths) -> AsyncIterator[Operator]:
    """Connect to the kernel of an instance; `NotFound` if it does not run."""
    path = paths.run / "kernel" / "bus" / "s"
    if not os.path.exists(path):
        raise NotFound(f"no sagong runs below {paths.run}; start it with `{_up(paths)}`")
    operator = Operator(zmq.Context(), str(path))
    try:
        yield operator
    finally:
        await operator.close()


def _up(paths: Paths) -> str:
    return "sagong up" if paths == Paths() else f"sagong --root {paths.run.parent} up"
