"""Counting a job's ended pods, each exactly once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from sagong.model.numbers import natural
from sagong_replication_kube.indexes import parse_indexes
from sagong_replication_kube.item import Document, Item, moment
from sagong_replication_kube.job_policy import ignored
from sagong_replication_kube.work import Work

__all__ = ["INDEX", "TRACKING", "Count", "count", "hold", "index_of", "release"]

TRACKING: Final = "batch.kubernetes.io/job-tracking"
INDEX: Final = "batch.kubernetes.io/job-completion-index"


class Count(msgspec.Struct):
    """What has become of a job's pods. `uncounted` are uids that the numbers don't hold yet."""

    succeeded: int = 0
    failed: int = 0
    uncounted: dict[str, list[str]] = {}
    completed: set[int] = msgspec.field(default_factory=set)
    failed_indexes: set[int] = msgspec.field(default_factory=set)
    ending_indexes: set[int] = msgspec.field(default_factory=set)
    terminating: int = 0
    restarts: int = 0
    recent_failures: int = 0
    last_failure: float = 0.0
    # Uids were added that must be written before anything else is done about their pods.
    urgent: bool = False

    @property
    def pending(self) -> int:
        """Pods that are not fully counted yet."""
        return sum(map(len, self.uncounted.values()))

    @property
    def all_succeeded(self) -> int:
        """Successes, counted or about to be."""
        return self.succeeded + len(self.uncounted.get("succeeded", ()))

    @property
    def attempts(self) -> int:
        """What counts against the back-off limit."""
        return self.failed + len(self.uncounted.get("failed", ())) + self.restarts


def hold(meta: Document) -> None:
    """Let a new pod wait for being counted."""
    meta["finalizers"] = [*(meta.get("finalizers") or []), TRACKING]


def release(work: Work, pods: Iterable[Item]) -> None:
    """Let pods go that need not be counted."""
    for pod in pods:
        if TRACKING in (pod.meta.finalizers or ()):
            kept = [f for f in pod.meta.finalizers or () if f != TRACKING]
            work.patch(pod, {"metadata": {"finalizers": kept or None}})


def index_of(pod: Item) -> int:
    """A pod's completion index; -1 for none."""
    found = natural(pod.annotations.get(INDEX, ""))
    return -1 if found is None else found


def count(work: Work, item: Item, document: Document, pods: Sequence[Item]) -> Count:
    """Take ended pods into the count, and let those go that are in it."""
    before = document.get("status") or {}
    found = Count(
        succeeded=before.get("succeeded", 0),
        failed=before.get("failed", 0),
        completed=parse_indexes(before.get("completedIndexes") or ""),
        failed_indexes=parse_indexes(before.get("failedIndexes") or ""),
    )
    by_uid = {pod.uid: pod for pod in pods}
    _move_counted(work, found, before.get("uncountedTerminatedPods") or {}, by_uid)
    known = {uid for uids in found.uncounted.values() for uid in uids}
    for pod in pods:
        _take(work, found, document, pod, known)
    _tally_failures(found, document, pods)
    return found


def _move_counted(
    work: Work, found: Count, uncounted: dict[str, list[str]], by_uid: dict[str, Item]
) -> None:
    """Uids whose pods have been let go become numbers; the others are let go."""
    for result in ("succeeded", "failed"):
        for uid in uncounted.get(result) or ():
            pod = by_uid.get(uid)
            if pod is None or TRACKING not in (pod.meta.finalizers or ()):
                if result == "succeeded":
                    found.succeeded += 1
                else:
                    found.failed += 1
            else:
                found.uncounted.setdefault(result, []).append(uid)
                release(work, [pod])


def _take(work: Work, found: Count, document: Document, pod: Item, known: set[str]) -> None:
    phase = pod.status.phase
    tracked = TRACKING in (pod.meta.finalizers or ())
    ended = phase in ("Succeeded", "Failed")
    if pod.deleting and not ended:
        found.terminating += 1
        found.ending_indexes.add(index_of(pod))
    if not tracked or pod.uid in known:
        return
    indexed = document["spec"].get("completionMode") == "Indexed"
    if phase == "Succeeded":
        if indexed and index_of(pod) in found.completed:
            release(work, [pod])
            return
        _note(found, "succeeded", pod)
        if indexed and 0 <= index_of(pod) < (document["spec"].get("completions") or 0):
            found.completed.add(index_of(pod))
    elif phase == "Failed" or (pod.deleting and _counts_when_deleted(document)):
        if ignored(document, pod):
            release(work, [pod])
        else:
            _note(found, "failed", pod)


def _counts_when_deleted(document: Document) -> bool:
    return bool(document["spec"].get("podReplacementPolicy") != "Failed")


def _note(found: Count, result: str, pod: Item) -> None:
    found.urgent = True
    found.uncounted.setdefault(result, []).append(pod.uid)


def _tally_failures(found: Count, document: Document, pods: Sequence[Item]) -> None:
    """Failures in a row since the last success, for the pause; restarts in place; lost indexes."""
    last_success = 0.0
    failures = []
    for pod in pods:
        ended = _ended_at(pod)
        if pod.status.phase == "Succeeded":
            last_success = max(last_success, ended)
        elif pod.status.phase == "Failed":
            failures.append(ended)
        statuses = (
            *(pod.status.container_statuses or ()),
            *(pod.status.init_container_statuses or ()),
        )
        if pod.spec.restart_policy == "OnFailure" and pod.status.phase in ("Running", "Pending"):
            found.restarts += sum(status.restart_count for status in statuses)
    recent = [ended for ended in failures if ended > last_success]
    found.recent_failures = len(recent)
    found.last_failure = max(recent, default=0.0)
    limit = document["spec"].get("backoffLimitPerIndex")
    if limit is not None:
        per_index: dict[int, int] = {}
        for pod in pods:
            if pod.status.phase == "Failed":
                per_index[index_of(pod)] = per_index.get(index_of(pod), 0) + 1
        lost = {index for index, number in per_index.items() if number > limit}
        found.failed_indexes |= lost - found.completed


def _ended_at(pod: Item) -> float:
    times = [
        moment(status.state.terminated.finished_at)
        for status in pod.status.container_statuses or ()
        if status.state is not None and status.state.terminated is not None
    ]
    return max(times, default=0.0) or pod.created
