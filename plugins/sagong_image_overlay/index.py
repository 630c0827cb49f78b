"""The index of images and their names: in memory for reading, one file replaced as a whole.

Hundreds of images make a file of some 100 KB: writing it once for all changes that came together is
cheaper than a database, and a crash leaves either the old or the new one.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Set
from pathlib import Path

import msgspec

from sagong.contracts.image import Removed
from sagong.errors import FailedPrecondition, InvalidArgument, NotFound
from sagong.model import references
from sagong_image_overlay import naming
from sagong_image_overlay.content import sync_directory

__all__ = ["Index", "Record"]


_References = list[references.Reference]
# A removal is told for so long, and so many of them, to who asks a successor again.
_TOLD_SECONDS = 60.0
_TOLD = 64


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An image: its documents, its blobs and its unpacked layers from the lowest to the highest.

    `layers` are keys of `layers.Layers`; `points` is the layer of mount points; `packed` is the
    manifest that was sent to registries when `manifest` has layers that are not compressed. `made` is
    the id of the commit that made the image and took its container's layer.
    """

    id: str
    manifest: str
    media_type: str
    blobs: tuple[str, ...] = ()
    diff_ids: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    points: str = ""
    parent: str = ""
    tagged_at: float = 0.0
    packed: str = ""
    packed_blobs: tuple[str, ...] = ()
    made: str = ""

    @property
    def content(self) -> set[str]:
        """All blobs that belong to the image."""
        found = {self.id, self.manifest, *self.blobs, *self.packed_blobs}
        return found | {self.packed} if self.packed else found


class Told(msgspec.Struct, frozen=True):
    """What is answered to who had something removed, and when that was (seconds since 1970)."""

    removed: Removed
    at: float


class Document(msgspec.Struct, kw_only=True):
    """The file."""

    version: int = 1
    images: list[Record] = []
    names: dict[str, str] = {}
    digests: dict[str, str] = {}
    parts: dict[str, tuple[str, ...]] = {}
    sent: dict[str, str] = {}
    removals: dict[str, Told] = {}


class Index:
    """Images by id, names and repository digests; `save` makes changes durable."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.images: dict[str, Record] = {}
        self.names: dict[str, str] = {}
        self.digests: dict[str, str] = {}
        self._parts: dict[str, tuple[str, ...]] = {}
        self._sent: dict[str, str] = {}
        self._removals: dict[str, Told] = {}
        self._removed_before: dict[str, Told] = {}
        self._reverse: dict[str, tuple[_References, _References]] = {}
        self._lock = asyncio.Lock()
        self._changed = 0
        self._saved = 0

    def load(self) -> None:
        """Read the file; a missing one is an empty index."""
        try:
            raw = self._path.read_bytes()
        except FileNotFoundError:
            return
        try:
            document = msgspec.json.decode(raw, type=Document)
        except msgspec.DecodeError as error:
            raise FailedPrecondition(
                f"the image index {self._path} is damaged ({error}); restore it or move it away"
            ) from None
        self.images = {record.id: record for record in document.images}
        self.names = {k: v for k, v in document.names.items() if v in self.images}
        self.digests = {k: v for k, v in document.digests.items() if v in self.images}
        self._parts = {k: v for k, v in document.parts.items() if self.names.get(k) in v}
        self._sent = {k: v for k, v in document.sent.items() if k in self.names}
        self._removed_before = document.removals

    def forget(self, identity: str) -> None:
        """Drop an image and its names."""
        self.images.pop(identity, None)
        self.names = {k: v for k, v in self.names.items() if v != identity}
        self.digests = {k: v for k, v in self.digests.items() if v != identity}
        self.changed()

    async def save(self) -> None:
        """Make all changes until now durable; changes that wait together are written once."""
        self._changed += 1
        ticket = self._changed
        async with self._lock:
            if self._saved >= ticket:
                return
            reached = self._changed
            document = Document(
                images=list(self.images.values()),
                names=self.names,
                digests=self.digests,
                parts=self._parts,
                sent={k: v for k, v in self._sent.items() if k in self.names},
                removals=self._removals,
            )
            await asyncio.to_thread(self._write, msgspec.json.encode(document))
            self._saved = reached

    def _write(self, raw: bytes) -> None:
        new = self._path.with_suffix(".new")
        with new.open("wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        os.rename(new, self._path)
        sync_directory(self._path.parent)

    def changed(self) -> None:
        """Forget what was derived from names; call it after every change of them."""
        self._reverse = {}

    def _names(self, identity: str) -> tuple[_References, _References]:
        """Tags and repository digests of an image, sorted, parsed once for all who ask."""
        if not self._reverse:
            table: dict[str, tuple[_References, _References]] = {i: ([], []) for i in self.images}
            for place, names in enumerate((self.names, self.digests)):
                for name in sorted(names):
                    table[names[name]][place].append(references.parse(name))
            self._reverse = table
        return self._reverse.get(identity, ([], []))

    def give(self, name: str, identity: str, parts: tuple[str, ...] = ()) -> None:
        """Give an image a name, which stands for these images of several platforms, too."""
        self.names[name] = identity
        self._parts.pop(name, None)
        self._sent.pop(name, None)
        if parts:
            self._parts[name] = parts
        self.changed()

    def parts_of(self, name: str) -> tuple[str, ...]:
        """The images of several platforms that a name stands for; none if it is one image's alone."""
        parts = self._parts.get(name, ())
        return parts if self.names.get(name) in parts else ()

    def note_sent(self, name: str, identity: str, document: str) -> None:
        """What went out by a name, where that has more than the image: `docker push` sends it again."""
        if self.names.get(name) == identity:
            self._sent[name] = document

    def sent_as(self, name: str) -> str:
        """The manifest or index that went out by a name with notes; "" if there was none."""
        return self._sent.get(name, "") if name in self.names else ""

    def note_removal(self, asked: str, removed: Removed) -> None:
        """What a successor tells to who asks it for the same; durable with what was removed."""
        now = time.time()
        kept = [(k, v) for k, v in self._removals.items() if v.at > now - _TOLD_SECONDS]
        self._removals = {**dict(kept[1 - _TOLD :]), asked: Told(removed, now)}

    def removed_before(self, asked: str) -> Removed | None:
        """What a predecessor removed a moment ago when it was asked the same; told once."""
        told = self._removed_before.pop(asked, None)
        return told.removed if told and told.at > time.time() - _TOLD_SECONDS else None

    def is_part(self, identity: str) -> bool:
        """Whether some name stands for the image and others."""
        return any(identity in self.parts_of(name) for name in self._parts)

    def names_of(self, identity: str) -> list[references.Reference]:
        """The tags of an image, sorted."""
        return [*self._names(identity)[0]]

    def digests_of(self, identity: str) -> list[references.Reference]:
        """The repository digests of an image, sorted."""
        return [*self._names(identity)[1]]

    def find(self, text: str) -> Record:
        """The image of a name, digest reference, id or unique prefix of one."""
        found = self._by_name(text) or self._by_id(text)
        if found is None:
            raise NotFound(f"No such image: {_shown(text)}")
        return self.images[found]

    def is_by_id(self, text: str) -> bool:
        """Whether the text means an image by its id: no name of that spelling exists."""
        return self._by_name(text) is None and self._by_id(text) is not None

    def _by_name(self, text: str) -> str | None:
        if not naming.is_name(text):
            return None
        reference = references.parse(text).tagged
        if reference.digest:
            by_digest = self.digests.get(f"{reference.name}@{reference.digest}")
            return by_digest or self._by_manifest(reference)
        return self.names.get(reference.canonical)

    def _by_manifest(self, reference: references.Reference) -> str | None:
        """`name@sha256:…` of an image that has that name and manifest or id."""
        for name, identity in self.names.items():
            if name.rpartition(":")[0] == reference.name:
                record = self.images[identity]
                if reference.digest in (record.manifest, record.id):
                    return identity
        return None

    def _by_id(self, text: str) -> str | None:
        if not naming.is_id(text):
            return None
        prefix = text if text.startswith("sha256:") else f"sha256:{text}"
        found = [identity for identity in self.images if identity.startswith(prefix)]
        if len(found) > 1:
            raise InvalidArgument(f"image id prefix {text} is ambiguous: {len(found)} images match")
        return found[0] if found else None

    def children(self, identity: str) -> list[Record]:
        """Images that were built on this one."""
        return [record for record in self.images.values() if record.parent == identity]

    def made_by(self, commit: str) -> Record | None:
        """The image that a commit made of a container whose layer it took."""
        found = (record for record in self.images.values() if record.made == commit)
        return next(found, None)

    def blobs_of(self, diff_ids: Set[str]) -> dict[str, str]:
        """A blob of each of these layers that some image has, by diff ids."""
        return {
            diff_id: blob
            for record in self.images.values()
            for diff_id, blob in zip(record.diff_ids, record.blobs)
            if diff_id in diff_ids
        }

    def is_below(self, identity: str, other: str) -> bool:
        """Whether an image is among the parents of another one, or that one itself."""
        while other and other != identity:
            record = self.images.get(other)
            other = record.parent if record else ""
        return bool(other)

    def depth(self, identity: str) -> int:
        """How many images an image was made of, one after the other."""
        found, record = 0, self.images.get(identity)
        while record is not None:
            found, record = found + 1, self.images.get(record.parent)
        return found


def _shown(text: str) -> str:
    """A name with its tag, as Docker's message has it."""
    if not naming.is_name(text):
        return text
    return references.parse(text).tagged.familiar
