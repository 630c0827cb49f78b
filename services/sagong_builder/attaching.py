"""RUN --mount: what is mounted into a command's container, made and taken back."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import posixpath
import stat
import tarfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from sagong.contracts.node import FileMount, HostFile
from sagong.errors import NotFound
from sagong_builder.caches import Caches
from sagong_builder.copying import (
    Item,
    Landing,
    Member,
    Owner,
    label,
    members,
    missing_source,
    select,
    written,
)
from sagong_builder.keys import Keys
from sagong_builder.mounting import MountSpec
from sagong_builder.shop import Lease, Shop
from sagong_builder.sources import Sources

__all__ = ["Attached", "Attaching"]


# Where secrets and sockets are mounted that name no place.
_OWN = ("/run/secrets/", "/run/buildkit/")


@dataclass(frozen=True)
class Attached:
    """What the mounts of a RUN are to its container."""

    mounts: tuple[FileMount, ...] = ()
    files: tuple[HostFile, ...] = ()
    env: tuple[str, ...] = ()

    @property
    def stubs(self) -> tuple[str, ...]:
        """What the runtime makes to mount upon, and the directories that are there for nothing else."""
        targets = {mount.target for mount in self.mounts} | {file.target for file in self.files}
        above = {posixpath.dirname(t) for t in targets if t.startswith(_OWN)}
        return tuple(sorted(targets | above))

    def joined(self, other: Attached) -> Attached:
        """Both."""
        return Attached(self.mounts + other.mounts, self.files + other.files, self.env + other.env)


class Attaching:
    """Makes what is mounted."""

    def __init__(self, shop: Shop, caches: Caches, sources: Sources, keys: Keys) -> None:
        self._shop = shop
        self._caches = caches
        self._sources = sources
        self._keys = keys

    async def fingerprint(self, mounts: Sequence[MountSpec]) -> list[str]:
        """What of the mounts makes a step another one: what is bound, not secrets and caches."""
        found = []
        for mount in mounts:
            content = ""
            if mount.kind == "bind":
                async with contextlib.AsyncExitStack() as stack:
                    content = await asyncio.to_thread(label, await self._items(mount, stack))
            found.append(f"--mount={mount.kind},{mount.target},{content}")
        return found

    @contextlib.asynccontextmanager
    async def mounted(
        self, mounts: Sequence[MountSpec], *, anew: bool = False
    ) -> AsyncIterator[Attached]:
        """The mounts, for the time of the block; `anew` is a build without a cache."""
        async with contextlib.AsyncExitStack() as stack:
            found = Attached()
            for mount in mounts:
                agents = sum(name.startswith("SSH_AUTH_SOCK=") for name in found.env)
                mounted = self._emptied if anew and mount.made else self._mount
                found = found.joined(await mounted(mount, stack, agents))
            yield found

    async def _mount(
        self, mount: MountSpec, stack: contextlib.AsyncExitStack, agents: int
    ) -> Attached:
        match mount.kind:
            case "tmpfs":
                size = (f"size={mount.size}",) if mount.size else ()
                options = size if mount.writable else (*size, "ro")
                return Attached((FileMount(kind="tmpfs", target=mount.target, options=options),))
            case "cache":

                async def fill(lease: str) -> None:
                    await self._fill(lease, mount, stack)

                place = await stack.enter_async_context(self._caches.used(mount, fill))
                return _bound(mount, f"{place.path}/tree")
            case "bind":
                lease = await stack.enter_async_context(self._shop.lent(""))
                await self._fill(lease.id, mount, stack)
                return _bound(mount, await self._subject(mount, lease))
            case "secret":
                return await self._secret(mount)
        path = await self._keys.agent(mount, stack)
        if path is None:
            return Attached()
        target = mount.target or f"/run/buildkit/ssh_agent.{agents}"
        made = FileMount(kind="bind", source=path, target=target, readonly=False)
        return Attached((made,), env=(f"SSH_AUTH_SOCK={target}",))

    async def _emptied(
        self, mount: MountSpec, stack: contextlib.AsyncExitStack, agents: int
    ) -> Attached:
        """A cache that has nothing, and is not kept."""
        lease = await stack.enter_async_context(self._shop.lent(""))
        await self._fill(lease.id, mount, stack)
        return _bound(mount, f"{lease.prepared.upper}/tree")

    async def _subject(self, mount: MountSpec, lease: Lease) -> str:
        """A bound file is bound itself, not the directory around it."""
        base = f"{lease.prepared.upper}/tree"
        name = posixpath.basename(mount.source.rstrip("/"))
        facts = await self._shop.stat(lease, f"/tree/{name}") if name else None
        if facts is not None and not stat.S_ISDIR(facts.mode):
            return f"{base}/{name}"
        return base

    async def _fill(self, lease: str, mount: MountSpec, stack: contextlib.AsyncExitStack) -> None:
        """Write the mount's content below `tree`."""
        owner = Owner(mount.uid, mount.gid) if mount.kind == "cache" else Owner(kept=True)
        items = await self._items(mount, stack) if mount.kind == "bind" or mount.origin else []
        carried = members(items, Landing("/tree"), owner)
        await self._shop.write(lease, written(itertools.chain([_top(mount)], carried)))

    async def _items(self, mount: MountSpec, stack: contextlib.AsyncExitStack) -> list[Item]:
        try:
            archive, path = await self._sources.archive(mount.origin, mount.source or "/", stack)
            return await asyncio.to_thread(select, archive, path)
        except NotFound as error:
            if mount.origin or "file does not exist" not in error.message:
                raise
            what = f"--mount of {mount.source}: "
            raise missing_source(what, mount.source, mount.origin, error) from None

    async def _secret(self, mount: MountSpec) -> Attached:
        content = await self._keys.secret(mount)
        if content is None:
            return Attached()
        text = content.decode("utf-8", "surrogateescape")
        env = (f"{mount.variable}={text}",) if mount.variable else ()
        if env and not mount.target:
            return Attached(env=env)
        target = mount.target or f"/run/secrets/{posixpath.basename(mount.id)}"
        made = HostFile(
            target=target, content=content, mode=mount.mode, uid=mount.uid, gid=mount.gid
        )
        return Attached(files=(made,), env=env)


def _bound(mount: MountSpec, source: str) -> Attached:
    made = FileMount(kind="bind", source=source, target=mount.target, readonly=not mount.writable)
    return Attached((made,))


def _top(mount: MountSpec) -> Member:
    """The directory that is mounted: a cache's has the owner and mode that it asked for."""
    member = tarfile.TarInfo("tree")
    member.type, member.mtime = tarfile.DIRTYPE, int(time.time())
    member.mode = mount.mode if mount.kind == "cache" else 0o755
    if mount.kind == "cache":
        member.uid, member.gid = mount.uid, mount.gid
    return member, None
