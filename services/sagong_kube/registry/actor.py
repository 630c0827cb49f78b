"""Who acts and how: the identity of a request and the options of a write."""

from __future__ import annotations

import msgspec

__all__ = ["SYSTEM", "Actor", "DeleteOptions", "WriteOptions"]

NODES_GROUP = "system:nodes"
NODE_PREFIX = "system:node:"


class Actor(msgspec.Struct, frozen=True):
    """The user as authenticated or impersonated."""

    username: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()

    @property
    def node(self) -> str:
        """The node's name, if a node acts."""
        if NODES_GROUP in self.groups and self.username.startswith(NODE_PREFIX):
            return self.username[len(NODE_PREFIX) :]
        return ""


SYSTEM = Actor(username="system:apiserver", groups=("system:masters",))


class WriteOptions(msgspec.Struct, frozen=True):
    """Options of create, update and patch. `validation` is "", Strict, Warn or Ignore.

    `applied` documents come from a server-side apply and say themselves who owns which fields;
    `untracked` writes leave the field owners as they are.
    """

    dry_run: bool = False
    manager: str = ""
    validation: str = ""
    force: bool = False
    applied: bool = False
    untracked: bool = False


class DeleteOptions(msgspec.Struct, frozen=True):
    """Options of a deletion; None is "as the kind has it"."""

    dry_run: bool = False
    grace_seconds: int | None = None
    uid: str = ""
    resource_version: str = ""
    propagation: str = ""
