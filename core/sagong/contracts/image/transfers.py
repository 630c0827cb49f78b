"""Images on their way: from and to registries and archives."""

from __future__ import annotations

from sagong.contract import Message
from sagong.contracts.image.registries import Credentials

__all__ = [
    "ImportRequest",
    "LoadRequest",
    "Progress",
    "PullRequest",
    "PushRequest",
    "SaveRequest",
]


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


class Artifact(Message):
    """A manifest that is no image's, with the blobs that it names; `annotations` are its index entry's.

    Its platform there is unknown/unknown, so that nobody runs it.
    """

    manifest: bytes
    blobs: tuple[bytes, ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()


class PushRequest(Message):
    """Send an image to the registry that its reference names.

    `platform`, if given, must be the image's. `all_tags`: all tags of that repository that are here.
    `parts` are ids of images: each is sent by its digest, and the reference, which nothing here need
    have, becomes an index of them, and of `artifacts` behind them. `annotations` are put into the
    manifests on their way, `index_annotations` into the index; what is kept here has none.
    """

    id: str
    reference: str
    credentials: Credentials = Credentials()
    platform: str = ""
    all_tags: bool = False
    parts: tuple[str, ...] = ()
    artifacts: tuple[Artifact, ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()
    index_annotations: tuple[tuple[str, str], ...] = ()


class Progress(Message):
    """A step of a long operation, in Docker's terms: `status` ("Downloading"), of layer `id`.

    The last item of each image in a stream has `image` (the id), and `digest` where there is one. A
    pull begins with "Pulling from PATH", the tag as `id`, and tells no layers of what is here already.
    `replaced` is the image that had a loaded one's name.
    """

    id: str = ""
    status: str = ""
    current: int = 0
    total: int = 0
    image: str = ""
    digest: str = ""
    size: int = 0
    reference: str = ""
    replaced: str = ""


class LoadRequest(Message):
    """Load an archive (docker save or OCI layout, plain or compressed) uploaded as `upload`.

    Of images for several platforms the one for `platform` is loaded, "": for this machine. Layers that
    docker save's manifest names need not be in the archive where an image here has the same ones.
    """

    upload: str
    platform: str = ""


class ImportRequest(Message):
    """Make an image of a root filesystem archive; `changes` are Dockerfile lines.

    The archive is an upload's, or what `url` (of HTTP) gives.
    """

    upload: str = ""
    url: str = ""
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
