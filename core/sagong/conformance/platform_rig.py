"""Rigs of slots that stand on other ones: a whole platform of its own, on a machine of its own.

The candidate fills its unit there, in its sandbox, and is called over the bus; what it needs below
is filled by this project's plugins. All checks of a suite have the same platform.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import tarfile
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from sagong.conformance import network_rig, runtime_rig
from sagong.conformance.builder import BuilderLab
from sagong.conformance.candidate import Candidate
from sagong.conformance.image_lab import send
from sagong.conformance.node import NodeLab
from sagong.conformance.registry import RegistryLab
from sagong.conformance.scratch import scratch
from sagong.contracts.builder import Builder
from sagong.contracts.image import Images, ImportRequest
from sagong.contracts.node import Node
from sagong.contracts.objects import Objects
from sagong.contracts.registry import Registry
from sagong.contracts.scheduler import Scheduler
from sagong.embedding import platform
from sagong.operator import Operator

__all__ = ["builder_rig", "missing", "node_rig", "objects_rig", "registry_rig", "scheduler_program"]

_BASE = "suite.sagong.test/busybox:latest"
_PORT = 5000
_SECONDS = 30.0
# What a registry, and what an API, does not stand on.
_NO_CONTAINERS = ("runtime", "network", "volume", "metrics", "node", "builder", "docker")
_NO_DECIDERS = ("scheduler", "replication", "builder", "docker", "dns")


def missing() -> str:
    """What a platform with containers needs and is not here."""
    return network_rig.missing() or runtime_rig.missing()


@contextlib.asynccontextmanager
async def builder_rig(candidate: Candidate) -> AsyncIterator[BuilderLab]:
    """A builder over an image store and containers."""
    async with _beside(candidate, "docker", "builder", ("docker",)) as operator:
        images = await _with_base(operator)
        builder, node = await operator.use(Builder), await operator.use(Node)
        yield BuilderLab(builder, images, node, _BASE)


@contextlib.asynccontextmanager
async def node_rig(candidate: Candidate) -> AsyncIterator[NodeLab]:
    """A node over all slots that containers need."""
    without = ("builder", "docker")
    async with _beside(candidate, "docker", "node", without, enabled=False) as operator:
        await _with_base(operator)
        yield NodeLab(await operator.use(Node), _BASE)


@contextlib.asynccontextmanager
async def registry_rig(candidate: Candidate) -> AsyncIterator[RegistryLab]:
    """A registry over a content store."""
    async with _beside(candidate, "docker", "registry", _NO_CONTAINERS) as operator:
        yield RegistryLab(await operator.use(Registry), _PORT)


@contextlib.asynccontextmanager
async def objects_rig(candidate: Candidate) -> AsyncIterator[Objects]:
    """An API over a store and authentication."""
    async with _beside(candidate, "single", "kube", _NO_DECIDERS) as operator:
        yield await operator.use(Objects)


@contextlib.asynccontextmanager
async def scheduler_program(candidate: Candidate) -> AsyncIterator[Scheduler]:
    """A scheduler that is a program of its own."""
    async with _beside(candidate, "bare", "scheduler") as operator:
        yield await operator.use(Scheduler)


@contextlib.asynccontextmanager
async def _beside(
    candidate: Candidate, profile: str, unit: str, without: tuple[str, ...] = (), **settings: Any
) -> AsyncIterator[Operator]:
    """A platform of a profile with the candidate in one unit, and without some of its units."""
    units: dict[str, Mapping[str, Any]] = {name: {"enabled": False} for name in without}
    units[unit] = {
        "plugin": candidate.name,
        "enabled": True,
        "settings": {**settings, **candidate.config},
    }
    with scratch() as base:
        async with platform(base, profile=profile, units=units, seconds=_SECONDS) as operator:
            yield operator


async def _with_base(operator: Operator) -> Images:
    """The platform's images, among them one of busybox with a user `app`."""
    images = await operator.use(Images)
    address = await images.upload()
    await send(address, await asyncio.to_thread(_root_archive))
    request = ImportRequest(
        upload=address.token, reference=_BASE, changes=("ENV PATH=/bin", 'CMD ["sh"]')
    )
    async for _ in images.import_(request):
        pass
    return images


def _root_archive() -> bytes:
    with tempfile.TemporaryDirectory(prefix="sagong-root-", dir="/tmp") as base:
        root = runtime_rig.make_rootfs(Path(base, "root"))
        with open(root / "etc/passwd", "a") as file:
            file.write("app:x:1000:1000:app:/home:/bin/sh\n")
        root.joinpath("etc/group").write_text("root:x:0:\napp:x:1000:\n")
        root.joinpath("tmp").chmod(0o1777)
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            tar.add(root, arcname=".")
        return buffer.getvalue()
