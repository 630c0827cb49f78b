"""Events of pods and of the node: the same one again counts up instead of making another."""

from __future__ import annotations

import collections
import hashlib
import time

import msgspec

from sagong.contracts.objects import Verb, Write
from sagong.model.k8s.core_v1 import Pod
from sagong.model.times import time_text
from sagong_node.pods.ledger import Ledger

__all__ = ["Occurrences", "Subject"]

_EVENTS = "v1/events"
_KEPT = 2048
_BURST, _REFILL = 25.0, 1 / 12.0  # tokens, and tokens a second, of each object


class Subject(msgspec.Struct, frozen=True):
    """Whom an event is about."""

    kind: str
    name: str
    namespace: str = ""
    uid: str = ""
    version: str = ""
    field_path: str = ""


class _Known(msgspec.Struct):
    name: str
    first: str
    count: int


class _Bucket(msgspec.Struct):
    tokens: float
    at: float


class Occurrences:
    """Makes events, bounded for each object."""

    def __init__(self, ledger: Ledger, node: str) -> None:
        self._ledger = ledger
        self._node = node
        self._known: collections.OrderedDict[tuple[object, ...], _Known] = collections.OrderedDict()
        self._buckets: collections.OrderedDict[str, _Bucket] = collections.OrderedDict()

    def pod(
        self, pod: Pod, reason: str, message: str, *, container: str = "", warning: bool = False
    ) -> None:
        """Something happened to a pod, or to one of its containers."""
        metadata = pod.metadata
        field_path = f"spec.{_part(pod, container)}{{{container}}}" if container else ""
        subject = Subject("Pod", metadata.name, metadata.namespace, metadata.uid, "v1", field_path)
        self.tell(subject, reason, message, warning=warning)

    def tell(self, subject: Subject, reason: str, message: str, *, warning: bool = False) -> None:
        """Something happened."""
        if not self._allowed(subject.uid or subject.name):
            return
        now, kind = time.time(), "Warning" if warning else "Normal"
        stamp = time_text(now)
        key = (subject, reason, message, kind)
        known = self._known.pop(key, None)
        if known is None:
            digest = hashlib.sha256(repr((key, now)).encode()).hexdigest()[:16]
            known = _Known(f"{subject.name}.{digest}", stamp, 0)
        known.count += 1
        self._known[key] = known
        if len(self._known) > _KEPT:
            self._known.popitem(last=False)
        self._ledger.event(self._write(subject, known, reason, message, kind, stamp))

    def _allowed(self, who: str) -> bool:
        now = time.monotonic()
        bucket = self._buckets.pop(who, None) or _Bucket(_BURST, now)
        bucket.tokens = min(_BURST, bucket.tokens + (now - bucket.at) * _REFILL)
        bucket.at = now
        self._buckets[who] = bucket
        if len(self._buckets) > _KEPT:
            self._buckets.popitem(last=False)
        if bucket.tokens < 1.0:
            return False
        bucket.tokens -= 1.0
        return True

    def _write(
        self, subject: Subject, known: _Known, reason: str, message: str, kind: str, stamp: str
    ) -> Write:
        namespace = subject.namespace or "default"
        changing = {"count": known.count, "lastTimestamp": stamp}
        if known.count > 1:
            body = msgspec.json.encode(changing)
            return Write(
                verb=Verb.PATCH, resource=_EVENTS, namespace=namespace, name=known.name, body=body
            )
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": known.name, "namespace": namespace},
            "involvedObject": _reference(subject),
            "reason": reason,
            "message": message[:1024],
            "type": kind,
            "source": {"component": "kubelet", "host": self._node},
            "reportingComponent": "kubelet",
            "reportingInstance": self._node,
            "firstTimestamp": known.first,
            **changing,
        }
        body = msgspec.json.encode(event)
        return Write(
            verb=Verb.CREATE, resource=_EVENTS, namespace=namespace, name=known.name, body=body
        )


def _reference(subject: Subject) -> dict[str, str]:
    found = {
        "kind": subject.kind,
        "name": subject.name,
        "namespace": subject.namespace,
        "uid": subject.uid,
        "apiVersion": subject.version or "v1",
        "fieldPath": subject.field_path,
    }
    return {key: value for key, value in found.items() if value}


def _part(pod: Pod, container: str) -> str:
    if any(c.name == container for c in pod.spec.init_containers):
        return "initContainers"
    if any(c.name == container for c in pod.spec.ephemeral_containers):
        return "ephemeralContainers"
    return "containers"
