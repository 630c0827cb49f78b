"""Pod templates: whether two are the same, and a short hash of one."""

from __future__ import annotations

import copy
from typing import Final

import msgspec

from sagong_replication_kube.item import Document

__all__ = ["HASH_LABEL", "same", "template_hash", "with_label"]

HASH_LABEL: Final = "pod-template-hash"
# Without vowels, and without digits that look like letters: no words come out.
_SAFE: Final = "bcdfghjklmnpqrstvwxz2456789"
_ORDERED: Final = msgspec.json.Encoder(order="sorted")


def same(one: Document, other: Document) -> bool:
    """Whether two templates make the same pods; the hash label and empty fields don't count."""
    return _bare(one) == _bare(other)


def template_hash(template: Document, collisions: int = 0) -> str:
    """A hash that is the same for the same template on every machine and in every version."""
    number = _fnv(_ORDERED.encode(_bare(template)))
    if collisions:
        number = _fnv(collisions.to_bytes(8, "little"), number)
    return "".join(_SAFE[int(digit) % len(_SAFE)] for digit in str(number))


def with_label(template: Document, key: str, value: str) -> Document:
    """A copy whose pods have the label."""
    found = copy.deepcopy(template)
    found.setdefault("metadata", {}).setdefault("labels", {})[key] = value
    return found


def _bare(template: Document) -> Document:
    meta = dict(template.get("metadata") or {})
    meta.pop("creationTimestamp", None)
    meta["labels"] = {k: v for k, v in (meta.get("labels") or {}).items() if k != HASH_LABEL}
    found = _pruned({**template, "metadata": meta})
    return found if isinstance(found, dict) else {}


def _pruned(value: object) -> object:
    """Without nulls and without empty lists and maps at the ends of fields."""
    if isinstance(value, dict):
        pruned = {key: _pruned(one) for key, one in value.items()}
        return {key: one for key, one in pruned.items() if one is not None and one != []}
    if isinstance(value, list):
        return [_pruned(one) for one in value]
    return value


def _fnv(text: bytes, start: int = 0x811C9DC5) -> int:
    number = start
    for byte in text:
        number = ((number ^ byte) * 0x01000193) & 0xFFFFFFFF
    return number
