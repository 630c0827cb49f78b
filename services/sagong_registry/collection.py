"""What a collection takes from a repository: a function of what is there and the time. Pure.

A manifest stays while a tag means it, another one that stays lists it, it speaks of one that stays
(a signature of an image), or for its grace. A blob stays while a manifest that stays needs it, and
for its grace: it may be of a push that goes on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sagong_registry.record import ManifestRecord
from sagong_registry.repository import Repository

__all__ = ["Grace", "Taken", "plan"]


@dataclass(frozen=True, slots=True)
class Grace:
    """Seconds for which manifests and blobs are spared; -1 for ever."""

    manifests: float
    blobs: float


@dataclass(frozen=True, slots=True)
class Taken:
    """Digests to be removed from a repository, and whether nothing is left of it."""

    manifests: tuple[str, ...] = ()
    blobs: tuple[str, ...] = ()
    repository: bool = False

    @property
    def nothing(self) -> bool:
        """Whether all stays."""
        return not (self.manifests or self.blobs or self.repository)


def plan(repository: Repository, now: float, grace: Grace) -> Taken:
    """What goes."""
    staying = _staying(repository, now, grace.manifests)
    needed = {digest for one in staying for digest in _needs(repository.manifests[one])}
    manifests = tuple(one for one in repository.manifests if one not in staying)
    blobs = tuple(
        digest
        for digest, record in repository.blobs.items()
        if digest not in needed
        and _over(max(record.added, repository.seen.get(digest, 0.0)), now, grace.blobs)
    )
    left = len(repository.blobs) - len(blobs) + len(staying) + len(repository.tags)
    record = repository.record
    changed = max(record.created, record.changed) if record else 0.0
    # A visibility that somebody set is worth keeping without content.
    gone = left == 0 and not (record and record.visibility) and _over(changed, now, grace.blobs)
    return Taken(manifests, blobs, gone)


def _staying(repository: Repository, now: float, grace: float) -> set[str]:
    tagged = (record.digest for record in repository.tags.values())
    young = (
        digest
        for digest, record in repository.manifests.items()
        if not _over(max(record.pushed, record.released), now, grace)
    )
    return _reached(repository, [*tagged, *young])


def _reached(repository: Repository, roots: Iterable[str]) -> set[str]:
    """All manifests that are led to from the roots: listed by an index, or speaking of one."""
    reached: set[str] = set()
    waiting = [digest for digest in roots if digest in repository.manifests]
    while waiting:
        digest = waiting.pop()
        if digest in reached:
            continue
        reached.add(digest)
        led = (*repository.manifests[digest].manifests, *repository.referrers.get(digest, ()))
        waiting += [one for one in led if one in repository.manifests]
    return reached


def _needs(record: ManifestRecord) -> Iterable[str]:
    yield from record.blobs
    yield from record.manifests  # an index may list what is no manifest


def _over(since: float, now: float, grace: float) -> bool:
    return 0 <= grace <= now - since
