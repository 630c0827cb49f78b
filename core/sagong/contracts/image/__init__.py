"""Slot `image`: keeps images and lends their root filesystems as mounts.

Content is addressed by digest (OCI image specification 1.1); an image's id is the digest of its
config. A *lease* of a root filesystem belongs to a container id and lives until it is released.
Bytes travel beside the bus: uploads and downloads hand out the address of a stream first.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from sagong.contract import method, slot
from sagong.contracts.image.commits import (
    CommitRequest,
    DeriveRequest,
    SquashRequest,
)
from sagong.contracts.image.description import (
    Image,
    ImageChanged,
    ImageConfig,
    ImageList,
    ImageQuery,
    ImageRef,
    ImageUsage,
    Layer,
    Removed,
    RemoveRequest,
    TagRequest,
)
from sagong.contracts.image.registries import (
    Credentials,
    Distribution,
    DistributionRequest,
    Login,
    LoginRequest,
    Platform,
    SearchRequest,
    SearchResult,
    SearchResults,
)
from sagong.contracts.image.roots import (
    ArchiveRequest,
    Change,
    ChangeList,
    DirectoryList,
    PathStat,
    Prepared,
    PrepareRequest,
    RootRef,
)
from sagong.contracts.image.transfers import (
    Artifact,
    ImportRequest,
    LoadRequest,
    Progress,
    PullRequest,
    PushRequest,
    SaveRequest,
)
from sagong.contracts.streams import Address
from sagong.errors import (
    Conflict,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
)

__all__ = [
    "ArchiveRequest",
    "Artifact",
    "Change",
    "ChangeList",
    "CommitRequest",
    "Credentials",
    "DeriveRequest",
    "DirectoryList",
    "Distribution",
    "DistributionRequest",
    "Image",
    "ImageChanged",
    "ImageConfig",
    "ImageList",
    "ImageQuery",
    "ImageRef",
    "ImageUsage",
    "Images",
    "ImportRequest",
    "Layer",
    "LoadRequest",
    "Login",
    "LoginRequest",
    "PathStat",
    "Platform",
    "PrepareRequest",
    "Prepared",
    "Progress",
    "PullRequest",
    "PushRequest",
    "RemoveRequest",
    "Removed",
    "RootRef",
    "SaveRequest",
    "SearchRequest",
    "SearchResult",
    "SearchResults",
    "SquashRequest",
    "TagRequest",
]


_REGISTRY_ERRORS = (
    NotFound,
    InvalidArgument,
    PermissionDenied,
    Unauthenticated,
    ResourceExhausted,
)


@slot("image", version=1, events=(ImageChanged,))
class Images(Protocol):
    """The image store."""

    @method(idempotent=True, raises=_REGISTRY_ERRORS, seconds=120.0, resumes=True)
    def pull(self, request: PullRequest) -> AsyncIterator[Progress]:
        """Fetch, verify, unpack. An interrupted pull goes on where it was; errors as Docker's."""
        ...

    @method(idempotent=True, raises=_REGISTRY_ERRORS, seconds=120.0, resumes=True)
    def push(self, request: PushRequest) -> AsyncIterator[Progress]:
        """Send what the registry lacks, then the manifest."""
        ...

    @method(idempotent=True, raises=_REGISTRY_ERRORS, seconds=60.0)
    async def search(self, request: SearchRequest) -> SearchResults:
        """Ask a registry by the search API of version 1, else look through its catalog."""
        ...

    @method(idempotent=True, raises=_REGISTRY_ERRORS, seconds=60.0)
    async def distribution(self, request: DistributionRequest) -> Distribution:
        """Ask a registry about a name without fetching the image; mirrors are not asked."""
        ...

    @method(idempotent=True, raises=_REGISTRY_ERRORS, seconds=60.0)
    async def login(self, request: LoginRequest) -> Login:
        """Try credentials; Unauthenticated if they are refused."""
        ...

    @method(idempotent=True)
    async def upload(self) -> Address:
        """A raw stream to send bytes to; its token is the `upload` that other requests name.

        Each call gives another one. The half-close ends it. An upload that nobody takes within a
        minute is dropped. It can go on after a break, and so does what was to be done with it: a
        provider knows what its predecessor was sent, and, for a minute, what it answered.
        """
        ...

    @method(
        idempotent=True,
        raises=(InvalidArgument, NotFound, ResourceExhausted),
        seconds=600.0,
        resumes=True,
    )
    def load(self, request: LoadRequest) -> AsyncIterator[Progress]:
        """Load images of an archive; one item a loaded image, with `reference` or only `image`."""
        ...

    @method(
        idempotent=True, raises=(InvalidArgument, ResourceExhausted), seconds=600.0, resumes=True
    )
    def import_(self, request: ImportRequest) -> AsyncIterator[Progress]:
        """Make an image of a filesystem archive."""
        ...

    @method(idempotent=True, raises=(NotFound,))
    async def save(self, request: SaveRequest) -> Address:
        """A whole stream of the archive: the same at a successor, while the names mean the same."""
        ...

    @method(idempotent=True, raises=(NotFound,))
    async def export(self, root: RootRef) -> Address:
        """A whole stream of a lent root filesystem as a tar."""
        ...

    @method(idempotent=True, raises=(NotFound, InvalidArgument))
    async def inspect(self, image: ImageRef) -> Image:
        """One image; NotFound says `No such image: NAME`. An ambiguous prefix is InvalidArgument."""
        ...

    @method(idempotent=True)
    async def list(self, query: ImageQuery) -> ImageList:
        """Images that match, newest first."""
        ...

    @method(idempotent=True, raises=(NotFound, InvalidArgument))
    async def tag(self, request: TagRequest) -> None:
        """Name an image; a name in use moves."""
        ...

    @method(idempotent=True, raises=(NotFound, Conflict))
    async def remove(self, request: RemoveRequest) -> Removed:
        """Remove; `Conflict` when a lent root filesystem needs it and `force` is not set.

        A successor that is asked within a minute for what its predecessor removed tells what that was,
        once, and removes nothing: the predecessor may have ended before its answer.
        """
        ...

    @method(idempotent=True, raises=(NotFound, InvalidArgument, ResourceExhausted))
    async def prepare(self, request: PrepareRequest) -> Prepared:
        """Lend a root filesystem; the same id again returns the same. Nothing is mounted here."""
        ...

    @method(idempotent=True)
    async def release(self, root: RootRef) -> None:
        """Take a root filesystem back and delete its writable layer; unknown is no error."""
        ...

    @method(idempotent=True, raises=(NotFound, ResourceExhausted))
    async def changes(self, root: RootRef) -> ChangeList:
        """What a container changed; ResourceExhausted if the names are too many to be told."""
        ...

    @method(idempotent=True, raises=(NotFound, InvalidArgument, ResourceExhausted), seconds=600.0)
    async def commit(self, request: CommitRequest) -> Image:
        """Make an image of a container; its `parent` is the image that was lent.

        The same `id` again after success is the same image, also when the lease was consumed.
        With a `document` no event `commit` is told, only `tag` if a name is given.
        """
        ...

    @method(idempotent=True, raises=(NotFound, InvalidArgument))
    async def derive(self, request: DeriveRequest) -> Image:
        """Make an image of another one's layers: quick, whatever their size.

        The same document and parent are the same image. Event: `tag`, if a name is given.
        """
        ...

    @method(idempotent=True, raises=(NotFound, InvalidArgument, ResourceExhausted), seconds=600.0)
    async def squash(self, request: SquashRequest) -> Image:
        """Make an image with several layers of another one as one. Event: `tag`, if a name is given.

        InvalidArgument if `base` is not below the image.
        """
        ...

    @method(idempotent=True, raises=(NotFound, InvalidArgument))
    async def stat(self, request: ArchiveRequest) -> PathStat:
        """Stat a path inside a lent root filesystem."""
        ...

    @method(idempotent=True, raises=(NotFound, InvalidArgument))
    async def directory(self, request: ArchiveRequest) -> DirectoryList:
        """Names and stats in a directory of a lent root; InvalidArgument if it is none."""
        ...

    @method(idempotent=True, raises=(NotFound, InvalidArgument))
    async def read_archive(self, request: ArchiveRequest) -> Address:
        """A whole stream of the path as a tar."""
        ...

    @method(idempotent=True, raises=(NotFound, InvalidArgument, ResourceExhausted), seconds=600.0)
    async def write_archive(self, request: ArchiveRequest) -> None:
        """Extract an uploaded tar into a directory of a lent root filesystem.

        NotFound if there is no such directory and `make_path` is not set. What lies there already is
        replaced, a directory by a directory only in what the entry says of it; with
        `no_overwrite_dir_non_dir` InvalidArgument says `cannot overwrite directory "/a" with
        non-directory "/b"` or the reverse.
        """
        ...

    @method(idempotent=True, seconds=120.0)
    async def prune(self, query: ImageQuery) -> Removed:
        """Delete images that match and nothing uses; then unreferenced content.

        Of several conditions all must hold. By default only images without a name are meant;
        `dangling` False means all; what is used loses all its names but the last in their order.
        Intermediate images go with the last image made of them.
        """
        ...

    @method(idempotent=True)
    async def usage(self) -> ImageUsage:
        """Disk usage."""
        ...
