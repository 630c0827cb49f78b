"""Volumes of pods on this machine: made before the containers, kept up to date, removed at the end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from sagong.contracts.volume import (
    PublishRequest,
    UnpublishRequest,
    VolumeRef,
    Volumes,
)
from sagong.contracts.volume import Volume as VolumeSpec
from sagong.errors import FailedPrecondition, InvalidArgument, SagongError
from sagong.model.k8s.core_v1 import (
    ConfigMap,
    HostPathVolumeSource,
    Pod,
    Secret,
    Volume,
)
from sagong_node.pods import claims
from sagong_node.pods.environment import references
from sagong_node.pods.mounting import SHARED_MEMORY, Source, lent_parts
from sagong_node.pods.naming import OWNER, AnyContainer
from sagong_node.pods.payload import Content, Downward, content_of, token_wishes, wants
from sagong_node.pods.projection import write_content
from sagong_node.pods.reclaiming import Reclaimer
from sagong_node.pods.sources import Reference, Sources
from sagong_node.pods.tokens import Tokens

__all__ = ["MountFailed", "PodVolumes", "needed"]

_UID_LABEL = "io.kubernetes.pod.uid"
_IN_MEMORY = 128 << 10


class MountFailed(Exception):
    """A volume can't be mounted: its name and why."""

    def __init__(self, volume: str, why: str) -> None:
        super().__init__(why)
        self.message = f'MountVolume.SetUp failed for volume "{volume}" : {why}'


def needed(pod: Pod) -> set[Reference]:
    """All objects that the pod refers to, as far as its spec names them."""
    namespace = pod.metadata.namespace
    containers: tuple[AnyContainer, ...] = (
        *pod.spec.init_containers,
        *pod.spec.containers,
        *pod.spec.ephemeral_containers,
    )
    pairs = {pair for container in containers for pair in references(container)}
    pairs |= {pair for volume in pod.spec.volumes for pair in wants(volume)}
    pairs |= {("secrets", secret.name) for secret in pod.spec.image_pull_secrets}
    if any(token_wishes(volume) for volume in pod.spec.volumes):
        pairs.add(("serviceaccounts", pod.spec.service_account_name or "default"))
    for volume in pod.spec.volumes:
        if claim := claims.claim_name(pod, volume):
            pairs.add(("persistentvolumeclaims", claim))
    return {Reference(resource, namespace, name) for resource, name in pairs if name}


class PodVolumes:
    """All volumes of all pods; `directory` has one directory for each pod, and so has `memory`.

    What comes from the API, so all secrets, is in memory, as upstream has it: no disk keeps it, and a
    pod starts quicker. What is large is not, nor what a user namespace maps (before Linux 6.3 no
    tmpfs can be).
    """

    def __init__(
        self,
        directory: Path,
        memory: Path,
        lender: Volumes,
        sources: Sources,
        tokens: Tokens | None,
        reclaimer: Reclaimer | None = None,
    ) -> None:
        self._directory = directory
        self._memory = memory
        self._lender = lender
        self._sources = sources
        self._tokens = tokens
        self._reclaimer = reclaimer
        self._made: dict[str, set[str]] = {}

    async def prepare(self, pod: Pod, downward: Downward) -> dict[str, Source]:
        """Make all volumes; MountFailed tells the first that can't be. Doing it again is harmless."""
        uid, base = pod.metadata.uid, needed(pod)
        self._sources.need(uid, base)
        await self._sources.wait_known(base)
        backing = self._backing(pod)
        if backing:
            self._sources.need(uid, base | backing)
            await self._sources.wait_known(backing)
        await self._issue(pod)
        found = {}
        for volume in pod.spec.volumes:
            try:
                found[volume.name] = await self._source(pod, volume, downward)
            except (SagongError, OSError, ValueError) as error:
                raise MountFailed(volume.name, str(error)) from None
        shared = claims.shared_memory(pod)
        if shared is not None:
            try:
                found[SHARED_MEMORY] = await self._lend(pod, shared)
            except SagongError as error:
                raise MountFailed(SHARED_MEMORY, error.message) from None
        return found

    async def refresh(self, pod: Pod, downward: Downward) -> None:
        """Write anew what comes from the API and has changed; what can't be stays as it is."""
        with contextlib.suppress(SagongError):
            await self._issue(pod)
        for volume in pod.spec.volumes:
            with contextlib.suppress(SagongError, OSError, ValueError):
                self._write(pod, volume, downward)

    def next_renewal(self, uid: str) -> float:
        """When a token of the pod must be renewed; 0 if it has none."""
        return self._tokens.next_renewal(uid) if self._tokens else 0.0

    async def remove(self, uid: str, volumes: list[str]) -> None:
        """Give back what was lent, delete what was made."""
        self._sources.need(uid, set())
        if self._tokens is not None:
            self._tokens.forget(uid)
        await self._lender.unpublish(UnpublishRequest(owner=uid))
        for name in {*volumes, *self._made.pop(uid, ())}:
            # Other pods on this node may have the same claim.
            with contextlib.suppress(FailedPrecondition):
                await self._lender.delete(VolumeRef(name=name))
        places = (self._memory / uid, self._directory / uid)
        await asyncio.get_running_loop().run_in_executor(None, _remove_trees, places)

    def made_names(self, pod: Pod) -> list[str]:
        """Lent volumes that belong to the pod alone."""
        shared = claims.shared_memory(pod)
        return [
            *([shared.name] if shared is not None else []),
            *(
                f"pod-{pod.metadata.uid}-{volume.name}"
                for volume in pod.spec.volumes
                if volume.empty_dir and volume.empty_dir.medium == "Memory"
            ),
        ]

    def leftovers(self) -> set[str]:
        """Uids of pods that have a directory here."""
        found: set[str] = set()
        for directory in (self._directory, self._memory):
            with contextlib.suppress(FileNotFoundError):
                found.update(os.listdir(directory))
        return found

    def _backing(self, pod: Pod) -> set[Reference]:
        found = set()
        for volume in pod.spec.volumes:
            name = claims.claim_name(pod, volume)
            reference = Reference("persistentvolumeclaims", pod.metadata.namespace, name)
            claim = self._sources.peek(reference) if name else None
            if claim is not None and claim.spec.volume_name:
                found.add(Reference("persistentvolumes", "", claim.spec.volume_name))
        return found

    async def _issue(self, pod: Pod) -> None:
        wishes = {wish for volume in pod.spec.volumes for wish in token_wishes(volume)}
        if not wishes or self._tokens is None:
            return
        name = pod.spec.service_account_name or "default"
        account = self._sources.peek(Reference("serviceaccounts", pod.metadata.namespace, name))
        if account is None:
            raise FailedPrecondition(f'serviceaccounts "{name}" not found')
        await self._tokens.issue(pod, account, wishes)

    async def _source(self, pod: Pod, volume: Volume, downward: Downward) -> Source:
        if volume.host_path:
            return _host_path(volume.host_path)
        if volume.image:
            return Source(image=volume.image.reference, readonly=True)
        if volume.empty_dir:
            if volume.empty_dir.medium == "Memory":
                lent = claims.lent_memory(pod, volume, volume.empty_dir)
                return await self._lend(pod, lent)
            return self._empty(pod, volume)
        if volume.nfs:
            name = f"pod-{pod.metadata.uid}-{volume.name}"
            readonly = volume.nfs.read_only
            lent = claims.nfs(name, volume.nfs.server, volume.nfs.path, readonly=readonly)
            return await self._lend(pod, lent)
        if name := claims.claim_name(pod, volume):
            return await self._claimed(pod, volume, name)
        written = self._write(pod, volume, downward)
        if written is None:
            raise InvalidArgument("volumes of this type are not supported")
        return Source(str(written), readonly=True, visible=True)

    def _path(self, pod: Pod, volume: Volume) -> Path:
        return self._directory / pod.metadata.uid / "volumes" / volume.name

    def _place(self, pod: Pod, volume: Volume, content: Content) -> Path:
        """Where what comes from the API is: where it was, else by its size."""
        disk = self._path(pod, volume)
        memory = self._memory / pod.metadata.uid / volume.name
        if memory.is_dir():
            return memory
        size = sum(len(entry.data) for entry in content.values())
        mapped = pod.spec.host_users is False
        return disk if size > _IN_MEMORY or mapped or disk.is_dir() else memory

    def _write(self, pod: Pod, volume: Volume, downward: Downward) -> Path | None:
        """Write a volume that comes from the API; where it is, None if it is none."""
        content = content_of(
            pod,
            volume,
            find=lambda resource, name: self._find(pod, resource, name),
            tokens=self._tokens.texts(pod.metadata.uid) if self._tokens else {},
            downward=downward,
        )
        if content is None:
            return None
        place = self._place(pod, volume, content)
        write_content(place, content, group=_group(pod))
        return place

    def _find(self, pod: Pod, resource: str, name: str) -> ConfigMap | Secret | None:
        found: ConfigMap | Secret | None = self._sources.peek(
            Reference(resource, pod.metadata.namespace, name)
        )
        return found

    def _empty(self, pod: Pod, volume: Volume) -> Source:
        path = self._path(pod, volume)
        if not path.is_dir():
            path.mkdir(parents=True)
            group = _group(pod)
            # The mode first: only the owning group may set the set-group-id bit without CAP_FSETID.
            path.chmod(0o777 if group is None else 0o2777)
            with contextlib.suppress(PermissionError):
                os.chown(path, 0, 0 if group is None else group)
        return Source(str(path), visible=True)

    async def _claimed(self, pod: Pod, volume: Volume, name: str) -> Source:
        reference = Reference("persistentvolumeclaims", pod.metadata.namespace, name)
        claim = self._sources.peek(reference)
        if claim is None:
            raise FailedPrecondition(f'persistentvolumeclaim "{name}" not found')
        if volume.ephemeral and not _owned(claim.metadata.owner_references, pod):
            raise FailedPrecondition(f"PVC {name} was not created for pod {pod.metadata.name}")
        backing = self._sources.peek(Reference("persistentvolumes", "", claim.spec.volume_name))
        found = claims.lent_persistent(claim, backing)
        asked = volume.persistent_volume_claim
        readonly = bool(asked and asked.read_only)
        if isinstance(found, HostPathVolumeSource) and backing is not None:
            source = _host_path(found)
            lent = claims.bound(backing, found.path)
            return Source(source.path, readonly=readonly, make=source.make, lent=lent)
        assert isinstance(found, claims.Lent)
        if found.kept and backing is not None and self._reclaimer is not None:
            await self._reclaimer.hold(backing)
        return await self._lend(pod, found, readonly=readonly)

    async def _lend(self, pod: Pod, lent: claims.Lent, *, readonly: bool = False) -> Source:
        path = await self._publish(pod, lent, readonly=readonly)
        return Source(path, readonly=readonly or lent.readonly, lent=lent)

    async def _publish(
        self, pod: Pod, lent: claims.Lent, *, readonly: bool = False, subpath: str = ""
    ) -> str:
        uid = pod.metadata.uid
        if lent.made or lent.options:
            if not lent.kept:
                self._made.setdefault(uid, set()).add(lent.name)
            await self._lender.create(
                VolumeSpec(
                    name=lent.name,
                    driver=lent.driver,
                    options=lent.options,
                    labels=((_UID_LABEL, uid),) if lent.made else (),
                    anonymous=lent.made,
                    owner=OWNER,
                )
            )
        request = PublishRequest(
            name=lent.name, owner=uid, readonly=readonly or lent.readonly, subpath=subpath
        )
        return (await self._lender.publish(request)).path

    async def hold(
        self,
        pod: Pod,
        container: AnyContainer,
        sources: Mapping[str, Source],
        values: Mapping[str, str],
    ) -> dict[tuple[str, str], str]:
        """Paths of the parts of lent volumes that a container mounts, by volume and subPath."""
        return {
            (name, subpath): await self._publish(pod, lent, subpath=subpath)
            for name, subpath, lent in lent_parts(container, sources, values)
        }


def _owned(owners: list[object], pod: Pod) -> bool:
    return any(getattr(owner, "uid", "") == pod.metadata.uid for owner in owners)


def _group(pod: Pod) -> int | None:
    return pod.spec.security_context.fs_group if pod.spec.security_context else None


def _host_path(source: HostPathVolumeSource) -> Source:
    claims.check_type(source)
    if source.type == "FileOrCreate" and not os.path.lexists(source.path):
        with contextlib.suppress(OSError), open(source.path, "ab"):
            os.chmod(source.path, 0o644)
    return Source(source.path, make=source.type == "DirectoryOrCreate", privileged=True)


def _remove_trees(paths: Iterable[Path]) -> None:
    for path in paths:
        remove_tree(path)


def remove_tree(path: Path) -> None:
    """Delete a directory with what containers left in it, whatever its modes are."""
    shutil.rmtree(path, ignore_errors=True)
    if not path.exists():
        return
    for directory, _, _ in os.walk(path):
        with contextlib.suppress(OSError):
            os.chmod(directory, 0o777)
    shutil.rmtree(path, ignore_errors=True)
