"""Checks of controllers: Deployments."""

from __future__ import annotations

import json
from typing import Any

from sagong.conformance.replication_lab import Cluster, Json, pod_template, workload
from sagong.contracts.objects import Verb
from sagong.contracts.replication import Replication

__all__ = [
    "check_deployment_makes_a_replica_set",
    "check_deployment_needs_few_writes",
    "check_deployment_scales_without_a_new_revision",
    "check_history_is_limited",
    "check_paused_deployment_does_not_roll",
    "check_recreate_ends_the_old_before_the_new",
    "check_rollback_uses_the_old_set_again",
    "check_rolling_update_keeps_its_bounds",
    "check_rollout_stops_at_broken_pods",
    "check_scaling_amid_a_rollout_is_proportional",
    "check_stuck_rollout_is_told",
]

DEPLOYMENTS = "apps/v1/deployments"
SETS = "apps/v1/replicasets"
REVISION = "deployment.kubernetes.io/revision"


def deployment(replicas: int = 3, **spec: Any) -> Json:
    """Deployment `web`."""
    return workload("Deployment", "web", replicas=replicas, **spec)


def rolling(surge: int | str, unavailable: int | str) -> Json:
    """A strategy."""
    bounds = {"maxSurge": surge, "maxUnavailable": unavailable}
    return {"type": "RollingUpdate", "rollingUpdate": bounds}


def conditions(cluster: Cluster) -> dict[str, tuple[str, str]]:
    """Status and reason of each condition."""
    found = cluster.get(DEPLOYMENTS, "web")["status"]["conditions"]
    return {c["type"]: (c["status"], c["reason"]) for c in found}


def images(cluster: Cluster) -> list[str]:
    """Images of living pods."""
    return sorted(p["spec"]["containers"][0]["image"] for p in cluster.living)


def sizes(cluster: Cluster) -> dict[str, int]:
    """Wished numbers of pods by image."""
    return {
        s["spec"]["template"]["spec"]["containers"][0]["image"]: s["spec"]["replicas"]
        for s in cluster.all(SETS)
    }


async def check_deployment_makes_a_replica_set(candidate: Replication) -> None:
    """Named and labelled by a hash of the template; status and conditions tell when it serves."""
    cluster = Cluster(candidate, deployment())
    await cluster.run()
    (one,) = cluster.all(SETS)
    meta = one["metadata"]
    hash_ = meta["labels"]["pod-template-hash"]
    assert meta["name"] == f"web-{hash_}"
    assert one["spec"]["selector"]["matchLabels"] == {"app": "web", "pod-template-hash": hash_}
    assert one["spec"]["template"]["metadata"]["labels"]["pod-template-hash"] == hash_
    assert meta["ownerReferences"][0]["kind"] == "Deployment"
    assert meta["annotations"][REVISION] == "1"
    found = cluster.get(DEPLOYMENTS, "web")
    assert found["metadata"]["annotations"][REVISION] == "1"
    status = found["status"]
    for count in ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"):
        assert status[count] == 3, count
    assert status["observedGeneration"] == found["metadata"]["generation"]
    assert "unavailableReplicas" not in status
    assert conditions(cluster) == {
        "Available": ("True", "MinimumReplicasAvailable"),
        "Progressing": ("True", "NewReplicaSetAvailable"),
    }


async def check_deployment_needs_few_writes(candidate: Replication) -> None:
    """One replica set and three pods are made once, and nothing is undone."""
    cluster = Cluster(candidate, deployment())
    await cluster.run()
    made = [w.resource for w in cluster.writes if w.verb is Verb.CREATE]
    assert made == [SETS, "v1/pods", "v1/pods", "v1/pods"]
    assert not [w for w in cluster.writes if w.verb in (Verb.DELETE, Verb.EVICT)]
    assert len(cluster.writes) <= 16, [(w.verb, w.resource) for w in cluster.writes]


async def check_rolling_update_keeps_its_bounds(candidate: Replication) -> None:
    """Never more than maxSurge above, never more than maxUnavailable missing, until all are new."""
    for surge, missing in ((1, 0), (0, 1), ("25%", "25%"), (2, 2)):
        cluster = Cluster(candidate, deployment(4, strategy=rolling(surge, missing)))
        await cluster.run()
        cluster.change(DEPLOYMENTS, "web", template=pod_template(image="two"))
        most = 4 + (1 if surge == "25%" else int(surge))
        least = 4 - (1 if missing == "25%" else int(missing))
        for _ in range(60):
            changed = await cluster.step()
            assert len(cluster.living) <= most, f"{surge}/{missing}: too many"
            serving = [p for p in cluster.living if p["status"]["phase"] == "Running"]
            assert len(serving) >= least, f"{surge}/{missing}: too few"
            waiting = [p for p in cluster.living if p["status"]["phase"] == "Pending"]
            ending = [p for p in cluster.pods if "deletionTimestamp" in p["metadata"]]
            if not changed and not waiting and not ending:
                break
            if waiting:
                cluster.start(waiting[0])
            elif ending:
                cluster.bury()
        assert images(cluster) == ["two"] * 4
        assert sizes(cluster) == {"one": 0, "two": 4}
        assert cluster.get(DEPLOYMENTS, "web")["metadata"]["annotations"][REVISION] == "2"


async def check_rollout_stops_at_broken_pods(candidate: Replication) -> None:
    """New pods that never get ready leave the old ones serving."""
    cluster = Cluster(candidate, deployment(4, strategy=rolling(1, 1)))
    await cluster.run()
    cluster.change(DEPLOYMENTS, "web", template=pod_template(image="broken"))
    for _ in range(20):
        await cluster.step()
        for pod in cluster.pods:
            if pod["spec"]["containers"][0]["image"] == "broken" and "nodeName" not in pod["spec"]:
                cluster.start(pod, ready=False)
        cluster.bury()
    assert images(cluster).count("one") == 3
    assert sizes(cluster) == {"one": 3, "broken": 2}


async def check_recreate_ends_the_old_before_the_new(candidate: Replication) -> None:
    """No new pod while an old one lives, even if it is ending."""
    cluster = Cluster(candidate, deployment(2, strategy={"type": "Recreate"}))
    await cluster.run()
    cluster.change(DEPLOYMENTS, "web", template=pod_template(image="two"))
    await cluster.settle()
    assert {p["spec"]["containers"][0]["image"] for p in cluster.pods} == {"one"}
    assert cluster.living == []
    await cluster.run()
    assert images(cluster) == ["two", "two"]


async def check_rollback_uses_the_old_set_again(candidate: Replication) -> None:
    """The old template in the spec brings back its replica set, as a new revision."""
    cluster = Cluster(candidate, deployment())
    await cluster.run()
    old = cluster.all(SETS)[0]["metadata"]["name"]
    for image, revision in (("two", "2"), ("one", "3")):
        cluster.change(DEPLOYMENTS, "web", template=pod_template(image=image))
        await cluster.run()
        assert images(cluster) == [image] * 3
        assert cluster.get(DEPLOYMENTS, "web")["metadata"]["annotations"][REVISION] == revision
    assert len(cluster.all(SETS)) == 2
    annotations = cluster.get(SETS, old)["metadata"]["annotations"]
    assert annotations[REVISION] == "3"
    assert annotations["deployment.kubernetes.io/revision-history"] == "1"


async def check_deployment_scales_without_a_new_revision(candidate: Replication) -> None:
    """Another number of replicas is no rollout."""
    cluster = Cluster(candidate, deployment(1))
    await cluster.run()
    for replicas in (5, 2, 0, 1):
        cluster.change(DEPLOYMENTS, "web", replicas=replicas)
        await cluster.run()
        assert len(cluster.living) == replicas
        assert len(cluster.all(SETS)) == 1
        assert conditions(cluster)["Progressing"] == ("True", "NewReplicaSetAvailable")
    assert cluster.get(DEPLOYMENTS, "web")["metadata"]["annotations"][REVISION] == "1"


async def check_paused_deployment_does_not_roll(candidate: Replication) -> None:
    """It scales, but its template waits; resumed, it goes on."""
    cluster = Cluster(candidate, deployment(2))
    await cluster.run()
    cluster.change(DEPLOYMENTS, "web", paused=True, template=pod_template(image="two"))
    await cluster.run()
    assert images(cluster) == ["one", "one"]
    cluster.change(DEPLOYMENTS, "web", replicas=3)
    await cluster.run()
    assert images(cluster) == ["one"] * 3
    cluster.change(DEPLOYMENTS, "web", paused=False)
    await cluster.run()
    assert images(cluster) == ["two"] * 3


async def check_history_is_limited(candidate: Replication) -> None:
    """Empty replica sets beyond revisionHistoryLimit go, the oldest first."""
    cluster = Cluster(candidate, deployment(1, revisionHistoryLimit=2))
    for number in range(5):
        cluster.change(DEPLOYMENTS, "web", template=pod_template(image=f"v{number}"))
        await cluster.run()
    assert sorted(sizes(cluster)) == ["v2", "v3", "v4"]


async def check_scaling_amid_a_rollout_is_proportional(candidate: Replication) -> None:
    """Both sets grow by their share; the old one is not starved."""
    cluster = Cluster(candidate, deployment(10, strategy=rolling(3, 2)))
    await cluster.run()
    cluster.change(DEPLOYMENTS, "web", template=pod_template(image="two"))
    for _ in range(6):  # the new pods never get ready
        await cluster.step()
        cluster.bury()
    assert sizes(cluster) == {"one": 8, "two": 5}
    cluster.change(DEPLOYMENTS, "web", replicas=30)
    await cluster.step()
    assert sizes(cluster) == {"one": 20, "two": 13}


async def check_stuck_rollout_is_told(candidate: Replication) -> None:
    """After progressDeadlineSeconds without progress; it looks again by itself."""
    cluster = Cluster(candidate, deployment(1, progressDeadlineSeconds=60))
    await cluster.settle()
    assert conditions(cluster)["Progressing"][0] == "True"
    assert conditions(cluster)["Available"] == ("False", "MinimumReplicasUnavailable")
    await cluster.step()
    assert 0 < cluster.again <= 60
    cluster.now += 61
    await cluster.settle()
    assert conditions(cluster)["Progressing"] == ("False", "ProgressDeadlineExceeded")
    await cluster.run()
    assert conditions(cluster)["Progressing"] == ("True", "NewReplicaSetAvailable")
    for write in cluster.writes:
        if write.verb is Verb.STATUS:
            assert json.loads(write.body)["status"]
