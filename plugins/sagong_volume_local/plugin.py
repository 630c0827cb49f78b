"""The plugin: volumes by name, published to owners."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import msgspec

from sagong.contracts.volume import (
    Published,
    PublishRequest,
    UnpublishRequest,
    Volume,
    VolumeList,
    VolumeRef,
    VolumeUsage,
)
from sagong.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
)
from sagong.host import Host
from sagong_volume_local.copying import fill, usage
from sagong_volume_local.records import Record, Records, check_name

__all__ = ["VolumeLocal"]

_OPTIONS = frozenset({"type", "device", "o", "size"})


class VolumeLocal:
    """Fills slot `volume`."""

    def __init__(self, host: Host) -> None:
        self._records = Records(host.data / "volumes")
        self._filling: dict[str, asyncio.Lock] = {}

    def create(self, volume: Volume) -> Volume:
        """Make a volume; the same again returns it."""
        known = self._records.all.get(volume.name)
        if known is not None:
            if (known.volume.driver, known.volume.options) != (volume.driver, volume.options):
                raise AlreadyExists(
                    f"volume {volume.name} exists with driver {known.volume.driver} and other "
                    "options; remove it first, or choose another name"
                )
            return known.volume
        check_name(volume.name)
        path = _device(volume) or str(self._records.data(volume.name))
        made = msgspec.structs.replace(volume, mountpoint=path, created=time.time())
        try:
            self._records.make(Record(volume=made))
        except OSError as error:
            self._records.delete(volume.name)
            raise ResourceExhausted(f"volume {volume.name}: {error.strerror}") from error
        return made

    async def delete(self, volume: VolumeRef) -> None:
        """Delete a volume that nobody uses."""
        known = self._records.all.get(volume.name)
        if known is None:
            return
        if known.owners:
            users = ", ".join(known.owners)
            raise FailedPrecondition(f"remove {volume.name}: volume is in use - [{users}]")
        await asyncio.to_thread(self._records.delete, volume.name)

    def inspect(self, volume: VolumeRef) -> Volume:
        """One volume."""
        return self._record(volume.name).volume

    def list(self) -> VolumeList:
        """All volumes by name."""
        return VolumeList(
            volumes=tuple(self._records.all[n].volume for n in sorted(self._records.all))
        )

    async def publish(self, request: PublishRequest) -> Published:
        """Give an owner the directory; a new one is filled with the seed first."""
        record = self._record(request.name)
        path = Path(record.volume.mountpoint)
        if not path.is_dir():
            raise FailedPrecondition(
                f"volume {request.name}: {path} is not there; is its disk mounted?"
            )
        lock = self._filling.setdefault(request.name, asyncio.Lock())
        async with lock:
            await self._fill(record, request)
        if request.owner not in record.owners:
            record.owners.append(request.owner)
            self._records.write(record)
        return Published(path=str(_below(path, request.subpath)))

    def unpublish(self, request: UnpublishRequest) -> None:
        """Take back."""
        for name, record in self._records.all.items():
            if request.name in ("", name) and request.owner in record.owners:
                record.owners.remove(request.owner)
                self._records.write(record)

    async def usage(self, volume: VolumeRef) -> VolumeUsage:
        """Count bytes."""
        record = self._record(volume.name)
        size = await asyncio.to_thread(usage, Path(record.volume.mountpoint))
        return VolumeUsage(name=volume.name, size=size, owners=tuple(record.owners))

    def _record(self, name: str) -> Record:
        record = self._records.all.get(name)
        if record is None:
            raise NotFound(f"get {name}: no such volume")
        return record

    async def _fill(self, record: Record, request: PublishRequest) -> None:
        """Once in a volume's life, and never over anything."""
        if record.filled:
            return
        path = Path(record.volume.mountpoint)
        own = path == self._records.data(record.volume.name)
        if request.seed and own and not any(os.scandir(path)):
            try:
                await asyncio.to_thread(fill, path, [Path(layer) for layer in request.seed])
            except OSError as error:
                raise FailedPrecondition(
                    f"volume {request.name}: copying the image's content failed: {error}"
                ) from error
        record.filled = True
        self._records.write(record)


def _device(volume: Volume) -> str:
    """The directory that a bind volume names, "" for a plain volume; the rest is refused."""
    if volume.capacity:
        raise InvalidArgument(
            f"volume {volume.name}: a capacity needs a filesystem with project quotas, "
            "which this driver does not use; leave it out"
        )
    options = dict(volume.options)
    unknown = set(options) - _OPTIONS
    if unknown:
        raise InvalidArgument(f'invalid option: "{sorted(unknown)[0]}"')
    if not options:
        return ""
    flags = options.get("o", "").split(",")
    if options.get("type", "none") not in ("none", "bind") or not {"bind", "rbind"} & set(flags):
        raise InvalidArgument(
            f"volume {volume.name}: only type=none,o=bind,device=/directory is offered; "
            "for memory use --tmpfs, for NFS mount it on the machine and bind it"
        )
    device = options.get("device", "")
    if not device.startswith("/"):
        raise InvalidArgument(f"volume {volume.name}: device must be an absolute path")
    return device


def _below(root: Path, subpath: str) -> Path:
    """A directory inside a volume, walked without following links, made where it is missing."""
    if not subpath:
        return root
    parts = Path(subpath).parts
    if subpath.startswith("/") or ".." in parts:
        raise InvalidArgument(f"subpath {subpath!r} must be relative and without ..")
    current = root
    for part in parts:
        current = current / part
        if current.is_symlink():
            raise InvalidArgument(f"subpath {subpath!r}: {part} is a link")
        if not current.exists():
            raise NotFound(f"subpath {subpath!r} does not exist in the volume")
    return current
