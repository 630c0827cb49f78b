"""Resource quotas: refused beyond them, and what is used noted in the same transaction.

Because each charged write also writes the quota under the condition that it is unchanged, two
writers can't overdraw it together, on one server or on several.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from sagong.model.quantity import Quantity, nano, parse
from sagong_kube import refusal
from sagong_kube.registry import document as documents
from sagong_kube.registry.document import Document
from sagong_kube.registry.review import CREATE, UPDATE, Review
from sagong_kube.registry.usage import Usage, in_scope, storages_of, usage_of
from sagong_kube.storage.collection import Selection
from sagong_kube.storage.record import Record

__all__ = ["charge"]

_QUOTAS = "core/resourcequotas"


def charge(review: Review) -> None:
    """Charge the namespace's quotas with what the write uses more than before."""
    if review.operation not in (CREATE, UPDATE) or not review.resource.namespaced:
        return
    if review.subresource not in ("", "resize") or review.new is None:
        return
    for record in list(review.view.select(_QUOTAS, Selection(namespace=review.namespace))):
        if not (review.storage == _QUOTAS and record.name == review.name):
            _charge_one(review, record)


def _charge_one(review: Review, record: Record) -> None:
    quota = documents.decode(record)
    assert review.new is not None
    hard = {k: nano(v) for k, v in (quota.get("spec", {}).get("hard") or {}).items()}
    tracked = [name for name in hard if storages_of(name) == review.storage]
    if not tracked or not in_scope(quota, review.storage, review.new):
        return
    _must_specify(review, quota, tracked)
    delta = _delta(review, tracked)
    if not delta:
        return
    used = _noted(quota, hard)
    if used is None or _exceeded(used, delta, hard):
        used = _counted(review, quota, hard)
    over = _exceeded(used, delta, hard)
    if over:
        raise refusal.forbidden(
            review.resource.plural,
            review.resource.group,
            review.name,
            _said(quota, over, used, delta, hard),
        )
    if not review.dry_run:
        _note(review, record, quota, {**used, **{n: used[n] + v for n, v in delta.items()}})


def _delta(review: Review, tracked: list[str]) -> Usage:
    assert review.new is not None
    new = usage_of(review.storage, review.new)
    old = usage_of(review.storage, review.old) if review.old is not None else {}
    more = {n: new.get(n, 0) - old.get(n, 0) for n in tracked}
    return {name: value for name, value in more.items() if value > 0}


def _noted(quota: Document, hard: Mapping[str, int]) -> Usage | None:
    noted = (quota.get("status") or {}).get("used") or {}
    return {n: nano(noted[n]) for n in hard} if all(n in noted for n in hard) else None


def _counted(review: Review, quota: Document, hard: Mapping[str, int]) -> Usage:
    total = dict.fromkeys(hard, 0)
    storages = {storage for name in hard if (storage := storages_of(name))}
    for storage in storages:
        for document in _others(review, storage):
            if in_scope(quota, storage, document):
                for name, value in usage_of(storage, document).items():
                    if name in total:
                        total[name] += value
    if review.old is not None:
        for name, value in usage_of(review.storage, review.old).items():
            if name in total:
                total[name] += value
    return total


def _others(review: Review, storage: str) -> Iterator[Document]:
    own = review.resource.key(review.namespace, review.name)
    for record in review.view.select(storage, Selection(namespace=review.namespace)):
        if not (storage == review.storage and record.key == own):
            yield msgspec.json.decode(record.body)


def _exceeded(used: Usage, delta: Usage, hard: Mapping[str, int]) -> list[str]:
    return sorted(name for name, value in delta.items() if used[name] + value > hard[name])


def _said(
    quota: Document, over: list[str], used: Usage, delta: Usage, hard: Mapping[str, int]
) -> str:
    spelled = quota["spec"]["hard"]

    def listed(amounts: Mapping[str, int]) -> str:
        return ",".join(f"{n}={_text(amounts[n], spelled[n])}" for n in over)

    return (
        f"exceeded quota: {quota['metadata']['name']}, requested: {listed(delta)}, "
        f"used: {listed(used)}, limited: {listed(hard)}"
    )


def _text(amount: int, like: str) -> str:
    return str(Quantity(amount, parse(like).format))


def _must_specify(review: Review, quota: Document, tracked: list[str]) -> None:
    if review.storage != "core/pods" or review.operation != CREATE:
        return
    assert review.new is not None
    named = usage_of("core/pods", review.new)
    if not named:
        return
    compute = [
        n
        for n in tracked
        if n.startswith("limits.") or n.removeprefix("requests.") in ("cpu", "memory")
    ]
    missing = {
        name: _silent(review.new, name)
        for name in compute
        if name not in named or _silent(review.new, name)
    }
    missing = {name: containers for name, containers in missing.items() if containers}
    if missing:
        said = "; ".join(f"{n} for: {','.join(missing[n])}" for n in sorted(missing))
        why = f"failed quota: {quota['metadata']['name']}: must specify {said}"
        raise refusal.forbidden("pods", "", review.name, why)


def _silent(pod: Document, name: str) -> list[str]:
    part, _, plain = name.rpartition(".")
    part = part or "requests"
    return [
        container["name"]
        for container in pod["spec"].get("containers") or ()
        if plain not in ((container.get("resources") or {}).get(part) or {})
    ]


def _note(review: Review, record: Record, quota: Document, used: Usage) -> None:
    hard = quota["spec"]["hard"]
    quota["metadata"].pop("resourceVersion", None)
    quota["status"] = {
        "hard": dict(hard),
        "used": {name: _text(used[name], hard[name]) for name in hard},
    }
    review.view.plan(_QUOTAS, record.key, documents.encode(quota))
