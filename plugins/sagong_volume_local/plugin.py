"""The plugin's class: the methods of slot `volume`."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import socket
import stat
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

from msgspec.structs import replace

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
    ResourceExhausted,
    SagongError,
)
from sagong.host import Host
from sagong.linux.quota import FIRST_VOLUME, free_project, has_quotas
from sagong_volume_local.backing import Backing, backing_of, check_name, limited
from sagong_volume_local.catalog import Catalog, Publication, Record
from sagong_volume_local.pins import Pins, is_mounted
from sagong_volume_local.places import open_inside, plain_subpath
from sagong_volume_local.seeding import seed
from sagong_volume_local.settings import Settings

__all__ = ["VolumeLocal"]

_PIN = "volume"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class VolumeLocal:
    """Volumes of this machine: directories of the plugin's own data, and pinned mounts."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._settings = host.config(Settings)
        self._catalog = Catalog(host.data)
        # A second instance is a driver of its own name, and keeps its pins apart.
        self._drivers = ("local", host.instance) if host.instance else ("local",)
        self._pins = host.root / "mounts"
        self._mounts = Pins(host.deputy())
        self._prefix = f"{_PIN}@{host.instance}-" if host.instance else f"{_PIN}-"
        self._layers = str(host.data.parent)
        self._locks: dict[str, asyncio.Lock] = {}
        self._deleting: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Read the volumes; take away mounts that no volume has."""
        self._discard(await asyncio.to_thread(self._prepare))

    def _discard(self, gone: Sequence[Path]) -> None:
        """Delete directories that belong to nothing any more; nobody waits for a large one."""
        if gone:
            work = asyncio.to_thread(_removed, tuple(gone))
            task = self._host.spawn(work, "deleted volumes")
            self._deleting.add(task)
            task.add_done_callback(self._deleting.discard)

    def busy(self) -> bool:
        """Whether something is deleted that nobody waits for."""
        return bool(self._deleting)

    def _prepare(self) -> Sequence[Path]:
        left = self._catalog.load()
        self._pins.mkdir(mode=0o755, parents=True, exist_ok=True)
        wanted = set()
        for record in self._catalog.all():
            wanted |= {publication.pin for publication in record.publications}
            if record.publications:
                wanted.add(str(self._mount_pin(record.volume.name)))
        for pin in self._pins.glob(f"{self._prefix}*"):
            if str(pin) not in wanted:
                self._mounts.drop(pin)
        return left

    @contextlib.asynccontextmanager
    async def _alone(self, name: str) -> AsyncIterator[None]:
        """One call at a time for a volume."""
        lock = self._locks.setdefault(name, asyncio.Lock())
        async with lock:
            yield
        if self._catalog.find(name) is None and not lock.locked():
            self._locks.pop(name, None)

    async def create(self, volume: Volume) -> Volume:
        """Make a volume."""
        check_name(volume.name)
        if volume.driver not in self._drivers:
            raise InvalidArgument(
                f"volume driver {volume.driver!r} is not known here; use {self._drivers[-1]}"
            )
        backing, limit = backing_of(volume), limited(volume)
        async with self._alone(volume.name):
            known = self._catalog.find(volume.name)
            if known is not None:
                return _same(known.volume, volume)
            return await asyncio.to_thread(self._create, volume, backing, limit)

    def _create(self, volume: Volume, backing: Backing, limit: int) -> Volume:
        place = self._place(volume.name, backing)
        full = replace(volume, mountpoint=str(place), created=volume.created or time.time())
        project = self._project(volume.name, backing, limit)
        record = Record(volume=full, project=project)
        with _problems(f"volume {volume.name}"):
            self._catalog.add(record)
            if project:
                try:
                    self._mounts.limit(self._catalog.content(volume.name), project, limit)
                except BaseException:
                    shutil.rmtree(self._catalog.remove(volume.name), ignore_errors=True)
                    raise
        return full

    def _project(self, name: str, backing: Backing, limit: int) -> int:
        """The number of a quota, 0 if none is asked for or to be had."""
        if not limit or backing.kind == "mount":
            return 0
        if backing.kind == "directory" and has_quotas(self._host.data):
            taken = {record.project for record in self._catalog.all()}
            return free_project(FIRST_VOLUME, taken)
        if self._settings.quotas == "optional":
            self._host.log.warning("a volume's capacity is not enforced", extra={"volume": name})
            return 0
        raise InvalidArgument(
            f"volume {name}: a capacity needs project quotas, which the filesystem of "
            f'{self._host.data} has not; mount it with prjquota, or set quotas = "optional"'
        )

    def _place(self, name: str, backing: Backing) -> Path:
        """Where the content is seen on the host."""
        match backing.kind:
            case "bind":
                return Path(backing.device)
            case "mount":
                return self._mount_pin(name)
            case _:
                return self._catalog.content(name)

    def _mount_pin(self, name: str) -> Path:
        return self._pins / f"{self._prefix}{_mark(name)}"

    async def delete(self, volume: VolumeRef) -> None:
        """Delete with content."""
        async with self._alone(volume.name):
            record = self._catalog.find(volume.name)
            if record is None:
                return
            owners = sorted({publication.owner for publication in record.publications})
            if owners:
                raise FailedPrecondition(
                    f"remove {volume.name}: volume is in use - [{', '.join(owners)}]"
                )
            with _problems(f"volume {volume.name}"):
                self._discard([await asyncio.to_thread(self._delete, record, force=volume.force)])

    def _delete(self, record: Record, *, force: bool) -> Path:
        try:
            self._mounts.drop(self._mount_pin(record.volume.name))
        except OSError:
            if not force:
                raise
        gone = self._catalog.remove(record.volume.name)
        if record.project:
            with contextlib.suppress(OSError):
                self._mounts.lift(self._host.data, record.project)
        return gone

    async def inspect(self, volume: VolumeRef) -> Volume:
        """One volume."""
        return self._catalog.get(volume.name).volume

    async def list(self) -> VolumeList:
        """All volumes."""
        return VolumeList(volumes=tuple(record.volume for record in self._catalog.all()))

    async def publish(self, request: PublishRequest) -> Published:
        """Make it usable by an owner."""
        if not request.owner:
            raise InvalidArgument(f"volume {request.name}: an owner is needed to publish it")
        parts = plain_subpath(request.subpath)
        async with self._alone(request.name):
            record = self._catalog.get(request.name)
            subpath = "/".join(parts)
            for publication in record.publications:
                same = (publication.owner, publication.subpath) == (request.owner, subpath)
                if same and self._still_there(record, publication):
                    return Published(path=publication.path)
            with _problems(f"volume {request.name}"):
                return await asyncio.to_thread(self._publish, record, request, parts)

    def _still_there(self, record: Record, publication: Publication) -> bool:
        """After a reboot the record says so, but the mounts are gone."""
        backing = backing_of(record.volume)
        pins = [publication.pin] if publication.pin else []
        if backing.kind == "mount":
            pins.append(str(self._mount_pin(record.volume.name)))
        return all(is_mounted(Path(pin)) for pin in pins)

    def _publish(
        self, record: Record, request: PublishRequest, parts: tuple[str, ...]
    ) -> Published:
        name, backing = record.volume.name, backing_of(record.volume)
        place = self._place(name, backing)
        mounted = backing.kind == "mount" and self._mount(name, backing)
        try:
            if not parts:
                self._fill(record, request, place, backing)
            pin = self._pin(record, request, place, parts) if parts else ""
            publication = Publication(
                owner=request.owner,
                subpath="/".join(parts),
                readonly=request.readonly,
                path=pin or str(place),
                pin=pin,
            )
            others = (p for p in record.publications if not _alike(p, publication))
            changed = replace(record, fresh=False, publications=(*others, publication))
            self._catalog.change(changed)
        except BaseException:
            if mounted:
                self._mounts.drop(place)
            raise
        return Published(path=publication.path)

    def _mount(self, name: str, backing: Backing) -> bool:
        """Mount what stands behind the volume, unless it is; whether it was done now."""
        pin = self._mount_pin(name)
        if is_mounted(pin):
            return False
        data = _resolved(backing.data) if backing.type.startswith("nfs") else backing.data
        try:
            self._mounts.mount(pin, backing, data)
        except OSError as error:
            why = error.strerror
            if error.errno == errno.ENODEV:
                why = (
                    f"the kernel of this machine has no filesystem {backing.type}: load its module "
                    f"(modprobe {backing.type}), or take another type of /proc/filesystems"
                )
            raise FailedPrecondition(
                f"failed to mount local volume {name}: mount {backing.device}:{pin}, "
                f"type: {backing.type}, data: {data}: {why}"
            ) from None
        return True

    def _fill(self, record: Record, request: PublishRequest, place: Path, backing: Backing) -> None:
        """The image's content goes into a volume that is empty, whoever had it before."""
        if not request.seed:
            return
        try:
            target = os.open(place, _DIRECTORY)
        except FileNotFoundError:
            return
        try:
            # What somebody has mounted can't be exchanged for another directory.
            if record.fresh and backing.kind == "directory":
                self._fill_aside(record, request, target)
            else:
                self._fill_in_place(request, target)
        finally:
            os.close(target)

    def _fill_in_place(self, request: PublishRequest, place: int) -> None:
        """Into what is published, if it is a directory that has nothing; `place` may be a path's."""
        if not stat.S_ISDIR(os.fstat(place).st_mode):
            return
        target = os.open(f"/proc/self/fd/{place}", _DIRECTORY)
        try:
            if not os.listdir(target):
                seed(target, request.seed, request.seed_path, self._layers)
        finally:
            os.close(target)

    def _fill_aside(self, record: Record, request: PublishRequest, place: int) -> None:
        """Beside the volume, then put in its place: after a crash there is all or nothing."""
        if os.listdir(place):
            return
        content = self._catalog.content(record.volume.name)
        aside = content.with_name(f".seed-{secrets.token_hex(4)}")
        aside.mkdir(mode=0o755)
        try:
            if os.geteuid() != 0:
                os.chown(aside, 0, 0)
            if record.project:
                self._mounts.limit(aside, record.project, limited(record.volume))
            target = os.open(aside, _DIRECTORY)
            try:
                found = seed(target, request.seed, request.seed_path, self._layers)
            finally:
                os.close(target)
            if found:
                aside.rename(content)
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def _pin(
        self, record: Record, request: PublishRequest, place: Path, parts: tuple[str, ...]
    ) -> str:
        """A part of a volume, held as a mount: whoever has the volume can't swap it for a link."""
        shown = f"{request.subpath} of volume {record.volume.name}"
        try:
            root = os.open(place, _DIRECTORY)
        except OSError as error:
            raise FailedPrecondition(f"subpath {shown}: {error.strerror}: {place}") from None
        pin = self._pins / f"{self._prefix}{_mark(record.volume.name, request.owner, *parts)}"
        try:
            inner = open_inside(root, parts, shown, make=not request.existing)
            try:
                if request.seed:
                    self._fill_in_place(request, inner)
                self._mounts.attach(inner, pin)
            finally:
                os.close(inner)
        finally:
            os.close(root)
        return str(pin)

    async def unpublish(self, request: UnpublishRequest) -> None:
        """Take back."""
        names = [request.name] if request.name else [r.volume.name for r in self._catalog.all()]
        for name in names:
            async with self._alone(name):
                record = self._catalog.find(name)
                if record is None:
                    continue
                if any(p.owner == request.owner for p in record.publications):
                    with _problems(f"volume {name}"):
                        await asyncio.to_thread(self._unpublish, record, request.owner)

    def _unpublish(self, record: Record, owner: str) -> None:
        kept = tuple(p for p in record.publications if p.owner != owner)
        for publication in record.publications:
            if publication.owner == owner and publication.pin:
                self._mounts.drop(Path(publication.pin))
        if not kept and backing_of(record.volume).kind == "mount":
            self._mounts.drop(self._mount_pin(record.volume.name))
        self._catalog.change(replace(record, publications=kept))

    async def usage(self, volume: VolumeRef) -> VolumeUsage:
        """Count its bytes."""
        record = self._catalog.get(volume.name)
        place = self._place(volume.name, backing_of(record.volume))
        size = await asyncio.to_thread(_size, place)
        owners = sorted({publication.owner for publication in record.publications})
        return VolumeUsage(name=volume.name, size=size, owners=tuple(owners))


def _same(known: Volume, asked: Volume) -> Volume:
    """The one there is, if it is what is asked for."""
    if dict(known.options) != dict(asked.options) or known.driver != asked.driver:
        raise AlreadyExists(
            f"volume {asked.name} exists with other options; remove it or choose another name"
        )
    return known


def _alike(one: Publication, other: Publication) -> bool:
    return (one.owner, one.subpath) == (other.owner, other.subpath)


def _mark(*words: str) -> str:
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:24]


@contextlib.contextmanager
def _problems(what: str) -> Iterator[None]:
    """System calls that failed, in the words of the contract."""
    try:
        yield
    except SagongError:
        raise
    except OSError as error:
        text = f"{what}: {error.strerror or error}: {error.filename or ''}".rstrip(": ")
        if error.errno in (28, 122):
            raise ResourceExhausted(text) from error
        raise FailedPrecondition(text) from error


def _removed(gone: tuple[Path, ...]) -> None:
    for path in gone:
        shutil.rmtree(path, ignore_errors=True)


def _resolved(data: str) -> str:
    """NFS wants an address where people write a host's name."""
    words = []
    for word in data.split(","):
        key, equals, value = word.partition("=")
        if key == "addr" and equals:
            try:
                found = socket.getaddrinfo(value, None, type=socket.SOCK_STREAM)
            except OSError as error:
                raise FailedPrecondition(f"NFS server {value}: {error}") from None
            word = f"addr={found[0][4][0]}"
        words.append(word)
    return ",".join(words)


def _size(place: Path) -> int:
    """Bytes of all files, each counted once, other filesystems left out."""
    total, seen = 0, set()
    try:
        device = os.lstat(place).st_dev
    except FileNotFoundError:
        return 0
    stack = [str(place)]
    while stack:
        with (
            contextlib.suppress(FileNotFoundError, NotADirectoryError),
            os.scandir(stack.pop()) as it,
        ):
            for entry in it:
                with contextlib.suppress(FileNotFoundError):
                    found = entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(found.st_mode):
                        if found.st_dev == device:
                            stack.append(entry.path)
                    elif (found.st_ino, found.st_dev) not in seen:
                        seen.add((found.st_ino, found.st_dev))
                        total += found.st_size
    return total
