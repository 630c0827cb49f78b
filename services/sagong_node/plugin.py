"""The process of service `node`: composes its parts, loads the records, hears what happens."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from sagong.contracts.metrics import Metrics, Sample
from sagong.contracts.runtime import Exited, OutOfMemory, Runtime
from sagong.contracts.state import State
from sagong.errors import SagongError
from sagong.hearing import hear_every
from sagong.host import Host
from sagong_node import boot
from sagong_node.execution import Execution
from sagong_node.ground import Ground
from sagong_node.health import Health
from sagong_node.journal import Journal
from sagong_node.lifecycle import Lifecycle
from sagong_node.pods.settings import PodSettings
from sagong_node.registry import Registry
from sagong_node.service import NodeService
from sagong_node.streams import StreamServer

if TYPE_CHECKING:
    from sagong_node.pods.kubelet import Kubelet

__all__ = ["Node"]

_TIDY, _LAST = 4.0, 1.0
# A runtime that does not answer keeps nobody from what can be told without it.
_RECOVERY = 10.0


class Node:
    """Owns the parts; `implementation` fills the slot."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._registry = Registry(host.use(State, "local"))
        ground = self._ground = Ground(host, self._registry)
        self._life = Lifecycle(host, self._registry, ground, Journal(host))
        Health(host, self._registry, self._life, Execution(self._life, self._registry, ground))
        self._streams = StreamServer(host.run)
        self.implementation = NodeService(host, self._registry, ground, self._life, self._streams)
        self._succeeded = False
        self._recovered: set[str] = set()
        self._recovery = asyncio.Event()
        self._kubelet = self._pods(host.config(PodSettings))

    @staticmethod
    def imports(settings: Mapping[str, Any]) -> None:
        """The kubelet, where there are pods: two thirds of all that this process loads."""
        if settings.get("enabled", True):
            importlib.import_module("sagong_node.pods.kubelet")

    def _pods(self, settings: PodSettings) -> Kubelet | None:
        """The kubelet, imported only where there are pods."""
        if not settings.enabled:
            return None
        from sagong_node.pods.kubelet import Kubelet

        return Kubelet(self._host, self.implementation, self._life, self._registry, settings)

    async def start(self) -> None:
        """Load, then follow the runtime."""
        await self._registry.load()
        await self._ground.reclaim()
        if boot.is_new(self._host.run / "boot"):
            boot.begin(self._registry, self._ground.said)
        await self._streams.start()
        self._host.spawn(self._registry.write_behind(), "write records")
        self._host.spawn(self._hear_exits(), "hear exits")
        self._host.spawn(self._hear_memory(), "hear of memory")
        self._host.spawn(self._hear_measurer(), "hear measurer")
        self._host.spawn(self._streams.sweep(), "remove old sockets")
        self._host.spawn(self._ground.sweep(), "remove old logs")
        await self._wait_recovered()
        if self._kubelet is not None:
            await self._kubelet.start()

    async def _wait_recovered(self) -> None:
        """Before anybody asks: who waited for a run whose start was not written down, was told that it
        had ended, with 0; and who removed its container needed no force."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_RECOVERY):
                while self._holders() - self._recovered:
                    await self._recovery.wait()
                    self._recovery.clear()

    def _holders(self) -> set[str]:
        """Runtimes that are here and have containers."""
        runtimes = self._life.runtimes
        holders = {runtimes.holder(r) for r in self._registry.containers.values()}
        return holders.intersection(runtimes.names)

    async def drain(self) -> None:
        """Pass on who waits for an end, and write statuses; nobody is served meanwhile."""
        self._life.stops.leave()
        if self._kubelet is not None:
            await self._kubelet.drain()

    async def export(self) -> bytes:
        """What a successor can't read from the records, the runtime or the API."""
        self._succeeded = True
        if self._kubelet is None:
            return b""
        return msgspec.msgpack.encode(self._kubelet.export())

    async def restore(self, state: bytes) -> None:
        """Take over from a predecessor of any version: what can't be read is not needed to serve."""
        if self._kubelet is None:
            return
        from sagong_node.pods.kubelet import Remains

        try:
            self._kubelet.restore(msgspec.msgpack.decode(state, type=Remains))
        except msgspec.DecodeError as error:
            self._host.log.warning("a predecessor's events can't be read: %s", error)

    async def stop(self) -> None:
        """Write what is not written."""
        if self._kubelet is not None:
            await self._kubelet.stop()
        await self._registry.close()

    async def tidy(self) -> None:
        """Let logs and forwarded connections end by themselves, beside a successor if there is one."""
        await self._streams.wait_idle(_TIDY if self._succeeded else _LAST)
        await self._streams.stop()

    async def _hear_exits(self) -> None:
        async for name, event in hear_every(self._host, Runtime, Exited):
            if event is None:
                await self._reconcile(name)
            else:
                self._life.finish(event)

    async def _hear_memory(self) -> None:
        async for _, event in hear_every(self._host, Runtime, OutOfMemory):
            if event is not None:
                self._life.note_shortage(event)

    async def _reconcile(self, runtime: str) -> None:
        try:
            await self._life.reconcile(runtime, lambda: self._note_recovered(runtime))
        except SagongError as error:
            self._host.log.warning("can't read the runtime's containers: %s", error)

    def _note_recovered(self, runtime: str) -> None:
        self._recovered.add(runtime)
        self._recovery.set()

    async def _hear_measurer(self) -> None:
        async for event in self._host.hear(Metrics, Sample):
            if event is None:
                await self._life.measuring.begin_all()
