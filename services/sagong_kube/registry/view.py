"""What a write sees: the cache, with the earlier writes of its own batch over it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sagong.contracts.state import Compare, Operation
from sagong_kube.storage.change import Change
from sagong_kube.storage.collection import Selection
from sagong_kube.storage.record import Record
from sagong_kube.storage.store import Store

__all__ = ["View"]


class View:
    """Reads for planning writes, and the changes planned so far, one a key."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._changes: dict[tuple[str, str], Change] = {}

    def record(self, storage: str, key: str) -> Record | None:
        """One object."""
        change = self._changes.get((storage, key))
        return self._store.get(storage, key) if change is None else self._changed(change)

    def _changed(self, change: Change) -> Record | None:
        if change.value is None:
            return None
        reader = self._store.collection(change.storage).reader
        return reader.read(change.key, change.value, change.expected)

    def select(self, storage: str, selection: Selection) -> Iterator[Record]:
        """Matching objects; those of this batch come last."""
        collection = self._store.collection(storage)
        mine = {
            key: self._changed(c) for (where, key), c in self._changes.items() if where == storage
        }
        if not mine and not collection.records:
            return
        for record in collection.select(selection):
            if record.key not in mine:
                yield record
        test = collection.test(selection)
        yield from (r for r in mine.values() if r is not None and test(r))

    @property
    def changes(self) -> Sequence[Change]:
        """All that is planned."""
        return list(self._changes.values())

    def plan(
        self,
        storage: str,
        key: str,
        value: bytes | None,
        *,
        lease: str = "",
        beside: Sequence[Operation] = (),
        guards: Sequence[Compare] = (),
    ) -> None:
        """Put or delete an object; a later plan for the same key replaces an earlier one."""
        known = self._store.get(storage, key)
        expected = known.revision if known is not None else 0
        earlier = self._changes.get((storage, key))
        if earlier is not None:
            expected = earlier.expected
            beside = _merged(earlier.beside, beside)
            guards = {g.key: g for g in (*earlier.guards, *guards)}.values()  # type: ignore[assignment]
        self._changes[storage, key] = Change(
            storage, key, value, expected, lease, tuple(beside), tuple(guards)
        )


def _merged(earlier: Sequence[Operation], later: Sequence[Operation]) -> list[Operation]:
    return list({operation.key: operation for operation in (*earlier, *later)}.values())
