"""From NetworkPolicies, pods and namespaces to what the machine lets through. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from sagong.contracts.network import Peer, Policy
from sagong.model.k8s.core_v1 import Pod
from sagong.model.k8s.meta_v1 import LabelSelector
from sagong.model.k8s.networking_v1 import (
    NetworkPolicy,
    NetworkPolicyPeer,
    NetworkPolicyPort,
)
from sagong.model.selectors import from_object

__all__ = ["policies"]

_DONE = ("Succeeded", "Failed")
_ALL_PORTS = (1, 65535)


def policies(
    found: Iterable[NetworkPolicy],
    pods: Sequence[Pod],
    namespaces: Mapping[str, Mapping[str, str]],
    node: str,
) -> tuple[Policy, ...]:
    """Policies for pods of this node; `namespaces` are labels by name."""
    living = [pod for pod in pods if _addresses(pod)]
    result = []
    for policy in found:
        namespace = policy.metadata.namespace
        selected = [
            pod
            for pod in _selected(living, policy.spec.pod_selector, {namespace})
            if pod.spec.node_name == node
        ]
        addresses = tuple(sorted({a for pod in selected for a in _addresses(pod)}))
        if not addresses:
            continue
        types = policy.spec.policy_types or _default_types(policy)
        ingress = egress = None
        if "Ingress" in types:
            ingress = tuple(
                _peer(rule.from_, rule.ports, namespace, living, namespaces, targets=selected)
                for rule in policy.spec.ingress
            )
        if "Egress" in types:
            egress = tuple(
                _peer(rule.to, rule.ports, namespace, living, namespaces, targets=None)
                for rule in policy.spec.egress
            )
        name = f"{namespace}/{policy.metadata.name}"
        result.append(Policy(name=name, addresses=addresses, ingress=ingress, egress=egress))
    return tuple(sorted(result, key=lambda policy: policy.name))


def _default_types(policy: NetworkPolicy) -> list[str]:
    return ["Ingress", "Egress"] if policy.spec.egress else ["Ingress"]


def _addresses(pod: Pod) -> list[str]:
    """Of a pod with a network of its own that still runs."""
    if pod.spec.host_network or pod.status.phase in _DONE:
        return []
    return [entry.ip for entry in pod.status.pod_ips if entry.ip]


def _selected(
    pods: Iterable[Pod], selector: LabelSelector | None, namespaces: set[str]
) -> list[Pod]:
    matcher = from_object(selector if selector is not None else {})
    return [
        pod
        for pod in pods
        if pod.metadata.namespace in namespaces and matcher.matches(pod.metadata.labels)
    ]


def _peer(
    peers: Sequence[NetworkPolicyPeer],
    ports: Sequence[NetworkPolicyPort],
    namespace: str,
    pods: Sequence[Pod],
    namespaces: Mapping[str, Mapping[str, str]],
    *,
    targets: Sequence[Pod] | None,
) -> Peer:
    """One rule: no peers mean everybody, no ports all. Named ports are those of the receiver."""
    blocks: list[str] = []
    excepted: list[str] = []
    chosen: list[Pod] = []
    for peer in peers:
        if peer.ip_block is not None:
            blocks.append(peer.ip_block.cidr)
            excepted += peer.ip_block.except_
            continue
        where = {namespace}
        if peer.namespace_selector is not None:
            matcher = from_object(peer.namespace_selector)
            where = {name for name, labels in namespaces.items() if matcher.matches(labels)}
        chosen += _selected(pods, peer.pod_selector, where)
    blocks += [_single(a) for pod in chosen for a in _addresses(pod)]
    receivers = chosen if targets is None else targets
    return Peer(
        blocks=tuple(dict.fromkeys(blocks)),
        excepted=tuple(dict.fromkeys(excepted)),
        any_address=not peers,
        ports=_ports(ports, receivers),
    )


def _single(address: str) -> str:
    return f"{address}/128" if ":" in address else f"{address}/32"


def _ports(
    ports: Sequence[NetworkPolicyPort], receivers: Sequence[Pod]
) -> tuple[tuple[str, int, int], ...]:
    found: list[tuple[str, int, int]] = []
    for port in ports:
        protocol = (port.protocol or "TCP").lower()
        if port.port is None:
            found.append((protocol, *_ALL_PORTS))
        elif isinstance(port.port, int):
            found.append((protocol, port.port, port.end_port or port.port))
        else:
            numbers = _named(port.port, protocol, receivers)
            # A name that nobody has allows nothing; an empty tuple would allow all.
            found += [(protocol, n, n) for n in numbers] or [(protocol, 0, 0)]
    return tuple(dict.fromkeys(found))


def _named(name: str, protocol: str, pods: Sequence[Pod]) -> list[int]:
    return sorted(
        {
            port.container_port
            for pod in pods
            for container in (*pod.spec.init_containers, *pod.spec.containers)
            for port in container.ports
            if port.name == name and (port.protocol or "TCP").lower() == protocol
        }
    )
