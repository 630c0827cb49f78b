"""The cluster's zone: services and endpoints to records, kept as they change. Pure.

https://github.com/kubernetes/dns/blob/master/docs/specification.md, version 1.1.0.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

import msgspec

__all__ = ["Answer", "EndpointSlice", "Service", "Zone"]

_SERVICE_LABEL = "kubernetes.io/service-name"


class Meta(msgspec.Struct, frozen=True):
    """The part of metadata that matters."""

    name: str
    namespace: str = ""
    labels: dict[str, str] = {}


class Port(msgspec.Struct, frozen=True):
    """A named port."""

    port: int | None = 0
    name: str | None = ""
    protocol: str | None = "TCP"


class ServiceSpec(msgspec.Struct, frozen=True, rename="camel"):
    """What names depend on."""

    type: str = "ClusterIP"
    cluster_ip: str = msgspec.field(name="clusterIP", default="")
    cluster_ips: tuple[str, ...] = msgspec.field(name="clusterIPs", default=())
    external_name: str = ""
    ports: tuple[Port, ...] = ()
    publish_not_ready_addresses: bool = False


class Service(msgspec.Struct, frozen=True):
    """A core/v1 Service."""

    metadata: Meta
    spec: ServiceSpec = ServiceSpec()

    @property
    def addresses(self) -> tuple[str, ...]:
        """Its cluster addresses; none if it is headless."""
        found = self.spec.cluster_ips or (self.spec.cluster_ip,)
        return tuple(address for address in found if address and address != "None")


class Conditions(msgspec.Struct, frozen=True):
    """Whether an endpoint takes traffic; absent means yes."""

    ready: bool | None = None


class Endpoint(msgspec.Struct, frozen=True):
    """Addresses of one pod."""

    addresses: tuple[str, ...] = ()
    conditions: Conditions = Conditions()
    hostname: str | None = None


class EndpointSlice(msgspec.Struct, frozen=True):
    """A discovery.k8s.io/v1 EndpointSlice."""

    metadata: Meta
    endpoints: tuple[Endpoint, ...] | None = ()
    ports: tuple[Port, ...] | None = ()

    @property
    def service(self) -> tuple[str, str]:
        """Namespace and name of the service it belongs to."""
        return self.metadata.namespace, self.metadata.labels.get(_SERVICE_LABEL, "")


class Answer(msgspec.Struct, frozen=True):
    """Records for a name: type and text form each; `known` False is NXDOMAIN."""

    known: bool
    records: tuple[tuple[str, str], ...] = ()


class Zone(msgspec.Struct):
    """All services and slices by (namespace, name)."""

    domain: str = "cluster.local"
    services: dict[tuple[str, str], Service] = {}
    slices: dict[tuple[str, str], EndpointSlice] = {}

    def covers(self, name: str) -> bool:
        """Whether a name (lower case, without the last dot) is ours to answer."""
        if name == self.domain or name.endswith(f".{self.domain}"):
            return True
        return name.endswith((".in-addr.arpa", ".ip6.arpa")) and bool(self._reverse(name))

    def answer(self, name: str, kind: str) -> Answer:
        """Records of `kind` (A, AAAA, SRV, PTR, CNAME) for a name of ours."""
        if name.endswith((".in-addr.arpa", ".ip6.arpa")):
            return Answer(known=True, records=tuple(("PTR", n) for n in self._reverse(name)))
        found = self._records(name.removesuffix(self.domain).rstrip("."))
        if found is None:
            return Answer(known=False)
        wanted = (kind, "CNAME") if kind in ("A", "AAAA") else (kind,)
        return Answer(known=True, records=tuple(r for r in found if r[0] in wanted))

    def _records(self, name: str) -> list[tuple[str, str]] | None:
        """Everything below a name relative to the domain; None if there is no such name."""
        parts = name.split(".") if name else []
        match parts:
            case [] | ["svc"] | ["pod"]:
                return []
            case ["dns-version"]:
                return [("TXT", '"1.1.0"')]
            case [namespace, ("svc" | "pod")]:
                known = any(key[0] == namespace for key in self.services)
                return [] if known else None
            case [address, _, "pod"]:
                return _pod_records(address)
            case [*labels, namespace, "svc"] if len(labels) <= 3:
                return self._service_records(labels, namespace)
        return None

    def _service_records(self, labels: list[str], namespace: str) -> list[tuple[str, str]] | None:
        service = self.services.get((namespace, labels[-1]))
        if service is None:
            return None
        if service.spec.type == "ExternalName":
            return [("CNAME", service.spec.external_name)] if len(labels) == 1 else None
        if len(labels) == 1:
            return self._address_records(service)
        if len(labels) == 3 and labels[0].startswith("_") and labels[1].startswith("_"):
            return self._port_records(service, labels[0][1:], labels[1][1:]) or None
        if len(labels) == 2:
            return self._host_records(service, labels[0])
        return None

    def _address_records(self, service: Service) -> list[tuple[str, str]]:
        addresses = service.addresses
        if not addresses:
            addresses = tuple(a for e in self._ready(service) for a in e.addresses)
        records = [_address_record(address) for address in dict.fromkeys(addresses)]
        return records + self._port_records(service, "", "")

    def _host_records(self, service: Service, label: str) -> list[tuple[str, str]] | None:
        if service.addresses:
            return None
        records = [
            _address_record(address)
            for endpoint in self._ready(service)
            for address in endpoint.addresses
            if label in (endpoint.hostname, _dashed(address))
        ]
        return records or None

    def _port_records(self, service: Service, name: str, protocol: str) -> list[tuple[str, str]]:
        full = f"{service.metadata.name}.{service.metadata.namespace}.svc.{self.domain}"
        records = []
        for port, host in self._targets(service):
            named = port.name and (not name or port.name == name)
            if named and (not protocol or (port.protocol or "TCP").lower() == protocol):
                target = f"{host}.{full}" if host else full
                records.append(("SRV", f"0 100 {port.port} {target}."))
        return records

    def _targets(self, service: Service) -> Iterator[tuple[Port, str]]:
        """Ports with the host that serves them: "" is the service itself."""
        if service.addresses:
            yield from ((port, "") for port in service.spec.ports)
            return
        key = (service.metadata.namespace, service.metadata.name)
        for found in self.slices.values():
            if found.service != key:
                continue
            for endpoint in found.endpoints or ():
                if self._takes(service, endpoint):
                    for port in found.ports or ():
                        yield port, endpoint.hostname or _dashed(endpoint.addresses[0])

    def _ready(self, service: Service) -> Iterator[Endpoint]:
        key = (service.metadata.namespace, service.metadata.name)
        for found in self.slices.values():
            if found.service == key:
                yield from (e for e in found.endpoints or () if self._takes(service, e))

    def _takes(self, service: Service, endpoint: Endpoint) -> bool:
        ready = endpoint.conditions.ready is not False
        return bool(endpoint.addresses) and (ready or service.spec.publish_not_ready_addresses)

    def _reverse(self, name: str) -> list[str]:
        address = _reversed_address(name)
        if address is None:
            return []
        text = str(address)
        found = []
        for (namespace, service_name), service in self.services.items():
            full = f"{service_name}.{namespace}.svc.{self.domain}."
            if text in service.addresses:
                found.append(full)
            elif not service.addresses:
                found += [
                    f"{e.hostname or _dashed(text)}.{full}"
                    for e in self._ready(service)
                    if text in e.addresses
                ]
        return found


def _address_record(address: str) -> tuple[str, str]:
    return ("AAAA" if ":" in address else "A", address)


def _dashed(address: str) -> str:
    return address.replace(".", "-").replace(":", "-")


def _pod_records(label: str) -> list[tuple[str, str]] | None:
    for text in (label.replace("-", "."), label.replace("-", ":")):
        try:
            return [_address_record(str(ipaddress.ip_address(text)))]
        except ValueError:
            continue
    return None


def _reversed_address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    labels = name.split(".")
    try:
        if name.endswith(".in-addr.arpa"):
            return ipaddress.ip_address(".".join(reversed(labels[:-2])))
        nibbles = "".join(reversed(labels[:-2]))
        return ipaddress.ip_address(":".join(nibbles[i : i + 4] for i in range(0, len(nibbles), 4)))
    except ValueError:
        return None
