"""The ground a container stands on: root filesystem, volumes, network, files; made and given back."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
from pathlib import Path

import msgspec

from sagong.call import deadline
from sagong.contracts.image import Images, Prepared, PrepareRequest, RootRef
from sagong.contracts.network import JoinRequest, Sandbox, SandboxRef
from sagong.contracts.node import ContainerSpec, FileMount, SandboxSpec, StatusState
from sagong.contracts.runtime import LogSpec, Mount
from sagong.contracts.volume import (
    PublishRequest,
    UnpublishRequest,
    Volume,
    VolumeRef,
)
from sagong.drivers import EveryNetwork, EveryVolume
from sagong.errors import FailedPrecondition, InvalidArgument, NotFound, SagongError
from sagong.host import Host
from sagong.linux.files import scatter
from sagong_node import hostfiles, mounts
from sagong_node.assembly import Site
from sagong_node.concert import together
from sagong_node.intentions import Intentions
from sagong_node.network_files import NetworkFiles
from sagong_node.pods.settings import PodSettings
from sagong_node.records import ContainerRecord, SandboxRecord
from sagong_node.registry import Registry
from sagong_node.sharing import Sharing
from sagong_node.shelves import Shelves
from sagong_node.user_ranges import check_private, free_base, mapping

__all__ = ["Ground", "Site"]

_SHORT_ID = 12
_LENT = 64
_RECLAIM = 5.0


class Ground:
    """Composes image, volume and network; knows the directories of containers."""

    def __init__(self, host: Host, registry: Registry) -> None:
        self._images = host.use(Images)
        self._networks = EveryNetwork(host)
        self._volumes = EveryVolume(host)
        self._registry = registry
        self._directory = host.data / "containers"
        self._directory.mkdir(parents=True, exist_ok=True)
        scatter(str(self._directory))
        # Roots of containers that were just made, which most often are started at once.
        self._lent: dict[str, Prepared] = {}
        self._shelves = Shelves(host.data / "logs")
        self._intentions = Intentions(host.run / "making")
        self._settings = host.config(PodSettings)
        self._root_directory, self._data_directory = host.root, host.data.parent
        self.network_files = NetworkFiles(host.run / "containers")
        # Sandboxes whose network this process was told of; of others a record may tell what was.
        self._joined: set[str] = set()
        self._sharing = Sharing(registry)

    @property
    def users(self) -> str:
        """The user namespace of who does not ask for one."""
        return self._settings.users

    def begin(self, record: ContainerRecord) -> None:
        """A container is made from now on, until it is `made` or nothing of it is left."""
        with hostfiles.writing(record.spec.id):
            self._intentions.note(record.spec.id)

    def made(self, record: ContainerRecord) -> None:
        """Whatever happens from now on, it is written down."""
        self._intentions.strike(record.spec.id)

    async def lend(self, record: ContainerRecord) -> None:
        """Prepare the root of a new container; its first start finds it."""
        self._lent[record.spec.id] = await self.prepare(record)
        if len(self._lent) > _LENT:
            del self._lent[next(iter(self._lent))]

    async def _root_and_network(
        self, record: ContainerRecord, sandbox: SandboxRecord
    ) -> tuple[Prepared, Sandbox | None]:
        lent = self._lent.pop(record.spec.id, None)
        if lent is not None:
            return lent, await self.join(sandbox)
        async with asyncio.TaskGroup() as group:
            preparing = group.create_task(self.prepare(record))
            joining = group.create_task(self.join(sandbox))
        return preparing.result(), joining.result()

    async def prepare(self, record: ContainerRecord) -> Prepared:
        """Lend the root filesystem; the image is known from then on."""
        spec = record.spec
        prepared = await self._images.prepare(
            PrepareRequest(
                id=spec.id,
                image=record.image.id if record.image else spec.image,
                storage_size=spec.storage_size,
                platform=spec.platform,
            )
        )
        record.image = record.image or prepared.image
        record.upper, record.lower = prepared.upper, prepared.lower
        return prepared

    async def complete(self, record: ContainerRecord) -> None:
        """Prepare what a crash cut short; a volume that can't be had is an error of its start."""
        await self.prepare(record)
        with contextlib.suppress(SagongError):
            await self.reserve(record)

    async def reserve(self, record: ContainerRecord) -> None:
        """Make the volumes that are missing, and hold the images that are mounted: both are there
        from the container's creation on, whatever their names mean later."""
        wished = self._named(record, self._wished(record))
        paths = {}
        for mount in wished:
            if mount.kind == "volume":
                paths[mount.target] = (await self._provide(record, mount)).mountpoint
            elif mount.kind == "image":
                await self._lend_image(record, msgspec.structs.replace(mount, subpath=""))
        record.mounts = mounts.published(wished, paths)

    async def join(self, sandbox: SandboxRecord) -> Sandbox | None:
        """The sandbox's network, joined now unless it is; that of another one if it is shared.

        After a crash it is asked for again: it may have been given back, and that not written down.
        """
        if sandbox.spec.share_with:
            return self._sharing.network(sandbox)
        if sandbox.network is None or sandbox.spec.id not in self._joined:
            sandbox.network = await self._networks.join(self._request(sandbox))
            self._joined.add(sandbox.spec.id)
            self._registry.keep(sandbox, later=True)
        return sandbox.network

    def check(self, sandbox: SandboxSpec, container: ContainerSpec | None = None) -> None:
        """Refuse what a user namespace, asked for or the node's default, can't have."""
        if self._private(sandbox):
            check_private(sandbox, container)
            if container is not None:
                self._check_company(sandbox, container)

    def _check_company(self, sandbox: SandboxSpec, container: ContainerSpec) -> None:
        """Who is in another user namespace than a PID or IPC namespace can't mount what shows it."""
        for kind, mode in (("PID", container.pid_mode), ("IPC", container.ipc_mode)):
            other = self._registry.containers.get(mode.removeprefix("container:"))
            if other is None or not mode.startswith("container:"):
                continue
            owner = self._registry.sandboxes[other.spec.sandbox].spec
            if self._sharing.root(owner).id != self._sharing.root(sandbox).id:
                raise InvalidArgument(
                    f"cannot share the {kind} namespace of container {other.spec.id[:_SHORT_ID]}, "
                    "which is in another user namespace: share its network, too, or run in the "
                    "host's (--userns=host)"
                )

    def _private(self, sandbox: SandboxSpec) -> bool:
        """Whether a sandbox has a user namespace of its own; who shares a network is in its."""
        return (self._sharing.root(sandbox).users or self._settings.users) == "private"

    def _request(self, sandbox: SandboxRecord) -> JoinRequest:
        """With a range of ids that stays the sandbox's until it is removed."""
        if not self._private(sandbox.spec):
            return sandbox.spec.network
        if not sandbox.user_base:
            taken = (other.user_base for other in self._registry.sandboxes.values())
            settings = self._settings
            sandbox.user_base = free_base(settings.user_first, settings.user_ranges, taken)
        users = mapping(sandbox.user_base)
        return msgspec.structs.replace(sandbox.spec.network, user_namespace=users)

    async def leave(self, sandbox: SandboxRecord, *, forgotten: bool = False) -> None:
        """Give the network back; `forgotten`: the sandbox's record is deleted afterwards."""
        if sandbox.spec.share_with:
            return
        self._joined.discard(sandbox.spec.id)
        if not forgotten:
            sandbox.network = None
            self._registry.keep(sandbox)
        await self._networks.leave(SandboxRef(id=sandbox.spec.id))

    async def site(self, record: ContainerRecord, sandbox: SandboxRecord) -> Site:
        """Everything prepared for a start; what was done is undone by `clear` and `leave`."""
        prepared, network = await self._root_and_network(record, sandbox)
        lender = self._sharing.lender(sandbox)
        named = sandbox if lender is None else self._registry.sandboxes[lender.spec.sandbox]
        hostname = named.spec.hostname or (lender or record).spec.id[:_SHORT_ID]
        wished = self._named(record, self._wished(record))
        paths, lent = await self._publish(record, wished, prepared)
        record.mounts = mounts.published(wished, paths)
        with hostfiles.writing(record.spec.id):
            files = self._files(record, sandbox, network, hostname, lender)
            log = self._log(record)
        return Site(
            root=prepared,
            sandbox=sandbox.spec,
            network=network,
            mounts=tuple(
                mounts.image_mount(m, lent[m.target], mapped=self._private(sandbox.spec))
                if m.kind == "image"
                else mounts.runtime_mount(
                    m, paths.get(m.target, m.source), mapped=_shows_ids(m, sandbox.spec)
                )
                for m in wished
            ),
            user_base=self._sharing.last(sandbox).user_base,
            files=files,
            log=log,
            hostname=hostname,
            domainname=named.spec.domainname,
        )

    def seen(
        self, record: ContainerRecord
    ) -> tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]]:
        """Mounts of a container as (target, source): volumes that plugins see, and the rest."""
        kept = (f"{self._root_directory}/mounts/", f"{self._data_directory}/")
        there: list[tuple[str, str]] = []
        hidden: list[tuple[str, str]] = []
        for kind, _, source, target, *_ in record.mounts:
            if kind not in ("bind", "volume") or not source:
                continue
            seen = kind == "volume" and source.startswith(kept)
            (there if seen else hidden).append((target, source))
        named = {target for target, _ in (*there, *hidden)}
        written = [one for one in record.written if one[0] not in named]
        return tuple(there), (*hidden, *written)

    async def clear(self, record: ContainerRecord) -> None:
        """Take back what a run was given, but not its root filesystem."""
        self.network_files.remove(record.spec.id)
        declared = record.image.config.volumes if record.image else ()
        if declared or any(mount.kind == "volume" for mount in record.spec.mounts):
            await self._volumes.unpublish(UnpublishRequest(owner=record.spec.id))

    async def remove(self, record: ContainerRecord, *, volumes: bool) -> None:
        """Give everything back and delete the container's files."""
        self._lent.pop(record.spec.id, None)
        await together(
            self._images.release(RootRef(id=record.spec.id)),
            *(
                self._images.release(RootRef(id=_lease(record, mount)))
                for mount in record.spec.mounts
                if mount.kind == "image"
            ),
            self._take_volumes(record, delete=volumes),
            self._remove_files(record),
        )

    async def _remove_files(self, record: ContainerRecord) -> None:
        """Its log, unless somebody else chose the place, and its secrets."""
        if self._is_shelved(record):
            await self._shelves.remove(record)
        directory = f"{self._directory}/{record.spec.id}"
        if os.path.exists(directory):
            await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)

    def said(self, record: ContainerRecord) -> str:
        """Where something is that its program wrote, of a log of ours; "" if there is nothing."""
        return self._shelves.written(record) if self._is_shelved(record) else ""

    async def _take_volumes(self, record: ContainerRecord, *, delete: bool) -> None:
        """`record.anonymous` are those that went with it, afterwards."""
        await self.clear(record)
        gone = []
        for name in record.anonymous if delete else ():
            # Another container was given it by --volumes-from, or by its name.
            if self._is_used(name):
                continue
            with contextlib.suppress(FailedPrecondition):
                await self._volumes.delete(VolumeRef(name=name))
                gone.append(name)
        record.anonymous = tuple(gone)

    def _is_used(self, volume: str) -> bool:
        """Whether a container that is to stay has it."""
        return any(
            volume in (*(m.source for m in other.spec.mounts), *(m[1] for m in other.mounts))
            for other in self._registry.containers.values()
            if other.state is not StatusState.REMOVING
        )

    def directory(self, record: ContainerRecord) -> Path:
        """Where the container's files are."""
        return self._directory / record.spec.id

    def _made(self, record: ContainerRecord) -> Path:
        """That directory, made."""
        directory = self.directory(record)
        directory.mkdir(parents=True, exist_ok=True, mode=0o711)
        return directory

    async def reclaim(self) -> None:
        """Give back what was taken for containers that a crash kept from being written; once, when
        the records are read and before another one is made."""
        for id_ in self._intentions.left():
            if id_ not in self._registry.containers:
                self.network_files.remove(id_)
                try:
                    with deadline(_RECLAIM):
                        await self._images.release(RootRef(id=id_))
                        if id_ not in self._registry.sandboxes:
                            await self._networks.leave(SandboxRef(id=id_))
                except SagongError:
                    return  # the next one tries again
            self._intentions.strike(id_)

    async def sweep(self) -> None:
        """Remove the logs of containers that are gone; once, when the records are read."""
        await self._shelves.sweep(
            lambda id_: id_ in self._registry.containers or self._intentions.has(id_)
        )

    def _wished(self, record: ContainerRecord) -> list[FileMount]:
        wished = list(record.spec.mounts)
        if record.spec.image_volumes and record.image is not None:
            wished += mounts.image_volumes(record.image.config.volumes, wished)
        mounts.check(wished)
        return wished

    async def _publish(
        self, record: ContainerRecord, wished: list[FileMount], prepared: Prepared
    ) -> tuple[dict[str, str], dict[str, Mount]]:
        """Where volumes are, and what is to be mounted of images."""
        paths: dict[str, str] = {}
        lent: dict[str, Mount] = {}
        for mount in wished:
            if mount.kind == "volume":
                paths[mount.target] = await self._publish_volume(record, mount, prepared)
            elif mount.kind == "image":
                lent[mount.target] = await self._lend_image(record, mount)
        return paths, lent

    def _anonymous_name(self, record: ContainerRecord, target: str) -> str:
        """A volume without a name keeps the one of the container's first start."""
        return hashlib.sha256(f"{record.spec.id} {target}".encode()).hexdigest()

    def _named(self, record: ContainerRecord, wished: list[FileMount]) -> list[FileMount]:
        return [
            msgspec.structs.replace(mount, source=self._anonymous_name(record, mount.target))
            if mount.kind == "volume" and not mount.source
            else mount
            for mount in wished
        ]

    async def _provide(self, record: ContainerRecord, mount: FileMount) -> Volume:
        """The volume, made if it is missing."""
        anonymous = mount.anonymous or mount.source == self._anonymous_name(record, mount.target)
        if anonymous and mount.source not in record.anonymous:
            record.anonymous = (*record.anonymous, mount.source)
        try:
            return await self._volumes.inspect(VolumeRef(name=mount.source))
        except NotFound:
            return await self._volumes.create(
                Volume(
                    name=mount.source,
                    driver=mount.driver or "local",
                    options=mount.driver_options,
                    labels=mount.labels,
                    anonymous=anonymous,
                    owner=self._owner(record),
                )
            )

    def _owner(self, record: ContainerRecord) -> str:
        sandbox = self._registry.sandboxes.get(record.spec.sandbox)
        return sandbox.spec.owner if sandbox else ""

    async def _publish_volume(
        self, record: ContainerRecord, mount: FileMount, prepared: Prepared
    ) -> str:
        await self._provide(record, mount)
        # What its program deletes stays away when it is started again, as in Docker.
        seeded = mount.copy and not record.started_at
        answer = await self._volumes.publish(
            PublishRequest(
                name=mount.source,
                owner=record.spec.id,
                readonly=mount.readonly,
                subpath=mount.subpath,
                existing=True,
                seed=prepared.lower if seeded else (),
                seed_path=mount.target,
            )
        )
        return answer.path

    async def _lend_image(self, record: ContainerRecord, mount: FileMount) -> Mount:
        lent = await self._images.prepare(
            PrepareRequest(
                id=_lease(record, mount),
                image=mount.source,
                readonly=True,
                bare=True,
                subpath=mount.subpath,
            )
        )
        return lent.root

    def _files(
        self,
        record: ContainerRecord,
        sandbox: SandboxRecord,
        network: Sandbox | None,
        hostname: str,
        lender: ContainerRecord | None,
    ) -> tuple[Mount, ...]:
        """Files that are written anew for each run, those without secrets in memory; of a network
        that is another container's they are that one's, too."""
        if lender is None:
            files = self.network_files.write(record, sandbox.spec, network, hostname)
        else:
            files = self.network_files.share(record, lender)
        if record.spec.files:
            files += hostfiles.write_files(self._made(record) / "files", record.spec.files)
        readonly = ("ro",) if record.spec.readonly_root else ()
        return tuple(
            Mount(
                target=target,
                kind="bind",
                source=path,
                options=("bind", "rprivate", "idmap", *readonly),
                create="file",
            )
            for path, target in files
        )

    def _log(self, record: ContainerRecord) -> LogSpec:
        log = record.spec.log
        if not self._is_shelved(record):
            record.log_path = log.path
            return log
        # What was begun when each container had a directory for its log stays there.
        if not record.log_path.startswith(f"{self._directory}/{record.spec.id}/"):
            record.log_path = self._shelves.provide(record)
        return msgspec.structs.replace(log, path=record.log_path)

    @staticmethod
    def _is_shelved(record: ContainerRecord) -> bool:
        """Whether it has a log, and at a place of node's own choice."""
        return record.spec.log.driver != "none" and not record.spec.log.path


def _lease(record: ContainerRecord, mount: FileMount) -> str:
    """The name of the lease of an image that is mounted in a container."""
    place = hashlib.sha256(mount.target.encode()).hexdigest()[:16]
    return f"{record.spec.id}-image-{place}"


def _shows_ids(mount: FileMount, sandbox: SandboxSpec) -> bool:
    """Whether a user namespace sees the ids as they are: in all of ours, and in all of a pod's.

    What a user of Docker binds belongs to the host: there root inside is nobody.
    """
    return mount.kind != "bind" or sandbox.owner == "kube"
