"""Names of objects: what each kind allows, in upstream's words."""

from __future__ import annotations

import re

from sagong_kube.refusal import Cause
from sagong_kube.registry.resource import Resource

__all__ = ["check_name"]

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?\Z")
_DNS1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?\Z")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\Z")

_LABEL_NAMED = frozenset(("core/namespaces",))
_DNS1035_NAMED = frozenset(("core/services",))
_PATH_NAMED = frozenset(
    f"rbac.authorization.k8s.io/{plural}"
    for plural in ("roles", "rolebindings", "clusterroles", "clusterrolebindings")
) | {"certificates.k8s.io/certificatesigningrequests"}

_SUBDOMAIN_SAID = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or "
    "'.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used "
    "for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_LABEL_SAID = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and "
    "must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex "
    "used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
_DNS1035_SAID = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an "
    "alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or "
    "'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')"
)


def check_name(resource: Resource, name: str) -> list[Cause]:
    """What is wrong with a name, nothing if it is right."""
    if resource.storage in _PATH_NAMED:
        bad = name in (".", "..") or "/" in name or "%" in name
        return [_wrong(name, "may not contain '/' or '%', nor be '.' or '..'")] if bad else []
    form, said, limit = _SUBDOMAIN, _SUBDOMAIN_SAID, 253
    if resource.storage in _LABEL_NAMED:
        form, said, limit = _LABEL, _LABEL_SAID, 63
    elif resource.storage in _DNS1035_NAMED:
        form, said, limit = _DNS1035, _DNS1035_SAID, 63
    if len(name) > limit:
        return [_wrong(name, f"must be no more than {limit} characters")]
    return [] if form.match(name) else [_wrong(name, said)]


def _wrong(name: str, why: str) -> Cause:
    return Cause("FieldValueInvalid", f'Invalid value: "{name}": {why}', "metadata.name")
