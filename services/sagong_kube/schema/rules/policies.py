"""Checks of rights, storage classes, webhooks, certificates, definitions and their like."""

from __future__ import annotations

from typing import Any, Final

from sagong.model import names
from sagong_kube.schema.rules.findings import Findings, Literal
from sagong_kube.schema.rules.metadata import check_label_selector

__all__ = [
    "check_api_service",
    "check_binding",
    "check_cluster_role",
    "check_csi_driver",
    "check_csi_node",
    "check_definition",
    "check_flow_schema",
    "check_role",
    "check_runtime_class",
    "check_signing_request",
    "check_storage_class",
    "check_webhooks",
]

Document = dict[str, Any]

_RBAC: Final = "rbac.authorization.k8s.io"
_LONGEST_WEBHOOK: Final = 30


# Rights


def check_role(found: Findings, item: Document, old: Document | None) -> None:
    """A Role: its rules may not name paths."""
    for at, rule in enumerate(item.get("rules") or ()):
        _check_rule(found, rule, f"rules[{at}]", namespaced=True)


def check_cluster_role(found: Findings, item: Document, old: Document | None) -> None:
    """A ClusterRole, aggregated or with rules of its own."""
    for at, rule in enumerate(item.get("rules") or ()):
        _check_rule(found, rule, f"rules[{at}]", namespaced=False)
    aggregation = item.get("aggregationRule")
    if aggregation is not None:
        selectors = aggregation.get("clusterRoleSelectors") or []
        if not selectors:
            said = "at least one clusterRoleSelector required if aggregationRule is non-nil"
            found.required("aggregationRule.clusterRoleSelectors", said)
        for at, selector in enumerate(selectors):
            check_label_selector(found, selector, f"aggregationRule.clusterRoleSelectors[{at}]")


def _check_rule(found: Findings, rule: Document, path: str, *, namespaced: bool) -> None:
    if not rule.get("verbs"):
        found.required(f"{path}.verbs", "verbs must contain at least one value")
    if rule.get("nonResourceURLs"):
        urls = rule["nonResourceURLs"]
        if namespaced:
            said = "namespaced rules cannot apply to non-resource URLs"
            found.invalid(f"{path}.nonResourceURLs", urls, said)
        if rule.get("apiGroups") or rule.get("resources") or rule.get("resourceNames"):
            said = "rules cannot apply to both regular resources and non-resource URLs"
            found.invalid(f"{path}.nonResourceURLs", urls, said)
        return
    if not rule.get("apiGroups"):
        found.required(f"{path}.apiGroups", "resource rules must supply at least one api group")
    if not rule.get("resources"):
        found.required(f"{path}.resources", "resource rules must supply at least one resource")


def check_binding(found: Findings, item: Document, old: Document | None) -> None:
    """A RoleBinding or ClusterRoleBinding; its role stays."""
    role = item.get("roleRef") or {}
    cluster = item.get("kind") == "ClusterRoleBinding"
    if old is not None and role != (old.get("roleRef") or {}):
        shown = role if not role else _role_shown(role)
        found.invalid("roleRef", shown, "cannot change roleRef")
    if role.get("apiGroup") != _RBAC:
        found.unsupported("roleRef.apiGroup", role.get("apiGroup", ""), (_RBAC,))
    kinds = ("ClusterRole",) if cluster else ("Role", "ClusterRole")
    if role.get("kind") not in kinds:
        found.unsupported("roleRef.kind", role.get("kind", ""), kinds)
    if not role.get("name"):
        found.required("roleRef.name")
    else:
        found.each("roleRef.name", role["name"], names.check_path_segment(role["name"]))
    for at, subject in enumerate(item.get("subjects") or ()):
        _check_subject(found, subject, f"subjects[{at}]", namespaced=not cluster)


def _role_shown(role: Document) -> Any:
    fields = (("APIGroup", "apiGroup"), ("Kind", "kind"), ("Name", "name"))
    inside = ", ".join(f'{title}:"{role.get(field, "")}"' for title, field in fields)
    return Literal(f"rbac.RoleRef{{{inside}}}")


def _check_subject(found: Findings, subject: Document, path: str, *, namespaced: bool) -> None:
    kind, name, group = (subject.get(field, "") for field in ("kind", "name", "apiGroup"))
    if not name:
        found.required(f"{path}.name")
    if kind == "ServiceAccount":
        if name:
            found.each(f"{path}.name", name, names.check_subdomain(name))
        if group:
            found.unsupported(f"{path}.apiGroup", group, ("",))
        if not namespaced and not subject.get("namespace"):
            found.required(f"{path}.namespace")
    elif kind in ("User", "Group"):
        if group != _RBAC:
            found.unsupported(f"{path}.apiGroup", group, (_RBAC,))
    else:
        found.unsupported(f"{path}.kind", kind, ("ServiceAccount", "User", "Group"))


# Storage


def check_storage_class(found: Findings, item: Document, old: Document | None) -> None:
    """A StorageClass; most of it stays."""
    provisioner = item.get("provisioner", "")
    if not provisioner:
        found.required("provisioner")
    else:
        found.each("provisioner", provisioner, names.check_qualified_name(provisioner.lower()))
    policy, mode = item.get("reclaimPolicy"), item.get("volumeBindingMode")
    if policy is not None and policy not in ("Delete", "Retain"):
        found.unsupported("reclaimPolicy", policy, ("Delete", "Retain"))
    modes = ("Immediate", "WaitForFirstConsumer")
    if mode is None:
        found.required("volumeBindingMode")
    elif mode not in modes:
        found.unsupported("volumeBindingMode", mode, modes)
    if old is not None:
        if (item.get("parameters") or {}) != (old.get("parameters") or {}):
            found.forbidden("parameters", "updates to parameters are forbidden.")
        if provisioner != old.get("provisioner"):
            found.forbidden("provisioner", "updates to provisioner are forbidden.")
        if policy != old.get("reclaimPolicy"):
            found.forbidden("reclaimPolicy", "updates to reclaimPolicy are forbidden.")
        found.immutable("volumeBindingMode", mode, old.get("volumeBindingMode"))


def check_csi_driver(found: Findings, item: Document, old: Document | None) -> None:
    """A CSIDriver; whether it attaches stays."""
    spec = item.get("spec") or {}
    modes = ("Ephemeral", "Persistent")
    for mode in spec.get("volumeLifecycleModes") or ():
        if mode not in modes:
            found.unsupported("spec.volumeLifecycleModes", mode, modes)
    if old is not None:
        for field in ("attachRequired", "volumeLifecycleModes"):
            found.immutable(f"spec.{field}", spec.get(field), (old.get("spec") or {}).get(field))


def check_csi_node(found: Findings, item: Document, old: Document | None) -> None:
    """A CSINode: its drivers' names differ."""
    known: set[str] = set()
    for at, driver in enumerate((item.get("spec") or {}).get("drivers") or ()):
        name = driver.get("name", "")
        if not name:
            found.required(f"spec.drivers[{at}].name")
        if name in known:
            found.duplicate(f"spec.drivers[{at}].name", name)
        known.add(name)
        if not driver.get("nodeID"):
            found.required(f"spec.drivers[{at}].nodeID")


def check_runtime_class(found: Findings, item: Document, old: Document | None) -> None:
    """A RuntimeClass; its handler stays."""
    handler = item.get("handler", "")
    found.each("handler", handler, names.check_dns_label(handler))
    if old is not None:
        found.immutable("handler", handler, old.get("handler"))


# Webhooks, certificates, definitions


def check_webhooks(found: Findings, item: Document, old: Document | None) -> None:
    """The webhooks of a configuration."""
    known: set[str] = set()
    for at, hook in enumerate(item.get("webhooks") or ()):
        path, name = f"webhooks[{at}]", hook.get("name", "")
        wrong = names.check_subdomain(name)
        if not wrong and name.count(".") < 2:
            wrong = ["should be a domain with at least three segments separated by dots"]
        found.each(f"{path}.name", name, wrong)
        if name in known:
            found.duplicate(f"{path}.name", name)
        known.add(name)
        _check_hook(found, hook, path)


def _check_hook(found: Findings, hook: Document, path: str) -> None:
    versions = hook.get("admissionReviewVersions") or []
    if not versions:
        said = "must specify one of v1, v1beta1"
        found.required(f"{path}.admissionReviewVersions", said)
    elif not {"v1", "v1beta1"} & set(versions):
        said = "must include at least one of v1, v1beta1"
        found.invalid(f"{path}.admissionReviewVersions", versions, said)
    for field, supported in (
        ("failurePolicy", ("Fail", "Ignore")),
        ("matchPolicy", ("Equivalent", "Exact")),
    ):
        if hook.get(field) is not None and hook[field] not in supported:
            found.unsupported(f"{path}.{field}", hook[field], supported)
    effects = hook.get("sideEffects")
    if effects is None:
        found.required(f"{path}.sideEffects", "must specify one of None, NoneOnDryRun")
    elif effects not in ("None", "NoneOnDryRun"):
        found.unsupported(f"{path}.sideEffects", effects, ("None", "NoneOnDryRun"))
    seconds = hook.get("timeoutSeconds")
    if seconds is not None and not 1 <= seconds <= _LONGEST_WEBHOOK:
        said = "the timeout value must be between 1 and 30 seconds"
        found.invalid(f"{path}.timeoutSeconds", seconds, said)
    client = hook.get("clientConfig") or {}
    if (client.get("url") is None) == (client.get("service") is None):
        found.required(f"{path}.clientConfig", "exactly one of url or service is required")
    elif client.get("url") is not None and not client["url"].startswith("https://"):
        said = "'https' is the only allowed URL scheme"
        found.invalid(f"{path}.clientConfig.url", client["url"], said)
    for field in ("namespaceSelector", "objectSelector"):
        check_label_selector(found, hook.get(field), f"{path}.{field}")
    for at, rule in enumerate(hook.get("rules") or ()):
        for field in ("apiGroups", "apiVersions", "resources", "operations"):
            if not rule.get(field):
                found.required(f"{path}.rules[{at}].{field}")


def check_signing_request(found: Findings, item: Document, old: Document | None) -> None:
    """A CertificateSigningRequest."""
    spec = item.get("spec") or {}
    if not spec.get("request"):
        said = "PEM block type must be CERTIFICATE REQUEST"
        found.invalid("spec.request", spec.get("request", ""), said)
    if not spec.get("usages"):
        found.required("spec.usages")
    signer = spec.get("signerName", "")
    if not signer:
        found.required("spec.signerName")
    elif "/" not in signer:
        said = "must be a fully qualified domain and path of the form 'example.com/signer-name'"
        found.invalid("spec.signerName", signer, said)
    seconds = spec.get("expirationSeconds")
    if seconds is not None and seconds < 600:
        said = "may not specify a duration less than 600 seconds (10 minutes)"
        found.invalid("spec.expirationSeconds", seconds, said)


def check_api_service(found: Findings, item: Document, old: Document | None) -> None:
    """An APIService; named after its version and group."""
    spec = item.get("spec") or {}
    group, version = spec.get("group", ""), spec.get("version", "")
    name = item["metadata"].get("name", "")
    if name != f"{version}.{group}":
        found.invalid(
            "metadata.name", name, f'must be `spec.version+"."+spec.group`: "{version}.{group}"'
        )
    if not version:
        found.required("spec.version")
    priority = spec.get("groupPriorityMinimum", 0)
    if not 0 < priority <= 20000:
        said = "must be positive and less than 20000"
        found.invalid("spec.groupPriorityMinimum", priority, said)
    priority = spec.get("versionPriority", 0)
    if not 0 < priority <= 1000:
        said = "must be positive and less than 1000"
        found.invalid("spec.versionPriority", priority, said)
    if spec.get("service") is None:
        if spec.get("caBundle"):
            said = "local APIServices may not have a caBundle"
            found.invalid("spec.caBundle", spec["caBundle"], said)
    else:
        for field in ("namespace", "name"):
            if not spec["service"].get(field):
                found.required(f"spec.service.{field}")


def check_flow_schema(found: Findings, item: Document, old: Document | None) -> None:
    """A FlowSchema."""
    spec = item.get("spec") or {}
    if not (spec.get("priorityLevelConfiguration") or {}).get("name"):
        found.required("spec.priorityLevelConfiguration.name")
    order = spec.get("matchingPrecedence", 1000)
    if order <= 0:
        found.invalid("spec.matchingPrecedence", order, "must be a positive value")
    elif order > 10000:
        said = "must not be greater than 10000"
        found.invalid("spec.matchingPrecedence", order, said)


def check_definition(found: Findings, item: Document, old: Document | None) -> None:
    """A CustomResourceDefinition: names, versions and their schemas."""
    spec = item.get("spec") or {}
    named = spec.get("names") or {}
    plural, group = named.get("plural", ""), spec.get("group", "")
    wanted, name = f"{plural}.{group}", item["metadata"].get("name", "")
    if name != wanted:
        found.invalid("metadata.name", name, 'must be spec.names.plural+"."+spec.group')
    if not group:
        found.required("spec.group")
    else:
        found.each("spec.group", group, names.check_subdomain(group))
        if "." not in group:
            found.invalid("spec.group", group, "should be a domain with at least one dot")
    found.one_of("spec.scope", spec.get("scope", ""), ("Cluster", "Namespaced"))
    _check_versions(found, spec)
    for field in ("plural", "singular", "kind", "listKind"):
        said = named.get(field, "")
        if not said and field != "singular":
            found.required(f"spec.names.{field}")
        elif said:
            found.each(f"spec.names.{field}", said, names.check_dns_1035_label(said.lower()))
    if named.get("kind") and named.get("kind") == named.get("listKind"):
        said = "kind and listKind may not be the same"
        found.invalid("spec.names.listKind", named["listKind"], said)
    if old is not None:
        _check_definition_update(found, spec, old)


def _check_definition_update(found: Findings, new: Document, old: Document) -> None:
    before = old.get("spec") or {}
    for field in ("group", "scope"):
        found.immutable(f"spec.{field}", new.get(field), before.get(field))
    for field in ("plural", "kind"):
        found.immutable(
            f"spec.names.{field}",
            (new.get("names") or {}).get(field),
            (before.get("names") or {}).get(field),
        )


def _check_versions(found: Findings, spec: Document) -> None:
    versions = spec.get("versions") or []
    known: set[str] = set()
    for at, version in enumerate(versions):
        path, name = f"spec.versions[{at}]", version.get("name", "")
        found.each(f"{path}.name", name, names.check_dns_1035_label(name))
        if name in known:
            found.invalid("spec.versions", name, "must contain unique version names")
        known.add(name)
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        if schema is None:
            found.required(f"{path}.schema.openAPIV3Schema", "schemas are required")
        else:
            _check_structural(found, schema, f"{path}.schema.openAPIV3Schema")
    stored = sum(1 for version in versions if version.get("storage"))
    if stored != 1:
        said = "must have exactly one version marked as storage version"
        found.invalid("spec.versions", "", said)


def _check_structural(found: Findings, schema: Document, path: str) -> None:
    if schema.get("type") != "object":
        kind = schema.get("type", "")
        if kind:
            found.invalid(f"{path}.type", kind, "must be object at the root")
        else:
            found.required(f"{path}.type", "must not be empty at the root")
    _check_types(found, schema, path)


def _check_types(found: Findings, schema: Document, path: str) -> None:
    free = schema.get("x-kubernetes-int-or-string") or schema.get(
        "x-kubernetes-preserve-unknown-fields"
    )
    for name, part in (schema.get("properties") or {}).items():
        where = f"{path}.properties[{name}]"
        loose = part.get("x-kubernetes-int-or-string") or part.get(
            "x-kubernetes-preserve-unknown-fields"
        )
        if not part.get("type") and not loose:
            found.required(f"{where}.type", "must not be empty for specified object fields")
        _check_types(found, part, where)
    items = schema.get("items")
    if isinstance(items, dict):
        loose = items.get("x-kubernetes-int-or-string") or items.get(
            "x-kubernetes-preserve-unknown-fields"
        )
        if not items.get("type") and not loose:
            found.required(f"{path}.items.type", "must not be empty for specified array items")
        _check_types(found, items, f"{path}.items")
    elif schema.get("type") == "array" and not free:
        found.required(f"{path}.items", "must be specified")
    rest = schema.get("additionalProperties")
    if isinstance(rest, dict):
        _check_types(found, rest, f"{path}.additionalProperties")
