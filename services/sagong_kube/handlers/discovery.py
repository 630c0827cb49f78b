"""Discovery: which groups, versions and resources are served, in all forms that clients ask for."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from typing import Any

import msgspec

from sagong.model.objects import GroupVersionKind
from sagong_kube import refusal
from sagong_kube.handlers.exchange import JSON, Answer, Ask, json_answer
from sagong_kube.handlers.negotiation import ranges
from sagong_kube.registry.resource import Catalogue, Resource

__all__ = ["Discovery"]

_AGGREGATED = "apidiscovery.k8s.io"
_LIST = "APIGroupDiscoveryList"
Document = dict[str, Any]


class Discovery:
    """Answers of discovery, made once for each generation of the catalogue."""

    def __init__(self, catalogue: Catalogue, address: str) -> None:
        self._catalogue = catalogue
        self._address = address
        self._made: dict[tuple[int, str, str], Answer] = {}

    async def legacy(self, ask: Ask) -> Answer:
        """GET /api."""
        version = _aggregated(ask)
        if version:
            return self._kept(ask, "core", version, lambda: self._aggregate([""], version))
        addresses = [{"clientCIDR": "0.0.0.0/0", "serverAddress": self._address}]
        return json_answer(
            {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": addresses}
        )

    async def groups(self, ask: Ask) -> Answer:
        """GET /apis."""
        version = _aggregated(ask)
        names = [group for group in self._catalogue.groups() if group]
        if version:
            return self._kept(ask, "groups", version, lambda: self._aggregate(names, version))
        groups = [self._group(name) for name in names]
        return json_answer({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})

    async def group(self, ask: Ask) -> Answer:
        """GET /apis/GROUP."""
        name = ask.path.strip("/").split("/")[1]
        if name not in self._catalogue.groups():
            raise refusal.no_such_path()
        return json_answer({"kind": "APIGroup", "apiVersion": "v1", **self._group(name)})

    async def resources(self, ask: Ask) -> Answer:
        """GET /api/v1 and /apis/GROUP/VERSION."""
        parts = ask.path.strip("/").split("/")
        group, version = ("", parts[1]) if parts[0] == "api" else (parts[1], parts[2])
        if version not in self._catalogue.groups().get(group, ()):
            raise refusal.no_such_path()
        found = [r for r in self._catalogue if (r.group, r.kind.version) == (group, version)]
        entries = [entry for resource in found for entry in _entries(resource)]
        api_version = f"{group}/{version}" if group else version
        document: Document = {"kind": "APIResourceList"}
        if group:
            document["apiVersion"] = "v1"
        return json_answer({**document, "groupVersion": api_version, "resources": entries})

    def _group(self, name: str) -> Document:
        versions = [
            {"groupVersion": f"{name}/{version}", "version": version}
            for version in self._catalogue.groups()[name]
        ]
        return {"name": name, "versions": versions, "preferredVersion": versions[0]}

    def _aggregate(self, groups: Iterable[str], version: str) -> Document:
        served = self._catalogue.groups()
        items = [
            {
                "metadata": {"name": group, "creationTimestamp": None},
                "versions": [self._version(group, v) for v in served.get(group, ())],
            }
            for group in groups
        ]
        return {
            "kind": _LIST,
            "apiVersion": f"{_AGGREGATED}/{version}",
            "metadata": {},
            "items": items,
        }

    def _version(self, group: str, version: str) -> Document:
        found = [r for r in self._catalogue if (r.group, r.kind.version) == (group, version)]
        return {
            "version": version,
            "resources": [_aggregated_entry(resource) for resource in found],
            "freshness": "Current",
        }

    def _kept(self, ask: Ask, name: str, version: str, make: Any) -> Answer:
        key = (self._catalogue.generation, name, version)
        answer = self._made.get(key)
        if answer is None:
            body = msgspec.json.encode(make())
            tag = f'"{hashlib.sha256(body).hexdigest().upper()}"'
            media = f"{JSON};g={_AGGREGATED};v={version};as={_LIST}"
            answer = Answer(body, 200, media, {"ETag": tag, "Vary": "Accept"})
            if len(self._made) > 8:
                self._made.clear()
            self._made[key] = answer
        if ask.headers.get("if-none-match") == answer.headers["ETag"]:
            return Answer(b"", 304, answer.media, answer.headers)
        return answer


def _aggregated(ask: Ask) -> str:
    """The version of the aggregated form that the client likes best, "" for the plain form."""
    for range_ in ranges(ask.headers.get("accept", "")):
        if range_.media != JSON:
            continue
        if not range_.parameter("as"):
            return ""
        if range_.parameter("g") == _AGGREGATED and range_.parameter("as") == _LIST:
            version = range_.parameter("v")
            if version in ("v2", "v2beta1"):
                return version
    return ""


def _entries(resource: Resource) -> list[Document]:
    own: Document = {
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind.kind,
        "verbs": sorted(resource.verbs),
    }
    if resource.short_names:
        own["shortNames"] = list(resource.short_names)
    if resource.categories:
        own["categories"] = list(resource.categories)
    if "create" in resource.verbs and not resource.virtual:
        own["storageVersionHash"] = _storage_hash(resource.stored_kind)
    return [own, *(_sub_entry(resource, name) for name in sorted(resource.subresources))]


def _sub_entry(resource: Resource, name: str) -> Document:
    subresource = resource.subresources[name]
    entry: Document = {
        "name": f"{resource.plural}/{name}",
        "singularName": "",
        "namespaced": resource.namespaced,
        "kind": subresource.kind.kind,
        "verbs": sorted(subresource.verbs),
    }
    if (subresource.kind.group, subresource.kind.version) != (
        resource.group,
        resource.kind.version,
    ):
        entry = {"group": subresource.kind.group, "version": subresource.kind.version, **entry}
    return entry


def _storage_hash(kind: GroupVersionKind) -> str:
    digest = hashlib.sha256(f"{kind.group}/{kind.version}/{kind.kind}".encode()).digest()
    return base64.b64encode(digest[:8]).decode()


def _aggregated_entry(resource: Resource) -> Document:
    entry: Document = {
        "resource": resource.plural,
        "responseKind": _response_kind(resource, resource.kind),
        "scope": "Namespaced" if resource.namespaced else "Cluster",
        "singularResource": resource.singular,
        "verbs": sorted(resource.verbs),
    }
    if resource.short_names:
        entry["shortNames"] = list(resource.short_names)
    if resource.categories:
        entry["categories"] = list(resource.categories)
    subresources = [
        {
            "subresource": name,
            "responseKind": _response_kind(resource, resource.subresources[name].kind),
            "verbs": sorted(resource.subresources[name].verbs),
        }
        for name in sorted(resource.subresources)
    ]
    if subresources:
        entry["subresources"] = subresources
    return entry


def _response_kind(resource: Resource, kind: GroupVersionKind) -> Document:
    """Group and version stay empty when they are those of the list they stand in."""
    if (kind.group, kind.version) == (resource.group, resource.kind.version):
        return {"group": "", "version": "", "kind": kind.kind}
    return {"group": kind.group, "version": kind.version, "kind": kind.kind}
