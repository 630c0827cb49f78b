"""Keys of the store: `/registry/<group>/<resource>[/<namespace>]/<name>`, and those beside them."""

from __future__ import annotations

__all__ = [
    "ALLOCATIONS",
    "COMMITS",
    "EVERYTHING",
    "REGISTRY",
    "object_key",
    "prefix_end",
    "split_key",
    "storage_prefix",
]

REGISTRY = "/registry/"
ALLOCATIONS = "/allocations/"
COMMITS = "/commits/"
EVERYTHING = ("/", "0")


def storage_prefix(storage: str) -> str:
    """The prefix of all objects of a storage, written `group/resource` (`core/pods`)."""
    return f"{REGISTRY}{storage}/"


def object_key(storage: str, key: str) -> str:
    """The store's key of the object that its collection knows as `key`."""
    return f"{REGISTRY}{storage}/{key}"


def split_key(key: str) -> tuple[str, str]:
    """(storage, key within its collection) of a key below /registry/."""
    group, resource, rest = key[len(REGISTRY) :].split("/", 2)
    return f"{group}/{resource}", rest


def prefix_end(prefix: str) -> str:
    """The first key after all that begin with `prefix`."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)
