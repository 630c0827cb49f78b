"""One cached object: its encoded bytes beside the few facts that reads select by."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

__all__ = [
    "FIELDS",
    "FieldPath",
    "Record",
    "RecordReader",
    "revision_of",
    "with_revision",
    "without_revision",
]

_METADATA = b'"metadata":{'
_REVISION = b'"resourceVersion":"'


class Record(msgspec.Struct, frozen=True, gc=False):
    """An object as it is served; `body` has its resourceVersion spliced in.

    `labels` are sorted pairs, `fields` the values of the collection's selectable fields.
    """

    key: str
    namespace: str
    name: str
    uid: str
    revision: int
    body: bytes
    labels: tuple[tuple[str, str], ...] = ()
    fields: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()
    deleting: bool = False


class FieldPath(msgspec.Struct, frozen=True):
    """A selectable field: its name in selectors, where it lies, what it is when absent."""

    label: str
    path: tuple[str, ...]
    default: str = ""


def _paths(*labels: str) -> tuple[FieldPath, ...]:
    return tuple(FieldPath(label, tuple(label.split("."))) for label in labels)


FIELDS: Mapping[str, tuple[FieldPath, ...]] = {
    "core/pods": (
        *_paths(
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ),
        FieldPath("spec.hostNetwork", ("spec", "hostNetwork"), "false"),
    ),
    "core/nodes": (FieldPath("spec.unschedulable", ("spec", "unschedulable"), "false"),),
    "core/namespaces": _paths("status.phase"),
    "core/secrets": _paths("type"),
    "core/events": (
        *_paths(
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "type",
        ),
        FieldPath("source", ("source", "component")),
    ),
    "core/replicationcontrollers": (FieldPath("status.replicas", ("status", "replicas"), "0"),),
    "apps/replicasets": (FieldPath("status.replicas", ("status", "replicas"), "0"),),
    "batch/jobs": (FieldPath("status.successful", ("status", "succeeded"), "0"),),
    "certificates.k8s.io/certificatesigningrequests": _paths("spec.signerName"),
}


def with_revision(value: bytes, revision: int) -> bytes:
    """The stored bytes with the resourceVersion put in front of the other metadata.

    Stored values begin with apiVersion, kind and metadata, so the first match is the object's own.
    """
    at = value.index(_METADATA) + len(_METADATA)
    return b'%b%b%d",%b' % (value[:at], _REVISION, revision, value[at:])


def without_revision(body: bytes) -> bytes:
    """What `with_revision` was made of."""
    at = body.index(_METADATA) + len(_METADATA)
    if not body.startswith(_REVISION, at):
        return body
    return body[:at] + body[body.index(b",", at) + 1 :]


def revision_of(body: bytes, revision: int) -> bytes:
    """The served bytes with another resourceVersion (deletions carry that of their event)."""
    return with_revision(without_revision(body), revision)


class _Owner(msgspec.Struct):
    uid: str = ""


class _Metadata(msgspec.Struct):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    labels: dict[str, str] | None = None
    ownerReferences: list[_Owner] | None = None
    deletionTimestamp: str | None = None


class RecordReader:
    """Makes records of stored values by decoding only what they are selected by."""

    def __init__(self, fields: Sequence[FieldPath] = ()) -> None:
        self.fields = tuple(fields)
        self._decoder = msgspec.json.Decoder(_head(self.fields))
        self._getters = tuple(_getter(field) for field in self.fields)

    def read(self, key: str, value: bytes, revision: int) -> Record:
        """The record of a value as the store has it."""
        head: Any = self._decoder.decode(value)
        metadata: _Metadata = head.metadata
        labels = metadata.labels
        return Record(
            key=key,
            namespace=sys.intern(metadata.namespace),
            name=metadata.name,
            uid=metadata.uid,
            revision=revision,
            body=with_revision(value, revision),
            labels=_pairs(labels) if labels else (),
            fields=tuple([getter(head) for getter in self._getters]),
            owners=tuple([o.uid for o in metadata.ownerReferences or ()]),
            deleting=metadata.deletionTimestamp is not None,
        )


def _pairs(labels: dict[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted([(sys.intern(k), sys.intern(v)) for k, v in labels.items()]))


def _head(fields: Sequence[FieldPath]) -> type[Any]:
    tree: dict[str, Any] = {}
    for field in fields:
        node = tree
        for step in field.path[:-1]:
            node = node.setdefault(step, {})
        node[field.path[-1]] = None
    return _struct("Head", tree, [("metadata", _Metadata)])


def _struct(name: str, tree: Mapping[str, Any], first: list[Any]) -> type[Any]:
    members = list(first)
    for step, below in tree.items():
        if step != "metadata":
            kind = _SCALAR if below is None else _struct(f"{name}_{step}", below, []) | None
            members.append((_attribute(step), kind, msgspec.field(default=None, name=step)))
    return msgspec.defstruct(name, members)


_SCALAR = str | int | float | bool | None


def _attribute(step: str) -> str:
    return f"f_{step}" if step.isidentifier() else f"x_{step.encode().hex()}"


def _getter(field: FieldPath) -> Callable[[Any], str]:
    chain = tuple(_attribute(step) for step in field.path)

    def get(head: Any) -> str:
        for attribute in chain:
            head = getattr(head, attribute)
            if head is None:
                return field.default
        return _text(head)

    return get


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return sys.intern(str(value))
