"""Images: what they are, their names, which are meant, and what becomes of them."""

from __future__ import annotations

from sagong.contract import Message

__all__ = [
    "Image",
    "ImageChanged",
    "ImageConfig",
    "ImageList",
    "ImageQuery",
    "ImageRef",
    "ImageUsage",
    "Layer",
    "RemoveRequest",
    "Removed",
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

    `reference` is a name or a pattern of names (`sagong.model.patterns`), with or without the tag;
    `parent`: only images that were made of the image of that id, intermediate ones too. `labels`
    (`key` or `key=value`) must all be there, none of `without_labels` may; `until`, if not 0, is a
    time in seconds before which an image was created. `step` is the JSON of `container_config`.
    `brief` leaves out what is large and few read: `raw` and `history`.
    """

    reference: str = ""
    dangling: bool | None = None
    all: bool = False
    parent: str = ""
    labels: tuple[str, ...] = ()
    without_labels: tuple[str, ...] = ()
    until: float = 0.0
    step: bytes = b""
    brief: bool = False


class ImageList(Message):
    """Images, newest first."""

    images: tuple[Image, ...] = ()


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
