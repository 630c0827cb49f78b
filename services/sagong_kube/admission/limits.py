"""Limit ranges: default requests and limits, and the bounds that pods and claims must keep."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from sagong.model.quantity import Quantity, nano
from sagong_kube import refusal
from sagong_kube.registry.document import Document
from sagong_kube.registry.review import CREATE, Review
from sagong_kube.storage.collection import Selection

__all__ = ["check_limits", "default_limits"]

_ANNOTATION = "kubernetes.io/limit-ranger"


def _items(review: Review, kind: str) -> Iterator[Document]:
    selection = Selection(namespace=review.namespace)
    for record in review.view.select("core/limitranges", selection):
        document = msgspec.json.decode(record.body)
        for item in document.get("spec", {}).get("limits") or ():
            if item.get("type") == kind:
                yield item


def _containers(pod: Document) -> list[Document]:
    spec = pod["spec"]
    return [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]


def default_limits(review: Review) -> None:
    """Give containers that say nothing the range's defaults."""
    if review.operation != CREATE or review.storage != "core/pods" or review.new is None:
        return
    items = list(_items(review, "Container"))
    if not items:
        return
    for container in _containers(review.new):
        resources = container.setdefault("resources", {})
        for item in items:
            _fill(resources, "requests", item.get("defaultRequest") or {})
            _fill(resources, "limits", item.get("default") or {})
        if not resources:
            container["resources"] = {}


def _fill(resources: Document, part: str, defaults: dict[str, Any]) -> None:
    missing = {k: v for k, v in defaults.items() if k not in (resources.get(part) or {})}
    if missing:
        resources[part] = {**(resources.get(part) or {}), **missing}


def check_limits(review: Review) -> None:
    """Refuse pods and claims outside the bounds."""
    if review.operation != CREATE or review.new is None:
        return
    problems: list[str] = []
    if review.storage == "core/pods":
        for item in _items(review, "Container"):
            for container in _containers(review.new):
                problems += _outside(item, container.get("resources") or {}, "Container")
        for item in _items(review, "Pod"):
            problems += _outside(item, _total(review.new), "Pod")
    elif review.storage == "core/persistentvolumeclaims":
        for item in _items(review, "PersistentVolumeClaim"):
            resources = review.new["spec"].get("resources") or {}
            problems += _outside(item, resources, "PersistentVolumeClaim")
    if problems:
        said = problems[0] if len(problems) == 1 else f"[{', '.join(problems)}]"
        raise refusal.forbidden(review.resource.plural, "", review.name, said)


def _total(pod: Document) -> Document:
    total: dict[str, dict[str, int]] = {"requests": {}, "limits": {}}
    for container in pod["spec"].get("containers") or ():
        for part, sums in total.items():
            for name, value in ((container.get("resources") or {}).get(part) or {}).items():
                sums[name] = sums.get(name, 0) + nano(value)
    return {part: {k: str(Quantity(v)) for k, v in sums.items()} for part, sums in total.items()}


def _outside(item: Document, resources: Document, kind: str) -> list[str]:
    requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
    problems = []
    for name, bound in (item.get("min") or {}).items():
        asked = requests.get(name, limits.get(name))
        if asked is None:
            problems.append(f"minimum {name} usage per {kind} is {bound}.  No request is specified")
        elif nano(asked) < nano(bound):
            problems.append(f"minimum {name} usage per {kind} is {bound}, but request is {asked}")
    for name, bound in (item.get("max") or {}).items():
        asked = limits.get(name, requests.get(name) if kind == "PersistentVolumeClaim" else None)
        if asked is None:
            problems.append(f"maximum {name} usage per {kind} is {bound}.  No limit is specified")
        elif nano(asked) > nano(bound):
            problems.append(f"maximum {name} usage per {kind} is {bound}, but limit is {asked}")
    for name, ratio in (item.get("maxLimitRequestRatio") or {}).items():
        problems += _ratio(name, ratio, requests, limits, kind)
    return problems


def _ratio(name: str, ratio: str, requests: Document, limits: Document, kind: str) -> list[str]:
    limit, request = limits.get(name), requests.get(name)
    if limit is None or request is None or nano(request) == 0:
        return [
            f"{name} max limit to request ratio per {kind} is {ratio}, but no request is "
            "specified or request is 0"
        ]
    found = nano(limit) / nano(request)
    if found > nano(ratio) / 10**9:
        return [
            f"{name} max limit to request ratio per {kind} is {ratio}, but provided ratio is "
            f"{found:.6f}"
        ]
    return []
