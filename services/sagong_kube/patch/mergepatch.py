"""JSON merge patch, RFC 7386: null removes, objects merge, everything else replaces."""

from __future__ import annotations

from typing import Any

from sagong_kube.patch.document import copied

__all__ = ["apply"]


def apply(document: Any, patch: Any) -> Any:
    """The patched document; neither argument is changed."""
    if not isinstance(patch, dict):
        return copied(patch)
    merged = dict(document) if isinstance(document, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = apply(merged.get(key), value)
    return merged
