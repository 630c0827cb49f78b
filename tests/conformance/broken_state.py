"""The fake store broken in one way each: the state suite must catch every one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

from msgspec.structs import replace
from tests.conformance.fake_state import Disk, FakeState, check_range

from sagong.contracts.state import (
    Chunk,
    Compare,
    Entry,
    Lease,
    LeaseRef,
    Operation,
    RangeRequest,
    RangeResult,
    StateStatus,
    Transaction,
    TransactionResult,
    WatchBatch,
    WatchEvent,
    WatchRequest,
)
from sagong.errors import Gone, InvalidArgument, NotFound

__all__ = ["MUTATIONS"]

# Each mutation names the check of the suite that must catch it.


class RangeIncludesItsEnd(FakeState):
    caught_by = "range_excludes_its_end"

    def matches(self, key: str, request: RangeRequest) -> bool:
        return super().matches(key, request) or key == request.end


class RestIsOneKey(FakeState):
    caught_by = "range_ends_have_two_special_forms"

    def matches(self, key: str, request: RangeRequest) -> bool:
        return key == request.start if request.end == "\0" else super().matches(key, request)


class OrderIgnoresCase(FakeState):
    caught_by = "keys_are_ordered_as_utf8_bytes"

    def ordered(self, entries: Iterable[Entry]) -> list[Entry]:
        return sorted(entries, key=lambda e: e.key.lower())


class OrderIsUtf16(FakeState):
    caught_by = "keys_are_ordered_as_utf8_bytes"

    def ordered(self, entries: Iterable[Entry]) -> list[Entry]:
        return sorted(entries, key=lambda e: e.key.encode("utf-16-be"))


class CountIsOfTheShown(FakeState):
    caught_by = "limit_cuts_and_says_so"

    def counted(self, found: list[Entry], shown: list[Entry]) -> int:
        return len(shown)


class KeysOnlyShowsValues(FakeState):
    caught_by = "keys_only_and_count_only_leave_out"

    def shown(self, entry: Entry, request: RangeRequest) -> Entry:
        return entry


class OldReadsAreNow(FakeState):
    caught_by = "old_revisions_can_be_read"

    async def range(self, request: RangeRequest) -> RangeResult:
        self.check_readable(request.revision)
        return await super().range(replace(request, revision=0))


class FutureIsNow(FakeState):
    caught_by = "future_revision_is_refused"

    def check_readable(self, revision: int) -> None:
        super().check_readable(min(revision, self.disk.revision))


class OneCompareIsEnough(FakeState):
    caught_by = "every_compare_must_hold"

    def holds(self, compares: tuple[Compare, ...]) -> bool:
        return not compares or any(self.revision_of(c.key) == c.revision for c in compares)


class AbsenceAlwaysHolds(FakeState):
    caught_by = "compare_chooses_the_branch"

    def holds(self, compares: tuple[Compare, ...]) -> bool:
        return super().holds(tuple(c for c in compares if c.revision))


class KeysMayBeWrittenTwice(FakeState):
    caught_by = "a_key_is_not_written_twice"

    def check(self, transaction: Transaction) -> None:
        for operation in (*transaction.success, *transaction.failure):
            check_range(operation.key, operation.end)


class RefusedTransactionIsHalfDone(FakeState):
    caught_by = "unknown_lease_is_not_found"

    def check_leases(self, branch: tuple[Operation, ...]) -> None:
        for n, operation in enumerate(branch):
            if operation.lease and operation.lease not in self.disk.leases:
                self.carry_out(branch[:n], True)
                raise NotFound("no such lease: grant it")


class AnyLeaseWillDo(FakeState):
    caught_by = "unknown_lease_is_not_found"

    def check_leases(self, branch: tuple[Operation, ...]) -> None:
        return


class RevisionPerOperation(FakeState):
    caught_by = "revision_grows_by_one_per_writing_transaction"

    def close_revision(self, revision: int) -> None:
        changes = [c for c in self.disk.changes if c.entry.revision == revision]
        super().close_revision(revision + len(changes) - 1)


class EveryTransactionTakesARevision(FakeState):
    caught_by = "what_writes_nothing_takes_no_revision"

    def carry_out(self, branch: tuple[Operation, ...], succeeded: bool) -> TransactionResult:
        before = self.disk.revision
        result = super().carry_out(branch, succeeded)
        self.disk.revision = before + 1
        return replace(result, revision=before + 1)


class VersionGoesOnAfterDeletion(FakeState):
    caught_by = "entry_tells_its_history"

    def put(self, operation: Operation, revision: int) -> None:
        past = [c for c in self.disk.changes if c.entry.key == operation.key and not c.deleted]
        super().put(operation, revision)
        entry = replace(self.now[operation.key], version=len(past) + 1)
        self.now[operation.key] = entry
        self.disk.changes[-1] = replace(self.disk.changes[-1], entry=entry)


class RepeatIsDoneAgain(FakeState):
    caught_by = "same_transaction_is_done_once"

    def remember(self, transaction: Transaction, result: TransactionResult) -> None:
        return


class RepeatIsAnsweredFromNow(FakeState):
    caught_by = "same_transaction_is_done_once"

    def repeated(self, transaction: Transaction, known: TransactionResult) -> TransactionResult:
        return replace(known, revision=self.disk.revision)


class FailedCompareIsForgotten(FakeState):
    caught_by = "failed_compare_is_answered_alike"

    def remember(self, transaction: Transaction, result: TransactionResult) -> None:
        if result.succeeded:
            super().remember(transaction, result)


class AnswersDieWithTheProcess(FakeState):
    caught_by = "same_transaction_after_a_crash_is_done_once"

    def __init__(self, disk: Disk) -> None:
        disk.answers.clear()
        super().__init__(disk)


class CrashLosesTheLastWrite(FakeState):
    caught_by = "acknowledged_survives_a_crash"

    def __init__(self, disk: Disk) -> None:
        if disk.changes:
            disk.changes.pop()
        super().__init__(disk)


class LeasesDieWithTheProcess(FakeState):
    caught_by = "leases_have_their_full_time_after_a_crash"

    def __init__(self, disk: Disk) -> None:
        disk.leases.clear()
        super().__init__(disk)


class StoreBeginsAtZero(FakeState):
    caught_by = "first_revision_can_be_resumed_from"

    def __init__(self, disk: Disk) -> None:
        if not disk.changes:
            disk.revision = disk.compacted = 0
        super().__init__(disk)


class WatchForgetsThePast(FakeState):
    caught_by = "watch_gives_past_changes_in_order"

    def begin(self, request: WatchRequest) -> int:
        return self.disk.revision


class WatchRepeatsItsRevision(FakeState):
    caught_by = "watch_resumes_without_gap_or_double"

    def batches(self, request: WatchRequest, position: int) -> list[WatchBatch]:
        return super().batches(request, position - 1 if request.revision else position)


class WatchSplitsTransactions(FakeState):
    caught_by = "transaction_comes_in_one_batch"

    def batches(self, request: WatchRequest, position: int) -> list[WatchBatch]:
        return [
            WatchBatch(revision=batch.revision, events=batch.events[n : n + 100])
            for batch in super().batches(request, position)
            for n in range(0, len(batch.events), 100)
        ]


class WatchHidesDeletions(FakeState):
    caught_by = "watch_tells_of_deletions"

    def event(self, change: WatchEvent, request: WatchRequest) -> WatchEvent:
        return replace(super().event(change, request), deleted=False)


class WatchAlwaysShowsPrevious(FakeState):
    caught_by = "watch_gives_previous_entries_when_asked"

    def event(self, change: WatchEvent, request: WatchRequest) -> WatchEvent:
        return change


class WatchSeesEverything(FakeState):
    caught_by = "watch_sees_only_its_range"

    def batches(self, request: WatchRequest, position: int) -> list[WatchBatch]:
        return super().batches(replace(request, start="", end="\0"), position)


class WatchDropsWhatSlowReadersMissed(FakeState):
    caught_by = "slow_watcher_blocks_nobody_and_loses_nothing"

    def batches(self, request: WatchRequest, position: int) -> list[WatchBatch]:
        return super().batches(request, max(position, self.disk.revision - 100))


class WatchNeverTellsProgress(FakeState):
    caught_by = "idle_watch_tells_its_progress"

    def watch(self, request: WatchRequest) -> AsyncIterator[WatchBatch]:
        return super().watch(replace(request, progress_seconds=0.0))


class LeasesNeverEnd(FakeState):
    caught_by = "keys_vanish_with_their_lease"

    def start_lease(self, lease: Lease) -> None:
        return


class RenewalDoesNothing(FakeState):
    caught_by = "renewed_lease_lives"

    def start_lease(self, lease: Lease) -> None:
        if lease.id not in self.timers:
            super().start_lease(lease)


class RevokedLeaseLeavesItsKeys(FakeState):
    caught_by = "revoked_lease_takes_its_keys"

    async def revoke(self, lease: LeaseRef) -> None:
        self.disk.leases.pop(lease.id, None)


class LeaseMayChangeItsTime(FakeState):
    caught_by = "lease_is_granted_once"

    async def grant(self, lease: Lease) -> Lease:
        self.disk.leases.pop(lease.id, None)
        return await super().grant(lease)


class CompactionIsForgotten(FakeState):
    caught_by = "compaction_drops_history_only"

    def check_readable(self, revision: int) -> None:
        if revision > self.disk.revision:
            raise InvalidArgument("a revision that is not yet: wait")


class CompactionDropsTooMuch(FakeState):
    caught_by = "compaction_drops_history_only"

    def check_readable(self, revision: int) -> None:
        if revision and revision <= self.disk.compacted:
            raise Gone("a compacted revision: read anew")


class CompactedWatchSkips(FakeState):
    caught_by = "watch_of_compacted_history_is_gone"

    def check_kept(self, position: int) -> None:
        return


class SnapshotIsEmpty(FakeState):
    caught_by = "fresh_instance_starts_from_a_snapshot"

    async def snapshot(self) -> AsyncIterator[Chunk]:
        yield Chunk(data=Disk().dump())


class StatusCountsDeletedKeys(FakeState):
    caught_by = "status_counts"

    async def status(self) -> StateStatus:
        keys = len({change.entry.key for change in self.disk.changes})
        return replace(await super().status(), keys=keys)


MUTATIONS = [kind for kind in FakeState.__subclasses__() if kind.__module__ == __name__]
