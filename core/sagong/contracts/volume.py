"""Slot `volume`: persistent storage for containers: provision, publish on this machine, take back."""

from __future__ import annotations

from typing import Protocol

from sagong.contract import Message, method, slot
from sagong.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
)

__all__ = [
    "PublishRequest",
    "Published",
    "UnpublishRequest",
    "Volume",
    "VolumeList",
    "VolumeRef",
    "VolumeUsage",
    "Volumes",
]


class Volume(Message):
    """A volume; `name` is its id. `driver` is "local", or the name of the instance that is asked.

    `options` are the driver's (local: type, device, o).

    `owner` is the API it was made for, as of sandboxes ("kube"): Docker's lists and prunes leave out
    what is others'. `capacity` in bytes (0: no limit). `mountpoint` is filled in by the plugin.
    `created` in seconds since the epoch.
    """

    name: str
    driver: str = "local"
    options: tuple[tuple[str, str], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    capacity: int = 0
    anonymous: bool = False
    mountpoint: str = ""
    created: float = 0.0
    owner: str = ""


class VolumeRef(Message):
    """Names a volume; `force` removes one whose backing is gone."""

    name: str
    force: bool = False


class VolumeList(Message):
    """Volumes by name."""

    volumes: tuple[Volume, ...] = ()


class PublishRequest(Message):
    """Make a volume usable by `owner` (a container or pod id); `seed` copies an image's content.

    `seed` are directories of the host, top layer first: what they have together at `seed_path` (the
    image's content at the mount point) fills what is published when that is empty, `readonly` or not.
    Links on the way are followed inside of them. `subpath` is a directory, made if it is missing
    unless it must be `existing`, or a file.
    """

    name: str
    owner: str
    readonly: bool = False
    subpath: str = ""
    existing: bool = False
    seed: tuple[str, ...] = ()
    seed_path: str = ""


class Published(Message):
    """The directory, or file, of the host to bind into the container."""

    path: str


class UnpublishRequest(Message):
    """Take back what `owner` was given; `name` "" means all."""

    owner: str
    name: str = ""


class VolumeUsage(Message):
    """Bytes in a volume and the owners it is published to."""

    name: str
    size: int
    owners: tuple[str, ...] = ()


@slot("volume", version=1)
class Volumes(Protocol):
    """Volumes of this machine."""

    @method(idempotent=True, raises=(AlreadyExists, InvalidArgument, ResourceExhausted))
    async def create(self, volume: Volume) -> Volume:
        """Make a volume; the same name with the same driver and options returns the one there is."""
        ...

    @method(idempotent=True, raises=(FailedPrecondition,))
    async def delete(self, volume: VolumeRef) -> None:
        """Delete with content; FailedPrecondition while published; unknown is no error."""
        ...

    @method(idempotent=True, raises=(NotFound,))
    async def inspect(self, volume: VolumeRef) -> Volume:
        """One volume."""
        ...

    @method(idempotent=True)
    async def list(self) -> VolumeList:
        """All volumes."""
        ...

    @method(idempotent=True, raises=(NotFound, InvalidArgument, FailedPrecondition))
    async def publish(self, request: PublishRequest) -> Published:
        """Make it usable; the same owner again returns the same path."""
        ...

    @method(idempotent=True)
    async def unpublish(self, request: UnpublishRequest) -> None:
        """Take back; unknown is no error."""
        ...

    @method(idempotent=True, raises=(NotFound,), seconds=120.0)
    async def usage(self, volume: VolumeRef) -> VolumeUsage:
        """Count its bytes."""
        ...
