"""All cached objects of one storage, in key order, with indexes of labels and fields."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from sagong.errors import InvalidArgument
from sagong.model.selectors import EVERYTHING, FieldSelector, FieldTerm, LabelSelector, LabelTerm
from sagong_kube.storage.keys import prefix_end
from sagong_kube.storage.record import (
    FIELDS,
    FieldPath,
    Record,
    RecordReader,
)

__all__ = ["Collection", "Selection"]

_INDEXED = {
    "spec.nodeName",
    "involvedObject.uid",
    "involvedObject.name",
}
Test = Callable[[Record], bool]


class Selection(msgspec.Struct, frozen=True):
    """Which objects of a collection are meant; `namespace` "" means all."""

    namespace: str = ""
    labels: LabelSelector = EVERYTHING
    fields: FieldSelector = FieldSelector()

    @property
    def selective(self) -> bool:
        """Whether it leaves out more than other namespaces."""
        return not self.labels.empty or bool(self.fields.terms)


class Collection:
    """Objects of a storage (`core/pods`); keys are `namespace/name`, or `name` for cluster scope."""

    def __init__(self, storage: str, fields: Sequence[FieldPath] | None = None) -> None:
        self.storage = storage
        self.reader = RecordReader(FIELDS.get(storage, ()) if fields is None else fields)
        self.records: dict[str, Record] = {}
        self.changed = 0
        self._order: list[str] = []
        self._unordered: list[str] = []
        self._labels: dict[tuple[str, str], set[str]] = {}
        self._fields: dict[tuple[str, str], set[str]] = {}
        self._index_fields()

    def _index_fields(self) -> None:
        self._positions = {field.label: at for at, field in enumerate(self.reader.fields)}
        self._indexed = [(at, f) for f, at in self._positions.items() if f in _INDEXED]

    @property
    def field_labels(self) -> tuple[str, ...]:
        """Names of the fields that selectors may use, beside metadata's."""
        return tuple(self._positions)

    def position(self, field: str) -> int | None:
        """Where a selectable field's value stands in `Record.fields`."""
        return self._positions.get(field)

    def put(self, record: Record) -> Record | None:
        """Keep a record; returns the one that it replaces."""
        old = self.records.get(record.key)
        self.records[record.key] = record
        if old is None:
            self._unordered.append(record.key)
        elif old.labels == record.labels and old.fields == record.fields:
            return old
        else:
            self._unindex(old)
        self._index(record)
        return old

    def remove(self, key: str) -> Record | None:
        """Forget a record; returns it."""
        old = self.records.pop(key, None)
        if old is not None:
            self._unindex(old)
            self._forget_order(key)
        return old

    def _forget_order(self, key: str) -> None:
        self._settle()
        at = bisect_left(self._order, key)
        if at < len(self._order) and self._order[at] == key:
            del self._order[at]

    def _settle(self) -> None:
        if self._unordered:
            # Appending sorted runs and sorting again is linear in timsort.
            self._order.extend(sorted(self._unordered))
            self._order.sort()
            self._unordered.clear()

    def _index(self, record: Record) -> None:
        for pair in record.labels:
            self._labels.setdefault(pair, set()).add(record.key)
        for at, field in self._indexed:
            self._fields.setdefault((field, record.fields[at]), set()).add(record.key)

    def _unindex(self, record: Record) -> None:
        pairs = [(self._labels, pair) for pair in record.labels]
        pairs += [(self._fields, (field, record.fields[at])) for at, field in self._indexed]
        for index, pair in pairs:
            keys = index.get(pair)
            if keys is not None:
                keys.discard(record.key)
                if not keys:
                    del index[pair]

    def select(self, selection: Selection, after: str = "") -> Iterator[Record]:
        """Matching records in key order, from the first key not before `after`."""
        test = self.test(selection)
        records = self.records
        for key in self._candidates(selection, after):
            record = records.get(key)
            if record is not None and test(record):
                yield record

    def count(self, selection: Selection) -> int:
        """How many match."""
        if not selection.selective and not selection.namespace:
            return len(self.records)
        return sum(1 for _ in self.select(selection))

    def remaining(self, namespace: str, after: str) -> int:
        """How many keys of a namespace ("" for all) come from `after` on."""
        self._settle()
        start, end = self._bounds(namespace)
        return end - max(start, bisect_left(self._order, after))

    def _bounds(self, namespace: str) -> tuple[int, int]:
        if not namespace:
            return 0, len(self._order)
        prefix = f"{namespace}/"
        return bisect_left(self._order, prefix), bisect_left(self._order, prefix_end(prefix))

    def _candidates(self, selection: Selection, after: str) -> Iterable[str]:
        indexed = self._narrowest(selection)
        if indexed is not None:
            return sorted(key for key in indexed if key >= after)
        self._settle()
        start, end = self._bounds(selection.namespace)
        if after:
            start = max(start, bisect_left(self._order, after))
        return self._order if (start, end) == (0, len(self._order)) else self._order[start:end]

    def _narrowest(self, selection: Selection) -> set[str] | None:
        found: list[set[str]] = []
        for term in selection.labels.terms:
            if term.operator == "in" and len(term.values) == 1:
                found.append(self._labels.get((term.key, term.values[0]), set()))
        for field in selection.fields.terms:
            if field.negated:
                continue
            if field.field == "metadata.name":
                found.append(self._named(selection.namespace, field.value))
            elif field.field in _INDEXED and field.field in self._positions:
                found.append(self._fields.get((field.field, field.value), set()))
        return min(found, key=len) if found else None

    def _named(self, namespace: str, name: str) -> set[str]:
        if name in self.records:
            return {name}
        if namespace:
            return {f"{namespace}/{name}"}
        return {key for key in self.records if key.endswith(f"/{name}")}

    def test(self, selection: Selection) -> Test:
        """A function that tells if a record matches."""
        tests: list[Test] = []
        if selection.labels.nothing:
            return lambda record: False
        if selection.namespace:
            tests.append(lambda record: record.namespace == selection.namespace)
        tests += [_label_test(term) for term in selection.labels.terms]
        tests += [self._field_test(term) for term in selection.fields.terms]
        if not tests:
            return lambda record: True
        if len(tests) == 1:
            return tests[0]
        return lambda record: all(test(record) for test in tests)

    def _field_test(self, term: FieldTerm) -> Test:
        value, negated = term.value, term.negated
        if term.field == "metadata.name":
            return lambda record: (record.name == value) != negated
        if term.field == "metadata.namespace":
            return lambda record: (record.namespace == value) != negated
        at = self._positions.get(term.field)
        if at is None:
            raise InvalidArgument(f"field label not supported: {term.field}")
        position = at
        return lambda record: (record.fields[position] == value) != negated


def _label_test(term: LabelTerm) -> Test:
    if term.operator == "in" and len(term.values) == 1:
        pair = (term.key, term.values[0])
        return lambda record: pair in record.labels
    return lambda record: term.matches(dict(record.labels))
