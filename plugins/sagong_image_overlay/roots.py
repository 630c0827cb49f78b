"""Root filesystems lent to containers: a directory each, with the lease written beside the layer.

::

    c/ID/lease.json   what was lent
    c/ID/diff         the writable layer (an empty directory for read-only ones)
    c/ID/work         overlayfs's own
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path

import msgspec

from sagong.contracts.image import Image
from sagong.contracts.runtime import Mount
from sagong.errors import InvalidArgument, NotFound, ResourceExhausted
from sagong.linux.files import scatter
from sagong.linux.quota import FIRST_LAYER, free_project, has_quotas, mark
from sagong_image_overlay.content import sync_directory
from sagong_image_overlay.layers import Layers, Spot

__all__ = ["Lease", "Roots", "overlay_of"]

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
# Set-user-id and set-group-id, which a mkdir does not give.
_SET_IDS = stat.S_ISUID | stat.S_ISGID
# Runtimes can name so many in one mount by short paths of descriptors.
_LAYERS_LIMIT = 200
# Enough for those that come while as many go.
_MOST_SPARE = 16
# An empty layer that was given back.
_HIDDEN = "was"


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """A lent root filesystem: the image as it was, the keys of its layers, lowest first, and the
    blobs that a commit needs. If it is not `bare`, the last layer is that of the mount points.

    Of a writable one `size` bounds the layer (0: nothing does), by the quota `project`."""

    id: str
    image: Image
    layers: tuple[str, ...]
    content: tuple[str, ...] = ()
    readonly: bool = False
    bare: bool = False
    size: int = 0
    project: int = 0

    @property
    def below(self) -> tuple[str, ...]:
        """The layers of the image itself."""
        return self.layers if self.bare else self.layers[:-1]


def overlay_of(lower: Sequence[str], *upper: str) -> Mount:
    """Directories as one, from top to bottom; read-only without the options of an upper one."""
    options = (f"lowerdir={':'.join(lower)}", *(upper or ("ro",)), "userxattr")
    return Mount(target="/", kind="overlay", source="overlay", options=options)


class Roots:
    """All leases, by container id."""

    def __init__(self, spot: Spot, layers: Layers) -> None:
        self._spot = spot
        self._layers = layers
        # Texts, not paths: some are put together for each container.
        self._top = f"{spot.root}/c/"
        self._masked = _umask() | _SET_IDS
        self.table: dict[str, Lease] = {}
        # Directories of those that wrote nothing, until somebody has time to delete what is left.
        self._left: set[str] = set()
        # Of these the empty directories themselves, for those to come: ext4 looks for a place for each
        # new one here (`scatter`), which takes as long as all that is made in it.
        self._spare: list[str] = []
        # Those of leases that a power cut would take.
        self._fresh: set[str] = set()
        self._settling = asyncio.Lock()

    def load(self) -> None:
        """Read the leases; a directory without one was being made or deleted."""
        scatter(str(self._spot.root / "c"))
        # Those that were put aside come first.
        for path in sorted((self._spot.root / "c").iterdir()):
            try:
                lease = msgspec.json.decode((path / "lease.json").read_bytes(), type=Lease)
            except (FileNotFoundError, msgspec.DecodeError):
                if place := self._put_aside(str(path)):
                    self._keep(*_swept([place], _MOST_SPARE - len(self._spare)))
                continue
            if lease.id == path.name:
                self.table[lease.id] = lease
            else:
                # Its directory was another's before, and is again after a cut.
                self._layers.discard(path)

    def directory(self, identity: str) -> Path:
        """Where a container's layer is."""
        return Path(self._place(identity))

    def _place(self, identity: str) -> str:
        if not _ID.fullmatch(identity):
            raise InvalidArgument(f"{identity[:140]!r} is no container id")
        return self._top + identity

    def get(self, identity: str) -> Lease:
        """The lease; NotFound if there is none."""
        try:
            return self.table[identity]
        except KeyError:
            raise NotFound(f"no root filesystem is lent to container {identity}") from None

    def check_quotas(self) -> None:
        """Refuse sizes where the filesystem keeps none."""
        if not has_quotas(self._spot.root):
            raise InvalidArgument(
                "--storage-opt size needs project quotas, which the filesystem of "
                f"{self._spot.root} has not: mount it with prjquota (ext4 made with -O "
                "quota,project, or xfs), or give the container a volume for what may grow"
            )

    def lend(self, lease: Lease) -> Lease:
        """Make the directories of a lease; the lease as it is."""
        if lease.size:
            taken = {known.project for known in self.table.values()}
            lease = msgspec.structs.replace(lease, project=free_project(FIRST_LAYER, taken))
        path = self._place(lease.id)
        self._provide(path)
        self._make_layer(f"{path}/diff", lease)
        os.mkdir(f"{path}/work", 0o755)
        if lease.project:
            _count(f"{path}/diff", lease.project)
            _count(f"{path}/work", lease.project)
        # Last: a directory without a whole one is nobody's.
        _write(f"{path}/lease.json", msgspec.json.encode(lease))
        self.table[lease.id] = lease
        self._fresh.add(path)
        return lease

    def _provide(self, path: str) -> None:
        """An empty directory."""
        self._left.discard(path)
        if os.path.exists(path):
            self._layers.discard(Path(path))
        while self._spare:
            with contextlib.suppress(FileNotFoundError):
                os.rename(self._spare.pop(), path)
                return
        os.mkdir(path, 0o700)

    def _make_layer(self, path: str, lease: Lease) -> None:
        """An empty writable layer, its "/" as the image has it."""
        mode, uid, gid = self._root_attributes(lease.layers)
        os.mkdir(path, mode)
        # Before the owner: changing the mode of others' directories is a right.
        if mode & self._masked:
            os.chmod(path, mode)
        if (uid, gid) != (os.geteuid(), os.getegid()):
            os.chown(path, uid, gid)

    async def settle(self) -> None:
        """Bring new leases to the disk: without its lease a container's layer is nobody's, whatever of
        it was synchronised. Who asks meanwhile waits for those that are under way."""
        begin = len(self._top)
        async with self._settling:
            fresh = [path for path in self._fresh if path[begin:] in self.table]
            self._fresh.clear()
            if fresh:
                try:
                    await asyncio.to_thread(_synchronize, fresh)
                except OSError:
                    self._fresh.update(fresh)  # for the next time
                    raise

    def _root_attributes(self, layers: tuple[str, ...]) -> tuple[int, int, int]:
        """Mode and owner of "/": of the topmost layer that has an entry for it."""
        for key in reversed(layers):
            if self._layers.table[key].root:
                status = os.stat(self._layers.directory(key))
                return stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid
        return 0o755, 0, 0

    def mount(self, lease: Lease) -> Mount:
        """The overlay of a lease, for the runtime to mount."""
        path = self._place(lease.id)
        lower = self._layers.directories(lease.layers) or [str(self._spot.jail)]
        if len(lower) >= _LAYERS_LIMIT:
            raise ResourceExhausted(
                f"image {lease.image.id} has {len(lease.layers)} layers, at most {_LAYERS_LIMIT} "
                "go into one mount; squash the image"
            )
        if lease.readonly:
            return overlay_of([f"{path}/diff", *lower])
        options = [f"upperdir={path}/diff", f"workdir={path}/work"]
        if lease.project:
            options += [f"project={lease.project}", f"size={lease.size}"]
        return overlay_of(lower, *options)

    def stack(self, lease: Lease) -> list[str]:
        """Directories of a lease from the writable one to the lowest."""
        path = self._place(lease.id)
        return [f"{path}/diff", *self._layers.directories(lease.layers)]

    def release(self, identity: str) -> bool:
        """Take back; whether there was one."""
        path = self._place(identity)
        known = self.table.pop(identity, None)
        if path in self._left:
            pass
        elif _was_untouched(path):
            self._left.add(path)
        elif os.path.exists(path):
            self._layers.discard(Path(path))
        return known is not None

    async def sweep(self) -> None:
        """Delete what is left of those that were taken back untouched; others are served meanwhile."""
        aside = [place for path in self._left if (place := self._put_aside(path))]
        self._left.clear()
        if aside:
            room = _MOST_SPARE - len(self._spare)
            self._keep(*await asyncio.to_thread(_swept, aside, room))

    def _put_aside(self, path: str) -> str:
        """Where nobody is lent it meanwhile: no container has such a name. "" if it can't be."""
        name = path[len(self._top) :]
        if name.startswith("."):
            return path
        place = f"{self._top}.{name}"
        if place in self._spare:
            self._spare.remove(place)  # of the same name before; the rename replaces it
        try:
            os.rename(path, place)
        except OSError:
            self._layers.discard(Path(path))
            return ""
        return place

    def _keep(self, spare: list[str], written: list[str]) -> None:
        """What was swept: the empty ones are for those to come."""
        self._spare += spare
        for place in written:
            self._layers.discard(Path(place))

    def users_of(self, image: str) -> list[str]:
        """Containers that an image was lent to, sorted."""
        return sorted(lease.id for lease in self.table.values() if lease.image.id == image)

    def layers_in_use(self) -> set[str]:
        """Keys of all layers that leases need."""
        return {key for lease in self.table.values() for key in lease.layers}


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _write(path: str, data: bytes) -> None:
    """A new file, by one write."""
    with open(path, "xb", buffering=0) as file:
        file.write(data)


def _synchronize(paths: Sequence[str]) -> None:
    for path in paths:
        with contextlib.suppress(FileNotFoundError):  # it was taken back meanwhile
            with open(f"{path}/lease.json", "rb", buffering=0) as file:
                os.fsync(file.fileno())
            sync_directory(path)
    sync_directory(os.path.dirname(paths[0]))


def _count(path: str, project: int) -> None:
    """What will be below it is counted as the project's; whoever mounts the layer sets the limit."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        mark(directory, project)
    finally:
        os.close(directory)


def _was_untouched(path: str) -> bool:
    """Delete the lease of a container that wrote nothing, and hide its layer: most wrote nothing, and
    need no workshop.

    What has no lease is deleted at the next start, if not before. To delete a directory may take as
    long as the disk does: whoever gives a root back does not wait for that.
    """
    try:
        os.unlink(f"{path}/lease.json")
        if not _is_empty(f"{path}/diff"):
            return False
        os.rename(f"{path}/diff", f"{path}/{_HIDDEN}")
    except OSError:
        return False
    return True


def _swept(paths: Sequence[str], room: int) -> tuple[list[str], list[str]]:
    """Empty directories, so many at most, the others deleted; and those that somebody wrote in."""
    spare: list[str] = []
    written: list[str] = []
    for path in paths:
        if not _emptied(path):
            written.append(path)
        elif len(spare) < room:
            spare.append(path)
        else:
            os.rmdir(path)
    return spare, written


def _is_empty(path: str) -> bool:
    """Whether it is; one that its owner shows to nobody is deleted and made again for the answer."""
    try:
        with os.scandir(path) as entries:
            return next(entries, None) is None
    except PermissionError:
        os.rmdir(path)
        os.mkdir(path)
        return True


def _emptied(path: str) -> bool:
    """Delete what is in it, if that is what nobody wrote; whether it is empty then."""
    try:
        for name in ("diff", _HIDDEN, "work/work", "work"):
            with contextlib.suppress(FileNotFoundError):
                os.rmdir(f"{path}/{name}")
        return _is_empty(path)
    except OSError:
        return False
