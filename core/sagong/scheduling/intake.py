"""Intake: changes of API objects become changes of the snapshot and of the queue."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from sagong.contracts.objects import ObjectChange
from sagong.errors import InvalidArgument
from sagong.following import Followed
from sagong.scheduling.budgets import budget
from sagong.scheduling.documents import (
    BudgetDocument,
    ClaimDocument,
    ClassDocument,
    NamespaceDocument,
    NodeDocument,
    PodDocument,
    VolumeDocument,
    read,
)
from sagong.scheduling.queue import PodQueue
from sagong.scheduling.shape import Pod, over
from sagong.scheduling.snapshot import Snapshot
from sagong.scheduling.volumes import Volumes

__all__ = ["SOURCES", "Intake", "Source"]

Key = tuple[str, str]


class Source(NamedTuple):
    """A followed resource; without `needed` decisions begin also where it is not served."""

    resource: str
    fields: str = ""
    needed: bool = False


SOURCES: Final = (
    Source("v1/nodes", needed=True),
    Source("v1/namespaces"),
    Source("v1/persistentvolumes"),
    Source("v1/persistentvolumeclaims"),
    Source("storage.k8s.io/v1/storageclasses"),
    Source("policy/v1/poddisruptionbudgets"),
    # Last: a pod is decided when all that it depends on is known.
    Source("v1/pods", "status.phase!=Succeeded,status.phase!=Failed", needed=True),
)


class Intake:
    """Keeps `snapshot` and `queue` as the API has them."""

    def __init__(
        self,
        *,
        names: Iterable[str],
        log: logging.Logger,
        clock: Callable[[], float],
    ) -> None:
        self.snapshot = Snapshot()
        self.snapshot.volumes = self.volumes = Volumes()
        self.queue = PodQueue()
        # Bodies of queued pods: what is written about them starts from their present status.
        self.bodies: dict[Key, bytes] = {}
        # Bound by us, but not yet seen so: the revision of the binding, 0 while it is being written.
        self.assumed: dict[Key, int] = {}
        self._names = frozenset(names)
        self._log = log
        self._clock = clock
        self._seen: dict[str, set[Key]] = {}
        self._whole: dict[str, set[Key]] = {}
        self._takers: dict[str, Callable[[ObjectChange], Key]] = {
            "v1/nodes": self._node,
            "v1/namespaces": self._namespace,
            "v1/persistentvolumes": self._volume,
            "v1/persistentvolumeclaims": self._claim,
            "storage.k8s.io/v1/storageclasses": self._class,
            "policy/v1/poddisruptionbudgets": self._budget,
            "v1/pods": self._pod,
        }

    def take(self, source: Source, batch: Followed) -> None:
        """Take over a batch; one unreadable object is skipped and told, the others count."""
        resource = source.resource
        known = self._seen.setdefault(resource, set())
        if batch.fresh:
            self._whole[resource] = set()
        whole = self._whole.get(resource)
        taker = self._takers[resource]
        for change in batch.changes:
            try:
                key = taker(change)
            except InvalidArgument as error:
                self._log.warning("%s: %s", resource, error.message)
                continue
            if change.kind == "DELETED":
                known.discard(key)
            else:
                known.add(key)
                if whole is not None:
                    whole.add(key)
        if batch.synced and whole is not None:
            self._drop(resource, known - whole)
            del self._whole[resource]

    def _drop(self, resource: str, gone: set[Key]) -> None:
        """What a new whole does not contain was deleted while nobody looked."""
        forget: dict[str, Callable[[Key], None]] = {
            "v1/nodes": lambda key: self.snapshot.remove_node(key[1]),
            "v1/namespaces": lambda key: self.snapshot.set_namespace(key[1], None),
            "v1/persistentvolumes": lambda key: self._pop(self.volumes.volumes, key[1]),
            "v1/persistentvolumeclaims": lambda key: self._pop(self.volumes.claims, key),
            "storage.k8s.io/v1/storageclasses": lambda key: self._pop(self.volumes.classes, key[1]),
            "policy/v1/poddisruptionbudgets": lambda key: self._pop(self.snapshot.budgets, key),
            "v1/pods": self._pod_gone,
        }
        for key in gone:
            forget[resource](key)
            self._seen[resource].discard(key)

    def _pop(self, table: dict[object, object] | dict, key: object) -> None:  # type: ignore[type-arg]
        table.pop(key, None)

    # kinds

    def _node(self, change: ObjectChange) -> Key:
        document = read(change.body, NodeDocument, "node")
        name = document.metadata.name
        if change.kind == "DELETED":
            self.snapshot.remove_node(name)
            return ("", name)
        node = self.snapshot.nodes.get(name)
        before = None if node is None else (node.cpu, node.memory, node.other, node.pods_limit)
        epoch = self.snapshot.epoch
        node = self.snapshot.set_node(document)
        after = (node.cpu, node.memory, node.other, node.pods_limit)
        if before != after or epoch != self.snapshot.epoch:
            self.queue.wake(self._clock())
        return ("", name)

    def _namespace(self, change: ObjectChange) -> Key:
        meta = read(change.body, NamespaceDocument, "namespace").metadata
        gone = change.kind == "DELETED"
        self.snapshot.set_namespace(meta.name, None if gone else meta.labels or {})
        return ("", meta.name)

    def _volume(self, change: ObjectChange) -> Key:
        document = read(change.body, VolumeDocument, "persistentvolume")
        self._keep(self.volumes.volumes, document.metadata.name, document, change)
        return ("", document.metadata.name)

    def _claim(self, change: ObjectChange) -> Key:
        document = read(change.body, ClaimDocument, "persistentvolumeclaim")
        key = (document.metadata.namespace, document.metadata.name)
        self._keep(self.volumes.claims, key, document, change)
        return key

    def _class(self, change: ObjectChange) -> Key:
        document = read(change.body, ClassDocument, "storageclass")
        self._keep(self.volumes.classes, document.metadata.name, document, change)
        return ("", document.metadata.name)

    def _keep(self, table: dict, key: object, document: object, change: ObjectChange) -> None:  # type: ignore[type-arg]
        if change.kind == "DELETED":
            table.pop(key, None)
        else:
            table[key] = document
        self.queue.wake(self._clock(), lambda pod: bool(pod.shape.claims))

    def _budget(self, change: ObjectChange) -> Key:
        document = read(change.body, BudgetDocument, "poddisruptionbudget")
        key = (document.metadata.namespace, document.metadata.name)
        if change.kind == "DELETED":
            self.snapshot.budgets.pop(key, None)
        else:
            self.snapshot.budgets[key] = budget(document)
        return key

    # pods

    def _pod(self, change: ObjectChange) -> Key:
        document = read(change.body, PodDocument, "pod")
        meta = document.metadata
        key = (meta.namespace, meta.name)
        if change.kind == "DELETED" or over(document):
            self._pod_gone(key)
            return key
        pod = self.snapshot.pod(document)
        if pod.node:
            self._pod_bound(pod)
        else:
            self._pod_pending(pod, change.body)
        return key

    def _pod_gone(self, key: Key) -> None:
        self.queue.remove(key)
        self.bodies.pop(key, None)
        self.assumed.pop(key, None)
        self.snapshot.dismiss(key)
        if self.snapshot.remove(key) is not None:
            self.queue.wake(self._clock())

    def _pod_bound(self, pod: Pod) -> None:
        key = pod.key
        known = self.snapshot.pods.get(key)
        if key in self.assumed or key in self.queue:
            self.assumed.pop(key, None)
            self.queue.remove(key)
            self.bodies.pop(key, None)
            self.snapshot.dismiss(key)
        if known is not None and _same(known, pod):
            known.revision, known.started = pod.revision, pod.started
            return
        self.snapshot.add(pod)
        self.queue.wake(self._clock(), _minds_others)

    def _pod_pending(self, pod: Pod, body: bytes) -> None:
        key = pod.key
        bound_at = self.assumed.get(key)
        if bound_at is not None and (not bound_at or pod.revision <= bound_at):
            return  # older than our binding
        if key in self.snapshot.pods:  # replaced by another pod of the same name
            self.assumed.pop(key, None)
            self.snapshot.remove(key)
        if pod.scheduler not in self._names or pod.terminating or pod.gated:
            self.queue.remove(key)
            self.bodies.pop(key, None)
            self.snapshot.dismiss(key)
            return
        self.bodies[key] = body
        queued = self.queue.get(key)
        if queued is None or queued.uid != pod.uid or queued.shape is not pod.shape:
            self.queue.add(pod)
        else:
            self.queue.renew(pod)
        if pod.nominated:
            self.snapshot.nominate(pod, pod.nominated)


def _same(known: Pod, pod: Pod) -> bool:
    return (
        known.shape is pod.shape
        and known.node == pod.node
        and known.uid == pod.uid
        and known.terminating == pod.terminating
        and known.priority == pod.priority
    )


def _minds_others(pod: Pod) -> bool:
    """Whether another pod's coming can open a node to this one."""
    return bool(pod.shape.affinity or pod.shape.hard_spread)
