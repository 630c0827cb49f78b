"""The status of a pod from what there is of it, as the API shows it. Pure.

Statuses are plain documents, not Structs: the API wants `ready: false` and `restartCount: 0` written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from sagong.model.k8s.core_v1 import Pod
from sagong.model.times import time_text
from sagong_node.pods.attempt import Attempt, next_start
from sagong_node.pods.decision import (
    Failure,
    Pause,
    Situation,
    init_complete,
    init_failed,
    is_sidecar,
    will_restart,
)
from sagong_node.pods.naming import EPHEMERAL, INIT, MAIN, SCHEME, AnyContainer, pod_text
from sagong_node.pods.resources import qos_class

__all__ = ["Picture", "phase_of", "pod_status", "ready_names"]

Document = dict[str, Any]
OWN_CONDITIONS = (
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
)


class Picture(msgspec.Struct, frozen=True):
    """All that the status tells. `previous` are the attempts before the latest ones.

    `ready` are ids that pass their readiness probe. `ended` says that nothing runs any more, `boxed`
    that the sandbox has its network.
    """

    pod: Pod
    situation: Situation
    previous: Mapping[str, Attempt] = {}
    ready: frozenset[str] = frozenset()
    addresses: tuple[str, ...] = ()
    host: str = ""
    failure: Failure | None = None
    ended: bool = False
    boxed: bool = False


def ready_names(picture: Picture) -> set[str]:
    """Containers that count as ready."""
    found = set()
    attempts = picture.situation.attempts
    for container in (*picture.pod.spec.containers, *picture.pod.spec.init_containers):
        attempt = attempts.get(container.name)
        passed = picture.ready & picture.situation.started
        if attempt is not None and attempt.alive and attempt.id in passed:
            found.add(container.name)
    return found


def phase_of(picture: Picture) -> str:
    """Pending, Running, Succeeded or Failed."""
    pod, situation = picture.pod, picture.situation
    if pod.status.phase in ("Succeeded", "Failed"):
        return pod.status.phase
    if picture.failure is not None or init_failed(pod, situation):
        # Until everything has ended the pod is what it was: nobody may think it gone before.
        return "Failed" if picture.ended else pod.status.phase or "Pending"
    if not init_complete(pod, situation):
        return "Pending"
    attempts = [situation.attempts.get(c.name) for c in pod.spec.containers]
    if any(a is None or (a.state == "created" and not a.number) for a in attempts):
        return "Pending"
    known = [a for a in attempts if a is not None]
    restarting = [
        not a.ended or will_restart(pod, c, MAIN, a) for c, a in zip(pod.spec.containers, known)
    ]
    if (any(restarting) or _sidecars_run(picture)) and not picture.ended:
        return "Running"
    return "Succeeded" if all(a.ended and a.code == 0 for a in known) else "Failed"


def _sidecars_run(picture: Picture) -> bool:
    attempts = picture.situation.attempts
    sidecars = (attempts.get(c.name) for c in picture.pod.spec.init_containers if is_sidecar(c))
    return any(attempt is not None and attempt.alive for attempt in sidecars)


def pod_status(picture: Picture, now: float) -> Document:
    """The status as a document; conditions of others and times of unchanged ones are kept."""
    pod, situation = picture.pod, picture.situation
    phase = phase_of(picture)
    spec = pod.spec
    addresses = picture.addresses or tuple(entry.ip for entry in pod.status.pod_ips)
    status: Document = {
        "phase": phase,
        "conditions": _conditions(picture, phase, now),
        "hostIP": picture.host,
        "hostIPs": [{"ip": picture.host}],
        "podIP": addresses[0] if addresses else None,
        "podIPs": [{"ip": address} for address in addresses] or None,
        "startTime": pod.status.start_time or time_text(situation.begun or now),
        "qosClass": qos_class(pod),
        "containerStatuses": [_container(picture, c, MAIN, now) for c in spec.containers],
        "initContainerStatuses": [_container(picture, c, INIT, now) for c in spec.init_containers]
        or None,
        "ephemeralContainerStatuses": [
            _container(picture, c, EPHEMERAL, now) for c in spec.ephemeral_containers
        ]
        or None,
        "reason": picture.failure.reason if picture.failure else pod.status.reason or None,
        "message": picture.failure.message if picture.failure else pod.status.message or None,
    }
    return status


def _container(picture: Picture, container: AnyContainer, kind: str, now: float) -> Document:
    attempt = picture.situation.attempts.get(container.name)
    state, last = _states(picture, container, kind, now)
    running = "running" in state
    started = running and attempt is not None and attempt.id in picture.situation.started
    ready = container.name in ready_names(picture)
    if kind == INIT and not is_sidecar(container):
        ready = attempt is not None and attempt.ended and attempt.code == 0
    elif kind == EPHEMERAL:
        ready = False
    return {
        "name": container.name,
        "image": container.image,
        "imageID": attempt.image_id if attempt else "",
        "containerID": f"{SCHEME}{attempt.id}" if attempt else "",
        "restartCount": attempt.number if attempt else 0,
        "ready": ready,
        "started": started,
        "state": state,
        "lastState": last,
    }


def _states(
    picture: Picture, container: AnyContainer, kind: str, now: float
) -> tuple[Document, Document]:
    """(state, lastState): a container that waits for its next attempt shows its end as the last."""
    situation, name = picture.situation, container.name
    attempt, before = situation.attempts.get(name), picture.previous.get(name)
    last = {"terminated": _terminated(before)} if before else {}
    pause = situation.pauses.get(name)
    if attempt is None:
        return {"waiting": _waiting(picture, kind, pause)}, last
    if attempt.alive:
        return {"running": {"startedAt": time_text(attempt.started_at)}}, last
    if attempt.state == "created":
        return {"waiting": _waiting(picture, kind, pause)}, last
    ending = {"terminated": _terminated(attempt)}
    over = picture.ended or picture.failure or picture.pod.metadata.deletion_timestamp
    if over or not will_restart(picture.pod, container, kind, attempt):
        return ending, last
    if pause is not None:
        return {"waiting": {"reason": pause.reason, "message": pause.message}}, ending
    if next_start(attempt) > now:
        return {"waiting": _backing_off(picture.pod, container, attempt)}, ending
    return ending, last


def _waiting(picture: Picture, kind: str, pause: Pause | None) -> Document:
    pause = pause or picture.situation.prepare_pause
    if pause is not None and pause.reason:
        found = {"reason": pause.reason}
        return {**found, "message": pause.message} if pause.message else found
    inits = bool(picture.pod.spec.init_containers)
    return {"reason": "PodInitializing" if kind == MAIN and inits else "ContainerCreating"}


def _backing_off(pod: Pod, container: AnyContainer, attempt: Attempt) -> Document:
    seconds = int(attempt.pause)
    text = f"{seconds // 60}m{seconds % 60}s" if seconds >= 60 else f"{seconds}s"
    message = f"back-off {text} restarting failed container={container.name} pod={pod_text(pod)}"
    return {"reason": "CrashLoopBackOff", "message": message}


def _terminated(attempt: Attempt) -> Document:
    reason = "Completed" if attempt.code == 0 else "Error"
    if attempt.oom_killed:
        reason = "OOMKilled"
    elif attempt.error:
        reason = "StartError"
    found: Document = {
        "exitCode": attempt.code,
        "reason": reason,
        "startedAt": time_text(attempt.started_at) if attempt.started_at else None,
        "finishedAt": time_text(attempt.finished_at) if attempt.finished_at else None,
        "containerID": f"{SCHEME}{attempt.id}",
    }
    message = attempt.message or attempt.error
    return {**found, "message": message} if message else found


def _conditions(picture: Picture, phase: str, now: float) -> list[Document]:
    """Ours with the transition times they had; then those of others, as they were."""
    old = {c.type: c for c in picture.pod.status.conditions}
    fresh = [
        _sandbox_condition(picture),
        _initialized(picture, phase),
        _ready(picture, phase),
        _containers_ready(picture, phase),
        {"type": "PodScheduled", "status": "True"},
    ]
    result = []
    for condition in fresh:
        known = old.get(condition["type"])
        same = known is not None and known.status == condition["status"]
        when = known.last_transition_time if same and known else None
        result.append(
            {"lastProbeTime": None, "lastTransitionTime": when or time_text(now), **condition}
        )
    for kind, other in old.items():
        if kind not in OWN_CONDITIONS:
            kept: Document = {"type": kind, "status": other.status, "lastProbeTime": None}
            kept |= {"lastTransitionTime": other.last_transition_time}
            kept |= {"reason": other.reason} if other.reason else {}
            result.append(kept | ({"message": other.message} if other.message else {}))
    return result


def _sandbox_condition(picture: Picture) -> Document:
    there = picture.boxed and not picture.ended
    return {"type": "PodReadyToStartContainers", "status": "True" if there else "False"}


def _initialized(picture: Picture, phase: str) -> Document:
    head: Document = {"type": "Initialized"}
    if phase == "Succeeded":
        return {**head, "status": "True", "reason": "PodCompleted"}
    if init_complete(picture.pod, picture.situation):
        return {**head, "status": "True"}
    attempts = picture.situation.attempts
    missing = [
        c.name
        for c in picture.pod.spec.init_containers
        if not (a := attempts.get(c.name))
        or not (a.id in picture.situation.started if is_sidecar(c) else a.ended and not a.code)
    ]
    message = f"containers with incomplete status: [{' '.join(missing)}]"
    return {**head, "status": "False", "reason": "ContainersNotInitialized", "message": message}


def _unready(picture: Picture) -> Sequence[str]:
    ready = ready_names(picture)
    spec = picture.pod.spec
    counted = [*(c for c in spec.init_containers if is_sidecar(c)), *spec.containers]
    return [c.name for c in counted if c.name not in ready]


def _containers_ready(picture: Picture, phase: str) -> Document:
    head: Document = {"type": "ContainersReady"}
    if phase == "Succeeded":
        return {**head, "status": "False", "reason": "PodCompleted"}
    if phase == "Failed":
        return {**head, "status": "False", "reason": "PodFailed"}
    missing = _unready(picture)
    if not missing:
        return {**head, "status": "True"}
    message = f"containers with unready status: [{' '.join(missing)}]"
    return {**head, "status": "False", "reason": "ContainersNotReady", "message": message}


def _ready(picture: Picture, phase: str) -> Document:
    containers = {**_containers_ready(picture, phase), "type": "Ready"}
    if containers["status"] != "True":
        return containers
    held = {c.type: c.status for c in picture.pod.status.conditions}
    messages = []
    for gate in picture.pod.spec.readiness_gates:
        kind = gate.condition_type
        if kind not in held:
            messages.append(
                f'corresponding condition of pod readiness gate "{kind}" does not exist.'
            )
        elif held[kind] != "True":
            messages.append(
                f'the status of pod readiness gate "{kind}" is not "True", but {held[kind]}'
            )
    if not messages:
        return containers
    return {
        "type": "Ready",
        "status": "False",
        "reason": "ReadinessGatesNotReady",
        "message": ", ".join(messages),
    }
