"""CronJobs: a job at each due time.

Source: https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Final

from sagong.errors import InvalidArgument
from sagong.model.cron import Schedule, parse
from sagong.model.times import time_text
from sagong_replication_kube.item import Document, Item, moment
from sagong_replication_kube.job import finished
from sagong_replication_kube.ownership import controller_reference
from sagong_replication_kube.work import Work

__all__ = ["reconcile"]

JOBS: Final = "batch/v1/jobs"
SCHEDULED: Final = "batch.kubernetes.io/cronjob-scheduled-timestamp"
# Of more missed times than this it is told, as they mean that nobody looked for long.
MANY_MISSED: Final = 100


def reconcile(work: Work, item: Item) -> None:
    """Start what is due, forget what is old."""
    document = item.document()
    if item.deleting:
        return
    jobs = work.world.controlled(item.uid, JOBS)
    documents = {job.uid: job.document() for job in jobs}
    running = [job for job in jobs if not finished(documents[job.uid])]
    status = _status(document, jobs, documents, running)
    _forget(work, document, jobs, documents)
    if not document["spec"].get("suspend"):
        try:
            schedule = parse(
                document["spec"]["schedule"], document["spec"].get("timeZone") or "UTC"
            )
        except InvalidArgument as error:
            work.event(item, "Warning", "UnparseableSchedule", error.message)
        else:
            _start_due(work, item, document, status, schedule, running)
    work.status(item, status)


def _status(
    document: Document,
    jobs: Sequence[Item],
    documents: dict[str, Document],
    running: Sequence[Item],
) -> Document:
    before = document.get("status") or {}
    status: Document = {}
    if running:
        status["active"] = [_reference(job) for job in running]
    if "lastScheduleTime" in before:
        status["lastScheduleTime"] = before["lastScheduleTime"]
    ends = [
        (documents[job.uid].get("status") or {}).get("completionTime")
        for job in jobs
        if finished(documents[job.uid]) == "Complete"
    ]
    latest = max((end for end in (*ends, before.get("lastSuccessfulTime")) if end), default=None)
    if latest:
        status["lastSuccessfulTime"] = latest
    return status


def _reference(job: Item) -> Document:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "namespace": job.meta.namespace,
        "name": job.meta.name,
        "uid": job.uid,
    }


def _start_due(
    work: Work,
    item: Item,
    document: Document,
    status: Document,
    schedule: Schedule,
    running: Sequence[Item],
) -> None:
    spec = document["spec"]
    since = moment(status.get("lastScheduleTime")) or item.created
    limit = spec.get("startingDeadlineSeconds")
    if limit is not None:
        since = max(since, work.now - limit)
    due = _latest_due(work, item, schedule, since)
    following = schedule.after(work.now)
    if following is not None:
        work.look_again(following - work.now)
    if due is None:
        return
    if running and spec.get("concurrencyPolicy") == "Forbid":
        return  # its turn comes when the running one has ended, unless its deadline passes
    if spec.get("concurrencyPolicy") == "Replace":
        for job in running:
            if not job.deleting:
                work.delete(job, propagation="Background")
                work.event(item, "Normal", "SuccessfulDelete", f"Deleted job {job.meta.name}")
        status.pop("active", None)
    name = f"{item.meta.name}-{int(due) // 60}"
    if work.world.get(JOBS, (item.meta.namespace, name)) is None:
        work.create(JOBS, _job(item, spec, name, due))
        work.event(item, "Normal", "SuccessfulCreate", f"Created job {name}")
    status["lastScheduleTime"] = time_text(due)


def _latest_due(work: Work, item: Item, schedule: Schedule, since: float) -> float | None:
    """The latest time since then that is due by now: earlier missed ones are passed over."""
    due, missed = None, 0
    at = schedule.after(since)
    while at is not None and at <= work.now:
        due, missed = at, missed + 1
        if missed > MANY_MISSED:
            said = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds"
            work.event(item, "Warning", "TooManyMissedTimes", said)
            at = _last_before(schedule, work.now)
            return at or due
        at = schedule.after(at)
    return due


def _last_before(schedule: Schedule, now: float) -> float | None:
    """The last due time up to now, searched backwards in growing steps."""
    for span in (60.0, 3600.0, 86400.0, 32 * 86400.0, 366 * 86400.0):
        at, found = schedule.after(now - span), None
        while at is not None and at <= now:
            found, at = at, schedule.after(at)
        if found is not None:
            return found
    return None


def _job(item: Item, spec: Document, name: str, due: float) -> Document:
    template = spec["jobTemplate"]
    meta = template.get("metadata") or {}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "namespace": item.meta.namespace,
            "labels": dict(meta.get("labels") or {}),
            "annotations": {**(meta.get("annotations") or {}), SCHEDULED: time_text(due)},
            "ownerReferences": [controller_reference(item)],
        },
        "spec": copy.deepcopy(template["spec"]),
    }


def _forget(
    work: Work, document: Document, jobs: Sequence[Item], documents: dict[str, Document]
) -> None:
    """Finished jobs beyond the limits go, the oldest first."""
    spec = document["spec"]
    for type_, key, default in (
        ("Complete", "successfulJobsHistoryLimit", 3),
        ("Failed", "failedJobsHistoryLimit", 1),
    ):
        ended = [job for job in jobs if finished(documents[job.uid]) == type_ and not job.deleting]
        ended.sort(key=lambda job: (_started(documents[job.uid]), job.meta.name))
        for job in ended[: max(0, len(ended) - spec.get(key, default))]:
            work.delete(job, propagation="Background")


def _started(document: Document) -> float:
    return moment((document.get("status") or {}).get("startTime"))
