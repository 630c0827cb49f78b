"""Checks of the state suite: watches."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from sagong.conformance.refusals import raises
from sagong.conformance.state_lab import (
    PATIENCE,
    StateLab,
    next_batch,
    next_events,
    values_of,
)
from sagong.contracts.state import (
    WatchBatch,
    WatchRequest,
)
from sagong.errors import InvalidArgument

__all__ = [
    "check_first_revision_can_be_resumed_from",
    "check_idle_watch_tells_its_progress",
    "check_slow_watcher_blocks_nobody_and_loses_nothing",
    "check_transaction_comes_in_one_batch",
    "check_watch_begins_with_an_empty_batch",
    "check_watch_gives_past_changes_in_order",
    "check_watch_gives_previous_entries_when_asked",
    "check_watch_of_the_future_is_refused",
    "check_watch_resumes_without_gap_or_double",
    "check_watch_sees_only_its_range",
    "check_watch_tells_of_deletions",
    "check_watch_without_progress_is_silent",
    "check_watchers_see_the_same",
]


async def check_watch_begins_with_an_empty_batch(lab: StateLab) -> None:
    """At once, with the revision that it starts after."""
    await lab.put("a")
    for from_now in (True, False):
        now = await lab.revision()
        async with lab.watch(lab.watching(0 if from_now else now)) as batches:
            assert await next_batch(batches) == WatchBatch(revision=now)
            await lab.put("a", b"new")
            (event,) = await next_events(batches, 1)
            assert event.entry == await lab.get("a") and not event.deleted


async def check_first_revision_can_be_resumed_from(lab: StateLab) -> None:
    """Even an empty store's revision is above 0, which would mean now."""
    assert await lab.revision() > 0


async def check_watch_gives_past_changes_in_order(lab: StateLab) -> None:
    """From an old revision: every change since, once, then what comes."""
    start = await lab.put("a", b"before")
    for n in range(25):
        await lab.put("ab"[n % 2], b"%d" % n)
    async with lab.watch(lab.watching(start)) as batches:
        await lab.put("c", b"25")
        events = await next_events(batches, 26)
        assert values_of(events) == [b"%d" % n for n in range(26)]
        revisions = [event.entry.revision for event in events]
        assert revisions == [*range(start + 1, start + 27)]


async def check_watch_sees_only_its_range(lab: StateLab) -> None:
    """One key, a range without its end, or all from a key on; live and from history."""
    start = await lab.revision()
    b, c = lab.key("b"), lab.key("c")
    cases = (
        (WatchRequest(start=b), [b"b", b"end"]),
        (WatchRequest(start=b, end=c), [b"b", b"bb", b"end"]),
        (WatchRequest(start=b, end="\0"), [b"b", b"bb", b"c", b"end"]),
    )
    async with AsyncExitStack() as stack:
        watches = []
        for asked, expected in cases:
            live = await stack.enter_async_context(lab.watch(asked))
            await next_batch(live)
            watches.append((live, expected))
        for name in ("a", "b", "bb", "c"):
            await lab.put(name, name.encode())
        await lab.put("b", b"end")
        for asked, expected in cases:
            request = WatchRequest(start=asked.start, end=asked.end, revision=start)
            watches.append((await stack.enter_async_context(lab.watch(request)), expected))
        for batches, expected in watches:
            assert values_of(await next_events(batches, len(expected))) == expected


async def check_transaction_comes_in_one_batch(lab: StateLab) -> None:
    """All its changes have one revision and are never split, live or from history."""
    start = await lab.revision()
    async with lab.watch(lab.watching()) as live:
        await next_batch(live)
        names = [f"{n:04}" for n in range(700)]
        for _ in range(3):
            result = await lab.commit(*(lab.putting(name) for name in names))
        async with lab.watch(lab.watching(start)) as history:
            for batches in (live, history):
                seen: dict[int, int] = {}
                while seen.get(result.revision, 0) < len(names):
                    batch = await next_batch(batches)
                    revisions = [event.entry.revision for event in batch.events]
                    assert all(revision <= batch.revision for revision in revisions)
                    assert not {*revisions} & {*seen}, "a transaction was split"
                    seen |= {revision: revisions.count(revision) for revision in revisions}
                assert {*seen.values()} == {len(names)} and len(seen) == 3


async def check_watch_tells_of_deletions(lab: StateLab) -> None:
    """`deleted`, with the key and the revision of the deletion."""
    start = await lab.put("a", b"value")
    gone = await lab.delete("a")
    async with lab.watch(lab.watching(start)) as batches:
        (event,) = await next_events(batches, 1)
        assert event.deleted
        entry = event.entry
        assert (entry.key, entry.revision, entry.value) == (lab.key("a"), gone, b"")


async def check_watch_gives_previous_entries_when_asked(lab: StateLab) -> None:
    """The entry as it was, None for a creation; nothing unless asked, live and from history."""
    start = await lab.revision()
    async with (
        lab.watch(lab.watching(previous=True)) as live,
        lab.watch(lab.watching()) as silent,
    ):
        await next_batch(live)
        await next_batch(silent)
        await lab.put("a", b"1")
        first = await lab.get("a")
        await lab.put("a", b"2")
        second = await lab.get("a")
        await lab.delete("a")
        await lab.put("a", b"3")
        async with lab.watch(lab.watching(start, previous=True)) as history:
            for batches in (live, history):
                events = await next_events(batches, 4)
                assert [e.previous for e in events] == [None, first, second, None]
        assert [e.previous for e in await next_events(silent, 4)] == [None] * 4


async def check_watch_resumes_without_gap_or_double(lab: StateLab) -> None:
    """Stopped anywhere and begun again from the last batch's revision, while others write."""
    position = await lab.revision()

    async def write() -> None:
        for n in range(150):
            await lab.put("a", b"%d" % n)

    writing = asyncio.create_task(write())
    seen: list[bytes] = []
    try:
        while len(seen) < 150:
            async with lab.watch(lab.watching(position)) as batches:
                assert (await next_batch(batches)).revision == position
                for _ in range(3):
                    if len(seen) < 150:
                        batch = await next_batch(batches)
                        position = batch.revision
                        seen += values_of([*batch.events])
    finally:
        await writing
    assert seen == [b"%d" % n for n in range(150)]


async def check_slow_watcher_blocks_nobody_and_loses_nothing(lab: StateLab) -> None:
    """Writers and other watchers go on; it gets everything when it asks."""
    async with lab.watch(lab.watching()) as slow, lab.watch(lab.watching()) as quick:
        await next_batch(slow)
        await next_batch(quick)
        value = b"x" * 20_000
        async with asyncio.timeout(PATIENCE):
            for start in range(0, 600, 50):
                await asyncio.gather(*(lab.put(f"{start + n:04}", value) for n in range(50)))
        for batches in (quick, slow):
            events = await next_events(batches, 600)
            assert sorted(e.entry.key for e in events) == [*map(lab.key, _numbers(600))]
            revisions = [e.entry.revision for e in events]
            assert revisions == sorted(set(revisions))


def _numbers(count: int) -> list[str]:
    return [f"{n:04}" for n in range(count)]


async def check_idle_watch_tells_its_progress(lab: StateLab) -> None:
    """Empty batches with the current revision, though nothing of its range changed."""
    request = WatchRequest(start=lab.key("a"), progress_seconds=0.05)
    async with lab.watch(request) as batches:
        await next_batch(batches)
        now = await lab.put("other")
        while (batch := await next_batch(batches)).revision < now:
            assert batch.events == ()
        assert batch == WatchBatch(revision=now)
        await lab.put("a", b"new")
        assert values_of(await next_events(batches, 1)) == [b"new"]


async def check_watch_without_progress_is_silent(lab: StateLab) -> None:
    """Nothing comes while nothing of its range changes."""
    async with lab.watch(WatchRequest(start=lab.key("a"))) as batches:
        await next_batch(batches)
        waiting = asyncio.ensure_future(anext(batches))
        await lab.put("other")
        await asyncio.sleep(0.1)
        assert not waiting.done(), "an idle watch spoke without being asked"
        await lab.put("a", b"mine")
        async with asyncio.timeout(PATIENCE):
            assert values_of([*(await waiting).events]) == [b"mine"]


async def check_watch_of_the_future_is_refused(lab: StateLab) -> None:
    """A revision that is not yet belongs to another store."""
    now = await lab.revision()
    with raises(InvalidArgument, "watch from the future"):
        async with lab.watch(lab.watching(now + 1000)) as batches:
            await next_batch(batches)


async def check_watchers_see_the_same(lab: StateLab) -> None:
    """Many at once, each gets every change in the same order."""
    requests = [lab.watching() for _ in range(10)]
    watches = [lab.state.watch(request) for request in requests]
    try:
        for watch in watches:
            await next_batch(watch)
        await asyncio.gather(*(lab.put(str(n), b"%d" % n) for n in range(30)))
        seen = [await next_events(watch, 30) for watch in watches]
        assert all(events == seen[0] for events in seen)
    finally:
        for watch in watches:
            await watch.aclose()  # type: ignore[attr-defined]
