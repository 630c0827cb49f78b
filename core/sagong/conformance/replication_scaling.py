"""Checks of controllers: autoscalers."""

from __future__ import annotations

from typing import Any

from sagong.conformance.replication_lab import Cluster, Json, replica_set
from sagong.contracts.replication import Replication

__all__ = [
    "check_autoscaler_follows_use",
    "check_autoscaler_keeps_its_bounds",
    "check_autoscaler_needs_measurements",
    "check_autoscaler_rests_at_zero",
]

SETS = "apps/v1/replicasets"
SCALERS = "autoscaling/v2/horizontalpodautoscalers"


def scaler(low: int = 1, high: int = 10, percent: int = 50, **spec: Any) -> Json:
    """Autoscaler `web` by cpu."""
    target = {"type": "Utilization", "averageUtilization": percent}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web"},
            "minReplicas": low,
            "maxReplicas": high,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
            # A check must not wait five minutes before fewer are enough.
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}},
            **spec,
        },
    }


async def scaled(candidate: Replication, replicas: int, wanted: Json) -> Cluster:
    """A set whose pods ask for a tenth of a core, running."""
    target = replica_set("web", replicas)
    container = target["spec"]["template"]["spec"]["containers"][0]
    container["resources"] = {"requests": {"cpu": "100m"}}
    cluster = Cluster(candidate, target)
    await cluster.run()
    cluster.add(wanted)
    return cluster


async def used(cluster: Cluster, cpu: str) -> int:
    """Let every pod use so much; how many replicas are asked for then."""
    for pod in cluster.living:
        meta = {"name": pod["metadata"]["name"], "namespace": "default"}
        name = ("metrics.k8s.io/v1beta1/podmetrics", "default", meta["name"])
        cluster.objects.pop(name, None)
        cluster.add(
            {
                "apiVersion": "metrics.k8s.io/v1beta1",
                "kind": "PodMetrics",
                "metadata": meta,
                "containers": [{"name": "c", "usage": {"cpu": cpu, "memory": "1Mi"}}],
            }
        )
    await cluster.step()
    found: int = cluster.get(SETS, "web")["spec"]["replicas"]
    return found


def conditions(cluster: Cluster) -> dict[str, tuple[str, str]]:
    """Status and reason of the autoscaler's conditions."""
    found = cluster.get(SCALERS, "web")["status"]["conditions"]
    return {c["type"]: (c["status"], c["reason"]) for c in found}


async def check_autoscaler_follows_use(candidate: Replication) -> None:
    """Twice the wished use doubles, half of it halves, nearly right changes nothing."""
    for cpu, expected in (("100m", 8), ("25m", 2), ("52m", 4)):
        cluster = await scaled(candidate, 4, scaler())
        assert await used(cluster, cpu) == expected, cpu
        status = cluster.get(SCALERS, "web")["status"]
        assert status["desiredReplicas"] == expected
        assert conditions(cluster)["ScalingActive"] == ("True", "ValidMetricFound")
        assert status["currentMetrics"][0]["resource"]["name"] == "cpu"


async def check_autoscaler_keeps_its_bounds(candidate: Replication) -> None:
    """Between minReplicas and maxReplicas, and that is told."""
    cluster = await scaled(candidate, 4, scaler(high=5))
    assert await used(cluster, "500m") == 5
    assert conditions(cluster)["ScalingLimited"] == ("True", "TooManyReplicas")
    cluster = await scaled(candidate, 4, scaler(low=3))
    assert await used(cluster, "1m") == 3
    assert conditions(cluster)["ScalingLimited"] == ("True", "TooFewReplicas")


async def check_autoscaler_needs_measurements(candidate: Replication) -> None:
    """Without any it changes nothing and says so."""
    cluster = await scaled(candidate, 4, scaler())
    for _ in range(3):
        await cluster.step()
    assert cluster.get(SETS, "web")["spec"]["replicas"] == 4
    assert conditions(cluster)["ScalingActive"] == ("False", "FailedGetResourceMetric")


async def check_autoscaler_rests_at_zero(candidate: Replication) -> None:
    """Somebody who scales to zero switches it off."""
    cluster = await scaled(candidate, 0, scaler(low=2))
    for _ in range(3):
        await cluster.step()
    assert cluster.get(SETS, "web")["spec"]["replicas"] == 0
    assert conditions(cluster)["ScalingActive"] == ("False", "ScalingDisabled")
