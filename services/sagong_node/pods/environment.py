"""Environment of a pod's container: references, service variables, $(VAR) expansion. Pure."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from sagong.errors import FailedPrecondition, InvalidArgument
from sagong.model.k8s.core_v1 import ConfigMap, EnvVarSource, Pod, Secret, Service
from sagong_node.pods.naming import AnyContainer
from sagong_node.pods.resources import amount

__all__ = [
    "Lookup",
    "environment",
    "expand",
    "field_value",
    "map_text",
    "references",
    "service_variables",
]

Lookup = Callable[[str, str], ConfigMap | Secret | None]
_REFERENCE = re.compile(r"\$(\$|\(([^()]*)\))")
_NAME = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*\Z")
_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['([^']*)'\]\Z")


def expand(text: str, values: Mapping[str, str]) -> str:
    """`$(NAME)` is replaced, `$$` is a dollar, unknown references stay."""

    def replaced(found: re.Match[str]) -> str:
        if found[1] == "$":
            return "$"
        return values.get(found[2], found[0])

    return _REFERENCE.sub(replaced, text)


def references(container: AnyContainer) -> set[tuple[str, str]]:
    """(resource, name) of all config maps and secrets that the environment needs."""
    found = set()
    for source in container.env_from:
        if source.config_map_ref:
            found.add(("configmaps", source.config_map_ref.name))
        if source.secret_ref:
            found.add(("secrets", source.secret_ref.name))
    for entry in container.env:
        origin = entry.value_from
        if origin and origin.config_map_key_ref:
            found.add(("configmaps", origin.config_map_key_ref.name))
        if origin and origin.secret_key_ref:
            found.add(("secrets", origin.secret_key_ref.name))
    return found


def map_text(found: ConfigMap | Secret) -> dict[str, str]:
    """Its entries as texts; those of a secret are decoded."""
    if isinstance(found, ConfigMap):
        return dict(found.data)
    return {
        key: base64.b64decode(value).decode("utf-8", "replace") for key, value in found.data.items()
    }


def environment(
    pod: Pod,
    container: AnyContainer,
    *,
    lookup: Lookup,
    services: Iterable[Service] = (),
    address: str = "",
    node: str = "",
    host: str = "",
    capacity: Mapping[str, int] | None = None,
) -> dict[str, str]:
    """All variables in upstream's order; FailedPrecondition names a missing reference.

    Service variables come first, then envFrom, then env; env may refer to all before it. A service
    variable shows only where nothing else has its name.
    """
    linked = pod.spec.enable_service_links is not False
    outer = service_variables(services, pod.metadata.namespace, linked=linked)
    result: dict[str, str] = _from_maps(container, lookup)
    scope = {**outer, **result}
    facts = _Facts(pod, container, address, node, host, capacity or {})
    for entry in container.env:
        value = expand(entry.value, scope)
        if entry.value_from is not None and not entry.value:
            known = _referred(entry.value_from, facts, lookup)
            if known is None:
                continue
            value = known
        result[entry.name] = scope[entry.name] = value
    return {**{k: v for k, v in outer.items() if k not in result}, **result}


class _Facts:
    """What downward references are answered from."""

    def __init__(
        self,
        pod: Pod,
        container: AnyContainer,
        address: str,
        node: str,
        host: str,
        capacity: Mapping[str, int],
    ) -> None:
        self.pod = pod
        self.container = container
        self.address = address
        self.node = node
        self.host = host
        self.capacity = capacity


def _from_maps(container: AnyContainer, lookup: Lookup) -> dict[str, str]:
    result: dict[str, str] = {}
    for source in container.env_from:
        reference = source.config_map_ref or source.secret_ref
        if reference is None:
            continue
        resource = "configmaps" if source.config_map_ref else "secrets"
        found = lookup(resource, reference.name)
        if found is None:
            if reference.optional:
                continue
            raise FailedPrecondition(f'{resource[:-1]} "{reference.name}" not found')
        for key, value in map_text(found).items():
            if _NAME.match(source.prefix + key):
                result[source.prefix + key] = value
    return result


def _referred(source: EnvVarSource, facts: _Facts, lookup: Lookup) -> str | None:
    if source.field_ref:
        return field_value(
            facts.pod,
            source.field_ref.field_path,
            address=facts.address,
            node=facts.node,
            host=facts.host,
        )
    if source.resource_field_ref:
        ref = source.resource_field_ref
        name = ref.container_name or facts.container.name
        containers = _all(facts.pod)
        try:
            return amount(containers, ref.resource, name, ref.divisor, facts.capacity)
        except ValueError as error:
            raise InvalidArgument(str(error)) from None
    if source.config_map_key_ref:
        key = source.config_map_key_ref
        return _entry("configmaps", key.name, key.key, lookup, optional=bool(key.optional))
    if source.secret_key_ref:
        secret = source.secret_key_ref
        return _entry("secrets", secret.name, secret.key, lookup, optional=bool(secret.optional))
    return ""


def _all(pod: Pod) -> Sequence[AnyContainer]:
    return (
        *pod.spec.init_containers,
        *pod.spec.containers,
        *pod.spec.ephemeral_containers,
    )


def _entry(resource: str, name: str, key: str, lookup: Lookup, *, optional: bool) -> str | None:
    found = lookup(resource, name)
    if found is None:
        if optional:
            return None
        raise FailedPrecondition(f'{resource[:-1]} "{name}" not found')
    entries = map_text(found)
    if key not in entries:
        if optional:
            return None
        kind = "ConfigMap" if resource == "configmaps" else "Secret"
        where = f"{found.metadata.namespace}/{name}"
        raise FailedPrecondition(f"couldn't find key {key} in {kind} {where}")
    return entries[key]


def field_value(pod: Pod, path: str, *, address: str = "", node: str = "", host: str = "") -> str:
    """A fieldRef's text; InvalidArgument for a path that there is not."""
    metadata = pod.metadata
    subscript = _SUBSCRIPT.match(path)
    if subscript:
        found = metadata.labels if subscript[1] == "labels" else metadata.annotations
        return found.get(subscript[2], "")
    simple = {
        "metadata.name": metadata.name,
        "metadata.namespace": metadata.namespace,
        "metadata.uid": metadata.uid,
        "spec.nodeName": pod.spec.node_name or node,
        "spec.serviceAccountName": pod.spec.service_account_name or "default",
        "status.hostIP": host,
        "status.hostIPs": host,
        "status.podIP": address,
        "status.podIPs": address,
    }
    if path in simple:
        return simple[path]
    if path in ("metadata.labels", "metadata.annotations"):
        entries = metadata.labels if path == "metadata.labels" else metadata.annotations
        return "\n".join(f"{key}={_quoted(value)}" for key, value in sorted(entries.items()))
    raise InvalidArgument(f"unsupported fieldPath: {path}")


def _quoted(text: str) -> str:
    """As Go's %q writes it."""
    marks = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    return '"' + "".join(marks.get(letter, letter) for letter in text) + '"'


def service_variables(
    services: Iterable[Service], namespace: str, *, linked: bool
) -> dict[str, str]:
    """Variables for services with an address: of the pod's namespace if `linked`, and the API's."""
    result: dict[str, str] = {}
    chosen: dict[str, Service] = {}
    for service in services:
        metadata = service.metadata
        if service.spec.cluster_ip in ("", "None") or not service.spec.ports:
            continue
        if metadata.namespace == namespace and linked:
            chosen[metadata.name] = service
        elif (metadata.namespace, metadata.name) == ("default", "kubernetes"):
            chosen.setdefault(metadata.name, service)
    for name in sorted(chosen):
        result |= _variables_of(chosen[name])
    return result


def _variables_of(service: Service) -> dict[str, str]:
    name = service.metadata.name.upper().replace("-", "_")
    address, ports = service.spec.cluster_ip, service.spec.ports
    result = {f"{name}_SERVICE_HOST": address, f"{name}_SERVICE_PORT": str(ports[0].port)}
    for port in ports:
        if port.name:
            result[f"{name}_SERVICE_PORT_{port.name.upper().replace('-', '_')}"] = str(port.port)
    for index, port in enumerate(ports):
        protocol = (port.protocol or "TCP").upper()
        host = f"[{address}]" if ":" in address else address
        url = f"{protocol.lower()}://{host}:{port.port}"
        prefix = f"{name}_PORT_{port.port}_{protocol}"
        if index == 0:
            result[f"{name}_PORT"] = url
        result |= {
            prefix: url,
            f"{prefix}_PROTO": protocol.lower(),
            f"{prefix}_PORT": str(port.port),
            f"{prefix}_ADDR": address,
        }
    return result
