"""RUN: a command in a container of its own, its output told as it comes."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec

from sagong.contracts.builder import Surroundings
from sagong.contracts.node import (
    Command,
    ContainerSpec,
    FileMount,
    HostFile,
    LogsRequest,
    Ref,
    SandboxSpec,
    StartRequest,
    WaitRequest,
)
from sagong.errors import Internal
from sagong.frames import Frame
from sagong.log_frames import log_frames
from sagong_builder.shop import Shop

__all__ = ["Errand", "Told", "new_id", "run"]

_SHARED_MEMORY = 64 << 20
Told = Callable[[bytes, bool], Awaitable[None]]


def new_id() -> str:
    """An id of a container."""
    return secrets.token_hex(32)


@dataclass(frozen=True)
class Errand:
    """A command to run in a container `id` of `image`, with the image's `volumes` or without.

    Without words it is the image's own.
    """

    id: str
    image: str
    args: tuple[str, ...]
    env: tuple[str, ...] = ()
    network: str = ""
    mounts: tuple[FileMount, ...] = ()
    files: tuple[HostFile, ...] = ()
    volumes: bool = True
    hostname: str = ""


async def run(shop: Shop, errand: Errand, surroundings: Surroundings, told: Told) -> int:
    """Run it to its end; the code it ended with. The container stays until `shop.remove`."""
    shop.borrowing(errand.id)
    await shop.node.create_sandbox(_sandbox(errand, surroundings))
    await shop.node.create(_container(errand, surroundings))
    await shop.node.start(StartRequest(id=errand.id))
    request = LogsRequest(id=errand.id, follow=True)
    address = await shop.node.logs(request)
    async for frames in log_frames(shop.node, request, address):
        for kind, data in frames:
            await told(data, kind == Frame.STDERR)
    return await _code(shop, errand.id)


async def _code(shop: Shop, container: str) -> int:
    async for result in shop.node.wait(WaitRequest(id=container)):
        if not result.waiting:
            return result.code
    status = await shop.node.inspect(Ref(id=container))
    if status.pid:
        raise Internal(f"container {container} runs, but its log has ended")
    return status.code


def _sandbox(errand: Errand, surroundings: Surroundings) -> SandboxSpec:
    network = msgspec.structs.replace(surroundings.network, id=errand.id, names=())
    if errand.network not in ("", "default"):
        network = msgspec.structs.replace(
            network, mode=errand.network, attachments=(), ports=(), nameservers=()
        )
    return SandboxSpec(
        id=errand.id,
        owner=surroundings.owner,
        hostname=errand.hostname,
        network=network,
        share_with=surroundings.share_with if errand.network in ("", "default") else "",
        cgroup_parent=surroundings.cgroup_parent,
        hosts=surroundings.hosts,
    )


def _container(errand: Errand, surroundings: Surroundings) -> ContainerSpec:
    return ContainerSpec(
        id=errand.id,
        sandbox=errand.id,
        name=f"build_{errand.id[:12]}",
        image=errand.image,
        # An empty word resets the image's entrypoint.
        command=Command(
            entrypoint=("",) if errand.args else None,
            cmd=errand.args or None,
            env=errand.env,
        ),
        mounts=errand.mounts,
        image_volumes=errand.volumes,
        files=errand.files,
        limits=surroundings.limits,
        rlimits=surroundings.rlimits,
        cgroup_mode=surroundings.cgroup_mode,
        shm_size=surroundings.shm_size or _SHARED_MEMORY,
        seccomp=surroundings.seccomp,
        apparmor=surroundings.apparmor,
    )
