"""JSON merge patch (RFC 7386) of documents that nobody else holds."""

from __future__ import annotations

from typing import Any

__all__ = ["apply"]


def apply(document: Any, patch: Any) -> Any:
    """The patched document; `document` is changed in place where it can be."""
    if not isinstance(patch, dict):
        return patch
    target = document if isinstance(document, dict) else {}
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        else:
            target[key] = apply(target.get(key), value)
    return target
