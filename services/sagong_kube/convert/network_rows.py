"""The rows of services, endpoints, ingresses and network policies."""

from __future__ import annotations

from typing import Any

from sagong_kube.convert.cells import (
    NONE,
    UNKNOWN,
    UNSET,
    age_of,
    labels_text,
    name_of,
    selector_text,
    spec_of,
    status_of,
)

Document = dict[str, Any]


def _balancer(document: Document) -> str:
    ingress = (status_of(document).get("loadBalancer") or {}).get("ingress") or ()
    found = sorted({each.get("ip") or each.get("hostname") or "" for each in ingress} - {""})
    return ",".join(found)


def _external(document: Document) -> str:
    spec = spec_of(document)
    listed = list(spec.get("externalIPs") or ())
    match spec.get("type"):
        case "ClusterIP" | "NodePort":
            return ",".join(listed) or NONE
        case "LoadBalancer":
            return ",".join([*filter(None, [_balancer(document)]), *listed]) or "<pending>"
        case "ExternalName":
            return str(spec.get("externalName", ""))
    return UNKNOWN


def _port(port: Document) -> str:
    node = f":{port['nodePort']}" if port.get("nodePort") else ""
    return f"{port.get('port', 0)}{node}/{port.get('protocol', '')}"


def service(document: Document, now: float) -> list[Any]:
    """A Service."""
    spec = spec_of(document)
    return [
        name_of(document),
        spec.get("type", ""),
        spec.get("clusterIP") or NONE,
        _external(document),
        ",".join(_port(port) for port in spec.get("ports") or ()) or NONE,
        age_of(document, now),
        labels_text(spec.get("selector")),
    ]


def _joined(host: str, port: Any) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _first_three(items: list[str]) -> str:
    more = f" + {len(items) - 3} more..." if len(items) > 3 else ""
    return ",".join(items[:3]) + more


def endpoints(document: Document, now: float) -> list[Any]:
    """Endpoints."""
    found = []
    for subset in document.get("subsets") or ():
        addresses = [address.get("ip", "") for address in subset.get("addresses") or ()]
        ports = subset.get("ports") or ()
        if not ports:
            found += addresses
        found += [_joined(ip, port.get("port", 0)) for port in ports for ip in addresses]
    return [name_of(document), _first_three(found) or NONE, age_of(document, now)]


def endpoint_slice(document: Document, now: float) -> list[Any]:
    """An EndpointSlice."""
    ports = [_slice_port(port) for port in document.get("ports") or ()]
    addresses = [
        address
        for endpoint in document.get("endpoints") or ()
        for address in endpoint.get("addresses") or ()
    ]
    return [
        name_of(document),
        document.get("addressType", ""),
        _first_three(ports) or UNSET,
        _first_three(addresses) or UNSET,
        age_of(document, now),
    ]


def _slice_port(port: Document) -> str:
    number = port.get("port")
    return "*" if number is None else str(number)


def ingress(document: Document, now: float) -> list[Any]:
    """An Ingress."""
    spec = spec_of(document)
    hosts = [rule["host"] for rule in spec.get("rules") or () if rule.get("host")]
    return [
        name_of(document),
        spec.get("ingressClassName") or NONE,
        _first_three(hosts) or "*",
        _balancer(document),
        "80, 443" if spec.get("tls") else "80",
        age_of(document, now),
    ]


def ingress_class(document: Document, now: float) -> list[Any]:
    """An IngressClass."""
    spec = spec_of(document)
    found = spec.get("parameters")
    shown = NONE
    if found:
        group = f".{found['apiGroup']}" if found.get("apiGroup") else ""
        shown = f"{found.get('kind', '')}{group}/{found.get('name', '')}"
    return [name_of(document), spec.get("controller", ""), shown, age_of(document, now)]


def network_policy(document: Document, now: float) -> list[Any]:
    """A NetworkPolicy."""
    return [
        name_of(document),
        selector_text(spec_of(document).get("podSelector")),
        age_of(document, now),
    ]
