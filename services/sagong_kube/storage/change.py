"""What the storage is told to write, and what its watchers are told: changes and events."""

from __future__ import annotations

import msgspec

from sagong.contracts.state import Compare, Operation
from sagong_kube.storage.record import Record, revision_of

__all__ = ["ADDED", "DELETED", "MODIFIED", "Change", "Event", "Write"]

ADDED = "ADDED"
MODIFIED = "MODIFIED"
DELETED = "DELETED"


class Change(msgspec.Struct):
    """Put `value` (an object without resourceVersion) or, with None, delete a key.

    `expected` is the revision the writer saw, 0 for none. `beside` and `guards` are further
    operations and conditions of the same transaction (allocations of addresses and ports).
    """

    storage: str
    key: str
    value: bytes | None
    expected: int
    lease: str = ""
    beside: tuple[Operation, ...] = ()
    guards: tuple[Compare, ...] = ()


class Write(msgspec.Struct, frozen=True):
    """What became of a transaction: `done`, and the store's revision after it."""

    done: bool
    revision: int


class Event:
    """A change of one object, with its encodings kept for all watchers.

    `record` is None for a deletion; `previous` is None for a creation.
    """

    __slots__ = ("encodings", "previous", "record", "revision", "storage")

    def __init__(
        self, storage: str, revision: int, record: Record | None, previous: Record | None
    ) -> None:
        self.storage = storage
        self.revision = revision
        self.record = record
        self.previous = previous
        self.encodings: dict[tuple[str, str], bytes] = {}

    @property
    def size(self) -> int:
        """Bytes that are kept alive by keeping this event."""
        return len(self.previous.body) if self.previous is not None else 0

    def body(self, kind: str) -> bytes:
        """The object that a watcher gets with this kind of event.

        A deletion shows the object as it was, with the revision of its end.
        """
        if kind != DELETED:
            assert self.record is not None
            return self.record.body
        assert self.previous is not None
        return revision_of(self.previous.body, self.revision)

    def shown(self, kind: str) -> Record:
        """The record that goes with `body`."""
        found = self.previous if kind == DELETED else self.record
        assert found is not None
        return found
