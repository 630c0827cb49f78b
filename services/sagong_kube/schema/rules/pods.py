"""Checks of pods and pod templates, and of what updates may change in a pod."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from sagong.model import names, quantity
from sagong_kube.schema.rules.containers import (
    PodFacts,
    check_container,
    check_containers,
    check_init_containers,
)
from sagong_kube.schema.rules.findings import Findings
from sagong_kube.schema.rules.metadata import check_annotations, check_labels
from sagong_kube.schema.rules.placement import check_affinity, check_spreading, check_tolerations
from sagong_kube.schema.rules.rights import check_ids, check_profiles
from sagong_kube.schema.rules.volumes import check_volumes

__all__ = ["check_pod", "check_pod_spec", "check_pod_update", "check_template"]

Document = dict[str, Any]

RESTART: Final = ("Always", "OnFailure", "Never")
_DNS: Final = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")
_LARGEST: Final = 2**31 - 1
_UPDATABLE: Final = (
    "`spec.containers[*].image`",
    "`spec.initContainers[*].image`",
    "`spec.activeDeadlineSeconds`",
    "`spec.tolerations` (only additions to existing tolerations)",
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
)
_NOT_EPHEMERAL: Final = "cannot be set for an Ephemeral Container"
_BLANK: Final = "must not have leading or trailing whitespace"


def check_pod_spec(
    found: Findings, spec: Document, path: str, *, pod: bool = False, claims: Iterable[str] = ()
) -> None:
    """A pod's spec; `pod` for that of a Pod, else that of a template.

    `claims` are volumes that each pod of the template will have beside those of the template.
    """
    if spec.get("terminationGracePeriodSeconds") is None:
        found.required(f"{path}.terminationGracePeriodSeconds")
    volumes = check_volumes(found, spec.get("volumes") or [], f"{path}.volumes")
    facts = PodFacts(spec, {name: {} for name in claims} | volumes)
    regular, initial = spec.get("containers") or [], spec.get("initContainers") or []
    check_containers(found, regular, facts, f"{path}.containers")
    check_init_containers(found, initial, regular, facts, f"{path}.initContainers")
    _check_ephemeral(found, spec, facts, f"{path}.ephemeralContainers")
    _check_host_network(found, spec, path, pod=pod)
    found.one_of(f"{path}.restartPolicy", spec.get("restartPolicy", ""), RESTART)
    found.one_of(f"{path}.dnsPolicy", spec.get("dnsPolicy", ""), _DNS)
    check_labels(found, spec.get("nodeSelector"), f"{path}.nodeSelector")
    _check_security(found, spec, f"{path}.securityContext")
    check_affinity(found, spec.get("affinity") or {}, f"{path}.affinity")
    _check_dns(found, spec, f"{path}.dnsConfig")
    for at, gate in enumerate(spec.get("readinessGates") or ()):
        kind = gate.get("conditionType", "")
        where = f"{path}.readinessGates[{at}].conditionType"
        found.each(where, kind, names.check_qualified_name(kind))
    _check_gates(found, spec.get("schedulingGates") or [], f"{path}.schedulingGates")
    _check_names(found, spec, path)
    check_tolerations(found, spec.get("tolerations") or [], f"{path}.tolerations")
    _check_aliases(found, spec.get("hostAliases") or [], f"{path}.hostAliases")
    constraints = spec.get("topologySpreadConstraints") or []
    check_spreading(found, constraints, f"{path}.topologySpreadConstraints")


def _check_names(found: Findings, spec: Document, path: str) -> None:
    for field, check in (
        ("serviceAccountName", names.check_subdomain),
        ("nodeName", names.check_subdomain),
    ):
        if spec.get(field):
            found.each(f"{path}.{field}", spec[field], check(spec[field]))
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and not 1 <= deadline <= _LARGEST:
        said = f"must be between 1 and {_LARGEST}, inclusive"
        found.invalid(f"{path}.activeDeadlineSeconds", deadline, said)
    for field, check in (
        ("hostname", names.check_dns_label),
        ("subdomain", names.check_dns_label),
        ("priorityClassName", names.check_subdomain),
        ("runtimeClassName", names.check_subdomain),
    ):
        if spec.get(field):
            found.each(f"{path}.{field}", spec[field], check(spec[field]))
    policy = spec.get("preemptionPolicy")
    if policy is not None:
        found.one_of(f"{path}.preemptionPolicy", policy, ("PreemptLowerPriority", "Never"))
    system = (spec.get("os") or {}).get("name")
    if spec.get("os") is not None:
        found.one_of(f"{path}.os.name", system, ("linux", "windows"))


def _check_ephemeral(found: Findings, spec: Document, facts: PodFacts, path: str) -> None:
    others = {c.get("name", "") for c in spec.get("containers") or ()}
    others |= {c.get("name", "") for c in spec.get("initContainers") or ()}
    known = set(others)
    forbidden = (
        "ports",
        "resources",
        "livenessProbe",
        "readinessProbe",
        "startupProbe",
        "lifecycle",
    )
    for at, container in enumerate(spec.get("ephemeralContainers") or ()):
        where, name = f"{path}[{at}]", container.get("name", "")
        check_container(found, container, facts, where)
        _check_blank(found, container, where)
        if name in known:
            found.duplicate(f"{where}.name", name)
        known.add(name)
        target = container.get("targetContainerName", "")
        if target and target not in others:
            found.missing(f"{where}.targetContainerName", target)
        for field in forbidden:
            if container.get(field):
                found.forbidden(f"{where}.{field}", _NOT_EPHEMERAL)
        for index, mount in enumerate(container.get("volumeMounts") or ()):
            for field in ("subPath", "subPathExpr"):
                if mount.get(field):
                    found.forbidden(f"{where}.volumeMounts[{index}].{field}", _NOT_EPHEMERAL)


def _check_host_network(found: Findings, spec: Document, path: str, *, pod: bool) -> None:
    if not spec.get("hostNetwork"):
        return
    for at, container in enumerate(spec.get("containers") or ()):
        for index, port in enumerate(container.get("ports") or ()):
            host, inside = port.get("hostPort") or 0, port.get("containerPort") or 0
            if (pod or host) and host != inside:
                where = f"{path}.containers[{at}].ports[{index}].hostPort"
                said = "must match `containerPort` when `hostNetwork` is true"
                found.invalid(where, host, said)


def _check_security(found: Findings, spec: Document, path: str) -> None:
    context = spec.get("securityContext") or {}
    check_ids(found, context, path)
    for at, group in enumerate(context.get("supplementalGroups") or ()):
        if not 0 <= group <= _LARGEST:
            said = f"must be between 0 and {_LARGEST}, inclusive"
            found.invalid(f"{path}.supplementalGroups[{at}]", group, said)
    if spec.get("shareProcessNamespace") and spec.get("hostPID"):
        said = "ShareProcessNamespace and HostPID cannot both be enabled"
        found.invalid(f"{path}.shareProcessNamespace", True, said)
    known: set[str] = set()
    for at, setting in enumerate(context.get("sysctls") or ()):
        name = setting.get("name", "")
        if not name:
            found.required(f"{path}.sysctls[{at}].name")
        elif name in known:
            found.duplicate(f"{path}.sysctls[{at}].name", name)
        known.add(name)
    policy = context.get("fsGroupChangePolicy")
    if policy is not None and policy not in ("Always", "OnRootMismatch"):
        found.unsupported(f"{path}.fsGroupChangePolicy", policy, ("Always", "OnRootMismatch"))
    check_profiles(found, context, path)


def _check_dns(found: Findings, spec: Document, path: str) -> None:
    config = spec.get("dnsConfig")
    if spec.get("dnsPolicy") == "None":
        if config is None:
            found.required(path, "must provide `dnsConfig` when `dnsPolicy` is None")
            return
        if not config.get("nameservers"):
            said = "must provide at least one DNS nameserver when `dnsPolicy` is None"
            found.required(f"{path}.nameservers", said)
            return
    servers = (config or {}).get("nameservers") or []
    if len(servers) > 3:
        found.invalid(f"{path}.nameservers", servers, "must not have more than 3 nameservers")
    for at, server in enumerate(servers):
        found.each(f"{path}.nameservers[{at}]", server, names.check_ip(server))
    searches = (config or {}).get("searches") or []
    if len(searches) > 32:
        found.invalid(f"{path}.searches", searches, "must not have more than 32 search paths")
    for at, search in enumerate(searches):
        text = search.removesuffix(".")
        found.each(f"{path}.searches[{at}]", text, names.check_subdomain(text))
    for at, option in enumerate((config or {}).get("options") or ()):
        if not option.get("name"):
            found.required(f"{path}.options[{at}]", "must not be empty")


def _check_gates(found: Findings, gates: list[Document], path: str) -> None:
    known: set[str] = set()
    for at, gate in enumerate(gates):
        name = gate.get("name", "")
        found.each(f"{path}[{at}]", name, names.check_qualified_name(name))
        if name in known:
            found.duplicate(f"{path}[{at}]", name)
        known.add(name)


def _check_aliases(found: Findings, aliases: list[Document], path: str) -> None:
    for at, alias in enumerate(aliases):
        address = alias.get("ip", "")
        found.each(f"{path}[{at}].ip", address, names.check_ip(address))
        for index, host in enumerate(alias.get("hostnames") or ()):
            where = f"{path}[{at}].hostnames[{index}]"
            found.each(where, host, names.check_subdomain(host))


def _check_blank(found: Findings, container: Document, path: str) -> None:
    image = container.get("image", "")
    if image != image.strip():
        found.invalid(f"{path}.image", image, _BLANK)


def check_template(
    found: Findings, template: Document | None, path: str, *, claims: Iterable[str] = ()
) -> None:
    """A pod template: labels, annotations and spec; for `claims` see `check_pod_spec`."""
    if template is None:
        found.required(path)
        return
    metadata = template.get("metadata") or {}
    check_labels(found, metadata.get("labels"), f"{path}.labels")
    check_annotations(found, metadata.get("annotations"), f"{path}.annotations")
    spec = template.get("spec") or {}
    check_pod_spec(found, spec, f"{path}.spec", claims=claims)
    if spec.get("ephemeralContainers"):
        said = "ephemeral containers not allowed in pod template"
        found.forbidden(f"{path}.spec.ephemeralContainers", said)


def check_pod(found: Findings, pod: Document, old: Document | None) -> None:
    """A Pod's spec; what only creation must observe when there is no `old`."""
    spec = pod.get("spec") or {}
    check_pod_spec(found, spec, "spec", pod=True)
    for part in ("containers", "initContainers"):
        for at, container in enumerate(spec.get(part) or ()):
            _check_blank(found, container, f"spec.{part}[{at}]")
    if old is not None:
        return
    if spec.get("ephemeralContainers"):
        found.forbidden("spec.ephemeralContainers", "cannot be set on create")
    if spec.get("nodeName") and spec.get("schedulingGates"):
        said = "cannot be set until all schedulingGates have been cleared"
        found.forbidden("spec.nodeName", said)


# Updates


def check_pod_update(found: Findings, new: Document, old: Document, subresource: str) -> None:
    """What an update of a pod, or of one of its subresources, may change."""
    fresh, known = new.get("spec") or {}, old.get("spec") or {}
    match subresource:
        case "ephemeralcontainers":
            _check_ephemeral_update(found, fresh, known)
        case "resize":
            _check_resize(found, fresh, known)
        case "status":
            _check_status_update(found, new, old)
        case _:
            _check_spec_update(found, fresh, known)


def _check_spec_update(found: Findings, new: Document, old: Document) -> None:
    for part in ("containers", "initContainers"):
        if len(new.get(part) or ()) != len(old.get(part) or ()):
            found.forbidden(f"spec.{part}", "pod updates may not add or remove containers")
            return
    if not _check_deadline(found, new, old):
        return
    _check_added_tolerations(found, new, old)
    known = {gate["name"] for gate in old.get("schedulingGates") or ()}
    for at, gate in enumerate(new.get("schedulingGates") or ()):
        if gate["name"] not in known:
            said = f"only deletion is allowed, but found new scheduling gate '{gate['name']}'"
            found.forbidden(f"spec.schedulingGates[{at}].name", said)
    if _munged(new, old) != old:
        listed = ",".join(_UPDATABLE)
        found.forbidden("spec", f"pod updates may not change fields other than {listed}")


def _check_deadline(found: Findings, new: Document, old: Document) -> bool:
    path = "spec.activeDeadlineSeconds"
    fresh, known = new.get("activeDeadlineSeconds"), old.get("activeDeadlineSeconds")
    if fresh is None:
        if known is not None:
            said = "must not update from a positive integer to nil value"
            found.invalid(path, None, said)
        return True
    if not 0 <= fresh <= _LARGEST:
        found.invalid(path, fresh, f"must be between 0 and {_LARGEST}, inclusive")
        return False
    if known is not None and known < fresh:
        found.invalid(path, fresh, "must be less than or equal to previous value")
        return False
    return True


def _check_added_tolerations(found: Findings, new: Document, old: Document) -> None:
    def plain(toleration: Document) -> Document:
        return {key: value for key, value in toleration.items() if key != "tolerationSeconds"}

    kept = [plain(toleration) for toleration in new.get("tolerations") or ()]
    if any(plain(toleration) not in kept for toleration in old.get("tolerations") or ()):
        said = "existing toleration can not be modified except its tolerationSeconds"
        found.forbidden("spec.tolerations", said)


def _munged(new: Document, old: Document) -> Document:
    """The new spec with everything that may change taken from the old one."""
    spec = dict(new)
    for part in ("containers", "initContainers"):
        if part in spec:
            pairs = zip(spec[part], old.get(part) or (), strict=True)
            spec[part] = [{**fresh, "image": known.get("image", "")} for fresh, known in pairs]
    fields = ["activeDeadlineSeconds", "schedulingGates", "tolerations"]
    if (old.get("terminationGracePeriodSeconds") or 0) < 0 and spec.get(
        "terminationGracePeriodSeconds"
    ) == 1:
        fields.append("terminationGracePeriodSeconds")
    if old.get("schedulingGates"):
        _munge_gated(spec, old)
    for field in fields:
        if field in old:
            spec[field] = old[field]
        else:
            spec.pop(field, None)
    return spec


def _munge_gated(spec: Document, old: Document) -> None:
    """A gated pod may still get more node selectors and narrower node affinity."""
    before, after = old.get("nodeSelector") or {}, spec.get("nodeSelector") or {}
    if all(after.get(key) == value for key, value in before.items()):
        if before:
            spec["nodeSelector"] = before
        else:
            spec.pop("nodeSelector", None)
    known = (old.get("affinity") or {}).get("nodeAffinity")
    if known is None and "affinity" in spec:
        rest = {k: v for k, v in spec["affinity"].items() if k != "nodeAffinity"}
        if rest or "affinity" in old:
            spec["affinity"] = rest
        else:
            spec.pop("affinity")


def _check_ephemeral_update(found: Findings, new: Document, old: Document) -> None:
    fresh = {c.get("name"): c for c in new.get("ephemeralContainers") or ()}
    for known in old.get("ephemeralContainers") or ():
        name = known.get("name", "")
        if name not in fresh:
            said = f'existing ephemeral containers "{name}" may not be removed\n'
            found.forbidden("spec.ephemeralContainers", said)
        elif fresh[name] != known:
            said = f'existing ephemeral containers "{name}" may not be changed'
            found.forbidden("spec.ephemeralContainers", said)


def _check_resize(found: Findings, new: Document, old: Document) -> None:
    for at, (fresh, known) in enumerate(
        zip(new.get("containers") or (), old.get("containers") or (), strict=False)
    ):
        path = f"spec.containers[{at}].resources"
        after, before = fresh.get("resources") or {}, known.get("resources") or {}
        for side in ("requests", "limits"):
            gone = set(before.get(side) or ()) - set(after.get(side) or ())
            if gone:
                found.forbidden(f"{path}.{side}", f"resource {side} cannot be removed")
        if _other_resources(after) != _other_resources(before):
            found.forbidden("spec", "only cpu and memory resources are mutable")
        _check_memory(found, fresh, after, before, path)


def _other_resources(resources: Mapping[str, Any]) -> Document:
    sides = {side: resources.get(side) or {} for side in ("requests", "limits")}
    return {
        side: {k: v for k, v in amounts.items() if k not in ("cpu", "memory")}
        for side, amounts in sides.items()
    }


def _check_memory(
    found: Findings, container: Document, after: Document, before: Document, path: str
) -> None:
    policies = {p.get("resourceName"): p for p in container.get("resizePolicy") or ()}
    if policies.get("memory", {}).get("restartPolicy") == "RestartContainer":
        return
    fresh = (after.get("limits") or {}).get("memory")
    known = (before.get("limits") or {}).get("memory")
    if fresh is not None and known is not None and quantity.nano(fresh) < quantity.nano(known):
        said = "memory limits cannot be decreased unless resizePolicy is RestartContainer"
        found.forbidden(f"{path}.limits[memory]", said)
    elif fresh is not None and known is None:
        said = "memory limits cannot be added unless resizePolicy is RestartContainer"
        found.forbidden(f"{path}.limits[memory]", said)


def _check_status_update(found: Findings, new: Document, old: Document) -> None:
    fresh, known = new.get("status") or {}, old.get("status") or {}
    if known.get("qosClass"):
        found.immutable("status.qosClass", fresh.get("qosClass"), known.get("qosClass"))
    policy = (old.get("spec") or {}).get("restartPolicy", "")
    for part, restart in (
        ("containerStatuses", policy),
        ("ephemeralContainerStatuses", "Never"),
    ):
        _check_transitions(found, fresh, known, part, restart)
    for at, address in enumerate(fresh.get("podIPs") or ()):
        said = address.get("ip", "")
        found.each(f"status.podIPs[{at}]", said, names.check_ip(said))


def _check_transitions(
    found: Findings, new: Document, old: Document, part: str, restart: str
) -> None:
    if restart == "Always":
        return
    states = {each.get("name"): each.get("state") or {} for each in new.get(part) or ()}
    for at, known in enumerate(old.get(part) or ()):
        ended = (known.get("state") or {}).get("terminated")
        if ended is None or (ended.get("exitCode") and restart == "OnFailure"):
            continue
        fresh = states.get(known.get("name"))
        if fresh is not None and fresh.get("terminated") is None:
            said = "may not be transitioned to non-terminated state"
            found.forbidden(f"status.{part}[{at}].state", said)
