"""Images made of containers and of other images."""

from __future__ import annotations

from sagong.contract import Message

__all__ = [
    "CommitRequest",
    "DeriveRequest",
    "SquashRequest",
]


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
