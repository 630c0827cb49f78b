"""Checks of controllers: endpoints of services."""

from __future__ import annotations

from typing import Any

from sagong.conformance.replication_lab import Cluster, Json, replica_set
from sagong.contracts.replication import Replication

__all__ = [
    "check_ending_pods_serve_no_more",
    "check_endpoints_follow_pods",
    "check_headless_service_names_hosts",
    "check_named_ports_are_looked_up",
    "check_service_without_selector_is_left_alone",
    "check_slices_hold_a_hundred",
    "check_unready_may_be_published",
]

ENDPOINTS = "v1/endpoints"
SLICES = "discovery.k8s.io/v1/endpointslices"


def service(**spec: Any) -> Json:
    """Service `web`."""
    ports = [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": "default", "labels": {"team": "a"}},
        "spec": {
            "selector": {"app": "web"},
            "ports": ports,
            "clusterIP": "10.96.0.7",
            "ipFamilies": ["IPv4"],
            **spec,
        },
    }


def slice_endpoints(cluster: Cluster) -> list[Json]:
    """Endpoints of all slices."""
    return [e for one in cluster.all(SLICES) for e in one["endpoints"]]


def addresses(cluster: Cluster, key: str = "addresses") -> set[str]:
    """Addresses of the Endpoints object."""
    subsets = cluster.get(ENDPOINTS, "web").get("subsets", [])
    return {a["ip"] for subset in subsets for a in subset.get(key, [])}


async def check_endpoints_follow_pods(candidate: Replication) -> None:
    """Ready pods' addresses, with the target ports; unready ones apart; both forms agree."""
    cluster = Cluster(candidate, service(), replica_set("web", 3))
    await cluster.run()
    pods = cluster.pods
    assert addresses(cluster) == {p["status"]["podIP"] for p in pods}
    (subset,) = cluster.get(ENDPOINTS, "web")["subsets"]
    assert subset["ports"] == [{"name": "http", "port": 8080, "protocol": "TCP"}]
    assert subset["addresses"][0]["nodeName"] == "node-1"
    assert subset["addresses"][0]["targetRef"]["kind"] == "Pod"
    (one,) = cluster.all(SLICES)
    labels = one["metadata"]["labels"]
    assert labels["kubernetes.io/service-name"] == "web" and labels["team"] == "a"
    manager = labels["endpointslice.kubernetes.io/managed-by"]
    assert manager == "endpointslice-controller.k8s.io"
    assert one["metadata"]["name"].startswith("web-") and one["addressType"] == "IPv4"
    assert one["metadata"]["ownerReferences"][0]["kind"] == "Service"
    cluster.set_ready(pods[0], False)
    await cluster.settle()
    ip = pods[0]["status"]["podIP"]
    assert addresses(cluster, "notReadyAddresses") == {ip} and ip not in addresses(cluster)
    unready = [e for e in slice_endpoints(cluster) if not e["conditions"]["ready"]]
    assert [e["addresses"] for e in unready] == [[ip]]


async def check_ending_pods_serve_no_more(candidate: Replication) -> None:
    """An ending pod leaves Endpoints; its slice entry says that it is ending, and still serves."""
    cluster = Cluster(candidate, service(), replica_set("web", 2))
    await cluster.run()
    pod = cluster.pods[0]
    cluster.delete("v1/pods", pod["metadata"]["name"])
    await cluster.settle()
    ip = pod["status"]["podIP"]
    assert ip not in addresses(cluster)
    (ending,) = [e for e in slice_endpoints(cluster) if e["addresses"] == [ip]]
    assert ending["conditions"] == {"ready": False, "serving": True, "terminating": True}
    await cluster.run()
    assert ip not in {e["addresses"][0] for e in slice_endpoints(cluster)}


async def check_named_ports_are_looked_up(candidate: Replication) -> None:
    """A target port's name is that of a container's port; pods may differ."""
    wanted = replica_set("web", 2)
    ports = [{"name": "http", "port": 80, "targetPort": "web", "protocol": "TCP"}]
    container = wanted["spec"]["template"]["spec"]["containers"][0]
    container["ports"] = [{"name": "web", "containerPort": 3000, "protocol": "TCP"}]
    cluster = Cluster(candidate, service(ports=ports), wanted)
    await cluster.run()
    cluster.pods[0]["spec"]["containers"][0]["ports"][0]["containerPort"] = 4000
    await cluster.settle()
    subsets = cluster.get(ENDPOINTS, "web")["subsets"]
    assert sorted(s["ports"][0]["port"] for s in subsets) == [3000, 4000]
    assert sorted(one["ports"][0]["port"] for one in cluster.all(SLICES)) == [3000, 4000]


async def check_headless_service_names_hosts(candidate: Replication) -> None:
    """Pods that name the service as their subdomain keep their host name in it."""
    wanted = replica_set("web", 1)
    wanted["spec"]["template"]["spec"] |= {"hostname": "db-0", "subdomain": "web"}
    cluster = Cluster(candidate, service(clusterIP="None"), wanted)
    await cluster.run()
    (subset,) = cluster.get(ENDPOINTS, "web")["subsets"]
    assert subset["addresses"][0]["hostname"] == "db-0"
    assert slice_endpoints(cluster)[0]["hostname"] == "db-0"
    assert "service.kubernetes.io/headless" in cluster.all(SLICES)[0]["metadata"]["labels"]


async def check_unready_may_be_published(candidate: Replication) -> None:
    """publishNotReadyAddresses makes all ready."""
    cluster = Cluster(candidate, service(publishNotReadyAddresses=True), replica_set("web", 1))
    await cluster.run()
    cluster.set_ready(cluster.pods[0], False)
    await cluster.settle()
    assert addresses(cluster) == {cluster.pods[0]["status"]["podIP"]}
    assert slice_endpoints(cluster)[0]["conditions"]["ready"] is True


async def check_service_without_selector_is_left_alone(candidate: Replication) -> None:
    """Somebody else writes its endpoints."""
    cluster = Cluster(candidate, service(selector=None), replica_set("web", 1))
    await cluster.run()
    assert cluster.all(ENDPOINTS) == [] and cluster.all(SLICES) == []


async def check_slices_hold_a_hundred(candidate: Replication) -> None:
    """More backends make more slices, and a change touches only its own."""
    cluster = Cluster(candidate, service(), replica_set("web", 130))
    await cluster.run()
    assert sorted(len(one["endpoints"]) for one in cluster.all(SLICES)) == [30, 100]
    before = {s["metadata"]["name"]: s["metadata"]["resourceVersion"] for s in cluster.all(SLICES)}
    cluster.set_ready(cluster.pods[0], False)
    await cluster.settle()
    after = {s["metadata"]["name"]: s["metadata"]["resourceVersion"] for s in cluster.all(SLICES)}
    assert (
        sum(before[name] != after[name] for name in before) == 1 and before.keys() == after.keys()
    )
