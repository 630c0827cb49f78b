"""What is kept in the state about repositories: one record a key, JSON.

Keys are below `/registry/`; names have neither `:` nor `@`, so they divide::

    repositories/NAME      tags/NAME:TAG      manifests/NAME@DIGEST      blobs/NAME@DIGEST
    uploads/ID             accounts/NAME

`revision` is that of the key when it was read, never stored. `hold` is the owner by which the
content store keeps the blob for this record: each record has one of its own, so dropping the hold
of a removed record never touches that of a record which came after it.
"""

from __future__ import annotations

import re
import secrets
from typing import TypeVar

import msgspec

__all__ = [
    "AccountRecord",
    "BlobRecord",
    "ManifestRecord",
    "Record",
    "RepositoryRecord",
    "TagRecord",
    "UploadRecord",
    "decoded",
    "encoded",
    "hold_time",
    "new_hold",
]

R = TypeVar("R", bound="Record")


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of all records. Times are seconds since the epoch."""

    revision: int = 0


class RepositoryRecord(Record, frozen=True, kw_only=True):
    """A repository: `visibility` "public", "private" or "" (what the configuration says)."""

    created: float
    changed: float = 0.0
    visibility: str = ""
    description: str = ""


class TagRecord(Record, frozen=True, kw_only=True):
    """A tag: the manifest it means."""

    digest: str
    pushed: float


class ManifestRecord(Record, frozen=True, kw_only=True):
    """A manifest: what it is and what it needs.

    `released` is when its last tag was taken away. `blobs` and `manifests` are digests it names;
    `subject` the manifest that it speaks of.
    """

    media_type: str
    size: int
    hold: str
    pushed: float
    released: float = 0.0
    subject: str = ""
    artifact_type: str = ""
    blobs: tuple[str, ...] = ()
    manifests: tuple[str, ...] = ()


class BlobRecord(Record, frozen=True, kw_only=True):
    """A blob of a repository."""

    size: int
    hold: str
    added: float


class UploadRecord(Record, frozen=True, kw_only=True):
    """An upload that was begun."""

    repository: str
    begun: float


class AccountRecord(Record, frozen=True, kw_only=True):
    """An account: the bcrypt hash of its password."""

    hash: str


def encoded(record: Record) -> bytes:
    """As it is stored."""
    return msgspec.json.encode(msgspec.structs.replace(record, revision=0))


def decoded(raw: bytes, kind: type[R], revision: int) -> R:
    """As it was stored, with the revision of its key."""
    found = msgspec.json.decode(raw, type=kind)
    return msgspec.structs.replace(found, revision=revision)


_HOLD = re.compile(r".+@([0-9a-f]{1,12})-[0-9a-f]{16}")


def new_hold(repository: str, now: float) -> str:
    """An owner for one record; when it was made stands in it, so that left-overs can be told."""
    return f"{repository}@{int(now):x}-{secrets.token_hex(8)}"


def hold_time(owner: str) -> float:
    """When a hold's owner was made; for ever ago if it is not of ours."""
    found = _HOLD.fullmatch(owner)
    return float(int(found[1], 16)) if found else 0.0
