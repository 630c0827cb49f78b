"""StatefulSets: pods with numbers, names and volumes of their own, one after the other.

Source: https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from sagong_replication_kube.history import REVISION_LABEL, History, history
from sagong_replication_kube.item import Document, Item
from sagong_replication_kube.ownership import claim
from sagong_replication_kube.pods import PODS, available, from_template, ready
from sagong_replication_kube.statefulset_claims import create_claims, keep_claims, mount_claims
from sagong_replication_kube.work import Work

__all__ = ["reconcile"]

NAME_LABEL: Final = "statefulset.kubernetes.io/pod-name"
INDEX_LABEL: Final = "apps.kubernetes.io/pod-index"
# Who waits for a pod's end (kubectl delete) must have the time to see that it was gone, before
# another one has its name.
PAUSE: Final = 0.1
_ORDINAL = re.compile(r"-(\d+)\Z")


class _Set(msgspec.Struct):
    """A stateful set with its pods by number."""

    item: Item
    document: Document
    history: History
    current: str
    pods: dict[int, Item]

    @property
    def spec(self) -> Document:
        """Its spec."""
        found: Document = self.document["spec"]
        return found

    @property
    def start(self) -> int:
        """The first number."""
        return int((self.spec.get("ordinals") or {}).get("start", 0))

    @property
    def numbers(self) -> range:
        """The numbers that shall be there."""
        return range(self.start, self.start + self.spec.get("replicas", 1))

    @property
    def ordered(self) -> bool:
        """Whether each pod waits for the one before."""
        return bool(self.spec.get("podManagementPolicy", "OrderedReady") == "OrderedReady")

    @property
    def partition(self) -> int | None:
        """Numbers below stay at the current revision; None without rolling updates."""
        strategy = self.spec.get("updateStrategy") or {}
        if strategy.get("type", "RollingUpdate") != "RollingUpdate":
            return None
        return int((strategy.get("rollingUpdate") or {}).get("partition", 0))


def ordinal(owner: Item, pod: Item) -> int:
    """A pod's number; -1 if its name is not of the set."""
    found = _ORDINAL.search(pod.meta.name)
    if found is None or pod.meta.name[: found.start()] != owner.meta.name:
        return -1
    return int(found[1])


def reconcile(work: Work, item: Item) -> None:
    """One step towards what is wished."""
    document = item.document()
    selector = item.selector
    pods = claim(work, item, PODS, selector, lambda pod: ordinal(item, pod) >= 0)
    if item.deleting:
        return
    revisions = history(work, item, document, selector)
    if revisions is None:
        return
    current = (document.get("status") or {}).get("currentRevision", "")
    whole = _Set(
        item=item,
        document=document,
        history=revisions,
        current=current if current in revisions else revisions.update,
        pods={ordinal(item, pod): pod for pod in pods},
    )
    keep_claims(work, item, document, whole.numbers, whole.pods)
    if _fill(work, whole) and _shrink(work, whole):
        _roll(work, whole)
    if work.idle:
        revisions.forget(work, _used(whole), document["spec"].get("revisionHistoryLimit", 10))
        work.status(item, _status(work, whole))


def _used(whole: _Set) -> set[str]:
    return {whole.current, *(pod.labels.get(REVISION_LABEL, "") for pod in whole.pods.values())}


def _healthy(pod: Item) -> bool:
    return pod.status.phase == "Running" and ready(pod) and not pod.deleting


def _fill(work: Work, whole: _Set) -> bool:
    """Make what is missing and replace what has ended; whether all before goes well."""
    min_ready = whole.spec.get("minReadySeconds", 0)
    for number in whole.numbers:
        pod = whole.pods.get(number)
        if pod is None:
            left = work.world.ended((whole.item.meta.namespace, _name(whole, number))) + PAUSE
            if left > work.now:
                work.look_again(left - work.now)
            else:
                _create(work, whole, number)
        elif pod.status.phase in ("Failed", "Succeeded"):
            if not pod.deleting:
                work.delete(pod)
                owner = "/".join(whole.item.key)
                said = f"StatefulSet {owner} is recreating failed Pod {pod.meta.name}"
                work.event(whole.item, "Warning", "RecreatingFailedPod", said)
        elif not whole.ordered or (_healthy(pod) and available(work, pod, min_ready)):
            continue
        if whole.ordered:
            return False
    return True


def _name(whole: _Set, number: int) -> str:
    return f"{whole.item.meta.name}-{number}"


def _create(work: Work, whole: _Set, number: int) -> None:
    item = whole.item
    name = _name(whole, number)
    update = whole.history.update
    revision = whole.current if _stays(whole, number) else update
    pod = from_template(item, whole.history.template(revision), name)
    labels = pod["metadata"].setdefault("labels", {})
    labels |= {NAME_LABEL: name, INDEX_LABEL: str(number), REVISION_LABEL: revision}
    spec = pod["spec"]
    spec["hostname"] = name
    if whole.spec.get("serviceName"):
        spec["subdomain"] = whole.spec["serviceName"]
    mount_claims(spec, item, whole.spec, number)
    create_claims(work, item, whole.spec, number)
    work.create(PODS, pod)
    said = f"create Pod {name} in StatefulSet {item.meta.name} successful"
    work.event(item, "Normal", "SuccessfulCreate", said)


def _stays(whole: _Set, number: int) -> bool:
    """Whether a new pod of this number still has the current revision."""
    if whole.current == whole.history.update:
        return False
    partition = whole.partition
    if partition is not None:
        return number < whole.start + partition
    replicas = (whole.document.get("status") or {}).get("currentReplicas", 0)
    return bool(number < whole.start + replicas)


def _shrink(work: Work, whole: _Set) -> bool:
    """End pods beyond the wished numbers, the last first; whether there are none left."""
    surplus = [n for n in sorted(whole.pods, reverse=True) if n not in whole.numbers]
    unhealthy = [n for n in surplus if not _healthy(whole.pods[n])]
    first = min(unhealthy, default=None)
    for number in surplus:
        pod = whole.pods[number]
        if pod.deleting:
            if whole.ordered:
                return False
            continue
        if whole.ordered and number in unhealthy and number != first:
            return False
        work.delete(pod)
        said = f"delete Pod {pod.meta.name} in StatefulSet {whole.item.meta.name} successful"
        work.event(whole.item, "Normal", "SuccessfulDelete", said)
        if whole.ordered:
            return False
    return not surplus


def _roll(work: Work, whole: _Set) -> None:
    """Replace pods of another revision, the last first, one at a time."""
    partition = whole.partition
    if partition is None or work.writes:
        return
    for number in reversed(whole.numbers):
        pod = whole.pods.get(number)
        if pod is None or number < whole.start + partition:
            return
        if pod.labels.get(REVISION_LABEL) != whole.history.update:
            if not pod.deleting:
                work.delete(pod)
            return
        if not _healthy(pod):
            return


def _status(work: Work, whole: _Set) -> Document:
    spec, update = whole.spec, whole.history.update
    min_ready = spec.get("minReadySeconds", 0)
    pods = [pod for pod in whole.pods.values() if pod.status.phase not in ("Failed", "Succeeded")]
    living = [pod for pod in pods if not pod.deleting]

    def having(revision: str) -> int:
        return sum(pod.labels.get(REVISION_LABEL) == revision for pod in living)

    counts = {
        "readyReplicas": sum(ready(pod) for pod in pods),
        "currentReplicas": having(whole.current),
        "updatedReplicas": having(update),
    }
    current = whole.current
    replicas = spec.get("replicas", 1)
    if counts["updatedReplicas"] == counts["readyReplicas"] == replicas:
        current, counts["currentReplicas"] = update, counts["updatedReplicas"]
    status: Document = {
        "observedGeneration": whole.item.meta.generation,
        "replicas": len(pods),
        # Written even when it is none: upstream does, and tools read it.
        "availableReplicas": sum(available(work, pod, min_ready) for pod in pods),
        "currentRevision": current,
        "updateRevision": update,
        "collisionCount": (whole.document.get("status") or {}).get("collisionCount", 0),
    }
    return status | {name: count for name, count in counts.items() if count}
