"""Checks of services, endpoints, endpoint slices, ingresses and network policies."""

from __future__ import annotations

import ipaddress
from typing import Any, Final

from sagong.model import names
from sagong_kube.schema.rules.containers import PROTOCOLS, check_port_reference
from sagong_kube.schema.rules.findings import Findings, Literal
from sagong_kube.schema.rules.metadata import check_label_selector, check_labels

__all__ = [
    "check_endpoint_slice",
    "check_endpoints",
    "check_ingress",
    "check_ingress_class",
    "check_network_policy",
    "check_service",
]

Document = dict[str, Any]

_TYPES: Final = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
_POLICIES: Final = ("Cluster", "Local")
_FAMILIES: Final = ("IPv4", "IPv6")
_FAMILY_POLICIES: Final = ("PreferDualStack", "RequireDualStack", "SingleStack")
_LONGEST_AFFINITY: Final = 86400
_CIDR_SAID: Final = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
_PATH_TYPES: Final = ("Exact", "ImplementationSpecific", "Prefix")
_BALANCED: Final = "may only be used when `type` is 'LoadBalancer'"


def check_service(found: Findings, service: Document, old: Document | None) -> None:
    """A service; with `old`, that its addresses stay."""
    spec = service.get("spec") or {}
    kind = spec.get("type", "")
    if old is not None:
        _check_update(found, spec, old.get("spec") or {})
    headless = spec.get("clusterIP") == "None"
    if not spec.get("ports") and not headless and kind != "ExternalName":
        found.required("spec.ports")
    if headless and kind in ("LoadBalancer", "NodePort"):
        found.invalid("spec.clusterIPs[0]", "None", f"may not be set to 'None' for {kind} services")
    if kind == "ExternalName":
        _check_external(found, spec)
    _check_ports(found, spec)
    check_labels(found, spec.get("selector"), "spec.selector")
    _check_affinity(found, spec)
    _check_addresses(found, spec, kind)
    found.one_of("spec.type", kind, _TYPES)
    _check_node_ports(found, spec, kind)
    _check_balancer(found, spec, kind)
    _check_traffic(found, spec, kind)


def _check_update(found: Findings, new: Document, old: Document) -> None:
    if "ExternalName" in (new.get("type"), old.get("type")):
        return
    before, after = old.get("clusterIP", ""), new.get("clusterIP", "")
    if before and before != after:
        said = "may not change once set"
        found.invalid("spec.clusterIPs[0]", _first(new, "clusterIPs", after), said)
    fresh, known = new.get("ipFamilies") or [], old.get("ipFamilies") or []
    if known and fresh and fresh[0] != known[0] and before != "None":
        found.invalid("spec.ipFamilies[0]", fresh[0], "may not change once set")
    check = _needs_health(new) and _needs_health(old)
    if check and new.get("healthCheckNodePort") != old.get("healthCheckNodePort"):
        found.forbidden("spec.healthCheckNodePort", "field is immutable")
    both = new.get("type") == old.get("type") == "LoadBalancer"
    if both and new.get("loadBalancerClass") != old.get("loadBalancerClass"):
        found.invalid(
            "spec.loadBalancerClass", new.get("loadBalancerClass"), "may not change once set"
        )


def _first(spec: Document, field: str, otherwise: str) -> Any:
    items = spec.get(field) or [otherwise]
    return items[0]


def _check_external(found: Findings, spec: Document) -> None:
    for field in ("clusterIPs", "ipFamilies", "ipFamilyPolicy"):
        if spec.get(field):
            found.forbidden(f"spec.{field}", "may not be set for ExternalName services")
    name = spec.get("externalName", "").removesuffix(".")
    if not name:
        found.required("spec.externalName")
    else:
        found.each("spec.externalName", name, names.check_subdomain(name))


def _check_ports(found: Findings, spec: Document) -> None:
    ports = spec.get("ports") or []
    known: set[str] = set()
    pairs: set[tuple[str, int]] = set()
    for at, port in enumerate(ports):
        path = f"spec.ports[{at}]"
        _check_port_name(found, port.get("name", ""), known, path, needed=len(ports) > 1)
        number, protocol = port.get("port", 0), port.get("protocol", "")
        found.each(f"{path}.port", number, names.check_port(number))
        found.one_of(f"{path}.protocol", protocol, PROTOCOLS)
        check_port_reference(found, port.get("targetPort", 0), f"{path}.targetPort")
        if port.get("appProtocol") is not None:
            wrong = names.check_qualified_name(port["appProtocol"])
            found.each(f"{path}.appProtocol", port["appProtocol"], wrong)
    for at, port in enumerate(ports):
        pair = (port.get("protocol", ""), port.get("port", 0))
        if pair in pairs:
            found.duplicate(f"spec.ports[{at}]", _port_literal(*pair))
        pairs.add(pair)


def _port_literal(protocol: str, port: int) -> Literal:
    return Literal(
        f'core.ServicePort{{Name:"", Protocol:"{protocol}", AppProtocol:(*string)(nil), '
        f'Port:{port}, TargetPort:intstr.IntOrString{{Type:0, IntVal:0, StrVal:""}}, NodePort:0}}'
    )


def _check_port_name(
    found: Findings, name: str, known: set[str], path: str, *, needed: bool
) -> None:
    if not name:
        if needed:
            found.required(f"{path}.name")
        return
    found.each(f"{path}.name", name, names.check_dns_label(name))
    if name in known:
        found.duplicate(f"{path}.name", name)
    known.add(name)


def _check_affinity(found: Findings, spec: Document) -> None:
    kind = spec.get("sessionAffinity", "")
    found.one_of("spec.sessionAffinity", kind, ("ClientIP", "None"))
    config = spec.get("sessionAffinityConfig")
    if kind == "None" and config is not None:
        said = "must not be set when session affinity is None"
        found.forbidden("spec.sessionAffinityConfig", said)
    if kind == "ClientIP":
        seconds = ((config or {}).get("clientIP") or {}).get("timeoutSeconds")
        path = "spec.sessionAffinityConfig.clientIP.timeoutSeconds"
        if seconds is None:
            found.required(path, "when session affinity type is ClientIP")
        elif not 0 < seconds <= _LONGEST_AFFINITY:
            said = f"must be greater than 0 and less than {_LONGEST_AFFINITY}"
            found.invalid(path, seconds, said)


def _check_addresses(found: Findings, spec: Document, kind: str) -> None:
    address, listed = spec.get("clusterIP", ""), spec.get("clusterIPs") or []
    if kind == "ExternalName":
        if address:
            found.forbidden("spec.clusterIP", "may not be set for ExternalName services")
        return
    if listed and address and listed[0] != address:
        found.invalid("spec.clusterIPs", listed, "first value must match `clusterIP`")
    if len(listed) > 2:
        found.invalid("spec.clusterIPs", listed, "may only hold up to 2 values")
    for at, one in enumerate(listed):
        if one == "None" and (at or len(listed) > 1):
            said = "'None' must be the first and only value"
            found.invalid(f"spec.clusterIPs[{at}]", one, said)
        elif one and one != "None":
            found.each(f"spec.clusterIPs[{at}]", one, names.check_ip(one))
    if address and not listed and address != "None":
        found.each("spec.clusterIPs[0]", address, names.check_ip(address))
    for at, family in enumerate(spec.get("ipFamilies") or ()):
        if family not in _FAMILIES:
            found.unsupported(f"spec.ipFamilies[{at}]", family, _FAMILIES)
    policy = spec.get("ipFamilyPolicy")
    if policy is not None and policy not in _FAMILY_POLICIES:
        found.unsupported("spec.ipFamilyPolicy", policy, _FAMILY_POLICIES)
    for at, one in enumerate(spec.get("externalIPs") or ()):
        _check_plain_address(found, one, f"spec.externalIPs[{at}]")


def _check_plain_address(found: Findings, text: str, path: str) -> None:
    wrong = names.check_ip(text)
    found.each(path, text, wrong)
    if wrong:
        return
    address = ipaddress.ip_address(text)
    if address.is_unspecified:
        found.invalid(path, text, f"may not be unspecified ({text})")
    if address.is_loopback:
        found.invalid(path, text, "may not be in the loopback range (127.0.0.0/8, ::1/128)")
    if address.is_link_local:
        said = "may not be in the link-local range (169.254.0.0/16, fe80::/10)"
        found.invalid(path, text, said)
    if address.is_multicast:
        said = "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"
        found.invalid(path, text, said)


def _check_node_ports(found: Findings, spec: Document, kind: str) -> None:
    known: set[tuple[str, int]] = set()
    for at, port in enumerate(spec.get("ports") or ()):
        number = port.get("nodePort") or 0
        if not number:
            continue
        path = f"spec.ports[{at}].nodePort"
        if kind == "ClusterIP":
            found.forbidden(path, "may not be used when `type` is 'ClusterIP'")
        pair = (port.get("protocol", ""), number)
        if pair in known:
            found.duplicate(path, number)
        known.add(pair)


def _check_balancer(found: Findings, spec: Document, kind: str) -> None:
    balanced = kind == "LoadBalancer"
    ranges = spec.get("loadBalancerSourceRanges") or []
    if ranges and not balanced:
        found.forbidden("spec.LoadBalancerSourceRanges", _BALANCED)
    for at, text in enumerate(ranges):
        check_cidr(found, text.strip(), f"spec.LoadBalancerSourceRanges[{at}]")
    if spec.get("allocateLoadBalancerNodePorts") is not None and not balanced:
        found.forbidden("spec.allocateLoadBalancerNodePorts", _BALANCED)
    if spec.get("loadBalancerClass") is not None and not balanced:
        found.forbidden("spec.loadBalancerClass", _BALANCED)


def _needs_health(spec: Document) -> bool:
    return spec.get("type") == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local"


def _check_traffic(found: Findings, spec: Document, kind: str) -> None:
    policy = spec.get("externalTrafficPolicy", "")
    outside = kind in ("NodePort", "LoadBalancer") or (
        kind == "ClusterIP" and bool(spec.get("externalIPs"))
    )
    if outside:
        found.one_of("spec.externalTrafficPolicy", policy, _POLICIES)
    elif policy:
        said = "may only be set for externally-accessible services"
        found.invalid("spec.externalTrafficPolicy", policy, said)
    port = spec.get("healthCheckNodePort") or 0
    if port and not _needs_health(spec):
        said = (
            "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"
        )
        found.invalid("spec.healthCheckNodePort", port, said)
    inside = spec.get("internalTrafficPolicy")
    if inside is not None and inside not in _POLICIES:
        found.unsupported("spec.internalTrafficPolicy", inside, _POLICIES)
    spread = spec.get("trafficDistribution")
    if spread is not None and spread != "PreferClose":
        found.unsupported("spec.trafficDistribution", spread, ("PreferClose",))


def check_cidr(found: Findings, text: str, path: str) -> None:
    """A network in CIDR form."""
    try:
        ipaddress.ip_network(text, strict=False)
        right = "/" in text
    except ValueError:
        right = False
    if not right:
        found.invalid(path, text, _CIDR_SAID)


# Endpoints


def check_endpoints(found: Findings, endpoints: Document, old: Document | None) -> None:
    """Endpoints: addresses and ports of each subset."""
    for at, subset in enumerate(endpoints.get("subsets") or ()):
        path = f"subsets[{at}]"
        if not subset.get("addresses") and not subset.get("notReadyAddresses"):
            found.required(path, "must specify `addresses` or `notReadyAddresses`")
        for part in ("addresses", "notReadyAddresses"):
            for index, address in enumerate(subset.get(part) or ()):
                _check_plain_address(found, address.get("ip", ""), f"{path}.{part}[{index}].ip")
        ports = subset.get("ports") or []
        for index, port in enumerate(ports):
            where = f"{path}.ports[{index}]"
            _check_port_name(found, port.get("name", ""), set(), where, needed=len(ports) > 1)
            number = port.get("port", 0)
            found.each(f"{where}.port", number, names.check_port(number))
            found.one_of(f"{where}.protocol", port.get("protocol", ""), PROTOCOLS)


def check_endpoint_slice(found: Findings, item: Document, old: Document | None) -> None:
    """An endpoint slice: its family, endpoints and ports."""
    kind = item.get("addressType", "")
    found.one_of("addressType", kind, ("FQDN", "IPv4", "IPv6"))
    if old is not None:
        found.immutable("addressType", kind, old.get("addressType"))
    endpoints = item.get("endpoints") or []
    if len(endpoints) > 1000:
        found.too_many("endpoints", len(endpoints), 1000)
    for at, endpoint in enumerate(endpoints):
        addresses = endpoint.get("addresses") or []
        if not addresses:
            found.required(f"endpoints[{at}].addresses", "must contain at least 1 address")
        elif len(addresses) > 100:
            found.too_many(f"endpoints[{at}].addresses", len(addresses), 100)
        for index, address in enumerate(addresses):
            _check_slice_address(found, address, kind, f"endpoints[{at}].addresses[{index}]")
    known: set[str] = set()
    for at, port in enumerate(item.get("ports") or ()):
        name = port.get("name") or ""
        if name:
            found.each(f"ports[{at}].name", name, names.check_dns_label(name))
        if name in known:
            found.duplicate(f"ports[{at}].name", name)
        known.add(name)
        if port.get("protocol") is not None and port["protocol"] not in PROTOCOLS:
            found.unsupported(f"ports[{at}].protocol", port["protocol"], PROTOCOLS)


def _check_slice_address(found: Findings, address: str, kind: str, path: str) -> None:
    if kind == "FQDN":
        found.each(path, address, names.check_subdomain(address))
        return
    wrong = names.check_ip(address)
    if wrong or (":" in address) != (kind == "IPv6"):
        found.invalid(path, address, f"must be a valid {kind} address")


# Ingress


def check_ingress_class(found: Findings, item: Document, old: Document | None) -> None:
    """An ingress class."""
    controller = (item.get("spec") or {}).get("controller", "")
    if old is not None:
        found.immutable("spec.controller", controller, (old.get("spec") or {}).get("controller"))
    if not controller:
        found.required("spec.controller")
    elif "/" not in controller:
        said = 'must be a domain-prefixed path (such as "acme.io/foo")'
        found.invalid("spec.controller", controller, said)


def check_ingress(found: Findings, ingress: Document, old: Document | None) -> None:
    """An ingress: its rules, backends and certificates."""
    spec = ingress.get("spec") or {}
    rules, backend = spec.get("rules") or [], spec.get("defaultBackend")
    if not rules and backend is None:
        found.invalid("spec", rules, "either `defaultBackend` or `rules` must be specified")
    if backend is not None:
        _check_backend(found, backend, "spec.defaultBackend")
    for at, entry in enumerate(spec.get("tls") or ()):
        for index, host in enumerate(entry.get("hosts") or ()):
            _check_host(found, host, f"spec.tls[{at}].hosts[{index}]")
    for at, rule in enumerate(rules):
        path = f"spec.rules[{at}]"
        if rule.get("host"):
            if not names.check_ip(rule["host"]):
                found.invalid(f"{path}.host", rule["host"], "must be a DNS name, not an IP address")
            else:
                _check_host(found, rule["host"], f"{path}.host")
        if rule.get("http") is not None:
            _check_paths(found, rule["http"].get("paths") or [], f"{path}.http.paths")
    name = spec.get("ingressClassName")
    if name is not None:
        found.each("spec.ingressClassName", name, names.check_subdomain(name))


def _check_host(found: Findings, host: str, path: str) -> None:
    check = names.check_wildcard_subdomain if "*" in host else names.check_subdomain
    found.each(path, host, check(host))


def _check_paths(found: Findings, paths: list[Document], path: str) -> None:
    if not paths:
        found.required(path)
    for at, entry in enumerate(paths):
        where = f"{path}[{at}]"
        kind, text = entry.get("pathType"), entry.get("path", "")
        if kind is None:
            found.required(f"{where}.pathType", "pathType must be specified")
        elif kind not in _PATH_TYPES:
            found.unsupported(f"{where}.pathType", kind, _PATH_TYPES)
        elif (kind != "ImplementationSpecific" and not text.startswith("/")) or (
            text and not text.startswith("/")
        ):
            found.invalid(f"{where}.path", text, "must be an absolute path")
        _check_backend(found, entry.get("backend") or {}, f"{where}.backend")


def _check_backend(found: Findings, backend: Document, path: str) -> None:
    service, resource = backend.get("service"), backend.get("resource")
    if service is not None and resource is not None:
        found.invalid(path, "", "cannot set both resource and service backends")
    elif resource is not None:
        for field in ("kind", "name"):
            if not resource.get(field):
                found.required(f"{path}.resource.{field}")
    elif service is None:
        found.required(path)
    else:
        _check_service_backend(found, service, path)


def _check_service_backend(found: Findings, service: Document, path: str) -> None:
    name, port = service.get("name", ""), service.get("port") or {}
    if not name:
        found.required(f"{path}.service.name")
    else:
        found.each(f"{path}.service.name", name, names.check_dns_1035_label(name))
    if port.get("name") and port.get("number"):
        found.invalid(path, "", "cannot set both port name & port number")
    elif port.get("name"):
        found.each(f"{path}.service.port.name", port["name"], names.check_port_name(port["name"]))
    elif port.get("number"):
        wrong = names.check_port(port["number"])
        found.each(f"{path}.service.port.number", port["number"], wrong)
    else:
        found.required(path, "port name or number is required")


# Network policy


def check_network_policy(found: Findings, policy: Document, old: Document | None) -> None:
    """A network policy."""
    spec = policy.get("spec") or {}
    check_label_selector(found, spec.get("podSelector"), "spec.podSelector")
    for direction, side in (("ingress", "from"), ("egress", "to")):
        for at, rule in enumerate(spec.get(direction) or ()):
            path = f"spec.{direction}[{at}]"
            for index, port in enumerate(rule.get("ports") or ()):
                _check_policy_port(found, port, f"{path}.ports[{index}]")
            for index, peer in enumerate(rule.get(side) or ()):
                _check_peer(found, peer, f"{path}.{side}[{index}]")
    kinds = spec.get("policyTypes") or []
    if len(kinds) > 2:
        found.invalid("spec.policyTypes", kinds, "may not specify more than two policyTypes")
        return
    for at, kind in enumerate(kinds):
        if kind not in ("Ingress", "Egress"):
            found.unsupported(f"spec.policyTypes[{at}]", kind, ("Egress", "Ingress"))


def _check_policy_port(found: Findings, port: Document, path: str) -> None:
    protocol = port.get("protocol")
    if protocol is not None and protocol not in PROTOCOLS:
        found.unsupported(f"{path}.protocol", protocol, PROTOCOLS)
    number, end = port.get("port"), port.get("endPort")
    if number is None:
        if end is not None:
            found.required(f"{path}.endPort", "must be specified when `endPort` is specified")
        return
    check_port_reference(found, number, f"{path}.port")
    if end is not None:
        if isinstance(number, str):
            said = "may not be specified when `port` is non-numeric"
            found.forbidden(f"{path}.endPort", said)
        elif end < number:
            found.invalid(f"{path}.endPort", end, "must be greater than or equal to `port`")


def _check_peer(found: Findings, peer: Document, path: str) -> None:
    block = peer.get("ipBlock")
    selectors = [
        each for each in ("podSelector", "namespaceSelector") if peer.get(each) is not None
    ]
    for field in selectors:
        check_label_selector(found, peer[field], f"{path}.{field}")
    if block is None:
        if not selectors:
            found.required(path, "must specify a peer")
        return
    if selectors:
        found.forbidden(path, "may not specify both ipBlock and another peer")
    if not block.get("cidr"):
        found.required(f"{path}.ipBlock.cidr")
        return
    before = len(found.errors)
    check_cidr(found, block["cidr"], f"{path}.ipBlock.cidr")
    if len(found.errors) == before:
        _check_except(found, block, f"{path}.ipBlock")


def _check_except(found: Findings, block: Document, path: str) -> None:
    whole = ipaddress.ip_network(block["cidr"], strict=False)
    for at, text in enumerate(block.get("except") or ()):
        where = f"{path}.except[{at}]"
        before = len(found.errors)
        check_cidr(found, text, where)
        if len(found.errors) > before:
            continue
        part = ipaddress.ip_network(text, strict=False)
        inside = part.version == whole.version and part.subnet_of(whole)  # type: ignore[arg-type]
        if not inside or part == whole:
            found.invalid(where, text, "must be a strict subset of `cidr`")
