"""Checks of what containers may use and be: requests and limits, users, profiles, privileges."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from sagong.model import names, quantity
from sagong_kube.schema.rules.findings import Findings
from sagong_kube.schema.rules.volumes import check_local_path, check_quantity

__all__ = ["check_ids", "check_profiles", "check_resources", "check_security"]

Document = dict[str, Any]

_NATIVE: Final = frozenset(("cpu", "memory", "ephemeral-storage"))
_LARGEST_ID: Final = 2**31 - 1


def check_resources(
    found: Findings, resources: Document, path: str, claims: Iterable[str] = ()
) -> None:
    """Requests and limits of a container."""
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    for side, amounts in (("limits", limits), ("requests", requests)):
        for name, amount in amounts.items():
            where = f"{path}.{side}[{name}]"
            _check_resource_name(found, name, f"{path}.{side}")
            size = check_quantity(found, amount, where)
            if not fractional(name) and size % quantity.NANO:
                found.invalid(where, amount, "must be an integer")
    _check_pairs(found, limits, requests, path)
    for at, claim in enumerate(resources.get("claims") or ()):
        if claim.get("name", "") not in claims:
            found.missing(f"{path}.claims[{at}].name", claim.get("name", ""))


def fractional(name: str) -> bool:
    """Whether a resource may be given in parts of a unit."""
    return name in _NATIVE


def _check_resource_name(found: Findings, name: str, path: str) -> None:
    wrong = names.check_qualified_name(name)
    found.each(path, name, wrong)
    if wrong:
        return
    if "/" not in name and name not in _NATIVE and not name.startswith("hugepages-"):
        found.invalid(path, name, "must be a standard resource type or fully qualified")
        found.invalid(path, name, "must be a standard resource for containers")


def _check_pairs(found: Findings, limits: Document, requests: Document, path: str) -> None:
    for name, amount in requests.items():
        where = f"{path}.requests"
        if name in limits:
            wanted, most = quantity.nano(amount), quantity.nano(limits[name])
            if name in _NATIVE and wanted > most:
                found.invalid(
                    where, amount, f"must be less than or equal to {name} limit of {limits[name]}"
                )
            elif name not in _NATIVE and wanted != most:
                found.invalid(where, amount, f"must be equal to {name} limit of {limits[name]}")
        elif name not in _NATIVE:
            found.required(f"{path}.limits", "Limit must be set for non overcommitable resources")


def check_ids(found: Findings, context: Document, path: str) -> None:
    """User and group numbers of a security context."""
    for field in ("runAsUser", "runAsGroup", "fsGroup"):
        number = context.get(field)
        if number is not None and not 0 <= number <= _LARGEST_ID:
            said = f"must be between 0 and {_LARGEST_ID}, inclusive"
            found.invalid(f"{path}.{field}", number, said)


def check_profiles(found: Findings, context: Document, path: str) -> None:
    """Seccomp and AppArmor profiles of a security context."""
    kinds = ("Localhost", "RuntimeDefault", "Unconfined")
    for field, title in (("seccompProfile", "seccomp"), ("appArmorProfile", "AppArmor")):
        profile = context.get(field)
        if profile is None:
            continue
        where, kind = f"{path}.{field}", profile.get("type", "")
        if not kind:
            found.required(f"{where}.type", f"type is required when {field} is set")
        elif kind not in kinds:
            found.unsupported(f"{where}.type", kind, kinds)
        local = profile.get("localhostProfile")
        if kind == "Localhost" and not local:
            said = f"must be set when {title} type is Localhost"
            found.required(f"{where}.localhostProfile", said)
        elif kind != "Localhost" and local is not None:
            said = f"can only be set when {title} type is Localhost"
            found.invalid(f"{where}.localhostProfile", local, said)
        elif local and field == "seccompProfile":
            check_local_path(found, local, f"{where}.localhostProfile")


def check_security(found: Findings, context: Document, path: str) -> None:
    """A container's security context."""
    check_ids(found, context, path)
    check_profiles(found, context, path)
    if context.get("allowPrivilegeEscalation") is False:
        if context.get("privileged"):
            said = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"
            found.invalid(path, context, said)
        added = (context.get("capabilities") or {}).get("add") or ()
        if "SYS_ADMIN" in added or "CAP_SYS_ADMIN" in added:
            said = (
                "cannot set `allowPrivilegeEscalation` to false and "
                "`capabilities.Add` CAP_SYS_ADMIN"
            )
            found.invalid(path, context, said)
    mount = context.get("procMount")
    if mount is not None and mount not in ("Default", "Unmasked"):
        found.unsupported(f"{path}.procMount", mount, ("Default", "Unmasked"))
