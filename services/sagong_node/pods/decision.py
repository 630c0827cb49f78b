"""What to do next with a pod: its spec and what there is of it → actions. Pure.

The order is upstream's: sandbox and volumes, then init containers one after the other (those with
restartPolicy Always stay beside the rest as sidecars), then all others at once. ::

    prepare ──► init 1 ──► sidecar 2 (started) ──► init 3 ──► main, main, main ──► end
                 ▲  │ back-off                                    ▲   │ back-off
                 └──┘                                             └───┘
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from sagong.model.k8s.core_v1 import Container, Pod
from sagong.model.times import parse_time
from sagong_node.pods.attempt import Attempt, next_delay, next_start
from sagong_node.pods.naming import EPHEMERAL, INIT, MAIN, AnyContainer, definition_hash

__all__ = [
    "Action",
    "Decision",
    "Failure",
    "Kill",
    "Pause",
    "Prepare",
    "Situation",
    "Start",
    "deadline_of",
    "decide",
    "init_complete",
    "init_failed",
    "is_sidecar",
    "terminal",
    "will_restart",
]


class Pause(msgspec.Struct, frozen=True):
    """Why a container that should start does not: upstream's reason, and when to try again."""

    until: float
    reason: str
    message: str = ""


class Prepare(msgspec.Struct, frozen=True):
    """Make the sandbox and the volumes."""


class Start(msgspec.Struct, frozen=True):
    """Make and start the next attempt of a container."""

    container: str
    kind: str
    attempt: int
    delay: float


class Kill(msgspec.Struct, frozen=True):
    """End a running attempt, which is restarted if its policy has it."""

    container: str
    id: str
    reason: str


class Failure(msgspec.Struct, frozen=True):
    """The pod as a whole has failed."""

    reason: str
    message: str


Action = Prepare | Start | Kill


class Situation(msgspec.Struct, frozen=True):
    """What there is. `attempts` are the latest of each container; `busy` have an action going on.

    `started` are ids that passed their startup (probe and hook); `sick` are ids that must be killed,
    with the reason. `prepared`: sandbox and volumes are there. `begun`: when the node took the pod.
    """

    attempts: Mapping[str, Attempt] = {}
    started: frozenset[str] = frozenset()
    sick: Mapping[str, str] = {}
    pauses: Mapping[str, Pause] = {}
    busy: frozenset[str] = frozenset()
    prepared: bool = False
    preparing: bool = False
    prepare_pause: Pause | None = None
    begun: float = 0.0


class Decision(msgspec.Struct, frozen=True):
    """Actions to do now, and when to decide again if nothing happens before (0: never).

    `over`: nothing of the pod will run again; what still runs (sidecars) is to be ended.
    """

    actions: tuple[Action, ...] = ()
    wake: float = 0.0
    over: bool = False
    failure: Failure | None = None


def is_sidecar(container: AnyContainer) -> bool:
    """An init container that stays."""
    return container.restart_policy == "Always"


def will_restart(pod: Pod, container: AnyContainer, kind: str, attempt: Attempt) -> bool:
    """Whether a new attempt follows the one that has ended."""
    if kind == EPHEMERAL:
        return False
    if kind == INIT:
        if is_sidecar(container):
            return True
        return attempt.code != 0 and pod.spec.restart_policy != "Never"
    match pod.spec.restart_policy:
        case "Never":
            return False
        case "OnFailure":
            return attempt.code != 0
    return True


def init_complete(pod: Pod, situation: Situation) -> bool:
    """Whether the main containers may run, or did so already."""
    if any(c.name in situation.attempts for c in pod.spec.containers):
        return True
    return next(_waiting_inits(pod, situation), None) is None


def _waiting_inits(pod: Pod, situation: Situation) -> Iterator[Container]:
    """Init containers that the rest waits for, in order."""
    for container in pod.spec.init_containers:
        attempt = situation.attempts.get(container.name)
        if is_sidecar(container):
            if attempt is None or not (attempt.alive and attempt.id in situation.started):
                yield container
        elif attempt is None or not attempt.ended or attempt.code != 0:
            yield container


def deadline_of(pod: Pod, begun: float) -> float:
    """When activeDeadlineSeconds have passed; 0 without."""
    seconds = pod.spec.active_deadline_seconds
    if seconds is None:
        return 0.0
    start = parse_time(pod.status.start_time) if pod.status.start_time else begun
    return start + seconds


def init_failed(pod: Pod, situation: Situation) -> bool:
    """Whether an init container has failed for good."""
    for container in pod.spec.init_containers:
        attempt = situation.attempts.get(container.name)
        failed = attempt is not None and attempt.ended and attempt.code != 0
        if failed and attempt and not will_restart(pod, container, INIT, attempt):
            return True
    return False


def terminal(pod: Pod, situation: Situation) -> bool:
    """Whether all main containers have ended for good, or an init container for all."""
    if pod.status.phase in ("Succeeded", "Failed"):
        return True
    if init_failed(pod, situation):
        return True
    for container in pod.spec.containers:
        attempt = situation.attempts.get(container.name)
        if attempt is None or not attempt.ended or will_restart(pod, container, MAIN, attempt):
            return False
    return bool(pod.spec.containers)


def decide(pod: Pod, situation: Situation, now: float) -> Decision:
    """The next actions of a pod that is not being deleted."""
    deadline = deadline_of(pod, situation.begun)
    if terminal(pod, situation):
        return Decision(over=True)
    if deadline and now >= deadline:
        why = "Pod was active on the node longer than the specified deadline"
        return Decision(over=True, failure=Failure("DeadlineExceeded", why))
    actions, wakes = [], [deadline]
    if not situation.prepared:
        pause = situation.prepare_pause
        if situation.preparing or (pause is not None and pause.until > now):
            return Decision(wake=_earliest([deadline, pause.until if pause else 0.0]))
        return Decision(actions=(Prepare(),), wake=deadline)
    for container, kind in _startable(pod, situation):
        action, wake = _next(pod, container, kind, situation, now)
        actions += [action] if action else []
        wakes.append(wake)
    return Decision(actions=tuple(actions), wake=_earliest(wakes))


def _earliest(times: list[float]) -> float:
    return min((moment for moment in times if moment), default=0.0)


def _startable(pod: Pod, situation: Situation) -> Iterator[tuple[AnyContainer, str]]:
    """Containers that should run now, or be looked after."""
    begun = any(c.name in situation.attempts for c in pod.spec.containers)
    waiting = [] if begun else list(_waiting_inits(pod, situation))
    for container in pod.spec.init_containers:
        if is_sidecar(container):
            # A sidecar after the first init container that is awaited has to wait, too.
            if container in waiting and container is not waiting[0]:
                continue
            yield container, INIT
        elif waiting and container is waiting[0]:
            yield container, INIT
    if not waiting:
        yield from ((container, MAIN) for container in pod.spec.containers)
    yield from ((container, EPHEMERAL) for container in pod.spec.ephemeral_containers)


def _next(
    pod: Pod, container: AnyContainer, kind: str, situation: Situation, now: float
) -> tuple[Action | None, float]:
    """The action for one container, or when to look again."""
    attempt = situation.attempts.get(container.name)
    if container.name in situation.busy:
        return None, 0.0
    if attempt is not None and attempt.alive:
        return _why_kill(container, attempt, situation), 0.0
    pause = situation.pauses.get(container.name)
    if pause is not None and pause.until > now:
        return None, pause.until
    if attempt is None:
        return Start(container.name, kind, 0, 0.0), 0.0
    if attempt.state == "created":
        return Start(container.name, kind, attempt.number, attempt.origin.delay), 0.0
    if not will_restart(pod, container, kind, attempt):
        return None, 0.0
    moment = next_start(attempt)
    if moment > now:
        return None, moment
    return Start(container.name, kind, attempt.number + 1, next_delay(attempt)), 0.0


def _why_kill(container: AnyContainer, attempt: Attempt, situation: Situation) -> Kill | None:
    if attempt.id in situation.sick:
        return Kill(container.name, attempt.id, situation.sick[attempt.id])
    if attempt.origin.hash and attempt.origin.hash != definition_hash(container):
        why = f"Container {container.name} definition changed, will be restarted"
        return Kill(container.name, attempt.id, why)
    return None
