"""A registry in the test's own process over fakes of its slots; it can be restarted on what it kept."""

from __future__ import annotations

import contextlib
import socket
import tempfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.conformance import fake_content, fake_state
from tests.conformance.fake_content import FakeContent
from tests.conformance.fake_state import FakeState

from sagong.conformance.registry import RegistryLab
from sagong.contracts.content import Content
from sagong.contracts.state import State
from sagong.testing import local
from sagong_registry import Registry
from sagong_registry.depot import Depot

__all__ = ["Kept", "Running", "running"]


@dataclass
class Kept:
    """What outlives a restart."""

    state: fake_state.Disk = field(default_factory=fake_state.Disk)
    content: fake_content.Disk = field(default_factory=fake_content.Disk)


@dataclass(frozen=True)
class Running:
    """A registry that runs."""

    plugin: Registry
    port: int
    kept: Kept

    @property
    def depot(self) -> Depot:
        """Its inner side."""
        return self.plugin.depot

    @property
    def lab(self) -> RegistryLab:
        """As the suite of slot `registry` wants it."""
        return RegistryLab(self.plugin.implementation, self.port)


@contextlib.asynccontextmanager
async def running(
    kept: Kept | None = None,
    data: Path | None = None,
    address: str = "127.0.0.1",
    **settings: Any,
) -> AsyncIterator[Running]:
    """Start it on what was kept."""
    kept = kept or Kept()
    with tempfile.TemporaryDirectory(prefix="sagong-registry-", dir="/tmp") as top:
        content = FakeContent(kept.content, Path(top))
        await content.start()
        listener = socket.create_server((address, 0))
        port = listener.getsockname()[1]
        given: Mapping[type, Any] = {State: FakeState(kept.state), Content: content}
        made = local(
            Registry,
            data=data,
            config=settings,
            uses=given,
            listeners={"api": listener},
            instance="local",
        )
        try:
            async with made as plugin:
                yield Running(plugin, port, kept)
        finally:
            await content.stop()
