"""Slot `image`: keeps images and lends their root filesystems as mounts.

Content is addressed by digest (OCI image specification 1.1); an image's id is the digest of its
config. A *lease* of a root filesystem belongs to a container id and lives until it is released.
Bytes travel beside the bus: uploads and downloads hand out a raw stream address first.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from sagong.contract import Message, method, slot
from sagong.contracts.registries import (
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
from sagong.contracts.runtime import Mount
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


class ImageRef(Message):
    """A reference (`busybox`, `127.0.0.1:5000/a/b:c`, `…@sha256:…`), an id or a unique id prefix."""

    reference: str


class ImageConfig(Message):
    """The runnable part of an image's config, as the OCI image specification names it."""

    user: str = ""
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    working_dir: str = ""
    exposed_ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    stop_signal: str = ""
    healthcheck: str = ""  # JSON of Docker's Healthcheck, "" if none
    shell: tuple[str, ...] = ()
    onbuild: tuple[str, ...] = ()


class Layer(Message):
    """A layer: its uncompressed digest (diff id), and size in bytes on disk."""

    diff_id: str
    size: int


class Image(Message):
    """An image. `raw` is its config blob; `created` is RFC 3339; `size` in bytes, unpacked."""

    id: str
    tags: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()
    created: str = ""
    author: str = ""
    architecture: str = ""
    os: str = "linux"
    variant: str = ""
    size: int = 0
    layers: tuple[Layer, ...] = ()
    config: ImageConfig = ImageConfig()
    history: bytes = b"[]"
    raw: bytes = b""
    manifest_digest: str = ""
    parent: str = ""
    tagged_at: float = 0.0


class ImageQuery(Message):
    """`dangling` None lists all; `all` includes intermediate images of builds.

    `parent`: only images that were made of the image of that id, intermediate ones too. `labels`
    (`key` or `key=value`) must all be there, none of `without_labels` may; `until`, if not 0, is a
    time in seconds before which an image was created. `step` is the JSON of `container_config`.
    """

    reference: str = ""
    dangling: bool | None = None
    all: bool = False
    parent: str = ""
    labels: tuple[str, ...] = ()
    without_labels: tuple[str, ...] = ()
    until: float = 0.0
    step: bytes = b""


class ImageList(Message):
    """Images, newest first."""

    images: tuple[Image, ...] = ()


class PullRequest(Message):
    """Get an image; `id` makes it idempotent. `platform` like linux/arm64; "" is this machine's.

    `policy`: "always" asks the registry, "missing" only if there is no such image here. `all_tags`:
    all images of the repository that the reference names, one after the other.
    """

    id: str
    reference: str
    platform: str = ""
    policy: str = "always"
    credentials: Credentials = Credentials()
    all_tags: bool = False


class PushRequest(Message):
    """Send an image to the registry that its reference names.

    `platform`, if given, must be the image's. `all_tags`: all tags of that repository that are here.
    `parts` are ids of images: each is sent by its digest, and the reference, which nothing here need
    have, becomes an index of them.
    """

    id: str
    reference: str
    credentials: Credentials = Credentials()
    platform: str = ""
    all_tags: bool = False
    parts: tuple[str, ...] = ()


class Progress(Message):
    """A step of a long operation, in Docker's terms: `status` ("Downloading"), of layer `id`.

    The last item of each image in a stream has `image` (the id), and `digest` where there is one. A
    pull begins with "Pulling from PATH", the tag as `id`, and tells no layers of what is here already.
    """

    id: str = ""
    status: str = ""
    current: int = 0
    total: int = 0
    image: str = ""
    digest: str = ""
    size: int = 0
    reference: str = ""


class LoadRequest(Message):
    """Load an archive (docker save or OCI layout, plain or compressed) uploaded as `upload`.

    Of images for several platforms the one for `platform` is loaded, "": for this machine.
    """

    upload: str
    platform: str = ""


class ImportRequest(Message):
    """Make an image of a root filesystem archive; `changes` are Dockerfile lines."""

    upload: str
    reference: str = ""
    message: str = ""
    changes: tuple[str, ...] = ()
    platform: str = ""


class SaveRequest(Message):
    """Archive these images (docker save's layout that is an OCI layout as well).

    A name without a tag means all tags of the repository. `platform`, if given, must be the images'.
    """

    references: tuple[str, ...]
    platform: str = ""


class TagRequest(Message):
    """Give an image a further name: with `parts` (ids, the source among them) it stands for an index of
    these when it is pushed, and they are not dangling.
    """

    source: str
    target: str
    parts: tuple[str, ...] = ()


class RemoveRequest(Message):
    """Remove a name, or an image by id; `force` also when several names or a container use it.

    `keep` takes a name away and leaves its image, though it was the last.
    """

    reference: str
    force: bool = False
    keep: bool = False
    prune_parents: bool = True


class Removed(Message):
    """What was untagged and what was deleted, in Docker's order.

    `deleted` has ids of images, each followed by the chain ids (OCI image specification, config.md) of
    its layers that nothing else needs any more, the topmost first.
    """

    untagged: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    reclaimed: int = 0


class PrepareRequest(Message):
    """Lend the image's filesystem to container `id`: writable, or `readonly` without a layer.

    `image` "" is an empty one (Dockerfile's `scratch`). `bare` leaves out what runtimes mount upon
    (/dev, /proc, /etc/hosts, …) where the image lacks it: for copies from and into images; nothing
    can run in it.
    `storage_size` limits the writable layer in bytes (0: none), by options of `root` that the runtime
    keeps; InvalidArgument where it can't.
    `subpath`, of a read-only one, lends a directory or file of it alone, as `root` (an overlay, or a
    bind of one directory or file) and `lower`; links are followed inside the image only.
    """

    id: str
    image: str
    readonly: bool = False
    subpath: str = ""
    storage_size: int = 0
    platform: str = ""
    bare: bool = False


class Prepared(Message):
    """`root` is the mount of "/"; `lower` its directories from top to bottom, `upper` the writable.

    Owners of files are on disk as they are inside: a runtime that puts the container into a user
    namespace maps the ids on the mounts of these directories, the writable one included.
    Names of users and groups are resolved by `image`: `passwd` and `group` are its files' bytes.
    """

    root: Mount
    lower: tuple[str, ...] = ()
    upper: str = ""
    image: Image
    passwd: bytes = b""
    group: bytes = b""


class RootRef(Message):
    """Names a lent root filesystem by the container's id."""

    id: str


class Change(Message):
    """A path that the container changed: kind 0 modified, 1 added, 2 deleted (Docker's numbers)."""

    path: str
    kind: int


class ChangeList(Message):
    """Changes of a container against its image, in path order."""

    changes: tuple[Change, ...] = ()


class CommitRequest(Message):
    """Make an image of a container's changes; `config` replaces the image's, as JSON, if given.

    `document` takes the place of `config`, `author` and `comment`: a whole config as in
    `DeriveRequest`, to which the layer's diff id is added; if there is no change there is no layer,
    and the last entry of its history is marked `empty_layer`. `consume` ends the lease with the
    commit: the container must not run any more, and its writable layer becomes the image's without
    being written again. If the commit fails, the lease stays. `stubs` are paths that were only there
    to be mounted upon: empty files, and directories of nothing else, that are left out. `command` is
    what the container ran, for the history; "" stands for the image's own command.
    """

    id: str
    container: str
    command: str = ""
    reference: str = ""
    author: str = ""
    comment: str = ""
    config: bytes = b""
    document: bytes = b""
    consume: bool = False
    stubs: tuple[str, ...] = ()


class DeriveRequest(Message):
    """An image of the layers of `parent` ("": of none) with another config, and no layer of its own.

    `document` is a JSON object: the config of the OCI image specification without `rootfs`, which is
    filled in. What it says is kept as it stands, keys unknown to the specification too; platform
    (`architecture`, `os`, `variant`) is the parent's if it has none, else this machine's.

    With `layers_of` the layers are the lowest `layers` of that image: a step that another machine
    has done, taken from what it made in the end.
    """

    id: str
    parent: str = ""
    document: bytes = b"{}"
    reference: str = ""
    layers_of: str = ""
    layers: int = 0


class SquashRequest(Message):
    """An image with the layers of `image` above those of `base` ("": all of them) as one layer.

    `base` must be below `image`, and is the parent of the result. `document` is as in `DeriveRequest`;
    without one the config is the image's, with one entry more in its history and those above the
    base's marked `empty_layer`.
    """

    id: str
    image: str
    base: str = ""
    document: bytes = b""
    reference: str = ""


class ArchiveRequest(Message):
    """Bytes of a path inside a lent root filesystem, as a tar. Links are followed inside it only.

    `upload` non-empty: extract that uploaded tar into the directory `path` instead; what its entries
    say of owners, modes, times, links, devices and attributes is kept, also for directories that are
    there. `make_path`: directories of `path` that are missing are made, mode 0755, of `uid` and `gid`.
    `mounts` are the container's bind mounts, so that paths on volumes are found: (target, source).
    """

    id: str
    path: str
    upload: str = ""
    no_overwrite_dir_non_dir: bool = False
    copy_uid_gid: bool = False
    mounts: tuple[tuple[str, str], ...] = ()
    make_path: bool = False
    uid: int = 0
    gid: int = 0


class PathStat(Message):
    """Stat of a path; `mode` is the st_mode of Linux."""

    name: str
    size: int
    mode: int
    mtime: float
    link_target: str = ""


class DirectoryList(Message):
    """What a directory holds, in order of the names."""

    entries: tuple[PathStat, ...] = ()


class ImageUsage(Message):
    """Bytes on disk: of all layers, and what could be reclaimed; writable layers per container."""

    layers: int
    reclaimable: int
    containers: tuple[tuple[str, int], ...] = ()


class ImageChanged(Message):
    """An image was pull, push, tag, untag, delete, load, import, commit (`action`).

    `labels` are the image's; none of one that is gone.
    """

    action: str
    id: str
    reference: str = ""
    labels: tuple[tuple[str, str], ...] = ()


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

    @method(idempotent=False)
    async def upload(self) -> Address:
        """A raw stream to send bytes to; its token is the `upload` that other requests name.

        The half-close ends it. An upload that nobody takes within a minute is dropped.
        """
        ...

    @method(idempotent=False, raises=(InvalidArgument, NotFound, ResourceExhausted), seconds=600.0)
    def load(self, request: LoadRequest) -> AsyncIterator[Progress]:
        """Load images of an archive; one item a loaded image, with `reference` or only `image`."""
        ...

    @method(idempotent=False, raises=(InvalidArgument, ResourceExhausted), seconds=600.0)
    def import_(self, request: ImportRequest) -> AsyncIterator[Progress]:
        """Make an image of a filesystem archive."""
        ...

    @method(idempotent=True, raises=(NotFound,))
    async def save(self, request: SaveRequest) -> Address:
        """A raw stream of the archive."""
        ...

    @method(idempotent=True, raises=(NotFound,))
    async def export(self, root: RootRef) -> Address:
        """A raw stream of a lent root filesystem as a tar."""
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

    @method(idempotent=False, raises=(NotFound, Conflict))
    async def remove(self, request: RemoveRequest) -> Removed:
        """Remove; `Conflict` when a lent root filesystem needs it and `force` is not set."""
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
        """A raw stream of the path as a tar."""
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
        `dangling` False means all. Intermediate images go with the last image made of them.
        """
        ...

    @method(idempotent=True)
    async def usage(self) -> ImageUsage:
        """Disk usage."""
        ...
