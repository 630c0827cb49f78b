"""Ids of images: what can be one, and how it is shown."""

from __future__ import annotations

import re

__all__ = ["is_id", "is_name", "short_id"]

_HEX = re.compile(r"[0-9a-f]{64}")
_PREFIX = re.compile(r"(?:sha256:)?[0-9a-f]{1,64}")


def is_id(text: str) -> bool:
    """Whether the text can be an image's id or the beginning of one."""
    return bool(_PREFIX.fullmatch(text))


def is_name(text: str) -> bool:
    """Whether the text can be a name at all: a whole id can't."""
    return not (text.startswith("sha256:") or _HEX.fullmatch(text))


def short_id(identity: str) -> str:
    """The twelve digits that Docker shows."""
    return identity.removeprefix("sha256:")[:12]
