"""A process's life played through before the first fork, so that what it makes once is shared.

Types are read, decoders made, names looked up and code specialised when they are first used: each
forked process would do that in its own copy of memory.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from types import ModuleType
from typing import Any

import msgspec
import zmq

from sagong.bus import Provider
from sagong.contract import slot_of
from sagong.contracts.kernel import AccessEntry, Attendance, Done, Kernel, Order, RouteEntry
from sagong.host import Host
from sagong.process import Launch, ProcessHost

__all__ = ["rehearse"]


# Code is specialised when it has run eight times; the bus does most things twice in a life.
_TIMES = 4


class _Director:
    """The part of the kernel: routes, start, drain, stop."""

    def __init__(self, bus: str) -> None:
        self._bus = bus
        self.done_orders: asyncio.Queue[int] = asyncio.Queue()

    async def attend(self, attendance: Attendance) -> AsyncIterator[Order]:
        """What every process is told."""
        routes = (RouteEntry(slot="kernel", version=1, generation=1, path=self._bus),)
        access = (AccessEntry(uid=0, name="rehearsal", methods=("kernel/1/*",)),)
        yield Order(id=1, routes=routes, access=access)
        for number, action in ((2, "start"), (3, "drain"), (4, "stop")):
            yield Order(id=number, action=action)
            await self.done_orders.get()

    async def done(self, done: Done) -> None:
        """The next order may come."""
        self.done_orders.put_nowait(done.order)


class Extra:
    """The part of a plugin."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def start(self) -> None:
        """Has nothing to do."""


def rehearse(place: str) -> None:
    """Play it in a directory below `place`, and read all contracts that are imported.

    No thread and no loop is left.
    """
    for name, module in list(sys.modules.items()):
        if name.startswith("sagong.contracts."):
            _read(module)
    os.makedirs(place, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="rehearsal-", dir=place) as directory:
        for _ in range(_TIMES):
            # Not uvloop: what libuv opens for the whole process would be closed in its forks,
            # and the first of them that starts a program would abort.
            asyncio.run(_play(directory))


def _read(module: ModuleType) -> None:
    """Everything that the bus takes from the module's slots."""
    for value in list(vars(module).values()):
        if "__sagong_slot__" in getattr(value, "__dict__", ()):
            for spec in slot_of(value).methods.values():
                _ = spec.wire_name, spec.request_decoder, spec.result_decoder


async def _play(directory: str) -> None:
    bus = f"{directory}/k"
    context: zmq.Context[Any] = zmq.Context()
    provider = Provider(context, bus)
    director, methods = _Director(bus), slot_of(Kernel).methods
    provider.add(methods["attend"], director.attend)
    provider.add(methods["done"], director.done)
    provider.bind()
    launch = Launch(
        unit="rehearsal",
        plugin="rehearsal",
        class_=f"{__name__}:Extra",
        generation=1,
        kernel=bus,
        bus=f"{directory}/p",
        data=directory,
        run=directory,
        root=directory,
        uses=(("kernel", 1, ""),),
    )
    launch = msgspec.json.decode(msgspec.json.encode(launch), type=Launch)
    await ProcessHost(launch).live()
    await provider.close()
    context.destroy(linger=0)
