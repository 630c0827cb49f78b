"""Checks of containers: names, images, ports, environment, mounts, probes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from sagong.model import names
from sagong_kube.schema.rules.findings import Findings
from sagong_kube.schema.rules.rights import check_resources, check_security
from sagong_kube.schema.rules.volumes import check_local_path

__all__ = ["PodFacts", "check_container", "check_containers", "check_init_containers"]

Document = dict[str, Any]

PROTOCOLS: Final = ("SCTP", "TCP", "UDP")
_PULL: Final = ("Always", "IfNotPresent", "Never")
_MESSAGES: Final = ("File", "FallbackToLogsOnError")
_SCHEMES: Final = ("HTTP", "HTTPS")
_PROPAGATIONS: Final = ("Bidirectional", "HostToContainer", "None")
_HEADER = re.compile(r"[-A-Za-z0-9]+\Z")
_HEADER_SAID: Final = (
    "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', "
    "regex used for validation is '[-A-Za-z0-9]+')"
)
_ENV_FIELDS: Final = (
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
)
_RESOURCE_FIELDS: Final = tuple(
    f"{side}.{name}"
    for side in ("limits", "requests")
    for name in ("cpu", "ephemeral-storage", "memory")
)
_NO_INIT: Final = "may not be set for init containers without restartPolicy=Always"
_ONE_SOURCE: Final = "may not have more than one field specified at a time"


class PodFacts:
    """What checks of a container need to know of its pod."""

    def __init__(self, spec: Document, volumes: Mapping[str, Document]) -> None:
        self.volumes = volumes
        self.grace: int | None = spec.get("terminationGracePeriodSeconds")
        self.restart: str = spec.get("restartPolicy", "")
        self.claims = {claim.get("name", "") for claim in spec.get("resourceClaims") or ()}


def check_containers(found: Findings, items: list[Document], facts: PodFacts, path: str) -> None:
    """A pod's containers."""
    if not items:
        found.required(path)
        return
    known: set[str] = set()
    for at, container in enumerate(items):
        where = f"{path}[{at}]"
        check_container(found, container, facts, where)
        _unique(found, container.get("name", ""), known, where)
        _check_running(found, container, facts, where)
        if container.get("restartPolicy") is not None:
            found.forbidden(f"{where}.restartPolicy", "may not be set for non-init containers")
    _check_host_ports(found, items, path)


def check_init_containers(
    found: Findings, items: list[Document], regular: list[Document], facts: PodFacts, path: str
) -> None:
    """A pod's init containers; their names differ from those of the others."""
    known = {container.get("name", "") for container in regular}
    for at, container in enumerate(items):
        where = f"{path}[{at}]"
        check_container(found, container, facts, where)
        policy = container.get("restartPolicy")
        if policy is not None and policy != "Always":
            found.unsupported(f"{where}.restartPolicy", policy, ("Always",))
        _unique(found, container.get("name", ""), known, where)
        _check_host_ports(found, [container], path)
        if policy == "Always":
            _check_running(found, container, facts, where)
        else:
            for field in ("lifecycle", "livenessProbe", "readinessProbe", "startupProbe"):
                if container.get(field) is not None:
                    found.forbidden(f"{where}.{field}", _NO_INIT)


def _unique(found: Findings, name: str, known: set[str], path: str) -> None:
    if name in known:
        found.duplicate(f"{path}.name", name)
    elif name:
        known.add(name)


def check_container(found: Findings, container: Document, facts: PodFacts, path: str) -> None:
    """What all sorts of containers have in common."""
    name = container.get("name", "")
    if not name:
        found.required(f"{path}.name")
    else:
        found.each(f"{path}.name", name, names.check_dns_label(name))
    if not container.get("image"):
        found.required(f"{path}.image")
    messages = container.get("terminationMessagePolicy", "")
    found.one_of(f"{path}.terminationMessagePolicy", messages, _MESSAGES)
    _check_ports(found, container.get("ports") or [], f"{path}.ports")
    _check_env(found, container.get("env") or [], f"{path}.env")
    _check_env_from(found, container.get("envFrom") or [], f"{path}.envFrom")
    _check_mounts(found, container, facts, f"{path}.volumeMounts")
    _check_devices(found, container, facts, f"{path}.volumeDevices")
    found.one_of(f"{path}.imagePullPolicy", container.get("imagePullPolicy", ""), _PULL)
    check_resources(found, container.get("resources") or {}, f"{path}.resources", facts.claims)
    _check_resize(found, container.get("resizePolicy") or [], facts, f"{path}.resizePolicy")
    check_security(found, container.get("securityContext") or {}, f"{path}.securityContext")


def _check_ports(found: Findings, ports: list[Document], path: str) -> None:
    known: set[str] = set()
    for at, port in enumerate(ports):
        where, name = f"{path}[{at}]", port.get("name", "")
        if name:
            wrong = names.check_port_name(name)
            found.each(f"{where}.name", name, wrong)
            if not wrong and name in known:
                found.duplicate(f"{where}.name", name)
            known.add(name)
        number = port.get("containerPort") or 0
        if not number:
            found.required(f"{where}.containerPort")
        else:
            found.each(f"{where}.containerPort", number, names.check_port(number))
        host = port.get("hostPort") or 0
        if host:
            found.each(f"{where}.hostPort", host, names.check_port(host))
        found.one_of(f"{where}.protocol", port.get("protocol", ""), PROTOCOLS)


def _check_host_ports(found: Findings, containers: list[Document], path: str) -> None:
    known: set[str] = set()
    for at, container in enumerate(containers):
        for index, port in enumerate(container.get("ports") or ()):
            if not port.get("hostPort"):
                continue
            said = f"{port.get('protocol', '')}/{port.get('hostIP', '')}/{port['hostPort']}"
            if said in known:
                found.duplicate(f"{path}[{at}].ports[{index}].hostPort", said)
            known.add(said)


def _check_env(found: Findings, variables: list[Document], path: str) -> None:
    for at, variable in enumerate(variables):
        where, name = f"{path}[{at}]", variable.get("name", "")
        if not name:
            found.required(f"{where}.name")
        else:
            found.each(f"{where}.name", name, names.check_relaxed_env_name(name))
        source = variable.get("valueFrom")
        if source is not None:
            _check_env_source(found, source, variable.get("value", ""), f"{where}.valueFrom")


def _check_env_source(found: Findings, source: Document, value: str, path: str) -> None:
    kinds = ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef")
    given = [kind for kind in kinds if source.get(kind) is not None]
    for kind in given:
        _ENV_SOURCES[kind](found, source[kind], f"{path}.{kind}")
    if not given:
        listed = "`fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`"
        found.invalid(path, "", f"must specify one of: {listed}")
    elif value:
        found.invalid(path, "", "may not be specified when `value` is not empty")
    elif len(given) > 1:
        found.invalid(path, "", _ONE_SOURCE)


def _field_ref(found: Findings, source: Document, path: str) -> None:
    if not source.get("fieldPath"):
        found.required(f"{path}.fieldPath")
        return
    base, bracket, key = source["fieldPath"].partition("[")
    if bracket and base in ("metadata.annotations", "metadata.labels"):
        key = key.removesuffix("]").strip("'\"")
        found.each(path, key, names.check_qualified_name(key.lower()))
    elif base not in _ENV_FIELDS:
        said = f"error converting fieldPath: field label not supported: {source['fieldPath']}"
        found.invalid(f"{path}.fieldPath", source["fieldPath"], said)


def _resource_ref(found: Findings, source: Document, path: str) -> None:
    name = source.get("resource", "")
    if not name:
        found.required(f"{path}.resource")
    elif name not in _RESOURCE_FIELDS and not name.startswith(
        ("limits.hugepages-", "requests.hugepages-")
    ):
        found.unsupported(f"{path}.resource", name, _RESOURCE_FIELDS)


def _key_ref(found: Findings, source: Document, path: str) -> None:
    name, key = source.get("name", ""), source.get("key", "")
    found.each(f"{path}.name", name, names.check_subdomain(name))
    if not key:
        found.required(f"{path}.key")
    else:
        found.each(f"{path}.key", key, names.config_key(key))


_ENV_SOURCES: Final = {
    "fieldRef": _field_ref,
    "resourceFieldRef": _resource_ref,
    "configMapKeyRef": _key_ref,
    "secretKeyRef": _key_ref,
}


def _check_env_from(found: Findings, sources: list[Document], path: str) -> None:
    for at, source in enumerate(sources):
        where, prefix = f"{path}[{at}]", source.get("prefix", "")
        if prefix:
            found.each(f"{where}.prefix", prefix, names.check_relaxed_env_name(prefix))
        given = [kind for kind in ("configMapRef", "secretRef") if source.get(kind) is not None]
        for kind in given:
            name = source[kind].get("name", "")
            if not name:
                found.required(f"{where}.{kind}.name")
            else:
                found.each(f"{where}.{kind}.name", name, names.check_subdomain(name))
        if not given:
            found.invalid(path, "", "must specify one of: `configMapRef` or `secretRef`")
        elif len(given) > 1:
            found.invalid(path, "", _ONE_SOURCE)


def _check_mounts(found: Findings, container: Document, facts: PodFacts, path: str) -> None:
    points: set[str] = set()
    devices = container.get("volumeDevices") or ()
    device_names = {device.get("name") for device in devices}
    device_paths = {device.get("devicePath") for device in devices}
    for at, mount in enumerate(container.get("volumeMounts") or ()):
        where = f"{path}[{at}]"
        name, target = mount.get("name", ""), mount.get("mountPath", "")
        if not name:
            found.required(f"{where}.name")
        if name not in facts.volumes:
            found.missing(f"{where}.name", name)
        if not target:
            found.required(f"{where}.mountPath")
        if target in points:
            found.invalid(f"{where}.mountPath", target, "must be unique")
        points.add(target)
        if name in device_names:
            found.invalid(f"{where}.name", name, "must not already exist in volumeDevices")
        if target in device_paths:
            said = "must not already exist as a path in volumeDevices"
            found.invalid(f"{where}.mountPath", target, said)
        _check_sub_path(found, mount, path, where)
        _check_propagation(found, mount, container, path)


def _check_sub_path(found: Findings, mount: Document, path: str, where: str) -> None:
    sub, expression = mount.get("subPath", ""), mount.get("subPathExpr", "")
    if sub:
        check_local_path(found, sub, f"{path}.subPath")
    if expression:
        if sub:
            said = "subPathExpr and subPath are mutually exclusive"
            found.invalid(f"{where}.subPathExpr", expression, said)
        check_local_path(found, expression, f"{path}.subPathExpr")


def _check_propagation(found: Findings, mount: Document, container: Document, path: str) -> None:
    kind = mount.get("mountPropagation")
    if kind is None:
        return
    if kind not in _PROPAGATIONS:
        found.unsupported(f"{path}.mountPropagation", kind, _PROPAGATIONS)
    elif kind == "Bidirectional":
        privileged = (container.get("securityContext") or {}).get("privileged")
        if not privileged:
            said = "Bidirectional mount propagation is available only to privileged containers"
            found.forbidden(f"{path}.mountPropagation", said)


def _check_devices(found: Findings, container: Document, facts: PodFacts, path: str) -> None:
    mounts = container.get("volumeMounts") or ()
    known_names: set[str] = set()
    known_paths: set[str] = set()
    for at, device in enumerate(container.get("volumeDevices") or ()):
        where, name, target = f"{path}[{at}]", device.get("name", ""), device.get("devicePath", "")
        volume = facts.volumes.get(name)
        if not name:
            found.required(f"{where}.name")
        if name in known_names:
            found.invalid(f"{where}.name", name, "must be unique")
        if volume is None:
            found.missing(f"{where}.name", name)
        elif "persistentVolumeClaim" not in volume and "ephemeral" not in volume:
            said = (
                "can only use volume source type of PersistentVolumeClaim or Ephemeral "
                "for block mode"
            )
            found.invalid(f"{where}.name", name, said)
        if not target:
            found.required(f"{where}.devicePath")
        if target in known_paths:
            found.invalid(f"{where}.devicePath", target, "must be unique")
        if ".." in target.split("/"):
            found.invalid(f"{where}.devicePath", target, "can not contain backsteps ('..')")
        if any(mount.get("name") == name for mount in mounts):
            found.invalid(f"{where}.name", name, "must not already exist in volumeMounts")
        known_names.add(name)
        known_paths.add(target)


# Probes and lifecycle


def _check_running(found: Findings, container: Document, facts: PodFacts, path: str) -> None:
    lifecycle = container.get("lifecycle") or {}
    for hook in ("postStart", "preStop"):
        if lifecycle.get(hook) is not None:
            _check_handler(found, lifecycle[hook], facts, f"{path}.lifecycle.{hook}")
    for kind in ("livenessProbe", "readinessProbe", "startupProbe"):
        probe = container.get(kind)
        if probe is not None:
            _check_probe(found, probe, kind, facts, f"{path}.{kind}")


def _check_probe(found: Findings, probe: Document, kind: str, facts: PodFacts, path: str) -> None:
    _check_handler(found, probe, facts, path)
    for field in (
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ):
        found.nonnegative(f"{path}.{field}", probe.get(field))
    grace = probe.get("terminationGracePeriodSeconds")
    if grace is not None and grace <= 0:
        found.invalid(f"{path}.terminationGracePeriodSeconds", grace, "must be greater than 0")
    if kind == "readinessProbe":
        if grace is not None:
            said = "must not be set for readinessProbes"
            found.invalid(f"{path}.terminationGracePeriodSeconds", grace, said)
    elif probe.get("successThreshold", 1) != 1:
        found.invalid(f"{path}.successThreshold", probe["successThreshold"], "must be 1")


_HANDLERS: Final = ("exec", "httpGet", "tcpSocket", "grpc", "sleep")


def _check_handler(found: Findings, handler: Document, facts: PodFacts, path: str) -> None:
    given = [kind for kind in _HANDLERS if handler.get(kind) is not None]
    if not given:
        found.required(path, "must specify a handler type")
        return
    first, where = handler[given[0]], f"{path}.{given[0]}"
    match given[0]:
        case "exec":
            if not first.get("command"):
                found.required(f"{where}.command")
        case "httpGet":
            _check_http(found, first, where)
        case "sleep":
            _check_sleep(found, first.get("seconds", 0), facts.grace, where)
        case _:
            check_port_reference(found, first.get("port", 0), f"{where}.port")
    for extra in given[1:]:
        found.forbidden(f"{path}.{extra}", "may not specify more than 1 handler type")


def _check_http(found: Findings, action: Document, path: str) -> None:
    if not action.get("path"):
        found.required(f"{path}.path")
    check_port_reference(found, action.get("port", 0), f"{path}.port")
    if action.get("scheme") not in _SCHEMES:
        found.unsupported(f"{path}.scheme", action.get("scheme", ""), _SCHEMES)
    for header in action.get("httpHeaders") or ():
        name = header.get("name", "")
        if not _HEADER.match(name):
            found.invalid(f"{path}.httpHeaders", name, _HEADER_SAID)


def _check_sleep(found: Findings, seconds: int, grace: int | None, path: str) -> None:
    if grace is not None and not 0 < seconds <= grace:
        said = (
            f"must be greater than 0 and less than terminationGracePeriodSeconds ({grace}). Enable "
            "AllowPodLifecycleSleepActionZeroValue feature gate for zero sleep."
        )
        found.invalid(path, seconds, said)


def check_port_reference(found: Findings, port: int | str, path: str) -> None:
    """A port by its number or its name."""
    wrong = names.check_port(port) if isinstance(port, int) else names.check_port_name(port)
    found.each(path, port, wrong)


def _check_resize(found: Findings, policies: list[Document], facts: PodFacts, path: str) -> None:
    known: set[str] = set()
    for at, policy in enumerate(policies):
        name, restart = policy.get("resourceName", ""), policy.get("restartPolicy", "")
        if name in known:
            found.duplicate(f"{path}[{at}]", name)
        known.add(name)
        found.one_of(path, name, ("cpu", "memory"))
        found.one_of(path, restart, ("NotRequired", "RestartContainer"))
        if facts.restart == "Never" and restart != "NotRequired":
            said = "must be 'NotRequired' when `restartPolicy` is 'Never'"
            found.invalid(path, restart, said)
