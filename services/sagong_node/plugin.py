"""The process of service `node`: composes its parts, loads the records, hears what happens."""

from __future__ import annotations

from sagong.contracts.metrics import Metrics, Sample
from sagong.contracts.runtime import Exited, Runtime
from sagong.contracts.state import State
from sagong.errors import SagongError
from sagong.host import Host
from sagong_node.ground import Ground
from sagong_node.health import Health
from sagong_node.journal import Journal
from sagong_node.lifecycle import Lifecycle
from sagong_node.registry import Registry
from sagong_node.service import NodeService
from sagong_node.streams import StreamServer

__all__ = ["Node"]


class Node:
    """Owns the parts; `implementation` fills the slot."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._registry = Registry(host.use(State, "local"))
        ground = Ground(host, self._registry)
        self._life = Lifecycle(host, self._registry, ground, Journal(host))
        Health(host, self._registry, self._life)
        self._streams = StreamServer(host.run / "streams.sock")
        self.implementation = NodeService(host, self._registry, ground, self._life, self._streams)

    async def start(self) -> None:
        """Load, then follow the runtime."""
        await self._registry.load()
        await self._streams.start()
        self._host.spawn(self._registry.write_behind(), "write records")
        self._host.spawn(self._hear_exits(), "hear exits")
        self._host.spawn(self._hear_measurer(), "hear measurer")

    async def drain(self) -> None:
        """Let streams of logs end by themselves."""
        await self._streams.wait_idle()

    async def stop(self) -> None:
        """Write what is not written."""
        await self._registry.close()
        await self._streams.stop()

    async def _hear_exits(self) -> None:
        async for event in self._host.hear(Runtime, Exited):
            if event is None:
                await self._reconcile()
            else:
                self._host.spawn(self._life.finish(event), f"finish {event.id[:12]}")

    async def _reconcile(self) -> None:
        try:
            await self._life.reconcile()
        except SagongError as error:
            self._host.log.warning("can't read the runtime's containers: %s", error)

    async def _hear_measurer(self) -> None:
        async for event in self._host.hear(Metrics, Sample):
            if event is None:
                await self._life.track_all()
