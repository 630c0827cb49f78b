"""Evictions: deletions of pods that respect disruption budgets."""

from __future__ import annotations

import msgspec

from sagong.model.selectors import from_object
from sagong_kube import refusal
from sagong_kube.refusal import Cause
from sagong_kube.registry import document as documents
from sagong_kube.registry.binding import set_condition
from sagong_kube.registry.document import Document
from sagong_kube.registry.view import View
from sagong_kube.storage.collection import Selection
from sagong_kube.storage.record import Record

__all__ = ["mark_disrupted", "spend_budget"]

_BUDGETS = "policy/poddisruptionbudgets"
_RETRY_SECONDS = 10
_REFUSED = "Cannot evict pod as it would violate the pod's disruption budget."
_DISRUPTED_LIMIT = 2000


def spend_budget(view: View, pod: Record, *, dry_run: bool) -> None:
    """Refuse with 429 when no budget allows it; else note the disruption in the transaction."""
    document = msgspec.json.decode(pod.body)
    phase = (document.get("status") or {}).get("phase")
    if phase in ("Succeeded", "Failed", "Pending") or pod.deleting:
        return
    budgets = [b for b in _budgets(view, pod) if _selects(b, pod)]
    if len(budgets) > 1:
        raise refusal.internal(
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does "
            "not support."
        )
    if budgets and not _unhealthy_is_free(document, budgets[0]):
        _spend(view, pod, budgets[0], dry_run=dry_run)


def _budgets(view: View, pod: Record) -> list[Document]:
    found = view.select(_BUDGETS, Selection(namespace=pod.namespace))
    return [msgspec.json.decode(record.body) for record in found]


def _selects(budget: Document, pod: Record) -> bool:
    return from_object(budget["spec"].get("selector")).matches(dict(pod.labels))


def _is_ready(pod: Document) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _unhealthy_is_free(pod: Document, budget: Document) -> bool:
    """Whether an unready pod may go without spending: the budget says so, or has enough healthy."""
    if _is_ready(pod):
        return False
    if budget["spec"].get("unhealthyPodEvictionPolicy") == "AlwaysAllow":
        return True
    status = budget.get("status") or {}
    current, desired = status.get("currentHealthy", 0), status.get("desiredHealthy", 0)
    return bool(current >= desired and desired > 0)


def _spend(view: View, pod: Record, budget: Document, *, dry_run: bool) -> None:
    name, status = budget["metadata"]["name"], budget.setdefault("status", {})
    if status.get("observedGeneration", 0) < budget["metadata"].get("generation", 0):
        raise _refused(f"The disruption budget {name} is still being processed by the server.")
    disrupted = status.get("disruptedPods") or {}
    if len(disrupted) > _DISRUPTED_LIMIT:
        raise _refused(
            "DisruptedPods map too big - too many evictions not confirmed by PDB controller"
        )
    if status.get("disruptionsAllowed", 0) <= 0:
        raise _refused(
            f"The disruption budget {name} needs {status.get('desiredHealthy', 0)} healthy pods "
            f"and has {status.get('currentHealthy', 0)} currently"
        )
    if dry_run:
        return
    status["disruptionsAllowed"] -= 1
    status["disruptedPods"] = {**disrupted, pod.name: documents.now()}
    budget["metadata"].pop("resourceVersion", None)
    view.plan(_BUDGETS, f"{pod.namespace}/{name}", documents.encode(budget))


def _refused(why: str) -> Exception:
    cause = Cause("DisruptionBudget", why)
    return refusal.too_many(_REFUSED, _RETRY_SECONDS, (cause,))


def mark_disrupted(pod: Document) -> None:
    """Say on the pod why it goes."""
    set_condition(
        pod,
        {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "EvictionByEvictionAPI",
            "message": "Eviction API: evicting",
        },
    )
