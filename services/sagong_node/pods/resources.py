"""Resources of pods: quality of service, limits of containers, scores of the OOM killer. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sagong.contracts.runtime import Limits
from sagong.model import quantity
from sagong.model.k8s.core_v1 import Pod, ResourceRequirements
from sagong_node.pods.naming import AnyContainer

__all__ = [
    "BEST_EFFORT",
    "BURSTABLE",
    "GUARANTEED",
    "amount",
    "cgroup_parent",
    "limits_of",
    "oom_score",
    "qos_class",
    "resized",
]

GUARANTEED, BURSTABLE, BEST_EFFORT = "Guaranteed", "Burstable", "BestEffort"
_PERIOD = 100_000
_LEAST_QUOTA, _LEAST_SHARES, _MOST_SHARES = 1000, 2, 262_144
_CRITICAL_PRIORITY = 2_000_000_000
_GUARANTEED_SCORE, _BEST_EFFORT_SCORE = -997, 1000
_Amounts = Mapping[str, str | int | float]


def qos_class(pod: Pod) -> str:
    """As written in the status, else computed: Guaranteed, Burstable or BestEffort."""
    if pod.status.qos_class:
        return pod.status.qos_class
    every = [c.resources for c in (*pod.spec.containers, *pod.spec.init_containers)]
    if not any(_set(r.requests) or _set(r.limits) for r in every):
        return BEST_EFFORT
    return GUARANTEED if all(_guaranteed(r) for r in every) else BURSTABLE


def _set(amounts: _Amounts) -> bool:
    return any(quantity.nano(amounts[name]) for name in ("cpu", "memory") if name in amounts)


def _guaranteed(resources: ResourceRequirements) -> bool:
    for name in ("cpu", "memory"):
        limit = quantity.nano(resources.limits.get(name, 0))
        if not limit or quantity.nano(resources.requests.get(name, limit / 1e9)) != limit:
            return False
    return True


def limits_of(container: AnyContainer) -> Limits:
    """cpu requests are shares, cpu limits a quota, memory limits a bound without swap."""
    asked, bound = container.resources.requests, container.resources.limits
    memory = quantity.value(bound["memory"]) if "memory" in bound else None
    milli = quantity.milli(bound["cpu"]) if "cpu" in bound else 0
    share = quantity.milli(asked.get("cpu", bound.get("cpu", 0)))
    quota = max(milli * _PERIOD // 1000, _LEAST_QUOTA) if milli else None
    return Limits(
        memory=memory or None,
        memory_swap=memory or None,
        cpu_shares=min(max(share * 1024 // 1000, _LEAST_SHARES), _MOST_SHARES),
        cpu_quota=quota,
        cpu_period=_PERIOD if quota else None,
    )


def resized(present: Limits, wanted: Limits) -> bool:
    """Whether a container's limits must be changed; what is not wanted any more can't be taken off."""
    pairs = (
        (present.memory, wanted.memory),
        (present.cpu_shares, wanted.cpu_shares),
        (present.cpu_quota, wanted.cpu_quota),
    )
    return any(new is not None and new != old for old, new in pairs)


def oom_score(pod: Pod, container: AnyContainer, capacity: int) -> int:
    """Upstream's policy: what asked for more of the memory is killed later."""
    if (pod.spec.priority or 0) >= _CRITICAL_PRIORITY:
        return _GUARANTEED_SCORE
    quality = qos_class(pod)
    if quality == GUARANTEED:
        return _GUARANTEED_SCORE
    if quality == BEST_EFFORT:
        return _BEST_EFFORT_SCORE
    asked = container.resources.requests.get("memory", container.resources.limits.get("memory", 0))
    score = 1000 - 1000 * quantity.value(asked) // max(capacity, 1)
    return min(max(score, 1000 + _GUARANTEED_SCORE), 999)


def cgroup_parent(pod: Pod, root: str) -> str:
    """`ROOT/burstable/podUID`; guaranteed pods stand directly below the root."""
    if not root:
        return ""
    between = {BURSTABLE: "/burstable", BEST_EFFORT: "/besteffort"}.get(qos_class(pod), "")
    return f"{root.rstrip('/')}{between}/pod{pod.metadata.uid}"


def amount(
    containers: Iterable[AnyContainer],
    selector: str,
    container: str,
    divisor: str | int | float | None,
    capacity: Mapping[str, int],
) -> str:
    """A resourceFieldRef's text; a missing limit is what the node can allocate (in nano-units)."""
    found = next((c for c in containers if c.name == container), None)
    if found is None:
        raise ValueError(f"container {container} not found")
    part, _, name = selector.partition(".")
    amounts = found.resources.limits if part == "limits" else found.resources.requests
    if part not in ("limits", "requests") or not name:
        raise ValueError(f"unsupported container resource : {selector}")
    if name in amounts:
        size = quantity.nano(amounts[name])
    elif part == "requests" and name in found.resources.limits:
        size = quantity.nano(found.resources.limits[name])
    else:
        size = capacity.get(name, 0) if part == "limits" else 0
    step = quantity.nano(divisor or "1") or quantity.nano("1")
    return str(-(-size // step))
