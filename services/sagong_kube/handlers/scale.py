"""The scale subresource: replicas of anything that has them, as autoscaling/v1 Scale."""

from __future__ import annotations

from typing import Any

import msgspec

from sagong.model.objects import GroupVersionKind
from sagong_kube import refusal
from sagong_kube.handlers.body import media_of, parsed, read_document
from sagong_kube.handlers.exchange import Ask, Reply
from sagong_kube.handlers.negotiation import negotiate
from sagong_kube.handlers.objects import Objects
from sagong_kube.handlers.rendering import document_answer
from sagong_kube.patch import mergepatch
from sagong_kube.refusal import Cause
from sagong_kube.registry import document as documents
from sagong_kube.registry.document import Document
from sagong_kube.registry.resource import Resource
from sagong_kube.registry.shapes import Patch
from sagong_kube.schema import decoding

__all__ = ["Scale", "ScalePaths"]

_KIND = GroupVersionKind("autoscaling", "v1", "Scale")


class ScalePaths(msgspec.Struct, frozen=True):
    """Where a kind keeps what Scale shows; `selector` may be "" when it has none."""

    replicas: tuple[str, ...] = ("spec", "replicas")
    status: tuple[str, ...] = ("status", "replicas")
    selector: tuple[str, ...] = ("spec", "selector")


class Scale:
    """Handlers of scale; `paths` tells where custom kinds keep their replicas."""

    def __init__(self, objects: Objects, paths: Any) -> None:
        self._objects = objects
        self._paths = paths

    async def serve(self, ask: Ask, resource: Resource) -> Reply:
        """GET, PUT and PATCH."""
        form = negotiate(ask.headers.get("accept", ""), listed=False, transforms=False)
        record = await self._objects.record(ask, resource)
        paths: ScalePaths = self._paths(resource)
        if ask.target.verb == "get":
            return document_answer(form, _scale(documents.decode(record), paths))
        change = self._change(ask, resource, paths)
        subject = self._objects.subject(ask, resource, "")
        written = await self._objects.writer.edit(subject, change)
        return document_answer(form, _scale(msgspec.json.decode(written.body), paths))

    def _change(self, ask: Ask, resource: Resource, paths: ScalePaths) -> Any:
        if ask.target.verb == "update":
            wanted, _ = read_document(ask)
            return lambda live: _applied(resource, live, wanted, paths)
        patch = Patch(media_of(ask), ask.body)

        def change(live: Document) -> Document:
            scale = _scale(live, paths)
            return _applied(resource, live, _patched(scale, patch), paths)

        return change


def _patched(scale: Document, patch: Patch) -> Document:
    from sagong_kube.patch import jsonpatch

    change = parsed(patch.body, patch.media)
    if patch.media == "application/json-patch+json":
        patched = jsonpatch.apply(scale, change)
    else:
        patched = mergepatch.apply(scale, change)
    if not isinstance(patched, dict):
        raise refusal.bad_request("a Scale is an object")
    return patched


def _at(document: Document, path: tuple[str, ...]) -> Any:
    value: Any = document
    for step in path:
        value = value.get(step) if isinstance(value, dict) else None
    return value


def _scale(document: Document, paths: ScalePaths) -> Document:
    metadata = document["metadata"]
    shown = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    status: Document = {"replicas": _at(document, paths.status) or 0}
    selector = _selector_text(_at(document, paths.selector)) if paths.selector else ""
    if selector:
        status["selector"] = selector
    replicas = _at(document, paths.replicas)
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {field: metadata[field] for field in shown if field in metadata},
        "spec": {"replicas": replicas} if replicas else {},
        "status": status,
    }


def _selector_text(selector: Any) -> str:
    if isinstance(selector, str):
        return selector
    if not isinstance(selector, dict):
        return ""
    if not selector.keys() & {"matchLabels", "matchExpressions"}:
        return ",".join(f"{k}={v}" for k, v in sorted(selector.items()))
    parts = [f"{k}={v}" for k, v in sorted((selector.get("matchLabels") or {}).items())]
    for term in selector.get("matchExpressions") or ():
        values = ",".join(sorted(term.get("values") or ()))
        match term["operator"]:
            case "In":
                parts.append(f"{term['key']} in ({values})")
            case "NotIn":
                parts.append(f"{term['key']} notin ({values})")
            case "Exists":
                parts.append(term["key"])
            case "DoesNotExist":
                parts.append(f"!{term['key']}")
    return ",".join(parts)


def _applied(resource: Resource, live: Document, scale: Document, paths: ScalePaths) -> Document:
    scale = decoding.conform(scale, _KIND, validation="Ignore").document
    name = live["metadata"]["name"]
    said = str((scale.get("metadata") or {}).get("resourceVersion") or "")
    if said and said != live["metadata"].get("resourceVersion"):
        raise refusal.modified(resource.plural, resource.group, name)
    replicas = (scale.get("spec") or {}).get("replicas") or 0
    if replicas < 0:
        cause = Cause(
            "FieldValueInvalid",
            f"Invalid value: {replicas}: must be greater than or equal to 0",
            "spec.replicas",
        )
        raise refusal.invalid("Scale", "autoscaling", name, (cause,))
    target: Any = live
    for step in paths.replicas[:-1]:
        target = target.setdefault(step, {})
    target[paths.replicas[-1]] = replicas
    return live
