"""Keys and their ranges, and what a transaction may not say; pure."""

from __future__ import annotations

from collections.abc import Iterable

from sagong.contracts.state import Operation, OperationKind, Transaction
from sagong.errors import InvalidArgument

__all__ = [
    "bounds",
    "check_key",
    "check_range",
    "check_transaction",
    "covers",
    "point_keys",
    "weight",
]

REST = "\0"

_LONGEST_PATIENCE = 1.0


def covers(start: str, end: str, key: str) -> bool:
    """Whether `key` is in `[start, end)`, in the contract's notation of ends."""
    if end == "":
        return key == start
    # Code points order strings as their UTF-8 bytes do.
    return key >= start and (end == REST or key < end)


def bounds(start: str, end: str) -> tuple[str, str | bytes]:
    """The range as `lower <= key < upper` in SQLite, where every blob sorts above every text."""
    if end == "":
        return start, start + "\0"
    return start, b"" if end == REST else end


def check_key(key: str) -> None:
    """Refuse what can't be a key."""
    if key == "":
        raise InvalidArgument("a key is empty: give it at least one character")
    if not key.isascii():
        try:
            key.encode()
        except UnicodeEncodeError:
            raise InvalidArgument(f"the key {key!r} has no UTF-8 form") from None


def check_range(start: str, end: str) -> None:
    """Refuse what can't be a range; one that ends before it starts is only empty."""
    if start != "" or end == "":
        check_key(start)
    if end != "":
        check_key(end)


def check_transaction(transaction: Transaction) -> None:
    """Refuse a transaction that is wrong whatever the store holds."""
    if transaction.id == "":
        raise InvalidArgument("the transaction has no id: give it a UUID")
    check_key(transaction.id)
    if not 0 <= transaction.patience <= _LONGEST_PATIENCE:
        raise InvalidArgument(
            f"a patience of {transaction.patience} seconds: give 0 to {_LONGEST_PATIENCE:g}"
        )
    for compare in transaction.compare:
        check_key(compare.key)
        if compare.revision < 0:
            raise InvalidArgument(f"compare of {compare.key!r}: its revision is negative")
    for branch in (transaction.success, transaction.failure):
        _check_branch(branch)


def _check_branch(branch: tuple[Operation, ...]) -> None:
    put: set[str] = set()
    deleted: list[Operation] = []
    for operation in branch:
        if operation.kind is OperationKind.PUT:
            _check_put(operation, put)
        else:
            check_range(operation.key, operation.end)
            if operation.kind is OperationKind.DELETE:
                deleted.append(operation)
    for operation in deleted:
        _check_overlap(operation, put)


def _check_put(operation: Operation, put: set[str]) -> None:
    check_key(operation.key)
    if operation.end != "":
        raise InvalidArgument(f"put of {operation.key!r}: it has an end; a put takes one key")
    if operation.lease != "":
        check_key(operation.lease)
    if operation.key in put:
        raise InvalidArgument(f"the transaction puts {operation.key!r} twice: keep one of them")
    put.add(operation.key)


def _check_overlap(operation: Operation, put: Iterable[str]) -> None:
    for key in put:
        if covers(operation.key, operation.end, key):
            raise InvalidArgument(f"the transaction puts and deletes {key!r}: keep one of them")


def point_keys(transaction: Transaction) -> Iterable[str]:
    """The single keys that a transaction may look at or write."""
    for compare in transaction.compare:
        yield compare.key
    for branch in (transaction.success, transaction.failure):
        for operation in branch:
            if operation.end == "":
                yield operation.key


def weight(transaction: Transaction) -> int:
    """About how many bytes a transaction writes and holds while it waits."""
    operations = (*transaction.success, *transaction.failure)
    return 512 + sum(128 + len(operation.key) + len(operation.value) for operation in operations)
