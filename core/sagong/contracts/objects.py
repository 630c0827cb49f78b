"""Contract `objects`: API objects for controllers, schedulers, nodes and DNS.

Served by `kube` where the API server runs and by `uplink` on workers, so that the same plugin runs
unchanged anywhere. Objects are JSON bytes as the Kubernetes API serves them. `resource` is written
`group/version/plural`, the core group as `v1/pods`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from enum import StrEnum
from typing import Protocol

from sagong.contract import Message, method, slot
from sagong.errors import (
    AlreadyExists,
    Conflict,
    Gone,
    InvalidArgument,
    NotFound,
    PermissionDenied,
)

__all__ = [
    "Commit",
    "CommitResult",
    "GetRequest",
    "ListRequest",
    "ListResult",
    "Object",
    "ObjectBatch",
    "ObjectChange",
    "ObjectWatch",
    "Objects",
    "Outcome",
    "Reminder",
    "Silence",
    "Verb",
    "Write",
]


class GetRequest(Message):
    """Names one object; `namespace` "" for cluster-scoped kinds."""

    resource: str
    name: str
    namespace: str = ""


class Object(Message):
    """An object as JSON, and its resourceVersion as a number."""

    body: bytes
    revision: int


class ListRequest(Message):
    """Objects of a resource; selectors in their string forms; `namespace` "" means all.

    `limit` 0 is no limit; `resume` is the token of an earlier, cut answer.
    """

    resource: str
    namespace: str = ""
    labels: str = ""
    fields: str = ""
    limit: int = 0
    resume: str = ""


class ListResult(Message):
    """Objects in key order, all as of `revision`."""

    items: tuple[bytes, ...] = ()
    revision: int
    resume: str = ""


class ObjectWatch(Message):
    """Changes after `revision`; with `revision` 0 the watch begins with all objects as ADDED.

    The batch that ends this first part has `synced`.
    """

    resource: str
    namespace: str = ""
    labels: str = ""
    fields: str = ""
    revision: int = 0


class ObjectChange(Message):
    """`kind` is ADDED, MODIFIED or DELETED, seen through the watch's selectors."""

    kind: str
    body: bytes


class ObjectBatch(Message):
    """Changes up to `revision`, in order; empty ones (bookmarks) carry the revision alone."""

    revision: int
    changes: tuple[ObjectChange, ...] = ()
    synced: bool = False


class Silence(Message):
    """An object that is written again and again: not a first time within `first` seconds from now,
    or later not for `seconds`."""

    resource: str
    name: str
    namespace: str = ""
    first: float
    seconds: float


class Reminder(Message):
    """What a unit that falls asleep waits for: the first thing that one of `watches` would tell after
    its revision, the first that one of `comings` would tell as ADDED or DELETED, or the first silence.
    """

    watches: tuple[ObjectWatch, ...] = ()
    comings: tuple[ObjectWatch, ...] = ()
    silences: tuple[Silence, ...] = ()


class Verb(StrEnum):
    """What a write does."""

    CREATE = "create"
    UPDATE = "update"
    STATUS = "status"
    PATCH = "patch"
    DELETE = "delete"
    BIND = "bind"
    EVICT = "evict"


class Write(Message):
    """One write of a commit.

    CREATE, UPDATE and STATUS carry the object; its metadata.resourceVersion, when set, must be the
    present one. STATUS leaves the spec as it is, UPDATE the status. A body that names another kind than
    the resource's is InvalidArgument. PATCH carries a merge patch (`subresource` "status"
    or ""). BIND carries `node`. DELETE may carry the `uid` it means and a propagation policy.
    """

    verb: Verb
    resource: str
    name: str = ""
    namespace: str = ""
    body: bytes = b""
    subresource: str = ""
    node: str = ""
    uid: str = ""
    propagation: str = ""
    grace_seconds: int | None = None


class Commit(Message):
    """Writes done in one store transaction; each succeeds or fails by itself.

    `id` is unique: the same commit sent twice is done once. `manager` is the field manager.
    """

    id: str
    writes: tuple[Write, ...]
    manager: str = ""


class Outcome(Message):
    """What became of a write: the object as stored, or an error's code and message."""

    body: bytes = b""
    revision: int = 0
    error: str = ""
    message: str = ""


class CommitResult(Message):
    """One outcome for each write, in their order."""

    outcomes: tuple[Outcome, ...]
    revision: int


@slot("objects", version=1)
class Objects(Protocol):
    """API objects."""

    @method(idempotent=True, raises=(NotFound, PermissionDenied, InvalidArgument))
    async def get(self, request: GetRequest) -> Object:
        """One object."""
        ...

    @method(idempotent=True, raises=(Gone, PermissionDenied, InvalidArgument))
    async def list(self, request: ListRequest) -> ListResult:
        """Objects that match."""
        ...

    @method(idempotent=True, raises=(Gone, PermissionDenied, InvalidArgument))
    def watch(self, request: ObjectWatch) -> AsyncIterator[ObjectBatch]:
        """Follow objects without a gap; `Gone` means: watch anew from revision 0."""
        ...

    @method(idempotent=True, raises=(Gone, NotFound, PermissionDenied, InvalidArgument))
    async def remind(self, reminder: Reminder) -> None:
        """Wake the calling unit (`kernel.wake`), once, when what it waits for happens or has happened.

        It replaces an earlier reminder of the same unit, and lives no longer than its provider: whoever
        falls asleep has that in its manifest's `[life] wakes_on`. `Gone`: whether it has happened can't
        be told any more.
        """
        ...

    @method(
        idempotent=True,
        raises=(PermissionDenied, InvalidArgument, Conflict, AlreadyExists, NotFound),
    )
    async def commit(self, commit: Commit) -> CommitResult:
        """Validate, admit and store a batch; errors of single writes stand in their outcomes."""
        ...
