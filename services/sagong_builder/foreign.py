"""Caches that other builders have left: what they are is told, for their records are of no use here.

BuildKit's cache has records keyed by its own operations, beside layers or in an image's config.
Source: the packages cache/remotecache/v1 and exporter/containerimage/exptypes of BuildKit. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

from sagong.errors import FailedPrecondition

__all__ = ["check_made_here"]

_RECORDS = "application/vnd.buildkit.cacheconfig.v0"
_INLINE = b'"moby.buildkit.cache.v0"'


def check_made_here(kinds: Iterable[str], config: bytes = b"") -> None:
    """FailedPrecondition if media types of a cache's parts, or an image's config, are BuildKit's."""
    if _RECORDS in kinds or _INLINE in config:
        raise FailedPrecondition(
            "it is a cache of BuildKit's, keyed by its own operations: steps are done anew; what "
            "--cache-to of this builder writes is read"
        )
