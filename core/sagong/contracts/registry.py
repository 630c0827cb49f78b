"""Slot `registry`: what an operator asks of a registry that clients push to and pull from.

Clients speak the OCI distribution specification to it, not this; here is what that has no words
for: whom a repository is shown to, what it takes on disk, and the collection of what nobody needs.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

from sagong.contract import Message, method, slot
from sagong.errors import InvalidArgument, NotFound

__all__ = [
    "Account",
    "AccountList",
    "AccountRef",
    "CollectRequest",
    "Collected",
    "ManifestSummary",
    "Registry",
    "Repository",
    "RepositoryDetail",
    "RepositoryList",
    "RepositoryQuery",
    "RepositoryRef",
    "TagSummary",
    "Visibility",
    "VisibilityRequest",
]


class Visibility(StrEnum):
    """Whether a repository can be pulled without an account; CONFIGURED: as the configuration says."""

    CONFIGURED = ""
    PUBLIC = "public"
    PRIVATE = "private"


class RepositoryRef(Message):
    """Names a repository."""

    name: str


class RepositoryQuery(Message):
    """Repositories whose names begin with `prefix`, behind `after`, at most `limit`."""

    prefix: str = ""
    after: str = ""
    limit: int = 1000


class Repository(Message):
    """A repository. `size` counts what others hold too; `changed` in seconds since the epoch."""

    name: str
    public: bool
    visibility: Visibility = Visibility.CONFIGURED
    description: str = ""
    tags: int = 0
    manifests: int = 0
    blobs: int = 0
    size: int = 0
    changed: float = 0.0


class RepositoryList(Message):
    """A page in the order of names; `more` if others follow."""

    repositories: tuple[Repository, ...] = ()
    more: bool = False


class TagSummary(Message):
    """A tag and what it means."""

    tag: str
    digest: str
    pushed: float


class ManifestSummary(Message):
    """A manifest; `size` is its own and that of the blobs it names. `subject`: what it speaks of."""

    digest: str
    media_type: str
    artifact_type: str = ""
    size: int
    pushed: float
    subject: str = ""


class RepositoryDetail(Message):
    """A repository with all in it."""

    repository: Repository
    tags: tuple[TagSummary, ...] = ()
    manifests: tuple[ManifestSummary, ...] = ()


class VisibilityRequest(Message):
    """Show a repository to everybody, hide it, or leave it to the configuration."""

    name: str
    visibility: Visibility


class CollectRequest(Message):
    """Collect now. `grace` in seconds is instead of the configured ones (-1: those); 0 spares nothing
    but what is tagged or needed by it. `dry_run` only tells.
    """

    grace: float = -1.0
    dry_run: bool = False


class Collected(Message):
    """What was collected; `bytes` is what the disk has more now (0 of a dry run)."""

    manifests: int = 0
    blobs: int = 0
    uploads: int = 0
    repositories: int = 0
    bytes: int = 0


class Account(Message):
    """An account: its name and the bcrypt hash of its password, as `htpasswd -B` makes it."""

    name: str
    hash: str


class AccountRef(Message):
    """Names an account."""

    name: str


class AccountList(Message):
    """Names of accounts, in order; `configured` are those of a file, which only its owner changes."""

    names: tuple[str, ...] = ()
    configured: tuple[str, ...] = ()


@slot("registry", version=1)
class Registry(Protocol):
    """A registry's operator side."""

    @method(idempotent=True, raises=(InvalidArgument,))
    async def repositories(self, query: RepositoryQuery) -> RepositoryList:
        """List repositories."""
        ...

    @method(idempotent=True, raises=(NotFound,))
    async def describe(self, repository: RepositoryRef) -> RepositoryDetail:
        """A repository with its tags and manifests."""
        ...

    @method(idempotent=True, raises=(NotFound,))
    async def set_visibility(self, request: VisibilityRequest) -> Repository:
        """Show or hide a repository, durably."""
        ...

    @method(idempotent=True, seconds=600.0)
    async def remove(self, repository: RepositoryRef) -> None:
        """Remove a repository with all in it; unknown is no error. `collect` frees the disk."""
        ...

    @method(idempotent=True)
    async def accounts(self) -> AccountList:
        """Who has an account."""
        ...

    @method(idempotent=True, raises=(InvalidArgument,))
    async def set_account(self, account: Account) -> None:
        """Make an account, or change its password. From the first on clients must log in."""
        ...

    @method(idempotent=True)
    async def remove_account(self, account: AccountRef) -> None:
        """Remove an account; unknown is no error."""
        ...

    @method(idempotent=True, seconds=600.0)
    async def collect(self, request: CollectRequest) -> Collected:
        """Remove what nobody needs: manifests without a tag, blobs without a manifest, dead uploads."""
        ...
