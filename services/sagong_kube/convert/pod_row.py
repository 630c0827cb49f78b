"""The row of a pod: what kubectl shows as READY, STATUS and RESTARTS.

Source: https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/
"""

from __future__ import annotations

from typing import Any, Final

from sagong.errors import InvalidArgument
from sagong.model import times

__all__ = ["pod_row", "pod_state"]

Document = dict[str, Any]

_NONE: Final = "<none>"
_ENDED: Final = ("Succeeded", "Failed")


def pod_row(pod: Document, now: float) -> list[Any]:
    """All cells, wide ones included."""
    metadata, spec, status = pod["metadata"], pod.get("spec") or {}, pod.get("status") or {}
    ready, total, reason, restarts = pod_state(pod, now)
    created = metadata.get("creationTimestamp")
    age = times.age(now - times.parse_time(created)) if created else "<unknown>"
    addresses = status.get("podIPs") or ()
    address = (addresses[0].get("ip") if addresses else status.get("podIP")) or _NONE
    return [
        metadata.get("name", ""),
        f"{ready}/{total}",
        reason,
        restarts,
        age,
        address,
        spec.get("nodeName") or _NONE,
        status.get("nominatedNodeName") or _NONE,
        _gates(spec, status),
    ]


def _gates(spec: Document, status: Document) -> str:
    gates = spec.get("readinessGates") or ()
    if not gates:
        return _NONE
    true = {c["type"] for c in status.get("conditions") or () if c.get("status") == "True"}
    met = sum(1 for gate in gates if gate.get("conditionType") in true)
    return f"{met}/{len(gates)}"


class _Count:
    """Restarts, and the end of the last run before the newest."""

    def __init__(self) -> None:
        self.restarts = 0
        self.last = 0.0

    def add(self, container: Document) -> None:
        self.restarts += container.get("restartCount") or 0
        ended = (container.get("lastState") or {}).get("terminated") or {}
        if ended.get("finishedAt"):
            try:
                self.last = max(self.last, times.parse_time(ended["finishedAt"]))
            except InvalidArgument:
                return

    def shown(self, now: float) -> str:
        if self.restarts and self.last:
            return f"{self.restarts} ({times.age(now - self.last)} ago)"
        return str(self.restarts)


def pod_state(pod: Document, now: float) -> tuple[int, int, str, str]:
    """(ready containers, all containers, the word for its state, restarts with their age)."""
    spec, status = pod.get("spec") or {}, pod.get("status") or {}
    sidecars = {
        c["name"] for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always"
    }
    total = len(spec.get("containers") or ()) + len(sidecars)
    reason = status.get("reason") or status.get("phase", "")
    scheduled = _condition(status, "PodScheduled")
    if scheduled.get("reason") == "SchedulingGated":
        reason = "SchedulingGated"
    count, side = _Count(), _Count()
    ready, starting = _init_state(spec, status, sidecars, count, side)
    if starting and _condition(status, "Initialized").get("status") != "True":
        reason = starting
    else:
        count = side
        main, reason = _main_state(status, reason, count)
        ready += main
    return ready, total, _ending(pod, status, reason), count.shown(now)


def _condition(status: Document, kind: str) -> Document:
    return next((c for c in status.get("conditions") or () if c.get("type") == kind), {})


def _init_state(
    spec: Document, status: Document, sidecars: set[str], count: _Count, side: _Count
) -> tuple[int, str]:
    """Ready sidecars, and the reason while init containers run ("" when they are through)."""
    ready = 0
    for at, container in enumerate(status.get("initContainerStatuses") or ()):
        count.add(container)
        state = container.get("state") or {}
        sidecar = container.get("name") in sidecars
        if sidecar:
            side.add(container)
        ended, waiting = state.get("terminated"), state.get("waiting") or {}
        if ended is not None and not ended.get("exitCode"):
            continue
        if sidecar and container.get("started"):
            ready += bool(container.get("ready"))
            continue
        if ended is not None:
            return ready, f"Init:{_ended(ended)}"
        if waiting.get("reason") and waiting["reason"] != "PodInitializing":
            return ready, f"Init:{waiting['reason']}"
        return ready, f"Init:{at}/{len(spec.get('initContainers') or ())}"
    return ready, ""


def _ended(state: Document) -> str:
    if state.get("reason"):
        return str(state["reason"])
    if state.get("signal"):
        return f"Signal:{state['signal']}"
    return f"ExitCode:{state.get('exitCode', 0)}"


def _main_state(status: Document, reason: str, count: _Count) -> tuple[int, str]:
    """Ready containers and the word for them: that of the first which has something to say."""
    ready, running = 0, False
    for container in reversed(status.get("containerStatuses") or ()):
        count.add(container)
        state = container.get("state") or {}
        waiting, ended = state.get("waiting") or {}, state.get("terminated")
        if waiting.get("reason"):
            reason = waiting["reason"]
        elif ended is not None:
            reason = _ended(ended)
        elif container.get("ready") and state.get("running") is not None:
            running = True
            ready += 1
    if reason == "Completed" and running:
        is_ready = _condition(status, "Ready").get("status") == "True"
        reason = "Running" if is_ready else "NotReady"
    return ready, reason


def _ending(pod: Document, status: Document, reason: str) -> str:
    if not pod["metadata"].get("deletionTimestamp"):
        return reason
    if status.get("reason") == "NodeLost":
        return "Unknown"
    return reason if status.get("phase") in _ENDED else "Terminating"
