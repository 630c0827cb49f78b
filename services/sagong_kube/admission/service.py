"""Services: cluster addresses, address families and node ports, taken with the service itself."""

from __future__ import annotations

import ipaddress

from sagong_kube import refusal
from sagong_kube.refusal import Cause
from sagong_kube.registry.allocation import Allocations, held_keys
from sagong_kube.registry.document import Document
from sagong_kube.registry.review import CREATE, UPDATE, Review

__all__ = ["ServiceAddresses"]

_NODE_PORT_TYPES = ("NodePort", "LoadBalancer")


class ServiceAddresses:
    """Fills addresses and ports in, and takes them in the service's transaction."""

    def __init__(self, allocations: Allocations) -> None:
        self._allocations = allocations

    def fill(self, review: Review) -> None:
        """Choose what the service does not name itself."""
        if review.storage != "core/services" or review.subresource or review.new is None:
            return
        if review.operation not in (CREATE, UPDATE):
            return
        spec = review.new.setdefault("spec", {})
        kind = spec.setdefault("type", "ClusterIP")
        if review.old is not None:
            _keep(spec, review.old["spec"])
        if kind == "ExternalName":
            for field in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
                spec.pop(field, None)
            spec.pop("internalTrafficPolicy", None)
            return
        spec.setdefault("internalTrafficPolicy", "Cluster")
        self._fill_addresses(spec)
        self._fill_ports(review, spec, kind)

    def _fill_addresses(self, spec: Document) -> None:
        named = spec.get("clusterIPs") or ([spec["clusterIP"]] if spec.get("clusterIP") else [])
        families = spec.get("ipFamilies") or _families_of(named) or [self._allocations.families[0]]
        policy = spec.get("ipFamilyPolicy") or (
            "SingleStack" if len(families) == 1 else "RequireDualStack"
        )
        if policy != "SingleStack" and not (named and named[0] == "None"):
            others = [f for f in self._allocations.families if f not in families]
            if policy == "RequireDualStack" and len(families) + len(others) < 2:
                raise refusal.bad_request(
                    "spec.ipFamilyPolicy: this cluster is not configured for dual-stack services"
                )
            families = [*families, *others][:2]
        spec["ipFamilies"], spec["ipFamilyPolicy"] = list(families), policy
        if not (named and named[0] == "None"):
            named = list(named)
            claimed = set(held_keys({"spec": {"clusterIPs": named}}))
            for family in families[len(named) :]:
                named.append(self._allocations.address(family, claimed))
        spec["clusterIPs"], spec["clusterIP"] = list(named), named[0]

    def _fill_ports(self, review: Review, spec: Document, kind: str) -> None:
        opens = kind == "NodePort" or (
            kind == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts", True)
        )
        if kind == "LoadBalancer":
            spec.setdefault("allocateLoadBalancerNodePorts", True)
        if kind in _NODE_PORT_TYPES:
            spec.setdefault("externalTrafficPolicy", "Cluster")
        else:
            spec.pop("externalTrafficPolicy", None)
            spec.pop("allocateLoadBalancerNodePorts", None)
        ports = [dict(port) for port in spec.get("ports") or ()]
        before = _old_ports(review.old)
        claimed = set(held_keys({"spec": {"ports": ports}}))
        chosen: dict[int, int] = {}
        for port in ports:
            if not opens:
                if kind == "ClusterIP" and _was_carried_over(port, before):
                    port.pop("nodePort", None)
            elif not port.get("nodePort"):
                number = before.get(_identity(port)) or chosen.get(port["port"])
                if number is None or _taken_by_other(number, port, ports):
                    number = self._allocations.port(claimed)
                port["nodePort"] = number
                chosen[port["port"]] = number
                claimed |= set(held_keys({"spec": {"ports": [port]}}))
        if ports:
            spec["ports"] = ports
        self._fill_health(spec, kind, claimed)

    def _fill_health(self, spec: Document, kind: str, claimed: set[str]) -> None:
        if kind != "LoadBalancer" or spec.get("externalTrafficPolicy") != "Local":
            spec.pop("healthCheckNodePort", None)
        elif not spec.get("healthCheckNodePort"):
            spec["healthCheckNodePort"] = self._allocations.port(claimed)

    def take(self, review: Review) -> None:
        """Check what was asked for and put the taking into the transaction."""
        if review.storage != "core/services" or review.new is None or review.subresource:
            return
        if review.operation not in (CREATE, UPDATE):
            return
        held = held_keys(review.old) if review.old is not None else []
        self._check(review, review.new, held)
        owner = f"{review.namespace}/{review.name}"
        taken = self._allocations.take(owner, held_keys(review.new), held)
        review.beside = [*review.beside, *taken.operations]
        review.guards = [*review.guards, *taken.guards]

    def _check(self, review: Review, service: Document, held: list[str]) -> None:
        causes: list[Cause | None] = []
        spec = service["spec"]
        for address in spec.get("clusterIPs") or ():
            if address != "None":
                causes.append(self._allocations.check_address(address))
        for at, port in enumerate(spec.get("ports") or ()):
            if port.get("nodePort"):
                causes.append(self._allocations.check_port(port["nodePort"], at))
        found = [cause for cause in causes if cause is not None]
        if not found:
            found = self._taken(service, held)
        if found:
            raise refusal.invalid("Service", "", review.name, found)

    def _taken(self, service: Document, held: list[str]) -> list[Cause]:
        causes = []
        spec = service["spec"]
        for address in spec.get("clusterIPs") or ():
            for key in held_keys({"spec": {"clusterIPs": [address]}}):
                if key not in held and self._allocations.taken_by(key):
                    said = (
                        f'Invalid value: ["{address}"]: failed to allocate IP {address}: '
                        "provided IP is already allocated"
                    )
                    causes.append(Cause("FieldValueInvalid", said, "spec.clusterIPs"))
        for at, port in enumerate(spec.get("ports") or ()):
            number = port.get("nodePort")
            for key in held_keys({"spec": {"ports": [port]}}):
                if key not in held and self._allocations.taken_by(key):
                    said = f"Invalid value: {number}: provided port is already allocated"
                    causes.append(Cause("FieldValueInvalid", said, f"spec.ports[{at}].nodePort"))
        return causes


def _keep(spec: Document, old: Document) -> None:
    if old.get("type") == "ExternalName" or spec["type"] == "ExternalName":
        return
    for field in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
        if not spec.get(field) and old.get(field):
            spec[field] = old[field]


def _families_of(addresses: list[str]) -> list[str]:
    try:
        return [f"IPv{ipaddress.ip_address(a).version}" for a in addresses if a != "None"]
    except ValueError:
        return []


def _identity(port: Document) -> tuple[str, int]:
    return port.get("protocol") or "TCP", port["port"]


def _old_ports(old: Document | None) -> dict[tuple[str, int], int]:
    ports = ((old or {}).get("spec") or {}).get("ports") or ()
    return {_identity(port): port["nodePort"] for port in ports if port.get("nodePort")}


def _was_carried_over(port: Document, before: dict[tuple[str, int], int]) -> bool:
    return bool(port.get("nodePort")) and before.get(_identity(port)) == port["nodePort"]


def _taken_by_other(number: int, port: Document, ports: list[Document]) -> bool:
    # One number serves TCP and UDP of the same port, but not two ports of one protocol.
    protocol = port.get("protocol") or "TCP"
    return any(
        other is not port
        and other.get("nodePort") == number
        and (other.get("protocol") or "TCP") == protocol
        for other in ports
    )
