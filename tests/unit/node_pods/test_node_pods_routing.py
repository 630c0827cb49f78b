"""Service routing and policies that follow from the API's objects; the Node object."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
from tests.unit.node_pods.pod_lab import Lab, lab, pod

from sagong.contracts.network import Rules
from sagong.errors import Unavailable
from sagong.model.k8s.core_v1 import Node, Pod, Service
from sagong.model.k8s.discovery_v1 import EndpointSlice
from sagong.model.k8s.networking_v1 import NetworkPolicy
from sagong_node.pods.machine import Facts, Load, load, read_facts
from sagong_node.pods.policies import policies
from sagong_node.pods.registration import allocatable, node_document, node_status
from sagong_node.pods.routing import routes
from sagong_node.pods.settings import PodSettings


def service(**spec: Any) -> Service:
    whole = {"clusterIP": "10.96.0.5", "ports": [{"name": "http", "port": 80}], **spec}
    return msgspec.convert(
        {"metadata": {"name": "web", "namespace": "default"}, "spec": whole}, Service
    )


def endpoint(address: str, node: str = "n1", **conditions: bool) -> dict[str, Any]:
    return {"addresses": [address], "nodeName": node, "conditions": conditions}


def piece(*endpoints: dict[str, Any], **fields: Any) -> EndpointSlice:
    whole = {
        "metadata": {"name": "web-1", "namespace": "default"},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080}],
        "endpoints": list(endpoints),
        **fields,
    }
    return msgspec.convert(whole, EndpointSlice)


def route(known: Service, *slices: EndpointSlice) -> Any:
    return routes([known], {("default", "web"): list(slices)}, "n1")


def test_a_service_leads_to_its_ready_endpoints() -> None:
    part = piece(
        endpoint("10.244.0.9", ready=True),
        endpoint("10.244.0.3", "n2", ready=True),
        endpoint("10.244.0.4", ready=False),
    )
    (found,) = route(service(), part)
    assert found.name == "default/web:http"
    assert (found.addresses, found.port, found.protocol) == (("10.96.0.5",), 80, "tcp")
    assert found.backends == ("10.244.0.3:8080", "10.244.0.9:8080")
    assert found.local_backends == ("10.244.0.9:8080",)
    assert (found.node_port, found.local_only, found.affinity_seconds) == (0, False, 0)


def test_ending_endpoints_serve_while_nobody_else_does() -> None:
    ending = endpoint("10.244.0.9", ready=False, serving=True, terminating=True)
    (found,) = route(service(), piece(ending))
    assert found.backends == ("10.244.0.9:8080",)
    (found,) = route(service(), piece(ending, endpoint("10.244.0.3", ready=True)))
    assert found.backends == ("10.244.0.3:8080",)


def test_node_ports_traffic_policies_and_affinity() -> None:
    known = service(
        type="LoadBalancer",
        ports=[{"name": "http", "port": 80, "nodePort": 30080}],
        externalIPs=["1.2.3.4"],
        externalTrafficPolicy="Local",
        internalTrafficPolicy="Local",
        sessionAffinity="ClientIP",
    )
    known = msgspec.convert(
        msgspec.to_builtins(known) | {"status": {"loadBalancer": {"ingress": [{"ip": "5.6.7.8"}]}}},
        Service,
    )
    part = piece(endpoint("10.244.0.9", "n2", ready=True), endpoint("10.244.0.3", ready=True))
    (found,) = route(known, part)
    assert (found.node_port, found.local_only, found.affinity_seconds) == (30080, True, 10800)
    assert found.external_addresses == ("1.2.3.4", "5.6.7.8")
    assert found.backends == ("10.244.0.3:8080",)


def test_services_without_an_address_have_no_route() -> None:
    assert route(service(clusterIP="None")) == ()
    assert route(service(clusterIP="", type="ExternalName", externalName="x")) == ()


def test_both_families_have_routes_of_their_own() -> None:
    known = service(clusterIP="10.96.0.5", clusterIPs=["10.96.0.5", "fd00::5"])
    six = piece(endpoint("fd00::9", ready=True), addressType="IPv6")
    four, other = route(known, piece(endpoint("10.244.0.9", ready=True)), six)
    assert (four.addresses, four.backends) == (("10.96.0.5",), ("10.244.0.9:8080",))
    assert (other.addresses, other.backends) == (("fd00::5",), ("[fd00::9]:8080",))


def living(name: str, address: str, namespace: str = "default", **fields: Any) -> Pod:
    labels = {"app": name}
    spec = {
        "nodeName": fields.get("node", "n1"),
        "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 8080}]}],
    }
    metadata = {"name": name, "namespace": namespace, "labels": labels}
    status = {"phase": "Running", "podIPs": [{"ip": address}]}
    return msgspec.convert({"metadata": metadata, "spec": spec, "status": status}, Pod)


def policy(**spec: Any) -> NetworkPolicy:
    return msgspec.convert(
        {"metadata": {"name": "p", "namespace": "default"}, "spec": spec}, NetworkPolicy
    )


PODS = [
    living("db", "10.244.0.2"),
    living("web", "10.244.0.3"),
    living("spy", "10.244.0.4", "other"),
    living("far", "10.244.1.2", node="n2"),
]
SPACES = {"default": {"kind": "own"}, "other": {"kind": "alien"}}


def test_a_policy_lets_its_peers_through() -> None:
    rule = {
        "from": [{"podSelector": {"matchLabels": {"app": "web"}}}],
        "ports": [{"port": "http"}, {"protocol": "UDP", "port": 100, "endPort": 200}],
    }
    known = policy(podSelector={"matchLabels": {"app": "db"}}, ingress=[rule])
    (found,) = policies([known], PODS, SPACES, "n1")
    assert (found.name, found.addresses, found.egress) == ("default/p", ("10.244.0.2",), None)
    assert found.ingress is not None
    (peer,) = found.ingress
    assert peer.blocks == ("10.244.0.3/32",)
    assert peer.ports == (("tcp", 8080, 8080), ("udp", 100, 200))


def test_namespaces_blocks_everybody_and_nobody() -> None:
    rule = {
        "to": [
            {"namespaceSelector": {"matchLabels": {"kind": "alien"}}},
            {"ipBlock": {"cidr": "1.0.0.0/8", "except": ["1.2.0.0/16"]}},
        ]
    }
    known = policy(podSelector={}, policyTypes=["Ingress", "Egress"], egress=[rule, {}])
    (found,) = policies([known], PODS, SPACES, "n1")
    assert found.addresses == ("10.244.0.2", "10.244.0.3")
    assert found.ingress == ()
    assert found.egress is not None
    first, second = found.egress
    assert first.blocks == ("1.0.0.0/8", "10.244.0.4/32")
    assert first.excepted == ("1.2.0.0/16",)
    assert second.any_address and second.ports == ()


def test_a_port_that_nobody_names_lets_nothing_through() -> None:
    known = policy(podSelector={}, ingress=[{"ports": [{"port": "nothing"}]}])
    (found,) = policies([known], PODS, SPACES, "n1")
    assert found.ingress is not None
    assert found.ingress[0].ports == (("tcp", 0, 0),)


FACTS = Facts(
    hostname="host",
    address="192.168.0.2",
    cpus=4,
    memory=8 << 30,
    disk=100 << 30,
    architecture="amd64",
    kernel="6.1",
    os_image="Linux",
    machine_id="m",
    boot_id="b",
    version="0.1",
)
CALM = Load(memory_available=4 << 30, disk_free=0.5, inodes_free=0.5, pids_free=0.9)


def test_the_node_says_what_it_has() -> None:
    settings = PodSettings(name="n1", reserved_cpu="500m", labels={"zone": "a"})
    document = node_document(FACTS, settings, CALM, 0.0)
    assert document["metadata"]["labels"]["zone"] == "a"
    assert document["metadata"]["labels"]["kubernetes.io/arch"] == "amd64"
    assert document["spec"]["podCIDR"] == "10.244.0.0/24"
    status = document["status"]
    assert status["capacity"]["cpu"] == "4"
    assert allocatable(FACTS, settings)["cpu"] == "3500m"
    assert allocatable(FACTS, settings)["memory"] == f"{(8 << 20) - (200 << 10)}Ki"
    assert [c["type"] for c in status["conditions"]][-1] == "Ready"
    assert all(c["status"] == "False" for c in status["conditions"][:-1])


def test_pressure_is_told_and_other_conditions_stay() -> None:
    held = [{"type": "NetworkUnavailable", "status": "False"}]
    known = msgspec.convert({"status": {"conditions": held}}, Node)
    pressed = Load(memory_available=1 << 20, disk_free=0.01, inodes_free=0.5, pids_free=0.001)
    status = node_status(known, FACTS, PodSettings(name="n1"), pressed, 0.0)
    found = {c["type"]: c["status"] for c in status["conditions"]}
    assert found == {
        "NetworkUnavailable": "False",
        "MemoryPressure": "True",
        "DiskPressure": "True",
        "PIDPressure": "True",
        "Ready": "True",
    }


def test_the_machine_can_be_read(tmp_path: Path) -> None:
    facts, now = read_facts(tmp_path, address="192.168.0.2"), load(tmp_path)
    assert facts.cpus >= 1 and facts.memory > 1 << 20 and facts.address == "192.168.0.2"
    assert 0 < now.disk_free < 1 and now.memory_available > 0 and 0 < now.pids_free <= 1


async def test_the_node_registers_renews_and_comes_back(tmp_path: Path) -> None:
    async with lab(tmp_path, renew_seconds=0.05) as node:
        lease = ("coordination.k8s.io/v1/leases", "kube-node-lease", "node-1")
        await node.until(lambda: lease in node.objects.objects, "the lease")
        own = node.objects.objects[("v1/nodes", "", "node-1")]
        assert own["status"]["addresses"][0] == {"type": "InternalIP", "address": "192.168.7.1"}
        first = node.objects.objects[lease]["spec"]["renewTime"]
        await node.until(lambda: node.objects.objects[lease]["spec"]["renewTime"] > first)
        assert node.objects.objects[lease]["metadata"]["ownerReferences"][0]["uid"] == "uid-node-1"
        node.objects.delete("Node", "node-1", namespace="")
        await node.until(lambda: ("v1/nodes", "", "node-1") in node.objects.objects)


async def test_services_and_policies_reach_the_network(tmp_path: Path) -> None:
    async with lab(tmp_path) as node:
        await node.until(lambda: node.networks.rules, "the first, empty rules")
        assert node.networks.rules[0].services == ()
        document = msgspec.to_builtins(service()) | {"kind": "Service"}
        node.objects.put(document)
        part = msgspec.to_builtins(piece(endpoint("10.244.0.9", "node-1", ready=True)))
        part["metadata"]["labels"] = {"kubernetes.io/service-name": "web"}
        node.objects.put(part | {"kind": "EndpointSlice"})

        def last() -> Rules:
            return node.networks.rules[-1]

        await node.until(lambda: last().services and last().services[0].backends)
        node.objects.put(pod())
        await node.until(lambda: node.phase("web") == "Running")
        wanted = {"podSelector": {}, "policyTypes": ["Ingress"]}
        metadata = {"name": "deny", "namespace": "default"}
        node.objects.put({"kind": "NetworkPolicy", "metadata": metadata, "spec": wanted})
        await node.until(lambda: last().policies)
        (denied,) = last().policies
        assert denied.addresses == ("10.244.0.2",) and denied.ingress == ()
        count = len(node.networks.rules)
        node.objects.put(json.loads(json.dumps(node.objects.pod("web"))))
        await asyncio.sleep(0.05)
        assert len(node.networks.rules) == count


async def test_a_container_engine_alone_waits_quietly(tmp_path: Path) -> None:
    node = Lab(tmp_path)
    node.objects.refuse = Unavailable("nothing serves objects now")
    await node.start()
    try:
        await asyncio.sleep(0.05)
        assert len(node.host._tasks) <= 4
    finally:
        await node.stop()
