"""Slot `state`: a revisioned key-value store with transactions, watches and leases.

The model is etcd's (https://etcd.io/docs/v3.5/learning/data_model/): one store-wide revision grows
by one with every transaction that writes; history is kept until it is compacted; keys are ordered
byte-wise as UTF-8. Two instances run: *local* (this machine) and *cluster* (API objects).
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from enum import StrEnum
from typing import Protocol

from sagong.contract import Message, method, slot
from sagong.errors import Conflict, Gone, InvalidArgument, NotFound, ResourceExhausted

__all__ = [
    "Chunk",
    "CompactRequest",
    "Compare",
    "Entry",
    "Lease",
    "LeaseList",
    "LeaseRef",
    "Operation",
    "OperationKind",
    "OperationResult",
    "RangeRequest",
    "RangeResult",
    "State",
    "StateStatus",
    "Transaction",
    "TransactionResult",
    "WatchBatch",
    "WatchEvent",
    "WatchRequest",
    "transaction_id",
]


class Entry(Message):
    """A key with its value and history: revisions of creation and last change, number of changes."""

    key: str
    value: bytes = b""
    create_revision: int
    revision: int
    version: int
    lease: str = ""


class RangeRequest(Message):
    """Keys from `start` up to, not including, `end`.

    `end` "" means the one key `start`; "\\0" means all keys from `start` on. `revision` 0 is now.
    """

    start: str
    end: str = ""
    revision: int = 0
    limit: int = 0
    keys_only: bool = False
    count_only: bool = False


class RangeResult(Message):
    """Entries in key order; `count` is of all that match, `more` tells if `limit` cut them."""

    entries: tuple[Entry, ...] = ()
    revision: int
    count: int = 0
    more: bool = False


class Compare(Message):
    """A condition: the key's last change is `revision` (0: the key does not exist)."""

    key: str
    revision: int


class OperationKind(StrEnum):
    """What an operation of a transaction does."""

    PUT = "put"
    DELETE = "delete"
    RANGE = "range"


class Operation(Message):
    """PUT one key, DELETE keys or read a RANGE of `[key, end)`, `end` as in `RangeRequest`.

    A DELETE that is `quiet` answers with the count alone.
    """

    kind: OperationKind
    key: str
    end: str = ""
    value: bytes = b""
    lease: str = ""
    quiet: bool = False


class OperationResult(Message):
    """For RANGE the entries read, for DELETE the entries as they were; `count` of keys touched."""

    entries: tuple[Entry, ...] = ()
    count: int = 0


class Transaction(Message):
    """If all of `compare` hold then `success` else `failure`, at once.

    `id` is made by the caller and unique for ever (see `transaction_id`): the same transaction sent
    twice within ten minutes, also across a crash of the store, is done once and answered alike.

    `patience`: for so many seconds (at most one) it may wait for others, to be made durable with them.
    """

    id: str
    compare: tuple[Compare, ...] = ()
    success: tuple[Operation, ...] = ()
    failure: tuple[Operation, ...] = ()
    patience: float = 0.0


def transaction_id() -> str:
    """An id that nobody else makes; those of one moment are neighbours in an index."""
    return f"{time.time_ns():016x}{os.urandom(8).hex()}"


class TransactionResult(Message):
    """`revision` is the store's after the transaction (its own, when it wrote)."""

    succeeded: bool
    revision: int
    results: tuple[OperationResult, ...] = ()


class WatchRequest(Message):
    """Changes of `[start, end)` after `revision` (0: from now on).

    With `previous` events carry the entry as it was. With `progress_seconds` an idle watch sends
    an empty batch with the current revision that often.
    """

    start: str
    end: str = ""
    revision: int = 0
    previous: bool = False
    progress_seconds: float = 0.0


class WatchEvent(Message):
    """A key was put (`entry`) or, with `deleted`, removed (`entry` has key and revision only)."""

    entry: Entry
    deleted: bool = False
    previous: Entry | None = None


class WatchBatch(Message):
    """All changes up to `revision`; a transaction's changes are never split over batches.

    The first batch comes at once, may be empty, and tells the revision the watch starts after.
    """

    revision: int
    events: tuple[WatchEvent, ...] = ()


class Lease(Message):
    """Keys put with a lease vanish when it is not renewed for `seconds`.

    A `volatile` lease is renewed without a write to disk; after a crash of the store all leases
    are given their full time again.
    """

    id: str
    seconds: float
    volatile: bool = False


class LeaseRef(Message):
    """Names a lease."""

    id: str


class LeaseList(Message):
    """All leases that live."""

    leases: tuple[Lease, ...] = ()


class CompactRequest(Message):
    """Forget all history before `revision`; the newest entry of each key stays."""

    revision: int


class Chunk(Message):
    """A piece of a snapshot."""

    data: bytes


class StateStatus(Message):
    """`size` in bytes on disk; `compacted` is the oldest revision that can still be read."""

    revision: int
    compacted: int
    size: int
    keys: int


@slot("state", version=1)
class State(Protocol):
    """Keeps what must survive: revisioned keys, durable when acknowledged."""

    @method(idempotent=True, raises=(Gone, InvalidArgument))
    async def range(self, request: RangeRequest) -> RangeResult:
        """Read keys; `Gone` if the asked revision is compacted, InvalidArgument if in the future."""
        ...

    @method(idempotent=True, raises=(InvalidArgument, NotFound, ResourceExhausted))
    async def commit(self, transaction: Transaction) -> TransactionResult:
        """Do a transaction; durable on return. Writing a key twice is InvalidArgument.

        NotFound names a lease that is not; ResourceExhausted a full disk (nothing was written).
        """
        ...

    @method(idempotent=True, raises=(Gone, InvalidArgument))
    def watch(self, request: WatchRequest) -> AsyncIterator[WatchBatch]:
        """Follow changes without a gap; resume with the last batch's revision. `Gone` if compacted."""
        ...

    @method(idempotent=True, raises=(Conflict, InvalidArgument))
    async def grant(self, lease: Lease) -> Lease:
        """Make a lease; the same again is a renewal, the same id with another time is `Conflict`."""
        ...

    @method(idempotent=True, raises=(NotFound,))
    async def renew(self, lease: LeaseRef) -> Lease:
        """Give a lease its full time again; `NotFound` if it has expired."""
        ...

    @method(idempotent=True)
    async def revoke(self, lease: LeaseRef) -> None:
        """End a lease and delete its keys; one that is gone already is no error."""
        ...

    @method(idempotent=True)
    async def leases(self) -> LeaseList:
        """List living leases."""
        ...

    @method(idempotent=True, raises=(InvalidArgument,))
    async def compact(self, request: CompactRequest) -> StateStatus:
        """Drop history; watches that need dropped history end with `Gone`."""
        ...

    @method(idempotent=True)
    def snapshot(self) -> AsyncIterator[Chunk]:
        """The whole store at one revision, as a file that a fresh instance can start from."""
        ...

    @method(idempotent=True)
    async def status(self) -> StateStatus:
        """Revision and sizes."""
        ...
