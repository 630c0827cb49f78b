"""Checks of the state suite: leases, crashes, compaction, snapshots, status."""

from __future__ import annotations

import asyncio
import uuid

from sagong.conformance.refusals import raises
from sagong.conformance.state_lab import (
    LEASE_SECONDS,
    PATIENCE,
    StateLab,
    next_batch,
    next_events,
    values_of,
    wait_until,
)
from sagong.contracts.state import (
    CompactRequest,
    Lease,
    LeaseRef,
    RangeRequest,
    State,
    Transaction,
    WatchRequest,
)
from sagong.errors import Conflict, Gone, InvalidArgument, NotFound

__all__ = [
    "check_acknowledged_survives_a_crash",
    "check_compaction_drops_history_only",
    "check_compaction_knows_its_bounds",
    "check_compaction_survives_a_crash",
    "check_fresh_instance_starts_from_a_snapshot",
    "check_keys_vanish_with_their_lease",
    "check_last_put_decides_the_lease",
    "check_lease_is_granted_once",
    "check_lease_needs_a_time",
    "check_leases_have_their_full_time_after_a_crash",
    "check_quiet_watch_survives_compaction",
    "check_renewed_lease_lives",
    "check_revoked_lease_takes_its_keys",
    "check_same_transaction_after_a_crash_is_done_once",
    "check_snapshot_is_of_one_revision",
    "check_status_counts",
    "check_unknown_lease_is_not_renewed",
    "check_watch_of_compacted_history_is_gone",
]


# leases


async def check_lease_is_granted_once(lab: StateLab) -> None:
    """Listed as made; again it is a renewal; with another time a conflict."""
    lease = Lease(id=lab.key("l"), seconds=60)
    assert await lab.state.grant(lease) == lease
    assert await lab.state.grant(lease) == lease
    with raises(Conflict, "a lease granted with another time"):
        await lab.state.grant(Lease(id=lease.id, seconds=61))
    assert [x for x in (await lab.state.leases()).leases if x.id == lease.id] == [lease]
    await lab.state.revoke(LeaseRef(id=lease.id))


async def check_lease_needs_a_time(lab: StateLab) -> None:
    """Not nothing, and not less."""
    for seconds in (0.0, -1.0):
        with raises(InvalidArgument, f"a lease of {seconds} seconds"):
            await lab.state.grant(Lease(id=lab.key("l"), seconds=seconds))


async def check_keys_vanish_with_their_lease(lab: StateLab) -> None:
    """Unrenewed, it ends: keys are deleted, watchers hear of it, renewal is NotFound."""
    lease = Lease(id=lab.key("l"), seconds=LEASE_SECONDS)
    await lab.state.grant(lease)
    async with lab.watch(lab.watching()) as batches:
        await next_batch(batches)
        await lab.commit(lab.putting("a", lease=lease.id), lab.putting("b", lease=lease.id))
        await lab.put("stays")
        entry = await lab.get("a")
        assert entry is not None and entry.lease == lease.id
        events = await next_events(batches, 5)
    assert sorted((e.entry.key, e.deleted) for e in events[3:]) == [
        (lab.key("a"), True),
        (lab.key("b"), True),
    ]
    assert [*await lab.all()] == ["stays"]
    assert lease not in (await lab.state.leases()).leases
    with raises(NotFound, "renewal of a lease that has ended"):
        await lab.state.renew(LeaseRef(id=lease.id))


async def check_renewed_lease_lives(lab: StateLab) -> None:
    """As long as it is renewed, by renewal or by grant, volatile or not."""
    leases = [
        Lease(id=lab.key(str(volatile)), seconds=LEASE_SECONDS, volatile=volatile)
        for volatile in (False, True)
    ]
    for lease in leases:
        await lab.state.grant(lease)
        await lab.put(lease.id.removeprefix(lab.area), lease=lease.id)
    revision = await lab.revision()
    for n in range(6):
        await asyncio.sleep(LEASE_SECONDS / 4)
        for lease in leases:
            again = lab.state.renew(LeaseRef(id=lease.id)) if n % 2 else lab.state.grant(lease)
            assert await again == lease
    assert len(await lab.all()) == 2
    assert await lab.revision() == revision, "a renewal took a revision"

    async def ended() -> bool:
        return not await lab.all()

    await wait_until(ended, "leases end that are not renewed any more")


async def check_unknown_lease_is_not_renewed(lab: StateLab) -> None:
    """What never was cannot be renewed; ended it already is."""
    with raises(NotFound, "renewal of an unknown lease"):
        await lab.state.renew(LeaseRef(id=lab.key("l")))
    await lab.state.revoke(LeaseRef(id=lab.key("l")))


async def check_revoked_lease_takes_its_keys(lab: StateLab) -> None:
    """At once and at one revision; revoking again is no error; the id is free again."""
    lease = Lease(id=lab.key("l"), seconds=60)
    await lab.state.grant(lease)
    await lab.commit(*(lab.putting(name, lease=lease.id) for name in "abc"))
    before = await lab.put("stays")
    await lab.state.revoke(LeaseRef(id=lease.id))
    await lab.state.revoke(LeaseRef(id=lease.id))
    assert [*await lab.all()] == ["stays"] and await lab.revision() == before + 1
    with raises(NotFound, "a put with a revoked lease"):
        await lab.put("d", lease=lease.id)
    longer = Lease(id=lease.id, seconds=61)
    assert await lab.state.grant(longer) == longer
    await lab.state.revoke(LeaseRef(id=lease.id))


async def check_last_put_decides_the_lease(lab: StateLab) -> None:
    """A key put again without its lease, or with another, leaves the first one."""
    one, two = (Lease(id=lab.key(name), seconds=60) for name in ("one", "two"))
    for lease in (one, two):
        await lab.state.grant(lease)
    for name in "abc":
        await lab.put(name, lease=one.id)
    await lab.put("a")
    await lab.put("b", lease=two.id)
    await lab.state.revoke(LeaseRef(id=one.id))
    assert [*await lab.all()] == ["a", "b"]
    await lab.state.revoke(LeaseRef(id=two.id))
    assert [*await lab.all()] == ["a"]


# crash


async def check_acknowledged_survives_a_crash(lab: StateLab) -> None:
    """Everything that was acknowledged is there, at its revisions, with its history."""
    if lab.restart is None:
        return
    first = await lab.put("a", b"1")
    await asyncio.gather(*(lab.put(str(n), b"x") for n in range(30)))
    await lab.delete("7")
    await lab.put("a", b"2")
    expected, revision = await lab.all(), await lab.revision()
    lab.state = await lab.restart()
    assert await lab.all() == expected and await lab.revision() == revision
    assert await lab.all(first) == {"a": b"1"}
    assert await lab.put("b") == revision + 1


async def check_same_transaction_after_a_crash_is_done_once(lab: StateLab) -> None:
    """Ten minutes long, a crash or not."""
    if lab.restart is None:
        return
    transaction = Transaction(id=str(uuid.uuid4()), success=(lab.putting("a"), lab.reading("a")))
    first = await lab.state.commit(transaction)
    lab.state = await lab.restart()
    assert await lab.state.commit(transaction) == first
    entry = await lab.get("a")
    assert entry is not None and entry.version == 1


async def check_leases_have_their_full_time_after_a_crash(lab: StateLab) -> None:
    """They live on, with their keys, and end when nobody renews them."""
    if lab.restart is None:
        return
    for name, volatile in (("l", False), ("v", True)):
        lease = Lease(id=lab.key(name), seconds=LEASE_SECONDS, volatile=volatile)
        await lab.state.grant(lease)
        await lab.put(name, lease=lease.id)
    kept = Lease(id=lab.key("kept"), seconds=60)
    await lab.state.grant(kept)
    await lab.put("kept", lease=kept.id)
    lab.state = await lab.restart()
    assert kept in (await lab.state.leases()).leases

    async def ended() -> bool:
        return [*await lab.all()] == ["kept"]

    await wait_until(ended, "leases end after a crash")
    await lab.state.revoke(LeaseRef(id=kept.id))


# compaction


async def check_compaction_drops_history_only(lab: StateLab) -> None:
    """Before the revision: Gone. At it and after: as before. The newest entries stay."""
    first = await lab.put("a", b"1")
    await lab.put("b", b"1")
    await lab.delete("b")
    at = await lab.put("a", b"2")
    expected = await lab.all()
    await lab.put("a", b"3")
    status = await lab.state.compact(CompactRequest(revision=at))
    assert status.compacted == at
    for end in ("", lab.end):
        with raises(Gone, "range before the compacted revision"):
            await lab.state.range(RangeRequest(start=lab.area, end=end, revision=first))
        with raises(Gone, "range just before the compacted revision"):
            await lab.state.range(RangeRequest(start=lab.area, end=end, revision=at - 1))
    assert await lab.all(at) == expected == {"a": b"2"}
    assert await lab.all() == {"a": b"3"}
    entry = await lab.get("a")
    assert entry is not None and (entry.create_revision, entry.version) == (first, 3)


async def check_compaction_knows_its_bounds(lab: StateLab) -> None:
    """Not the future; what is compacted already is no error; now is allowed."""
    now = await lab.put("a", b"1")
    with raises(InvalidArgument, "compaction in the future"):
        await lab.state.compact(CompactRequest(revision=now + 1))
    assert (await lab.state.compact(CompactRequest(revision=now))).compacted == now
    assert (await lab.state.compact(CompactRequest(revision=now - 1))).compacted == now
    assert await lab.all() == {"a": b"1"}
    assert await lab.put("a", b"2") == now + 1


async def check_watch_of_compacted_history_is_gone(lab: StateLab) -> None:
    """One that needs dropped history ends with Gone; one that has caught up goes on."""
    start = await lab.put("a", b"1")
    async with lab.watch(lab.watching()) as caught_up:
        await next_batch(caught_up)
        for n in range(5):
            await lab.put("a", b"%d" % n)
        await next_events(caught_up, 5)
        now = await lab.revision()
        await lab.state.compact(CompactRequest(revision=now))
        with raises(Gone, "watch from compacted history"):
            async with lab.watch(lab.watching(start)) as batches:
                for _ in range(7):
                    await next_batch(batches)
        await lab.put("a", b"new")
        assert values_of(await next_events(caught_up, 1)) == [b"new"]
    async with lab.watch(lab.watching(now)) as batches:
        assert values_of(await next_events(batches, 1)) == [b"new"]


async def check_quiet_watch_survives_compaction(lab: StateLab) -> None:
    """A watch that waits needs no history, however much others write."""
    async with lab.watch(WatchRequest(start=lab.key("a"))) as batches:
        await next_batch(batches)
        waiting = asyncio.ensure_future(anext(batches))
        for n in range(20):
            revision = await lab.put("other", b"%d" % n)
        await lab.state.compact(CompactRequest(revision=revision))
        await lab.put("a", b"mine")
        async with asyncio.timeout(PATIENCE):
            assert values_of([*(await waiting).events]) == [b"mine"]


async def check_compaction_survives_a_crash(lab: StateLab) -> None:
    """What was dropped stays dropped."""
    if lab.restart is None:
        return
    first = await lab.put("a", b"1")
    now = await lab.put("a", b"2")
    await lab.state.compact(CompactRequest(revision=now))
    lab.state = await lab.restart()
    assert (await lab.state.status()).compacted == now
    with raises(Gone, "compacted before a crash"):
        await lab.get("a", first)


# snapshot and status


async def _snapshot(state: State) -> bytes:
    data = b"".join([chunk.data async for chunk in state.snapshot()])
    assert data, "the snapshot is empty"
    return data


async def check_fresh_instance_starts_from_a_snapshot(lab: StateLab) -> None:
    """With all entries, their revisions and leases, and the store's revision."""
    lease = Lease(id=lab.key("l"), seconds=60)
    await lab.state.grant(lease)
    await lab.put("a", b"1", lease=lease.id)
    await lab.put("b", b"x" * 600_000)
    await lab.put("a", b"2", lease=lease.id)
    everything = RangeRequest(start="", end="\0")
    before, status = await lab.state.range(everything), await lab.state.status()
    data = await _snapshot(lab.state)
    if lab.restored is None:
        return
    await lab.put("a", b"after the snapshot")
    async with lab.restored(data) as fresh:
        after = await fresh.range(everything)
        assert after.entries == before.entries and after.revision == before.revision
        assert (await fresh.status()).keys == status.keys
        assert lease in (await fresh.leases()).leases
        put = Transaction(id=str(uuid.uuid4()), success=(lab.putting("c"),))
        assert (await fresh.commit(put)).revision == before.revision + 1
    assert (await lab.get("c")) is None
    await lab.state.revoke(LeaseRef(id=lease.id))


async def check_snapshot_is_of_one_revision(lab: StateLab) -> None:
    """Taken while others write: what was written together is in it together."""
    writing = asyncio.create_task(_write_pairs(lab))
    try:
        await asyncio.sleep(0.05)
        data = await _snapshot(lab.state)
    finally:
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
    if lab.restored is None:
        return
    async with lab.restored(data) as fresh:
        request = RangeRequest(start=lab.area, end=lab.end)
        values = {entry.value for entry in (await fresh.range(request)).entries}
        assert len(values) == 1, "the snapshot split a transaction"


async def _write_pairs(lab: StateLab) -> None:
    n = 0
    while True:
        n += 1
        await lab.commit(*(lab.putting(name, b"%d" % n) for name in "abc"))


async def check_status_counts(lab: StateLab) -> None:
    """Keys that are, not those that were; a size; the revision of the last write."""
    for _ in range(3):
        try:
            await _status_counts(lab)
            return
        except AssertionError:
            # Leases of other checks in the same store may have expired amid that.
            for name in "abc":
                await lab.delete(name)
    await _status_counts(lab)


async def _status_counts(lab: StateLab) -> None:
    before = await lab.state.status()
    await lab.commit(*(lab.putting(name) for name in "abc"))
    await lab.put("a", b"again")
    await lab.delete("b")
    revision = await lab.delete("b")
    status = await lab.state.status()
    assert status.keys == before.keys + 2
    assert status.revision == revision == before.revision + 3
    assert status.size > 0 and 0 < status.compacted <= status.revision
