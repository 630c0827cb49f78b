"""Work: what a controller decides about one object, as writes that others carry out."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import msgspec

from sagong.contracts.objects import Verb, Write
from sagong.model.times import time_text
from sagong_replication_kube.item import Document, Item
from sagong_replication_kube.world import World

__all__ = ["Ask", "Work", "condition", "conditions_with"]

_ENCODER: Final = msgspec.json.Encoder()


class Ask(NamedTuple):
    """Something that only the store knows: whether an owner exists, or what a namespace holds.

    `uid` is the owner's; without one the names in `namespace` of an unfollowed resource are asked.
    """

    resource: str
    namespace: str
    name: str = ""
    uid: str = ""


class Work:
    """Collects the writes about one object.

    `statuses` only tell what is; they may wait until more of them can go together. `again` is when
    to look once more although nothing changed, `within` when a sign of life must have come.
    """

    def __init__(self, world: World, uid: str = "") -> None:
        self.world = world
        self.uid = uid
        self.now = world.now
        self.writes: list[Write] = []
        self.statuses: list[Write] = []
        self.events: list[Write] = []
        self.asks: list[Ask] = []
        self.again: float | None = None
        self.within: float | None = None

    @property
    def idle(self) -> bool:
        """Whether the status may be told: nothing else is to be done, or it can't be done."""
        return not self.writes or self.uid in self.world.failures

    def look_again(self, seconds: float) -> None:
        """At the latest in so many seconds."""
        seconds = max(seconds, 0.0)
        self.again = seconds if self.again is None else min(self.again, seconds)

    def expect_sign(self, seconds: float) -> None:
        """Look again in so many seconds, unless a sign of life comes before."""
        self.within = seconds

    def create(self, resource: str, document: Document) -> None:
        """A new object."""
        meta = document["metadata"]
        self.writes.append(
            Write(
                verb=Verb.CREATE,
                resource=resource,
                name=meta["name"],
                namespace=meta.get("namespace", ""),
                body=_ENCODER.encode(document),
            )
        )

    def update(self, item: Item, document: Document, subresource: str = "") -> None:
        """The object as it shall be; only if it is still as it was read."""
        self.writes.append(self._write(Verb.UPDATE, item, document, subresource))

    def patch(self, item: Item, patch: Document, subresource: str = "") -> None:
        """A merge patch; only if the object is still as it was read."""
        if item.meta.resource_version:
            version = {"resourceVersion": item.meta.resource_version}
            patch["metadata"] = {**patch.get("metadata", {}), **version}
        self.writes.append(self._write(Verb.PATCH, item, patch, subresource))

    def delete(self, item: Item, *, propagation: str = "", grace: int | None = None) -> None:
        """Delete just this object."""
        self.writes.append(
            Write(
                verb=Verb.DELETE,
                resource=item.resource,
                name=item.meta.name,
                namespace=item.meta.namespace,
                uid=item.uid,
                propagation=propagation,
                grace_seconds=grace,
            )
        )

    def status(self, item: Item, status: Document, annotations: Document | None = None) -> None:
        """Tell the status unless it is told already; it waits while there is more to do."""
        document = item.document()
        known = annotations is None or document["metadata"].get("annotations", {}) == annotations
        if known and document.get("status", {}) == status:
            return
        document["status"] = status
        if annotations is not None:
            document["metadata"]["annotations"] = annotations
        document["metadata"].pop("managedFields", None)
        self.statuses.append(self._write(Verb.STATUS, item, document, ""))

    def event(self, item: Item, kind: str, reason: str, said: str) -> None:
        """Something that `kubectl describe` shows about the object."""
        # Names in the order of what happened: tools show events of one second by name.
        self.world.told += 1
        number = int(self.now * 1e9) + self.world.told % 1_000_000
        stamp, namespace = time_text(self.now), item.meta.namespace or "default"
        name = f"{item.meta.name[:230]}.{number:016x}"
        meta = item.meta
        reference = {
            "apiVersion": item.kind.api_version,
            "kind": item.kind.kind,
            "name": meta.name,
            "uid": meta.uid,
            **({"namespace": meta.namespace} if meta.namespace else {}),
        }
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": reference,
            "type": kind,
            "reason": reason,
            "message": said[:1024],
            "source": {"component": f"{item.kind.kind.lower()}-controller"},
            "reportingComponent": f"{item.kind.kind.lower()}-controller",
            "firstTimestamp": stamp,
            "lastTimestamp": stamp,
            "count": 1,
        }
        self.events.append(
            Write(
                verb=Verb.CREATE,
                resource="v1/events",
                name=name,
                namespace=namespace,
                body=_ENCODER.encode(body),
            )
        )

    def _write(self, verb: Verb, item: Item, document: Document, subresource: str) -> Write:
        return Write(
            verb=verb,
            resource=item.resource,
            name=item.meta.name,
            namespace=item.meta.namespace,
            uid=item.uid,
            body=_ENCODER.encode(document),
            subresource=subresource,
        )


class _Condition(NamedTuple):
    type: str
    status: str
    reason: str
    message: str


def condition(type_: str, status: str, reason: str, message: str) -> _Condition:
    """A condition to be set."""
    return _Condition(type_, status, reason, message)


def conditions_with(
    present: list[Document], wanted: _Condition, now: float, *, updates: bool = False
) -> list[Document]:
    """The conditions with one set; its transition time stays while its status does.

    `updates`: the kind also has lastUpdateTime (deployments).
    """
    stamp = time_text(now)
    document: dict[str, Any] = {
        "type": wanted.type,
        "status": wanted.status,
        "lastTransitionTime": stamp,
    }
    if updates:
        document["lastUpdateTime"] = stamp
    document |= {"reason": wanted.reason, "message": wanted.message}
    found = [c for c in present if c.get("type") != wanted.type]
    old = next((c for c in present if c.get("type") == wanted.type), None)
    if old is None:
        return [*found, document]
    if old.get("status") == wanted.status:
        if (old.get("reason"), old.get("message", "")) == (wanted.reason, wanted.message):
            return present
        document["lastTransitionTime"] = old.get("lastTransitionTime", stamp)
    return [document if c.get("type") == wanted.type else c for c in present]
