"""From services and endpoint slices to the machine's service routing. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from sagong.contracts.network import ServicePort as Route
from sagong.model.k8s.core_v1 import Service, ServicePort
from sagong.model.k8s.discovery_v1 import Endpoint, EndpointSlice

__all__ = ["SERVICE_LABEL", "routes"]

SERVICE_LABEL = "kubernetes.io/service-name"
_PROXY_LABEL = "service.kubernetes.io/service-proxy-name"
_DEFAULT_AFFINITY = 10800


class _Backend(msgspec.Struct, frozen=True):
    address: str
    local: bool
    ready: bool


def routes(
    services: Iterable[Service],
    slices: Mapping[tuple[str, str], Sequence[EndpointSlice]],
    node: str,
) -> tuple[Route, ...]:
    """One route for each port and address family of each service with an address.

    `slices` are those of each (namespace, service).
    """
    found = []
    for service in services:
        metadata, spec = service.metadata, service.spec
        addresses = spec.cluster_ips or ([spec.cluster_ip] if spec.cluster_ip else [])
        if spec.type == "ExternalName" or not addresses or addresses[0] == "None":
            continue
        if _PROXY_LABEL in metadata.labels:
            continue
        own = slices.get((metadata.namespace, metadata.name), ())
        for port in spec.ports:
            for version6 in sorted({":" in address for address in addresses}):
                found.append(_route(service, port, own, node, version6=version6))
    return tuple(sorted(found, key=lambda route: (route.name, route.addresses)))


def _route(
    service: Service,
    port: ServicePort,
    slices: Sequence[EndpointSlice],
    node: str,
    *,
    version6: bool,
) -> Route:
    spec, metadata = service.spec, service.metadata
    backends = list(_backends(slices, port, node, version6=version6))
    local = [b.address for b in _usable(b for b in backends if b.local)]
    usable = [b.address for b in _usable(backends)]
    inside = local if spec.internal_traffic_policy == "Local" else usable
    name = f"{metadata.namespace}/{metadata.name}"
    ingress = [e.ip for e in service.status.load_balancer.ingress if e.ip and _routed(e)]
    return Route(
        name=f"{name}:{port.name}" if port.name else name,
        addresses=_family(spec.cluster_ips or [spec.cluster_ip], version6=version6),
        port=port.port,
        protocol=(port.protocol or "TCP").lower(),
        node_port=port.node_port if spec.type in ("NodePort", "LoadBalancer") else 0,
        backends=tuple(sorted(set(inside))),
        local_backends=tuple(sorted(set(local))),
        external_addresses=_family([*spec.external_ips, *ingress], version6=version6),
        affinity_seconds=_affinity(service),
        local_only=spec.external_traffic_policy == "Local",
    )


def _routed(entry: object) -> bool:
    """Load balancers that keep the address for themselves (ipMode Proxy) are not short-cut."""
    return getattr(entry, "ip_mode", None) != "Proxy"


def _family(addresses: Iterable[str], *, version6: bool) -> tuple[str, ...]:
    return tuple(sorted({a for a in addresses if a and (":" in a) is version6}))


def _affinity(service: Service) -> int:
    if service.spec.session_affinity != "ClientIP":
        return 0
    config = service.spec.session_affinity_config
    seconds = config.client_ip.timeout_seconds if config and config.client_ip else None
    return seconds or _DEFAULT_AFFINITY


def _usable(backends: Iterable[_Backend]) -> list[_Backend]:
    """Ready ones; where there is none those that still serve while they end."""
    known = list(backends)
    ready = [backend for backend in known if backend.ready]
    return ready or known


def _backends(
    slices: Sequence[EndpointSlice], port: ServicePort, node: str, *, version6: bool
) -> Iterable[_Backend]:
    """Backends that are ready, or at least serving."""
    for part in slices:
        if (part.address_type == "IPv6") is not version6 or part.address_type == "FQDN":
            continue
        number = _port_of(part, port)
        if number is None:
            continue
        for endpoint in part.endpoints:
            ready, serving = _condition(endpoint)
            if not (ready or serving):
                continue
            for address in endpoint.addresses[:1]:
                literal = f"[{address}]:{number}" if version6 else f"{address}:{number}"
                yield _Backend(literal, endpoint.node_name == node, ready)


def _port_of(part: EndpointSlice, port: ServicePort) -> int | None:
    for known in part.ports:
        same = (known.protocol or "TCP") == (port.protocol or "TCP")
        if (known.name or "") == port.name and same:
            return known.port
    return None


def _condition(endpoint: Endpoint) -> tuple[bool, bool]:
    """(ready, serving while terminating); unknown counts as ready."""
    conditions = endpoint.conditions
    terminating = conditions.terminating is True
    ready = conditions.ready is not False and not terminating
    serving = conditions.serving is True or (conditions.serving is None and ready)
    return ready, serving and terminating
