"""Jobs: pods that must succeed so and so often, counted exactly though pods may be deleted.

A pod carries a finalizer until it is counted: first its uid is written into the status
(`uncountedTerminatedPods`), then the finalizer goes, then the number grows. Source:
https://kubernetes.io/docs/concepts/workloads/controllers/job/
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sagong.model.names import generated_name
from sagong.model.times import time_text
from sagong_replication_kube.indexes import format_indexes
from sagong_replication_kube.item import Document, Item, moment
from sagong_replication_kube.job_count import INDEX, Count, count, hold, index_of, release
from sagong_replication_kube.job_policy import early_verdict
from sagong_replication_kube.ownership import claim
from sagong_replication_kube.pods import PODS, active, from_template, ready
from sagong_replication_kube.work import Work, condition, conditions_with

__all__ = ["INDEX", "finished", "reconcile"]

FIRST_BACKOFF: Final = 10.0
LONGEST_BACKOFF: Final = 600.0
BURST: Final = 500


def finished(document: Document) -> str:
    """The type of the condition that ended a job; "" while it goes on."""
    for one in (document.get("status") or {}).get("conditions") or ():
        if one.get("type") in ("Complete", "Failed") and one.get("status") == "True":
            return str(one["type"])
    return ""


def reconcile(work: Work, item: Item) -> None:
    """One step of a job."""
    document = item.document()
    if document["spec"].get("managedBy", "kubernetes.io/job-controller") != (
        "kubernetes.io/job-controller"
    ):
        return
    if finished(document):
        _after(work, item, document)
        return
    pods = claim(work, item, PODS, item.selector)
    if item.deleting:
        release(work, pods)
        return
    counted = count(work, item, document, pods)
    running = [pod for pod in pods if active(pod)]
    status = _status(document, counted, running)
    verdict = _verdict(work, document, counted, pods)
    if verdict:
        # The status that said so may never have been written: a short job is over before it is due.
        status.setdefault("startTime", _began(work, pods))
        _end(work, item, status, counted, running, verdict)
    elif document["spec"].get("suspend"):
        _suspend(work, item, status, running)
    else:
        _go_on(work, item, document, status, counted, running)
    work.status(item, status)
    if counted.urgent:  # what is counted must be kept before pods are let go
        work.writes += work.statuses
        work.statuses = []


def _status(document: Document, counted: Count, running: Sequence[Item]) -> Document:
    before = document.get("status") or {}
    status: Document = {
        key: before[key] for key in ("startTime", "conditions", "completionTime") if key in before
    }
    numbers = {
        "active": len(running),
        "succeeded": counted.succeeded,
        "failed": counted.failed,
    }
    status |= {key: number for key, number in numbers.items() if number}
    status["ready"] = sum(ready(pod) for pod in running)
    status["terminating"] = counted.terminating
    status["uncountedTerminatedPods"] = counted.uncounted
    if document["spec"].get("completionMode") == "Indexed" and counted.completed:
        status["completedIndexes"] = format_indexes(counted.completed)
    if counted.failed_indexes:
        status["failedIndexes"] = format_indexes(counted.failed_indexes)
    return status


# the end


def _began(work: Work, pods: Sequence[Item]) -> str:
    """When the first of its pods was made."""
    return time_text(min((pod.created for pod in pods), default=work.now))


def _verdict(
    work: Work, document: Document, counted: Count, pods: Sequence[Item]
) -> tuple[str, str, str] | None:
    """(condition, reason, message) when the job is over."""
    spec = document["spec"]
    early = early_verdict(document, counted, pods)
    if early:
        return early
    if _past_deadline(work, document):
        said = "Job was active longer than specified deadline"
        return ("Failed", "DeadlineExceeded", said)
    if "backoffLimitPerIndex" not in spec and counted.attempts > spec.get("backoffLimit", 6):
        return ("Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
    if _complete(spec, counted, pods):
        if counted.failed_indexes:
            return ("Failed", "FailedIndexes", "Job has failed indexes")
        said = "Reached expected number of succeeded pods"
        return ("Complete", "CompletionsReached", said)
    return None


def _past_deadline(work: Work, document: Document) -> bool:
    limit = document["spec"].get("activeDeadlineSeconds")
    started = moment((document.get("status") or {}).get("startTime"))
    if limit is None or not started or document["spec"].get("suspend"):
        return False
    left = started + limit - work.now
    if left > 0:
        work.look_again(left)
    return bool(left <= 0)


def _complete(spec: Document, counted: Count, pods: Sequence[Item]) -> bool:
    wanted = spec.get("completions")
    if spec.get("completionMode") == "Indexed":
        return len(counted.completed) + len(counted.failed_indexes) >= (wanted or 0)
    if wanted is None:  # a work queue: once one has succeeded, the others may finish
        return counted.all_succeeded > 0 and not any(active(pod) for pod in pods)
    return counted.all_succeeded >= int(wanted)


def _end(
    work: Work,
    item: Item,
    status: Document,
    counted: Count,
    running: Sequence[Item],
    verdict: tuple[str, str, str],
) -> None:
    """End what still runs; when all is counted, say how it ended."""
    type_, reason, said = verdict
    for pod in running:
        if type_ == "Complete":
            release(work, [pod])
        work.delete(pod)
    early = "SuccessCriteriaMet" if type_ == "Complete" else "FailureTarget"
    conditions = list(status.get("conditions") or ())
    conditions = conditions_with(conditions, condition(early, "True", reason, said), work.now)
    if not (running or counted.pending or counted.terminating):
        conditions = conditions_with(conditions, condition(type_, "True", reason, said), work.now)
        if type_ == "Complete":
            status["completionTime"] = time_text(work.now)
            work.event(item, "Normal", "Completed", "Job completed")
        else:
            work.event(item, "Warning", reason, said)
    status["conditions"] = conditions


def _after(work: Work, item: Item, document: Document) -> None:
    """A finished job: its pods need no counting, and after a while it may go itself."""
    release(work, work.world.controlled(item.uid, PODS))
    after = document["spec"].get("ttlSecondsAfterFinished")
    if after is None or item.deleting:
        return
    ended = max(
        moment(c.get("lastTransitionTime"))
        for c in document["status"]["conditions"]
        if c.get("type") in ("Complete", "Failed")
    )
    left = ended + after - work.now
    if left > 0:
        work.look_again(left)
    else:
        work.delete(item, propagation="Foreground")


# the way


def _suspend(work: Work, item: Item, status: Document, running: Sequence[Item]) -> None:
    _dismiss(work, running)
    status.pop("startTime", None)
    found = condition("Suspended", "True", "JobSuspended", "Job suspended")
    present = list(status.get("conditions") or ())
    status["conditions"] = conditions_with(present, found, work.now)
    if status["conditions"] != present:
        work.event(item, "Normal", "Suspended", "Job suspended")


def _dismiss(work: Work, pods: Sequence[Item]) -> None:
    """End pods that the job itself wants no more: that is no failure of theirs."""
    release(work, pods)
    for pod in pods:
        work.delete(pod)


def _resume(work: Work, status: Document) -> None:
    status.setdefault("startTime", time_text(work.now))
    present = list(status.get("conditions") or ())
    if any(c.get("type") == "Suspended" and c.get("status") == "True" for c in present):
        found = condition("Suspended", "False", "JobResumed", "Job resumed")
        status["conditions"] = conditions_with(present, found, work.now)


def _go_on(
    work: Work,
    item: Item,
    document: Document,
    status: Document,
    counted: Count,
    running: Sequence[Item],
) -> None:
    _resume(work, status)
    spec = document["spec"]
    wanted = _wanted(spec, counted, len(running))
    surplus = len(running) - wanted
    if surplus > 0:
        _dismiss(work, sorted(running, key=lambda p: (ready(p), p.created))[:surplus])
        return
    missing = min(-surplus - _replacing(spec, counted), BURST)
    if missing <= 0:
        return
    wait = _pause(work, counted)
    if wait > 0:
        work.look_again(wait)
    elif spec.get("completionMode") == "Indexed":
        _create_indexed(work, item, document, counted, running, missing)
    else:
        for _ in range(missing):
            _create(work, item, document, {}, "")


def _wanted(spec: Document, counted: Count, running: int) -> int:
    """How many pods shall run now."""
    parallel: int = spec.get("parallelism", 1)
    completions = spec.get("completions")
    if completions is None:
        return min(parallel, running) if counted.all_succeeded else parallel
    done = counted.all_succeeded
    if spec.get("completionMode") == "Indexed":
        done = len(counted.completed) + len(counted.failed_indexes)
    return int(min(parallel, max(0, completions - done)))


def _replacing(spec: Document, counted: Count) -> int:
    """Ending pods that must be gone before they are replaced."""
    return counted.terminating if spec.get("podReplacementPolicy") == "Failed" else 0


def _pause(work: Work, counted: Count) -> float:
    """After failures in a row new pods wait, longer each time."""
    if not counted.recent_failures:
        return 0.0
    pause: float = min(FIRST_BACKOFF * 2.0 ** (counted.recent_failures - 1), LONGEST_BACKOFF)
    return counted.last_failure + pause - work.now


def _create(
    work: Work, item: Item, document: Document, annotations: dict[str, str], infix: str
) -> Document:
    name = generated_name(f"{item.meta.name}-{infix}", work.world.chance)
    template = document["spec"]["template"]
    pod = from_template(item, template, name)
    meta = pod["metadata"]
    meta["generateName"] = f"{item.meta.name}-{infix}"
    hold(meta)
    labels = meta.setdefault("labels", {})
    for prefix in ("batch.kubernetes.io/", ""):
        labels.setdefault(f"{prefix}job-name", item.meta.name)
        labels.setdefault(f"{prefix}controller-uid", item.uid)
    if annotations:
        meta.setdefault("annotations", {}).update(annotations)
        labels |= annotations
    work.create(PODS, pod)
    work.event(item, "Normal", "SuccessfulCreate", f"Created pod: {name}")
    return pod


def _create_indexed(
    work: Work,
    item: Item,
    document: Document,
    counted: Count,
    running: Sequence[Item],
    missing: int,
) -> None:
    taken = {index_of(pod) for pod in running} | counted.completed | counted.failed_indexes
    if document["spec"].get("podReplacementPolicy") == "Failed":
        taken |= counted.ending_indexes
    free = (n for n in range(document["spec"].get("completions") or 0) if n not in taken)
    for _, index in zip(range(missing), free):
        indexed = _indexed(document, item, index)
        _create(work, item, indexed, {INDEX: str(index)}, f"{index}-")


def _indexed(document: Document, item: Item, index: int) -> Document:
    """The job with a template that tells each container its index."""
    spec = document["spec"]
    template: dict[str, Any] = spec["template"]
    pod_spec = dict(template["spec"])
    source = {"fieldRef": {"fieldPath": f"metadata.annotations['{INDEX}']"}}
    variable = {"name": "JOB_COMPLETION_INDEX", "valueFrom": source}
    for part in ("containers", "initContainers"):
        if pod_spec.get(part):
            pod_spec[part] = [
                {**c, "env": [*(c.get("env") or []), variable]}
                if all(e.get("name") != variable["name"] for e in c.get("env") or [])
                else c
                for c in pod_spec[part]
            ]
    pod_spec["hostname"] = f"{item.meta.name}-{index}"
    return {**document, "spec": {**spec, "template": {**template, "spec": pod_spec}}}
