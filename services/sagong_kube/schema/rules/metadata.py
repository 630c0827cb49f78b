"""Checks of metadata: names, labels, annotations, owners, finalizers, and what may not change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from sagong.model import names
from sagong_kube.schema.rules.findings import Findings

__all__ = [
    "check_annotations",
    "check_label_selector",
    "check_labels",
    "check_metadata",
    "check_metadata_update",
    "name_check",
]

Document = dict[str, Any]
NameCheck = Callable[[str], list[str]]

_LONGEST_ANNOTATIONS: Final = 256 * 1024
_FINALIZERS: Final = frozenset(("kubernetes", "foregroundDeletion", "orphan"))

_NAME_CHECKS: Final[Mapping[str, NameCheck]] = {
    "Namespace": names.check_dns_label,
    "Service": names.check_dns_1035_label,
    "StatefulSet": names.check_subdomain,
    "Role": names.check_path_segment,
    "RoleBinding": names.check_path_segment,
    "ClusterRole": names.check_path_segment,
    "ClusterRoleBinding": names.check_path_segment,
}


def _cron_job_name(name: str) -> list[str]:
    wrong = names.check_subdomain(name)
    return wrong if len(name) <= 52 else [*wrong, "must be no more than 52 characters"]


def name_check(kind: str) -> NameCheck:
    """What names of a kind must look like."""
    return _cron_job_name if kind == "CronJob" else _NAME_CHECKS.get(kind, names.check_subdomain)


def check_metadata(
    found: Findings,
    metadata: Document,
    *,
    namespaced: bool,
    check: NameCheck,
    path: str = "metadata",
) -> None:
    """All of an object's metadata."""
    prefix, name = metadata.get("generateName", ""), metadata.get("name", "")
    if prefix:
        found.each(f"{path}.generateName", prefix, check(names.masked(prefix)))
    if name:
        found.each(f"{path}.name", name, check(name))
    elif not prefix:
        found.required(f"{path}.name", "name or generateName is required")
    _check_namespace(
        found, metadata.get("namespace", ""), f"{path}.namespace", namespaced=namespaced
    )
    found.nonnegative(f"{path}.generation", metadata.get("generation"))
    check_labels(found, metadata.get("labels"), f"{path}.labels")
    check_annotations(found, metadata.get("annotations"), f"{path}.annotations")
    _check_owners(found, metadata.get("ownerReferences") or [], f"{path}.ownerReferences")
    _check_finalizers(found, metadata.get("finalizers") or [], f"{path}.finalizers")


def _check_namespace(found: Findings, namespace: str, path: str, *, namespaced: bool) -> None:
    if not namespaced:
        if namespace:
            found.forbidden(path, "not allowed on this type")
    elif not namespace:
        found.required(path)
    else:
        found.each(path, namespace, names.check_dns_label(namespace))


def check_labels(found: Findings, labels: Mapping[str, str] | None, path: str) -> None:
    """Keys and values of labels."""
    for key, value in (labels or {}).items():
        found.each(path, key, names.check_qualified_name(key))
        found.each(path, value, names.check_label_value(value))


def check_annotations(found: Findings, annotations: Mapping[str, str] | None, path: str) -> None:
    """Keys of annotations, and their size in all."""
    size = 0
    for key, value in (annotations or {}).items():
        found.each(path, key, names.check_qualified_name(key.lower()))
        size += len(key.encode()) + len(value.encode())
    if size > _LONGEST_ANNOTATIONS:
        found.too_long(path, _LONGEST_ANNOTATIONS)


def _check_owners(found: Findings, owners: list[Document], path: str) -> None:
    controller = ""
    for owner in owners:
        if not owner.get("apiVersion", "").rpartition("/")[2]:
            found.invalid(
                f"{path}.apiVersion", owner.get("apiVersion", ""), "version must not be empty"
            )
        for field in ("kind", "name", "uid"):
            if not owner.get(field):
                found.invalid(f"{path}.{field}", owner.get(field, ""), "must not be empty")
        if owner.get("controller"):
            said = f"{owner.get('kind', '')}/{owner.get('name', '')}"
            if controller:
                found.invalid(
                    path,
                    owners,
                    "Only one reference can have Controller set to true. "
                    f'Found "true" in references for {controller} and {said}',
                )
            controller = said


def _check_finalizers(found: Findings, finalizers: list[str], path: str) -> None:
    orphan = foreground = False
    for name in finalizers:
        wrong = names.check_qualified_name(name)
        found.each(path, name, wrong)
        if not wrong and "/" not in name and name not in _FINALIZERS:
            said = "name is neither a standard finalizer name nor is it fully qualified"
            found.invalid(path, name, said)
        orphan = orphan or name == "orphan"
        foreground = foreground or name == "foregroundDeletion"
    if orphan and foreground:
        found.invalid(
            path, finalizers, "finalizer orphan and foregroundDeletion cannot be both set"
        )


def check_metadata_update(
    found: Findings, new: Document, old: Document, path: str = "metadata"
) -> None:
    """What an update may not change."""
    if old.get("deletionTimestamp"):
        known = set(old.get("finalizers") or ())
        added = sorted(set(new.get("finalizers") or ()) - known)
        if added:
            listed = ", ".join(f'"{name}"' for name in added)
            found.forbidden(
                f"{path}.finalizers",
                "no new finalizers can be added if the object is being deleted, found new "
                f"finalizers []string{{{listed}}}",
            )
    if (new.get("generation") or 0) < (old.get("generation") or 0):
        found.invalid(f"{path}.generation", new.get("generation") or 0, "must not be decremented")
    for field in ("name", "namespace", "uid", "creationTimestamp", "deletionTimestamp"):
        found.immutable(f"{path}.{field}", new.get(field), old.get(field))


def check_label_selector(found: Findings, selector: Document | None, path: str) -> None:
    """A LabelSelector object."""
    if selector is None:
        return
    check_labels(found, selector.get("matchLabels"), f"{path}.matchLabels")
    for at, term in enumerate(selector.get("matchExpressions") or ()):
        where = f"{path}.matchExpressions[{at}]"
        operator, values = term.get("operator", ""), term.get("values") or []
        if operator in ("In", "NotIn"):
            if not values:
                found.required(
                    f"{where}.values", "must be specified when `operator` is 'In' or 'NotIn'"
                )
        elif operator in ("Exists", "DoesNotExist"):
            if values:
                found.forbidden(
                    f"{where}.values",
                    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                )
        else:
            found.invalid(f"{where}.operator", operator, "not a valid selector operator")
        key = term.get("key", "")
        found.each(f"{where}.key", key, names.check_qualified_name(key))
        for index, value in enumerate(values):
            found.each(f"{where}.values[{index}]", value, names.check_label_value(value))
