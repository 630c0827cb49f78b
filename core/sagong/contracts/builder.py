"""Contract `builder`: images made from Dockerfiles.

A build is a stream of what happens; it ends with the image, or with the error that ended it. Whoever
stops listening cancels it. Contexts and progress travel beside the bus: `upload` hands out a raw
stream address whose token the request names, `build` the address of what happens.

    upload ── build ──► step … output … image ──► built, tagged
                  └───► an error; what the build made is taken back
"""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

from sagong.contract import Message, method, slot
from sagong.contracts.image import Credentials, Progress
from sagong.contracts.network import JoinRequest
from sagong.contracts.runtime import Limits, Rlimit
from sagong.contracts.streams import Address
from sagong.errors import InvalidArgument, ResourceExhausted

__all__ = [
    "BuildProgress",
    "BuildRef",
    "BuildRequest",
    "BuildUsage",
    "Builder",
    "CacheRecord",
    "Dialogue",
    "Happening",
    "PruneRequest",
    "Pruned",
    "Surroundings",
]


class Surroundings(Message):
    """What containers of RUN instructions are given.

    `network` asks for networks (its `id` is each container's own); with `share_with` they have that
    sandbox's instead. `hosts` are lines of /etc/hosts (address, name). `cgroup_mode` is `new` or
    `host`. `owner` is whose the containers are in `node`'s words. `gateway` is the machine's address
    as containers see it, which clients may put in a host's place.
    """

    owner: str = "builder"
    network: JoinRequest = JoinRequest(id="", mode="none")
    share_with: str = ""
    hosts: tuple[tuple[str, str], ...] = ()
    limits: Limits = Limits()
    rlimits: tuple[Rlimit, ...] = ()
    shm_size: int = 0
    cgroup_parent: str = ""
    cgroup_mode: str = "new"
    seccomp: str = "default"
    apparmor: str = ""
    gateway: str = ""


class BuildRequest(Message):
    """A build; `id` is made by the caller and names it in `cancel`.

    The context is the tar uploaded as `context`, or `remote`: a git URL (with `#ref:directory`), or
    an HTTP URL of a tar or of a Dockerfile. `dockerfile` is a path in the context.
    `arguments` override ARG (None: the name alone was given). `labels` are added to the image.
    `cache_from` names images whose history serves as cache. `squash` makes one layer of the new ones.
    `remove` takes containers of RUN away when they ended well, `force_remove` always.
    """

    id: str
    context: str = ""
    remote: str = ""
    dockerfile: str = "Dockerfile"
    tags: tuple[str, ...] = ()
    arguments: tuple[tuple[str, str | None], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    target: str = ""
    platform: str = ""
    cache: bool = True
    cache_from: tuple[str, ...] = ()
    pull: bool = False
    squash: bool = False
    remove: bool = True
    force_remove: bool = False
    credentials: tuple[Credentials, ...] = ()
    surroundings: Surroundings = Surroundings()


class Happening(StrEnum):
    """Kinds of progress: which fields of an item count."""

    WARNING = "warning"  # text
    STEP = "step"  # number, total, text: the instruction as written
    NOTE = "note"  # text
    PULL = "pull"  # transfer
    CACHED = "cached"
    RUNNING = "running"  # container
    OUTPUT = "output"  # data, stderr
    REMOVED = "removed"  # container
    IMAGE = "image"  # image: what the step made; "" for scratch
    BUILT = "built"  # image
    TAGGED = "tagged"  # text: the name


class BuildProgress(Message):
    """Something that happened in a build."""

    kind: Happening
    text: str = ""
    number: int = 0
    total: int = 0
    image: str = ""
    container: str = ""
    data: bytes = b""
    stderr: bool = False
    transfer: Progress | None = None


class BuildRef(Message):
    """Names a build."""

    id: str


class CacheRecord(Message):
    """Something that is kept to make builds quicker. Times in seconds since the epoch."""

    id: str
    kind: str
    description: str = ""
    size: int = 0
    in_use: bool = False
    created_at: float = 0.0
    used_at: float = 0.0
    uses: int = 0


class BuildUsage(Message):
    """All cache records."""

    records: tuple[CacheRecord, ...] = ()


class PruneRequest(Message):
    """Delete cache records: all that nothing uses, or those not used for `unused_for` seconds.

    With `keep` so many bytes of the latest used stay. `ids` narrow to these.
    """

    unused_for: float = 0.0
    keep: int = 0
    ids: tuple[str, ...] = ()


class Pruned(Message):
    """What was deleted."""

    deleted: tuple[str, ...] = ()
    reclaimed: int = 0


class Dialogue(Message):
    """A client that speaks BuildKit's protocol: `kind` "control" is its connection to the builder,
    "session" the one that the builder asks it over.

    `headers` are those of the request that began it, names in small letters.
    """

    kind: str
    headers: tuple[tuple[str, str], ...] = ()
    surroundings: Surroundings = Surroundings()


@slot("builder", version=1)
class Builder(Protocol):
    """Makes images from Dockerfiles."""

    @method(idempotent=False, raises=(ResourceExhausted,))
    async def upload(self) -> Address:
        """A raw stream to send a context to: a tar, plain or compressed by gzip, bzip2, xz or zstd.

        The half-close ends it. What nobody builds within a minute is dropped.
        """
        ...

    @method(idempotent=False, raises=(InvalidArgument, ResourceExhausted))
    async def build(self, request: BuildRequest) -> Address:
        """A build that begins when its stream is fetched; `sagong.building.follow` does that.

        It is a stream beside the bus, so that a swap of the builder ends no build. Its errors: those
        of slot `image` and `node`, InvalidArgument and NotFound for what the Dockerfile says, and
        Aborted for a command that failed, with its `code` in the detail.
        """
        ...

    @method(idempotent=True)
    async def cancel(self, build: BuildRef) -> None:
        """End a build; its stream ends with an error. Unknown is no error."""
        ...

    @method(idempotent=True)
    async def usage(self) -> BuildUsage:
        """What is kept."""
        ...

    @method(idempotent=True, seconds=120.0)
    async def prune(self, request: PruneRequest) -> Pruned:
        """Delete what is kept."""
        ...

    @method(idempotent=False, raises=(InvalidArgument, ResourceExhausted))
    async def converse(self, dialogue: Dialogue) -> Address:
        """A raw stream that carries HTTP/2: for clients of BuildKit's protocol."""
        ...
