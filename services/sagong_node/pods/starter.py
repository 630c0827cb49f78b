"""Starts one attempt of a container: image, environment, mounts, the container itself, its hook."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from sagong.contracts.image import Image
from sagong.contracts.node import RemoveRequest, StartRequest
from sagong.errors import FailedPrecondition, InvalidArgument, NotFound, SagongError
from sagong.model.k8s.core_v1 import ConfigMap, Container, Pod, Secret
from sagong_node.pods.boxing import resolv_conf
from sagong_node.pods.building import Site, container_spec, seccomp_of
from sagong_node.pods.decision import Pause, Start
from sagong_node.pods.environment import environment
from sagong_node.pods.mounting import Source, mounts_of
from sagong_node.pods.naming import (
    AnyContainer,
    Origin,
    container_id,
    definition_hash,
    log_path,
    termination_path,
)
from sagong_node.pods.pulling import Missing, effective_policy
from sagong_node.pods.sources import Reference
from sagong_node.pods.surroundings import Surroundings

__all__ = ["Place", "Refused", "Starter"]

_RETRY = 10.0
_KEPT_ATTEMPTS = 2


class Refused(Exception):
    """A container can't be started now: what its status shows, and when to try again."""

    def __init__(self, reason: str, message: str, seconds: float = _RETRY) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.seconds = seconds

    def pause(self, now: float) -> Pause:
        """As the decision takes it."""
        return Pause(now + self.seconds, self.reason, self.message)


class Place(msgspec.Struct, frozen=True):
    """Where a pod's containers go: its sandbox, address, volumes."""

    sandbox: str
    address: str
    sources: Mapping[str, Source]


class Starter:
    """Without memory of its own; workers use it."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around

    async def ensure_image(self, pod: Pod, container: AnyContainer) -> Image:
        """By the pull policy; Missing tells why there is none."""
        around, reference = self._around, container.image
        policy = effective_policy(container.image_pull_policy, reference)
        tell = around.occurrences.pod
        if policy != "Always":
            image = await self._present(reference)
            if image is not None:
                text = f'Container image "{reference}" already present on machine'
                tell(pod, "Pulled", text, container=container.name)
                return image
            if policy == "Never":
                text = f'Container image "{reference}" is not present with pull policy of Never'
                tell(pod, "ErrImageNeverPull", text, container=container.name, warning=True)
                raise Refused("ErrImageNeverPull", text, 60.0)
        return await self._pull(pod, container)

    async def pull_volumes(self, pod: Pod) -> None:
        """Images that are mounted as volumes; the same policies as for containers."""
        for volume in pod.spec.volumes:
            if volume.image is not None:
                source = volume.image
                wanted = Container(
                    name=volume.name, image=source.reference, image_pull_policy=source.pull_policy
                )
                await self.ensure_image(pod, wanted)

    async def _present(self, reference: str) -> Image | None:
        try:
            return await self._around.puller.present(reference)
        except InvalidArgument as error:
            message = f'Failed to apply default image tag "{reference}": {error.message}'
            raise Refused("InvalidImageName", message, 60.0) from None

    async def _pull(self, pod: Pod, container: AnyContainer) -> Image:
        around, reference, name = self._around, container.image, container.name
        tell, user = around.occurrences.pod, pod.metadata.uid
        try:
            around.puller.check_pause(user, reference)
            tell(pod, "Pulling", f'Pulling image "{reference}"', container=name)
            pulled = await around.puller.pull(user, reference, await self._secrets(pod))
        except Missing as error:
            if error.reason == "ErrImagePull":
                text = f'Failed to pull image "{reference}": {error.message}'
                tell(pod, "Failed", text, container=name, warning=True)
                tell(pod, "Failed", "Error: ErrImagePull", container=name, warning=True)
            else:
                text = f'Back-off pulling image "{reference}"'
                tell(pod, "BackOff", text, container=name)
                tell(pod, "Failed", "Error: ImagePullBackOff", container=name, warning=True)
            raise
        took, waited = pulled.seconds or 0.0, pulled.waited
        text = (
            f'Successfully pulled image "{reference}" in {took * 1000:.0f}ms ({waited * 1000:.0f}ms '
            f"including waiting). Image size: {pulled.image.size} bytes."
        )
        tell(pod, "Pulled", text, container=name)
        return pulled.image

    async def _secrets(self, pod: Pod) -> list[Secret]:
        """Those of the pod; the admission has put the account's among them, if it has any."""
        namespace = pod.metadata.namespace
        names = [entry.name for entry in pod.spec.image_pull_secrets]
        account = Reference(
            "serviceaccounts", namespace, pod.spec.service_account_name or "default"
        )
        known = self._around.sources.peek(account)
        names += [entry.name for entry in known.image_pull_secrets] if known else []
        found = [self._around.sources.peek(Reference("secrets", namespace, n)) for n in names]
        return [secret for secret in found if isinstance(secret, Secret)]

    async def create(
        self, pod: Pod, container: AnyContainer, action: Start, place: Place, image: Image
    ) -> str:
        """Make the container; its id. Refused tells why its configuration can't be."""
        origin = self.origin(pod, container, action)
        id_ = container_id(origin.uid, origin.container, origin.attempt)
        if id_ in self._around.registry.containers:
            return id_
        try:
            site = await self._site(pod, container, origin, place, image)
            spec = container_spec(pod, container, origin, site)
        except (SagongError, OSError, ValueError) as error:
            self._failed(pod, container, str(error))
            raise Refused("CreateContainerConfigError", str(error)) from None
        try:
            await self._around.node.create(spec)
        except SagongError as error:
            self._failed(pod, container, error.message)
            raise Refused("CreateContainerError", error.message) from None
        text = f"Created container: {container.name}"
        self._around.occurrences.pod(pod, "Created", text, container=container.name)
        return id_

    async def start(self, pod: Pod, container: AnyContainer, id_: str) -> None:
        """Start it; Refused RunContainerError if it can't be."""
        try:
            await self._around.node.start(StartRequest(id=id_, run=1))
        except SagongError as error:
            self._failed(pod, container, error.message)
            raise Refused("RunContainerError", error.message) from None
        text = f"Started container {container.name}"
        self._around.occurrences.pod(pod, "Started", text, container=container.name)

    async def prune(self, origin: Origin) -> None:
        """Remove attempts before the last two, with their logs."""
        around = self._around
        number = origin.attempt - _KEPT_ATTEMPTS
        if number < 0:
            return
        old = msgspec.structs.replace(origin, attempt=number)
        id_ = container_id(old.uid, old.container, number)
        if id_ in around.registry.containers:
            try:
                await around.node.remove(RemoveRequest(id=id_, force=True, volumes=True))
            except NotFound:
                pass  # somebody else was quicker
        log = log_path(around.logs, old)
        for path in [*log.parent.glob(f"{log.name}*"), termination_path(around.pods, old)]:
            path.unlink(missing_ok=True)

    def origin(self, pod: Pod, container: AnyContainer, action: Start) -> Origin:
        """What the labels of the attempt say."""
        metadata = pod.metadata
        return Origin(
            namespace=metadata.namespace,
            pod=metadata.name,
            uid=metadata.uid,
            container=container.name,
            kind=action.kind,
            attempt=action.attempt,
            delay=action.delay,
            hash=definition_hash(container),
        )

    def _failed(self, pod: Pod, container: AnyContainer, message: str) -> None:
        self._around.occurrences.pod(
            pod, "Failed", f"Error: {message}", container=container.name, warning=True
        )

    async def _site(
        self, pod: Pod, container: AnyContainer, origin: Origin, place: Place, image: Image
    ) -> Site:
        around, namespace = self._around, pod.metadata.namespace

        def lookup(resource: str, name: str) -> ConfigMap | Secret | None:
            found: ConfigMap | Secret | None = around.sources.peek(
                Reference(resource, namespace, name)
            )
            return found

        await around.services.wait_synced()
        env = environment(
            pod,
            container,
            lookup=lookup,
            services=around.services.services(namespace),
            address=place.address,
            node=around.settings.name,
            host=around.host,
            capacity=around.capacity,
        )
        held = await around.volumes.hold(pod, container, place.sources, env)
        log, termination = log_path(around.logs, origin), termination_path(around.pods, origin)
        _prepare_files(log, termination)
        return Site(
            sandbox=place.sandbox,
            image=image,
            env=env,
            mounts=mounts_of(container, place.sources, env, held),
            resolv_conf=resolv_conf(pod, around.settings, _machine_resolver()),
            log=log,
            log_size=around.settings.log_size,
            log_files=around.settings.log_files,
            termination=termination,
            seccomp=self._seccomp(pod, container),
            memory=around.memory,
            target=self._target(pod, container),
            runtime=around.registry.sandboxes[place.sandbox].spec.runtime,
        )

    def _seccomp(self, pod: Pod, container: AnyContainer) -> str:
        profile = seccomp_of(pod, container)
        settings = self._around.settings
        if profile is None:
            return "default" if settings.seccomp_default else "unconfined"
        if profile.type == "RuntimeDefault":
            return "default"
        if profile.type != "Localhost":
            return "unconfined"
        directory = Path(settings.seccomp_profiles)
        path = directory / (profile.localhost_profile or "")
        if not path.resolve().is_relative_to(directory.resolve()):
            raise FailedPrecondition(f"seccomp profile {profile.localhost_profile} leads elsewhere")
        try:
            return path.read_text()
        except OSError as error:
            raise FailedPrecondition(f"cannot load seccomp profile {path}: {error}") from None

    def _target(self, pod: Pod, container: AnyContainer) -> str:
        """The container whose processes an ephemeral one shall see."""
        name = getattr(container, "target_container_name", "")
        if not name or pod.spec.share_process_namespace:
            return ""
        for record in self._around.registry.containers.values():
            labels = dict(record.spec.labels)
            same = labels.get("io.kubernetes.pod.uid") == pod.metadata.uid
            if same and record.alive and labels.get("io.kubernetes.container.name") == name:
                return record.spec.id
        raise FailedPrecondition(f'unable to find target container "{name}"')


def _prepare_files(log: Path, termination: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    termination.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(termination, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o666)
    try:
        os.fchmod(descriptor, 0o666)
    finally:
        os.close(descriptor)


def _machine_resolver() -> str:
    try:
        return Path("/etc/resolv.conf").read_text()
    except OSError:
        return ""
