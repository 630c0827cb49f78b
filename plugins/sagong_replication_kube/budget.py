"""PodDisruptionBudgets: how many pods may be evicted now.

Source: https://kubernetes.io/docs/tasks/run-application/configure-pdb/
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sagong.model.selectors import from_object
from sagong_replication_kube.item import Document, Item, moment
from sagong_replication_kube.pods import PODS, active, ready
from sagong_replication_kube.rollout import portion
from sagong_replication_kube.work import Work, condition, conditions_with

__all__ = ["reconcile"]

# An eviction that was allowed but has not happened by then counts no longer.
EVICTION_SECONDS: Final = 120.0


def reconcile(work: Work, item: Item) -> None:
    """Tell the counts."""
    document = item.document()
    if item.deleting:
        return
    said = document["spec"].get("selector")
    selector = from_object({} if said is None else said)
    found = work.world.selected(PODS, item.meta.namespace, selector)
    pods = [pod for pod in found if pod.status.phase not in ("Succeeded", "Failed")]
    expected, desired = _expected(work, document["spec"], pods)
    evicted = _evicted(work, document, pods)
    healthy = sum(active(pod) and ready(pod) and pod.meta.name not in evicted for pod in pods)
    allowed = max(0, healthy - desired) if expected else 0
    status: Document = {
        "currentHealthy": healthy,
        "desiredHealthy": desired,
        "disruptionsAllowed": allowed,
        "expectedPods": expected,
        "observedGeneration": item.meta.generation,
    }
    if evicted:
        status["disruptedPods"] = evicted
    reason = "SufficientPods" if allowed else "InsufficientPods"
    wanted = condition("DisruptionAllowed", "True" if allowed else "False", reason, "")
    present = list((document.get("status") or {}).get("conditions") or ())
    conditions = conditions_with(present, wanted, work.now)
    for one in conditions:
        one["observedGeneration"] = item.meta.generation
    work.status(item, {**status, "conditions": conditions})


def _expected(work: Work, spec: Document, pods: Sequence[Item]) -> tuple[int, int]:
    """How many pods there should be, and how many of them must be healthy."""
    if "maxUnavailable" in spec:
        expected = _scale(work, pods)
        missing = portion(spec["maxUnavailable"], expected, up=True, default=0)
        return expected, max(0, expected - missing)
    said = spec.get("minAvailable", 1)
    if isinstance(said, int):
        return len(pods), said
    expected = _scale(work, pods)
    return expected, portion(said, expected, up=True, default=0)


def _scale(work: Work, pods: Sequence[Item]) -> int:
    """The sum of what the pods' controllers are asked to have."""
    controllers = {}
    for pod in pods:
        reference = pod.meta.controller
        owner = work.world.by_uid(reference.uid) if reference is not None else None
        if owner is None:
            controllers[pod.uid] = 1
            continue
        above = owner.meta.controller
        top = work.world.by_uid(above.uid) if above is not None else None
        top = top if top is not None and top.raw else owner
        if top.raw:
            controllers[top.uid] = (top.document().get("spec") or {}).get("replicas", 1)
    return sum(controllers.values())


def _evicted(work: Work, document: Document, pods: Sequence[Item]) -> dict[str, str]:
    """Pods whose eviction was allowed and has not shown yet."""
    there = {pod.meta.name for pod in pods if not pod.deleting}
    kept = {}
    for name, when in ((document.get("status") or {}).get("disruptedPods") or {}).items():
        left = moment(when) + EVICTION_SECONDS - work.now
        if name in there and left > 0:
            kept[name] = when
            work.look_again(left)
    return kept
