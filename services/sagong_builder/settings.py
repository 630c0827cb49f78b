"""Settings of the builder: the unit's section of the configuration."""

from __future__ import annotations

import msgspec

__all__ = ["Settings"]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds of what strangers send.

    `context_limit` is the most bytes of one context, unpacked; `entries_limit` the most files of it.
    `parallel` bounds the builds at one time; others wait. `fetch_seconds` is how long a URL may say
    nothing.

    The history keeps the last `history_entries` builds and those of the last `history_seconds`; of all
    at most `history_bytes`.
    """

    context_limit: int = 64 << 30
    entries_limit: int = 2_000_000
    parallel: int = 16
    fetch_seconds: float = 60.0
    history_entries: int = 50
    history_seconds: float = 48 * 3600.0
    history_bytes: int = 512 << 20
