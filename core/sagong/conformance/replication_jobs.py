"""Checks of controllers: Jobs and CronJobs."""

from __future__ import annotations

from typing import Any

from sagong.conformance.replication_lab import Cluster, Json, pod_template, workload
from sagong.contracts.replication import Replication
from sagong.model.times import time_text

__all__ = [
    "check_cron_forbids_or_replaces",
    "check_cron_history_is_limited",
    "check_cron_makes_a_job_when_due",
    "check_failed_job_says_so",
    "check_failures_are_retried_after_a_pause",
    "check_finished_job_may_go_by_itself",
    "check_indexed_job_numbers_its_pods",
    "check_job_counts_deleted_pods_once",
    "check_job_has_a_deadline",
    "check_job_runs_to_completion",
    "check_pod_failure_policy_is_kept",
    "check_short_job_says_when_it_began",
    "check_suspended_job_waits",
]

JOBS = "batch/v1/jobs"
CRONS = "batch/v1/cronjobs"
TEMPLATE = pod_template(restart="Never")


def job(**spec: Any) -> Json:
    """Job `work`."""
    return workload("Job", "work", api="batch/v1", template=TEMPLATE, **spec)


def verdict(cluster: Cluster) -> tuple[str, str]:
    """Type and reason of the condition that ended the job."""
    for one in cluster.get(JOBS, "work")["status"].get("conditions", []):
        if one["type"] in ("Complete", "Failed") and one["status"] == "True":
            return one["type"], one["reason"]
    return ("", "")


async def turn(cluster: Cluster, *, code: int = 0, at: int = 0) -> Json:
    """Start what is pending, and end one running pod."""
    await cluster.settle()
    cluster.nurse()
    pod = cluster.living[at]
    cluster.finish(pod, code=code)
    await cluster.settle()
    cluster.bury()
    return pod


async def check_job_runs_to_completion(candidate: Replication) -> None:
    """So many at a time until so many have succeeded; then its status tells."""
    cluster = Cluster(candidate, job(parallelism=2, completions=3))
    await cluster.settle()
    assert len(cluster.living) == 2
    assert cluster.get(JOBS, "work")["status"]["active"] == 2
    await turn(cluster)
    assert len(cluster.living) == 2
    await turn(cluster)
    assert len(cluster.living) == 1
    await turn(cluster)
    status = cluster.get(JOBS, "work")["status"]
    assert verdict(cluster) == ("Complete", "CompletionsReached")
    assert status["succeeded"] == 3 and "active" not in status and "failed" not in status
    assert status["startTime"] and status["completionTime"]
    assert not any(status.get("uncountedTerminatedPods", {}).values())
    assert not any(pod["metadata"].get("finalizers") for pod in cluster.pods)


async def check_short_job_says_when_it_began(candidate: Replication) -> None:
    """A job is over before its first status was written: it began with its first pod."""
    cluster = Cluster(candidate, job())
    await cluster.settle()
    began = time_text(cluster.now)
    cluster.nurse()
    cluster.now += 2
    cluster.finish(cluster.living[0])
    cluster.get(JOBS, "work").pop("status")
    await cluster.settle()
    status = cluster.get(JOBS, "work")["status"]
    assert verdict(cluster)[0] == "Complete"
    assert status["startTime"] == began and status["completionTime"] == time_text(cluster.now)


async def check_failures_are_retried_after_a_pause(candidate: Replication) -> None:
    """A failed pod is replaced, but not at once."""
    cluster = Cluster(candidate, job())
    await turn(cluster, code=1)
    assert cluster.living == []
    await cluster.step()
    assert 0 < cluster.again <= 10
    cluster.now += 10
    await turn(cluster)
    status = cluster.get(JOBS, "work")["status"]
    assert (status["failed"], status["succeeded"]) == (1, 1)
    assert verdict(cluster)[0] == "Complete"


async def check_failed_job_says_so(candidate: Replication) -> None:
    """After backoffLimit failures it gives up and ends what still runs."""
    cluster = Cluster(candidate, job(backoffLimit=1, parallelism=2, completions=5))
    await turn(cluster, code=1)
    cluster.now += 20
    await turn(cluster, code=1)
    await cluster.run()
    assert verdict(cluster) == ("Failed", "BackoffLimitExceeded")
    assert cluster.living == []
    assert cluster.get(JOBS, "work")["status"]["failed"] >= 2


async def check_job_counts_deleted_pods_once(candidate: Replication) -> None:
    """A pod that succeeded counts though somebody deletes it before anybody looked."""
    cluster = Cluster(candidate, job(completions=2, parallelism=1))
    await cluster.settle()
    cluster.nurse()
    (pod,) = cluster.living
    cluster.finish(pod)
    cluster.delete("v1/pods", pod["metadata"]["name"])
    await cluster.settle()
    cluster.bury()
    await cluster.settle()
    assert cluster.get(JOBS, "work")["status"]["succeeded"] == 1
    assert cluster.find("v1/pods", pod["metadata"]["name"]) is None
    await turn(cluster)
    assert cluster.get(JOBS, "work")["status"]["succeeded"] == 2


async def check_job_has_a_deadline(candidate: Replication) -> None:
    """activeDeadlineSeconds ends it."""
    cluster = Cluster(candidate, job(activeDeadlineSeconds=30))
    await cluster.run()
    await cluster.step()
    assert 0 < cluster.again <= 30
    cluster.now += 31
    await cluster.run()
    assert verdict(cluster) == ("Failed", "DeadlineExceeded")
    assert cluster.living == []


async def check_suspended_job_waits(candidate: Replication) -> None:
    """Suspending ends its pods without a failure; resuming goes on."""
    cluster = Cluster(candidate, job(suspend=True))
    await cluster.settle()
    assert cluster.pods == []
    cluster.change(JOBS, "work", suspend=False)
    await cluster.run()
    assert len(cluster.living) == 1
    cluster.change(JOBS, "work", suspend=True)
    await cluster.run()
    assert cluster.living == []
    status = cluster.get(JOBS, "work")["status"]
    assert "failed" not in status and "startTime" not in status
    cluster.change(JOBS, "work", suspend=False)
    await cluster.run()
    await turn(cluster)
    assert verdict(cluster)[0] == "Complete"


async def check_indexed_job_numbers_its_pods(candidate: Replication) -> None:
    """Each index succeeds once; pods know theirs by annotation, host name and environment."""
    cluster = Cluster(
        candidate, job(completionMode="Indexed", completions=4, parallelism=4, backoffLimit=5)
    )
    await cluster.settle()
    cluster.nurse()
    key = "batch.kubernetes.io/job-completion-index"

    def of(index: int) -> Json:
        return next(p for p in cluster.living if p["metadata"]["annotations"][key] == str(index))

    pod = of(2)
    assert pod["spec"]["hostname"] == "work-2"
    assert pod["metadata"]["name"].startswith("work-2-")
    variables = [e["name"] for e in pod["spec"]["containers"][0]["env"]]
    assert variables == ["JOB_COMPLETION_INDEX"]
    for index in (0, 1, 3):
        cluster.finish(of(index))
    cluster.finish(of(2), code=1)
    await cluster.settle()
    assert cluster.get(JOBS, "work")["status"]["completedIndexes"] == "0,1,3"
    cluster.now += 10
    await cluster.run()
    assert [p["metadata"]["annotations"][key] for p in cluster.living] == ["2"]
    cluster.finish(of(2))
    await cluster.run()
    assert cluster.get(JOBS, "work")["status"]["completedIndexes"] == "0-3"
    assert verdict(cluster)[0] == "Complete"


async def check_pod_failure_policy_is_kept(candidate: Replication) -> None:
    """An exit code can end the job at once, or be forgiven."""
    rule = {"operator": "In", "values": [42]}
    for action in ("FailJob", "Ignore"):
        policy = {"rules": [{"action": action, "onExitCodes": rule}]}
        cluster = Cluster(candidate, job(podFailurePolicy=policy, backoffLimit=0))
        await turn(cluster, code=42)
        cluster.now += 20
        await cluster.run()
        if action == "FailJob":
            assert verdict(cluster) == ("Failed", "PodFailurePolicy")
            continue
        assert verdict(cluster) == ("", "")
        assert len(cluster.living) == 1
        assert "failed" not in cluster.get(JOBS, "work")["status"]


async def check_finished_job_may_go_by_itself(candidate: Replication) -> None:
    """ttlSecondsAfterFinished."""
    cluster = Cluster(candidate, job(ttlSecondsAfterFinished=60))
    await turn(cluster)
    await cluster.run()
    await cluster.step()
    assert cluster.find(JOBS, "work") and 0 < cluster.again <= 60
    cluster.now += 61
    await cluster.run()
    assert cluster.find(JOBS, "work") is None and cluster.pods == []


def cron(schedule: str, **spec: Any) -> Json:
    """CronJob `tick`."""
    jobs = {"spec": {"template": TEMPLATE, "selector": {"matchLabels": {"app": "web"}}}}
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": "tick", "namespace": "default"},
        "spec": {"schedule": schedule, "jobTemplate": jobs, **spec},
    }


async def check_cron_makes_a_job_when_due(candidate: Replication) -> None:
    """Named by the minute; only the latest of missed times; it looks again by itself."""
    cluster = Cluster(candidate, cron("*/5 * * * *"))
    await cluster.settle()
    assert cluster.all(JOBS) == []
    await cluster.step()
    assert 0 < cluster.again <= 300
    cluster.now += cluster.again
    await cluster.settle()
    due = int(cluster.now) // 300 * 300
    (made,) = cluster.all(JOBS)
    assert made["metadata"]["name"] == f"tick-{due // 60}"
    stamp = made["metadata"]["annotations"]["batch.kubernetes.io/cronjob-scheduled-timestamp"]
    assert stamp == time_text(due)
    status = cluster.get(CRONS, "tick")["status"]
    assert status["lastScheduleTime"] == time_text(due)
    assert [one["name"] for one in status["active"]] == [made["metadata"]["name"]]
    cluster.now += 1800
    await cluster.settle()
    assert len(cluster.all(JOBS)) == 2, "of six missed times the latest"
    cluster.change(CRONS, "tick", suspend=True)
    cluster.now += 600
    await cluster.settle()
    assert len(cluster.all(JOBS)) == 2


async def check_cron_forbids_or_replaces(candidate: Replication) -> None:
    """While one runs: another beside it, none, or instead of it."""
    for policy, names in (("Allow", 2), ("Forbid", 1), ("Replace", 1)):
        cluster = Cluster(candidate, cron("* * * * *", concurrencyPolicy=policy))
        cluster.now += 60
        await cluster.settle()
        (first,) = cluster.all(JOBS)
        cluster.now += 60
        await cluster.run()
        assert len(cluster.all(JOBS)) == names, policy
        kept = cluster.find(JOBS, first["metadata"]["name"]) is not None
        assert kept is (policy != "Replace"), policy


async def check_cron_history_is_limited(candidate: Replication) -> None:
    """Of finished jobs so many stay."""
    cluster = Cluster(candidate, cron("* * * * *", successfulJobsHistoryLimit=2))
    for _ in range(5):
        cluster.now += 60
        await cluster.run()
        for pod in cluster.living:
            cluster.finish(pod)
        await cluster.run()
    assert len(cluster.all(JOBS)) == 2
    assert cluster.get(CRONS, "tick")["status"]["lastSuccessfulTime"]
