"""Names and ids of what the kubelet makes: containers, sandboxes, labels. Pure."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from sagong.contracts.node import ContainerSpec
from sagong.model.k8s.core_v1 import Container, EphemeralContainer, Pod

__all__ = [
    "EPHEMERAL",
    "INIT",
    "MAIN",
    "OWNER",
    "SCHEME",
    "AnyContainer",
    "Origin",
    "container_id",
    "container_name",
    "definition_hash",
    "labels",
    "log_path",
    "origin",
    "pod_text",
    "sandbox_id",
    "termination_path",
]

OWNER = "kube"
SCHEME = "sagong://"
INIT, MAIN, EPHEMERAL = "init", "main", "ephemeral"
AnyContainer = Container | EphemeralContainer

_POD, _NAMESPACE = "io.kubernetes.pod.name", "io.kubernetes.pod.namespace"
_UID, _CONTAINER = "io.kubernetes.pod.uid", "io.kubernetes.container.name"
_KIND, _ATTEMPT = "io.sagong.container.kind", "io.sagong.container.attempt"
_DELAY, _HASH = "io.sagong.container.delay", "io.sagong.container.hash"


class Origin(msgspec.Struct, frozen=True):
    """Which attempt of which container of which pod something is; read from its labels.

    `delay`: seconds that must pass after the end of this attempt before the next.
    """

    namespace: str
    pod: str
    uid: str
    container: str
    kind: str = MAIN
    attempt: int = 0
    delay: float = 0.0
    hash: str = ""


def container_id(uid: str, container: str, attempt: int) -> str:
    """The id of an attempt: the same for ever, so that nothing is started twice."""
    return hashlib.sha256(f"{uid}/{container}/{attempt}".encode()).hexdigest()


def sandbox_id(uid: str, generation: int = 0) -> str:
    """The id of a pod's sandbox; a sandbox that was lost has a successor."""
    return hashlib.sha256(f"{uid}//{generation}".encode()).hexdigest()


def container_name(found: Origin) -> str:
    """As tools that look at Docker containers of pods know it."""
    return f"k8s_{found.container}_{found.pod}_{found.namespace}_{found.uid}_{found.attempt}"


def pod_text(pod: Pod) -> str:
    """`name_namespace(uid)`, as upstream's messages write a pod."""
    return f"{pod.metadata.name}_{pod.metadata.namespace}({pod.metadata.uid})"


def labels(found: Origin) -> tuple[tuple[str, str], ...]:
    """Labels from which everything can be adopted after a restart."""
    return (
        (_POD, found.pod),
        (_NAMESPACE, found.namespace),
        (_UID, found.uid),
        (_CONTAINER, found.container),
        (_KIND, found.kind),
        (_ATTEMPT, str(found.attempt)),
        (_DELAY, f"{found.delay:g}"),
        (_HASH, found.hash),
    )


def origin(spec: ContainerSpec) -> Origin | None:
    """What the labels of a container say; None if it isn't a pod's."""
    found = dict(spec.labels)
    if not found.get(_UID) or not found.get(_CONTAINER):
        return None
    try:
        attempt, delay = int(found.get(_ATTEMPT, "0")), float(found.get(_DELAY, "0"))
    except ValueError:
        return None
    return Origin(
        namespace=found.get(_NAMESPACE, ""),
        pod=found.get(_POD, ""),
        uid=found[_UID],
        container=found[_CONTAINER],
        kind=found.get(_KIND, MAIN),
        attempt=attempt,
        delay=delay,
        hash=found.get(_HASH, ""),
    )


def definition_hash(container: AnyContainer) -> str:
    """Changes when a running container must be replaced: of all fields only its image may change."""
    return hashlib.sha256(f"{container.name} {container.image}".encode()).hexdigest()[:16]


def log_path(directory: Path, found: Origin) -> Path:
    """Where a container's log is; log shippers know this form."""
    return (
        directory
        / f"{found.namespace}_{found.pod}_{found.uid}"
        / found.container
        / f"{found.attempt}.log"
    )


def termination_path(pods: Path, found: Origin) -> Path:
    """The file that is bound to the container's terminationMessagePath."""
    return pods / found.uid / "termination" / found.container / str(found.attempt)
