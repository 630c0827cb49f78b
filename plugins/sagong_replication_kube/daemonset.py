"""DaemonSets: a pod on every node that suits, and its replacement node by node.

Source: https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from sagong.model.names import generated_name
from sagong.scheduling.documents import PodSpecDocument, TaintDocument
from sagong.scheduling.nodes import Stance, Taint, Toleration, stance
from sagong_replication_kube.history import REVISION_LABEL, History, history
from sagong_replication_kube.item import Document, Item
from sagong_replication_kube.ownership import claim
from sagong_replication_kube.pods import PODS, available, from_template, ready
from sagong_replication_kube.rollout import portion
from sagong_replication_kube.work import Work

__all__ = ["reconcile"]

NODES: Final = "v1/nodes"
# Daemons stay where other pods must leave.
_BORNE: Final = (
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
)
_BORNE_BY_HOST: Final = ("node.kubernetes.io/network-unavailable", "NoSchedule")


class _Daemons(msgspec.Struct):
    """A daemon set, the nodes that want it or may keep it, and its pods by node."""

    item: Item
    document: Document
    history: History
    wanted: list[str]
    kept: set[str]
    pods: dict[str, list[Item]]

    @property
    def spec(self) -> Document:
        """Its spec."""
        found: Document = self.document["spec"]
        return found

    def is_new(self, pod: Item) -> bool:
        """Whether the pod is of the present template."""
        label = pod.labels.get(REVISION_LABEL)
        return label == self.history.hash_of(self.history.update)


def reconcile(work: Work, item: Item) -> None:
    """One step towards what is wished."""
    document = item.document()
    pods = claim(work, item, PODS, item.selector)
    if item.deleting:
        return
    revisions = history(work, item, document, item.selector)
    if revisions is None:
        return
    wanted, kept = _nodes(work, document)
    daemons = _Daemons(item, document, revisions, wanted, kept, _by_node(pods))
    _manage(work, daemons)
    if not work.writes:
        _roll(work, daemons)
    if work.idle:
        live = {pod.labels.get(REVISION_LABEL, "") for pod in pods}
        names = {f"{item.meta.name}-{hash_}" for hash_ in live}
        revisions.forget(work, names, document["spec"].get("revisionHistoryLimit", 10))
        work.status(item, _status(work, daemons))


def _by_node(pods: Sequence[Item]) -> dict[str, list[Item]]:
    found: dict[str, list[Item]] = {}
    for pod in sorted(pods, key=lambda p: (p.created, p.meta.name)):
        found.setdefault(_node_of(pod), []).append(pod)
    return found


def _node_of(pod: Item) -> str:
    """The node of a pod, also while it waits to be bound there."""
    return pod.spec.node_name or pod.spec.pinned


def _nodes(work: Work, document: Document) -> tuple[list[str], set[str]]:
    """Nodes that shall have a pod, and nodes whose pod may stay."""
    template = document["spec"]["template"]
    spec = msgspec.convert(template.get("spec") or {}, PodSpecDocument)
    wishes = stance(spec, spec.node_name)
    borne = (*_BORNE, _BORNE_BY_HOST) if (template["spec"].get("hostNetwork")) else _BORNE
    more = tuple(Toleration(key, "Exists", "", effect) for key, effect in borne)
    wishes = wishes._replace(tolerations=(*wishes.tolerations, *more))
    wanted, kept = [], set()
    for node in sorted(work.world.all(NODES), key=lambda one: one.meta.name):
        fits, stays = _suits(wishes, node)
        if fits:
            wanted.append(node.meta.name)
        if stays:
            kept.add(node.meta.name)
    return wanted, kept


def _suits(wishes: Stance, node: Item) -> tuple[bool, bool]:
    name, labels = node.meta.name, node.labels
    if not (wishes.wants(name, labels) and wishes.node_name in ("", name)):
        return False, False
    said = (node.document().get("spec") or {}).get("taints") or ()
    taints = [Taint.of(msgspec.convert(one, TaintDocument)) for one in said]
    stays = wishes.untolerated([t for t in taints if t.effect == "NoExecute"]) is None
    return wishes.untolerated(taints) is None, stays


def _manage(work: Work, daemons: _Daemons) -> None:
    """Make what is missing, replace what has ended, end what is out of place or double."""
    for node in daemons.wanted:
        living = []
        for pod in daemons.pods.get(node, ()):
            if pod.status.phase in ("Failed", "Succeeded"):
                if not pod.deleting:
                    work.delete(pod)
                    name = "/".join(pod.key)
                    said = f"Found failed daemon pod {name} on node {node}, will try to kill it"
                    work.event(daemons.item, "Warning", "FailedDaemonPod", said)
            else:
                living.append(pod)
        if not living:
            _create(work, daemons, node)
        elif not _surge(daemons):
            for pod in [one for one in living if not one.deleting][1:]:
                work.delete(pod)
    for node, pods in daemons.pods.items():
        for pod in pods if node not in daemons.kept else ():
            if not pod.deleting:
                work.delete(pod)


def _create(work: Work, daemons: _Daemons, node: str) -> None:
    item = daemons.item
    name = generated_name(f"{item.meta.name}-", work.world.chance)
    pod = from_template(item, daemons.history.template(daemons.history.update), name)
    labels = pod["metadata"].setdefault("labels", {})
    labels[REVISION_LABEL] = daemons.history.hash_of(daemons.history.update)
    pod["metadata"]["generateName"] = f"{item.meta.name}-"
    spec = pod["spec"]
    _pin(spec, node)
    borne = (*_BORNE, _BORNE_BY_HOST) if spec.get("hostNetwork") else _BORNE
    spec["tolerations"] = [
        *(spec.get("tolerations") or []),
        *({"key": key, "operator": "Exists", "effect": effect} for key, effect in borne),
    ]
    work.create(PODS, pod)
    work.event(item, "Normal", "SuccessfulCreate", f"Created pod: {name}")


def _pin(spec: Document, node: str) -> None:
    """The scheduler binds it to just this node."""
    affinity = spec["affinity"] = dict(spec.get("affinity") or {})
    nodes = affinity["nodeAffinity"] = dict(affinity.get("nodeAffinity") or {})
    rule = {"key": "metadata.name", "operator": "In", "values": [node]}
    nodes["requiredDuringSchedulingIgnoredDuringExecution"] = {
        "nodeSelectorTerms": [{"matchFields": [rule]}]
    }


def _surge(daemons: _Daemons) -> int:
    return _bound(daemons, "maxSurge", 0)


def _bound(daemons: _Daemons, name: str, default: int) -> int:
    strategy = daemons.spec.get("updateStrategy") or {}
    said = (strategy.get("rollingUpdate") or {}).get(name)
    return portion(said, len(daemons.wanted), up=True, default=default)


def _roll(work: Work, daemons: _Daemons) -> None:
    """End pods of older templates, as many at a time as may be missing."""
    if (daemons.spec.get("updateStrategy") or {}).get("type", "RollingUpdate") != "RollingUpdate":
        return
    surge = _surge(daemons)
    if surge:
        _roll_beside(work, daemons, surge)
        return
    min_ready = daemons.spec.get("minReadySeconds", 0)
    missing, old_ones = 0, []
    for node in daemons.wanted:
        living = [pod for pod in daemons.pods.get(node, ()) if not pod.deleting]
        serving = [pod for pod in living if available(work, pod, min_ready)]
        missing += not serving
        for pod in living:
            if not daemons.is_new(pod):
                # One that does not serve is replaced at once: nobody misses it.
                old_ones.append((pod in serving, pod))
    spare = max(0, (_bound(daemons, "maxUnavailable", 1) or 1) - missing)
    for serves, pod in old_ones:
        if serves and not spare:
            continue
        spare -= serves
        work.delete(pod)


def _roll_beside(work: Work, daemons: _Daemons, surge: int) -> None:
    """New pods start beside old ones, which end once the new ones serve."""
    min_ready = daemons.spec.get("minReadySeconds", 0)
    for node in daemons.wanted:
        living = [pod for pod in daemons.pods.get(node, ()) if not pod.deleting]
        new = [pod for pod in living if daemons.is_new(pod)]
        old = [pod for pod in living if not daemons.is_new(pod)]
        if old and new:
            if any(available(work, pod, min_ready) for pod in new):
                for pod in old:
                    work.delete(pod)
            else:
                surge -= 1
    for node in daemons.wanted:
        living = [pod for pod in daemons.pods.get(node, ()) if not pod.deleting]
        if surge > 0 and living and not any(daemons.is_new(pod) for pod in living):
            _create(work, daemons, node)
            surge -= 1


def _status(work: Work, daemons: _Daemons) -> Document:
    min_ready = daemons.spec.get("minReadySeconds", 0)
    wanted = set(daemons.wanted)
    counts = dict.fromkeys(("scheduled", "missed", "ready", "serving", "new"), 0)
    for node, pods in daemons.pods.items():
        living = [pod for pod in pods if not pod.deleting]
        if not living:
            continue
        if node not in wanted:
            counts["missed"] += 1
            continue
        counts["scheduled"] += 1
        counts["ready"] += any(ready(pod) for pod in living)
        counts["serving"] += any(available(work, pod, min_ready) for pod in living)
        counts["new"] += any(daemons.is_new(pod) for pod in living)
    status: Document = {
        "currentNumberScheduled": counts["scheduled"],
        "numberMisscheduled": counts["missed"],
        "desiredNumberScheduled": len(wanted),
        "numberReady": counts["ready"],
        "observedGeneration": daemons.item.meta.generation,
    }
    more = {
        "updatedNumberScheduled": counts["new"],
        "numberAvailable": counts["serving"],
        "numberUnavailable": len(wanted) - counts["serving"],
        "collisionCount": (daemons.document.get("status") or {}).get("collisionCount", 0),
    }
    return status | {name: count for name, count in more.items() if count}
