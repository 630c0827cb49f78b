"""Objects while they are worked on: decoded JSON, and its encoding with the head in front."""

from __future__ import annotations

import functools
import random
import time
import uuid
from typing import Any

import msgspec

from sagong.model.times import time_text
from sagong_kube.storage.record import Record

__all__ = ["Document", "decode", "encode", "labels_of", "now", "timestamp"]

Document = dict[str, Any]

_ENCODER = msgspec.json.Encoder()


def decode(record: Record) -> Document:
    """A fresh document of a record; whoever decodes may change it."""
    document: Document = msgspec.json.decode(record.body)
    return document


def encode(document: Document) -> bytes:
    """The stored form: apiVersion, kind and metadata first, no resourceVersion."""
    metadata = {k: v for k, v in document["metadata"].items() if k != "resourceVersion"}
    head = {
        "apiVersion": document["apiVersion"],
        "kind": document["kind"],
        "metadata": metadata,
    }
    rest = {key: value for key, value in document.items() if key not in head}
    return _ENCODER.encode({**head, **rest})


def timestamp(seconds: float) -> str:
    """RFC 3339 in whole seconds."""
    return _stamp(int(seconds))


@functools.lru_cache(64)
def _stamp(seconds: int) -> str:
    return time_text(seconds)


def now() -> str:
    """The present as a timestamp."""
    return _stamp(int(time.time()))


def new_uid(chance: random.Random) -> str:
    """A fresh uid (a random UUID; it names, it keeps no secret)."""
    return str(uuid.UUID(int=chance.getrandbits(128), version=4))


def labels_of(document: Document) -> dict[str, str]:
    """The labels; an empty dictionary when there are none."""
    labels: dict[str, str] = document.get("metadata", {}).get("labels") or {}
    return labels
