"""Checks of the state suite: ranges and transactions."""

from __future__ import annotations

import asyncio
import uuid

from msgspec.structs import replace

from sagong.conformance.refusals import raises
from sagong.conformance.state_lab import (
    StateLab,
)
from sagong.contracts.state import (
    Compare,
    Operation,
    OperationKind,
    RangeRequest,
    Transaction,
)
from sagong.errors import InvalidArgument, NotFound

__all__ = [
    "check_a_key_is_not_written_twice",
    "check_compare_chooses_the_branch",
    "check_delete_returns_what_was",
    "check_empty_key_is_refused",
    "check_entry_tells_its_history",
    "check_every_compare_must_hold",
    "check_failed_compare_is_answered_alike",
    "check_future_revision_is_refused",
    "check_keys_are_ordered_as_utf8_bytes",
    "check_keys_only_and_count_only_leave_out",
    "check_limit_cuts_and_says_so",
    "check_missing_key_is_no_error",
    "check_no_update_is_lost",
    "check_old_revisions_are_counted_and_cut_too",
    "check_old_revisions_can_be_read",
    "check_operations_see_earlier_ones",
    "check_put_is_read_back",
    "check_range_ends_have_two_special_forms",
    "check_range_excludes_its_end",
    "check_refused_transaction_harms_no_other",
    "check_revision_grows_by_one_per_writing_transaction",
    "check_revisions_are_unique",
    "check_same_transaction_at_once_is_done_once",
    "check_same_transaction_is_done_once",
    "check_unknown_lease_is_not_found",
    "check_what_writes_nothing_takes_no_revision",
]


# range


async def check_put_is_read_back(lab: StateLab) -> None:
    """What was put is read as it was put, whatever its bytes."""
    for value in (b"", b"\0\xff", b"x" * 300_000):
        revision = await lab.put("a", value)
        entry = await lab.get("a")
        assert entry is not None and entry.value == value
        assert (entry.key, entry.revision) == (lab.key("a"), revision)


async def check_missing_key_is_no_error(lab: StateLab) -> None:
    """A key that is not gives no entries, and the store's revision."""
    await lab.put("b")
    result = await lab.state.range(RangeRequest(start=lab.key("a")))
    assert (result.entries, result.count, result.more) == ((), 0, False)
    assert result.revision == await lab.revision()


async def check_revision_grows_by_one_per_writing_transaction(lab: StateLab) -> None:
    """However many keys a transaction writes, it takes one revision."""
    first = await lab.put("a")
    result = await lab.commit(lab.putting("a"), lab.putting("b"), lab.putting("c"))
    assert result.revision == first + 1
    assert await lab.delete("b") == first + 2
    entry = await lab.get("c")
    assert entry is not None and entry.revision == first + 1


async def check_what_writes_nothing_takes_no_revision(lab: StateLab) -> None:
    """Reading, failing compares and deleting nothing leave the revision."""
    before = await lab.put("a")
    assert (await lab.commit(lab.reading("a"))).revision == before
    assert (await lab.commit(lab.deleting("nothing"))).revision == before
    compare = (Compare(key=lab.key("a"), revision=before + 100),)
    assert (await lab.commit(lab.putting("a"), compare=compare)).revision == before
    assert await lab.revision() == before


async def check_entry_tells_its_history(lab: StateLab) -> None:
    """Creation and change revisions, and a version that begins anew after a deletion."""
    created = await lab.put("a")
    changed = await lab.put("a")
    entry = await lab.get("a")
    assert entry is not None
    assert (entry.create_revision, entry.revision, entry.version) == (created, changed, 2)
    await lab.delete("a")
    again = await lab.put("a")
    entry = await lab.get("a")
    assert entry is not None
    assert (entry.create_revision, entry.revision, entry.version) == (again, again, 1)


async def check_range_excludes_its_end(lab: StateLab) -> None:
    """`[start, end)`: the start is in, the end is not; one that ends before it starts is empty."""
    await lab.commit(*(lab.putting(name) for name in "abcd"))
    for start, end, expected in (
        ("b", "d", "bc"),
        ("a", "aa", "a"),
        ("d", "b", ""),
        ("b", "b", ""),
    ):
        request = RangeRequest(start=lab.key(start), end=lab.key(end))
        result = await lab.state.range(request)
        assert [e.key for e in result.entries] == [lab.key(name) for name in expected]
        assert result.count == len(expected)


async def check_range_ends_have_two_special_forms(lab: StateLab) -> None:
    """`""` is the one key, `"\\0"` all keys from the start on."""
    await lab.commit(*(lab.putting(name) for name in ("a", "aa", "b")))
    one = await lab.state.range(RangeRequest(start=lab.key("a")))
    assert [e.key for e in one.entries] == [lab.key("a")]
    rest = await lab.state.range(RangeRequest(start=lab.key("aa"), end="\0"))
    keys = [e.key for e in rest.entries]
    assert keys[:2] == [lab.key("aa"), lab.key("b")] and keys == sorted(keys)
    after = await lab.state.range(RangeRequest(start=lab.key("a") + "\0", end=lab.key("b")))
    assert [e.key for e in after.entries] == [lab.key("aa")]
    whole = await lab.state.range(RangeRequest(start="", end="\0", count_only=True))
    assert whole.count == (await lab.state.status()).keys


async def check_keys_are_ordered_as_utf8_bytes(lab: StateLab) -> None:
    """Not as UTF-16, not by a locale: capitals first, what lies above U+FFFF last."""
    names = ["b", "a", "B", "é", "ｚ", "😀", "a/", "a-", "10", "9"]
    await lab.commit(*(lab.putting(name) for name in names))
    assert [*await lab.all()] == sorted(names, key=str.encode)


async def check_limit_cuts_and_says_so(lab: StateLab) -> None:
    """The first of the order; `count` is of all, `more` tells of the rest."""
    await lab.commit(*(lab.putting(name) for name in "abcde"))
    for limit, found, more in ((2, "ab", True), (5, "abcde", False), (9, "abcde", False)):
        request = RangeRequest(start=lab.area, end=lab.end, limit=limit)
        result = await lab.state.range(request)
        assert [e.key for e in result.entries] == [lab.key(name) for name in found]
        assert (result.count, result.more) == (5, more), f"limit {limit}"


async def check_keys_only_and_count_only_leave_out(lab: StateLab) -> None:
    """Without values, but with revisions; or only the number."""
    revision = await lab.put("a", b"value")
    for end in ("", lab.end):
        request = RangeRequest(start=lab.key("a"), end=end, keys_only=True)
        (entry,) = (await lab.state.range(request)).entries
        assert (entry.value, entry.revision, entry.version) == (b"", revision, 1)
        request = RangeRequest(start=lab.key("a"), end=end, count_only=True)
        result = await lab.state.range(request)
        assert (result.entries, result.count) == ((), 1)


async def check_old_revisions_can_be_read(lab: StateLab) -> None:
    """As it was: old values, deleted keys back, later keys not there."""
    states: dict[int, dict[str, bytes]] = {}
    steps: tuple[tuple[Operation, ...], ...] = (
        (lab.putting("a", b"1"), lab.putting("b", b"1")),
        (lab.putting("a", b"2"), lab.putting("c", b"1")),
        (lab.deleting("a"),),
        (lab.putting("a", b"3"), lab.deleting("b", "c")),
        (lab.putting("a", b"4"),),
    )
    for step in steps:
        revision = (await lab.commit(*step)).revision
        states[revision] = await lab.all()
    assert len(set(map(str, states.values()))) == len(steps)
    for revision, expected in states.items():
        assert await lab.all(revision) == expected, f"at revision {revision}"
        entry = await lab.get("a", revision)
        assert (entry and entry.value) == expected.get("a")


async def check_old_revisions_are_counted_and_cut_too(lab: StateLab) -> None:
    """`limit`, `count` and `more` hold at an old revision; the answer's revision is now's."""
    old = (await lab.commit(*(lab.putting(name) for name in "abc"))).revision
    await lab.commit(lab.deleting("a", "c"), lab.putting("d"), lab.putting("e"))
    request = RangeRequest(start=lab.area, end=lab.end, revision=old, limit=2)
    result = await lab.state.range(request)
    assert [e.key for e in result.entries] == [lab.key("a"), lab.key("b")]
    assert (result.count, result.more, result.revision) == (3, True, await lab.revision())
    request = RangeRequest(start=lab.area, end=lab.end, revision=old, count_only=True)
    assert (await lab.state.range(request)).count == 3


async def check_future_revision_is_refused(lab: StateLab) -> None:
    """A revision that is not yet cannot be read."""
    now = await lab.put("a")
    for end in ("", lab.end):
        with raises(InvalidArgument, "range in the future"):
            await lab.state.range(RangeRequest(start=lab.area, end=end, revision=now + 1))


async def check_empty_key_is_refused(lab: StateLab) -> None:
    """No key is empty."""
    with raises(InvalidArgument, "range of the empty key"):
        await lab.state.range(RangeRequest(start=""))
    with raises(InvalidArgument, "put of the empty key"):
        await lab.commit(Operation(kind=OperationKind.PUT, key=""))


# commit


async def check_compare_chooses_the_branch(lab: StateLab) -> None:
    """`success` if it holds, else `failure`; 0 means that the key is not."""
    absent = (Compare(key=lab.key("a"), revision=0),)
    created = await lab.commit(lab.putting("a", b"1"), compare=absent)
    assert created.succeeded
    again = await lab.commit(
        lab.putting("a", b"2"), compare=absent, failure=(lab.reading("a"), lab.putting("b"))
    )
    assert not again.succeeded and again.results[0].entries[0].value == b"1"
    assert await lab.all() == {"a": b"1", "b": b""}
    unchanged = (Compare(key=lab.key("a"), revision=created.revision),)
    assert (await lab.commit(lab.putting("a", b"3"), compare=unchanged)).succeeded
    assert not (await lab.commit(lab.putting("a", b"4"), compare=unchanged)).succeeded
    await lab.delete("a")
    assert (await lab.commit(lab.putting("a", b"5"), compare=absent)).succeeded


async def check_every_compare_must_hold(lab: StateLab) -> None:
    """One that does not hold is enough to fail, wherever it stands."""
    revision = await lab.put("a")
    good, bad = Compare(key=lab.key("a"), revision=revision), Compare(key=lab.key("b"), revision=9)
    for compare in ((good, bad), (bad, good)):
        result = await lab.commit(lab.putting("c"), compare=compare)
        assert (result.succeeded, result.results) == (False, ())
    assert (await lab.commit(lab.putting("c"), compare=(good, good))).succeeded


async def check_operations_see_earlier_ones(lab: StateLab) -> None:
    """A transaction's operations are done in order, each on what the ones before left."""
    await lab.put("a", b"old")
    result = await lab.commit(
        lab.reading("a", "z"), lab.putting("b", b"new"), lab.deleting("a"), lab.reading("a", "z")
    )
    first, put, deleted, last = result.results
    assert [e.value for e in first.entries] == [b"old"]
    assert (put.count, deleted.count) == (1, 1)
    assert [(e.value, e.revision) for e in last.entries] == [(b"new", result.revision)]


async def check_delete_returns_what_was(lab: StateLab) -> None:
    """One key or a range; the entries as they were before, and their number."""
    await lab.commit(*(lab.putting(name, name.encode()) for name in "abcd"))
    before = [await lab.get(name) for name in "bc"]
    result = await lab.commit(lab.deleting("b", "d"), lab.deleting("nothing"))
    assert [*result.results[0].entries] == before
    assert [r.count for r in result.results] == [2, 0]
    assert [*await lab.all()] == ["a", "d"]
    (quiet,) = (await lab.commit(replace(lab.deleting("a"), quiet=True))).results
    assert (quiet.count, quiet.entries) == (1, ())
    assert [*await lab.all()] == ["d"]


async def check_a_key_is_not_written_twice(lab: StateLab) -> None:
    """InvalidArgument, in either branch, and nothing is written."""
    before = await lab.put("a", b"old")
    twice = (
        (lab.putting("a"), lab.putting("a")),
        (lab.putting("a"), lab.deleting("a")),
        (lab.deleting("a", "z"), lab.putting("b")),
    )
    for operations in twice:
        with raises(InvalidArgument, "a key written twice"):
            await lab.commit(lab.putting("other"), *operations)
    assert await lab.all() == {"a": b"old"} and await lab.revision() == before


async def check_unknown_lease_is_not_found(lab: StateLab) -> None:
    """A put with a lease that is not writes nothing, nor do its neighbours."""
    before = await lab.put("a", b"old")
    with raises(NotFound, "put with an unknown lease"):
        await lab.commit(lab.putting("a", b"new"), lab.putting("b", lease=lab.key("no lease")))
    assert await lab.all() == {"a": b"old"} and await lab.revision() == before


async def check_same_transaction_is_done_once(lab: StateLab) -> None:
    """Sent again, it is answered alike, whatever happened since."""
    transaction = Transaction(
        id=str(uuid.uuid4()), success=(lab.putting("a", b"1"), lab.reading("a"))
    )
    first = await lab.state.commit(transaction)
    await lab.put("a", b"2")
    assert await lab.state.commit(transaction) == first
    entry = await lab.get("a")
    assert entry is not None and (entry.value, entry.version) == (b"2", 2)


async def check_failed_compare_is_answered_alike(lab: StateLab) -> None:
    """A transaction that took its failing branch takes it again, though it would succeed now."""
    transaction = Transaction(
        id=str(uuid.uuid4()),
        compare=(Compare(key=lab.key("a"), revision=0),),
        success=(lab.putting("b"),),
        failure=(lab.reading("a"),),
    )
    await lab.put("a", b"1")
    first = await lab.state.commit(transaction)
    await lab.delete("a")
    assert await lab.state.commit(transaction) == first
    assert not first.succeeded and await lab.all() == {}


async def check_same_transaction_at_once_is_done_once(lab: StateLab) -> None:
    """Two copies that meet in the store have the effect of one."""
    transaction = Transaction(id=str(uuid.uuid4()), success=(lab.putting("a"),))
    results = await asyncio.gather(*(lab.state.commit(transaction) for _ in range(5)))
    assert all(result == results[0] for result in results)
    entry = await lab.get("a")
    assert entry is not None and entry.version == 1


async def check_no_update_is_lost(lab: StateLab) -> None:
    """Many who compare and put at once: every success counts once."""
    await lab.put("a", b"0")

    async def add() -> None:
        while True:
            entry = await lab.get("a")
            assert entry is not None
            compare = (Compare(key=entry.key, revision=entry.revision),)
            put = lab.putting("a", b"%d" % (int(entry.value) + 1))
            if (await lab.commit(put, compare=compare)).succeeded:
                return

    await asyncio.gather(*(add() for _ in range(12)))
    entry = await lab.get("a")
    assert entry is not None and (entry.value, entry.version) == (b"12", 13)


async def check_revisions_are_unique(lab: StateLab) -> None:
    """Transactions at once get revisions of their own, without holes."""
    before = await lab.revision()
    revisions = await asyncio.gather(*(lab.put(str(n)) for n in range(40)))
    assert sorted(revisions) == [*range(before + 1, before + 41)]


async def check_refused_transaction_harms_no_other(lab: StateLab) -> None:
    """Those sent at the same moment are done, though their neighbours are refused."""
    bad = lab.commit(lab.putting("bad", lease=lab.key("no lease")))
    good = [lab.put(str(n), b"good") for n in range(8)]
    results = await asyncio.gather(*good[:4], bad, *good[4:], return_exceptions=True)
    assert [type(result) for result in results].count(NotFound) == 1
    assert await lab.all() == {str(n): b"good" for n in range(8)}
