"""A repository in memory: its tags, manifests, blobs, and who refers to what. Pure."""

from __future__ import annotations

from sagong_registry.record import BlobRecord, ManifestRecord, RepositoryRecord, TagRecord

__all__ = ["Repository"]


class Repository:
    """What the state keeps of a repository, indexed. `record` is None while it comes piece by piece."""

    __slots__ = ("blobs", "manifests", "name", "record", "referrers", "seen", "tags")

    def __init__(self, name: str) -> None:
        self.name = name
        self.record: RepositoryRecord | None = None
        self.tags: dict[str, TagRecord] = {}
        self.manifests: dict[str, ManifestRecord] = {}
        self.blobs: dict[str, BlobRecord] = {}
        # subject → manifests that speak of it, in the order in which they came
        self.referrers: dict[str, dict[str, None]] = {}
        # When a client was last told that a blob which no manifest needs yet is here.
        self.seen: dict[str, float] = {}

    @property
    def known(self) -> bool:
        """Whether clients can know of it."""
        return self.record is not None or bool(self.manifests or self.blobs)

    @property
    def empty(self) -> bool:
        """Whether nothing is in it."""
        return not (self.tags or self.manifests or self.blobs)

    @property
    def size(self) -> int:
        """Bytes of what it holds; what other repositories hold too is counted here as well."""
        return sum(blob.size for blob in self.blobs.values()) + sum(
            manifest.size for manifest in self.manifests.values()
        )

    def tags_of(self, digest: str) -> list[str]:
        """Tags that mean a manifest."""
        return [tag for tag, record in self.tags.items() if record.digest == digest]

    def put_manifest(self, digest: str, record: ManifestRecord) -> None:
        """Take a manifest in, or as it is now."""
        self.drop_manifest(digest)
        self.manifests[digest] = record
        if record.subject:
            self.referrers.setdefault(record.subject, {})[digest] = None

    def drop_manifest(self, digest: str) -> None:
        """Forget a manifest."""
        old = self.manifests.pop(digest, None)
        if old is not None and old.subject:
            listed = self.referrers.get(old.subject, {})
            listed.pop(digest, None)
            if not listed:
                self.referrers.pop(old.subject, None)
