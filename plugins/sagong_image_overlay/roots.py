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
# Runtimes can name so many in one mount by short paths of descriptors.
_LAYERS_LIMIT = 200


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
        self.table: dict[str, Lease] = {}
        # Directories of those that wrote nothing, until somebody has time to delete what is left.
        self._left: set[Path] = set()
        # Those of leases that a power cut would take.
        self._fresh: set[Path] = set()

    def load(self) -> None:
        """Read the leases; a directory without one was being made or deleted."""
        scatter(str(self._spot.root / "c"))
        for path in (self._spot.root / "c").iterdir():
            try:
                lease = msgspec.json.decode((path / "lease.json").read_bytes(), type=Lease)
            except (FileNotFoundError, msgspec.DecodeError):
                self._layers.discard(path)
                continue
            self.table[lease.id] = lease

    def directory(self, identity: str) -> Path:
        """Where a container's layer is."""
        if not _ID.fullmatch(identity):
            raise InvalidArgument(f"{identity[:140]!r} is no container id")
        return self._spot.root / "c" / identity

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
        path = self.directory(lease.id)
        self._left.discard(path)
        if path.exists():
            self._layers.discard(path)
        mode, uid, gid = self._root_attributes(lease.layers)
        path.mkdir(mode=0o700)
        for name in ("diff", "work"):
            (path / name).mkdir(mode=0o755)
            if lease.project:
                _count(path / name, lease.project)
        # Before the owner: changing the mode of others' directories is a right.
        os.chmod(path / "diff", mode)
        if (uid, gid) != (os.geteuid(), os.getegid()):
            os.chown(path / "diff", uid, gid)
        new = path / "lease.new"
        new.write_bytes(msgspec.json.encode(lease))
        os.rename(new, path / "lease.json")
        self.table[lease.id] = lease
        self._fresh.add(path)
        return lease

    async def settle(self) -> None:
        """Bring new leases to the disk: without its lease a container's layer is nobody's, whatever of
        it was synchronised."""
        fresh = [path for path in self._fresh if path.name in self.table]
        self._fresh.clear()
        if fresh:
            await asyncio.to_thread(_synchronize, fresh)

    def _root_attributes(self, layers: tuple[str, ...]) -> tuple[int, int, int]:
        """Mode and owner of "/": of the topmost layer that has an entry for it."""
        for key in reversed(layers):
            if self._layers.table[key].root:
                status = os.stat(self._layers.directory(key))
                return stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid
        return 0o755, 0, 0

    def mount(self, lease: Lease) -> Mount:
        """The overlay of a lease, for the runtime to mount."""
        path = self.directory(lease.id)
        lower = self._layers.directories(lease.layers) or [str(self._spot.jail)]
        if len(lower) >= _LAYERS_LIMIT:
            raise ResourceExhausted(
                f"image {lease.image.id} has {len(lease.layers)} layers, at most {_LAYERS_LIMIT} "
                "go into one mount; squash the image"
            )
        if lease.readonly:
            return overlay_of([str(path / "diff"), *lower])
        options = [f"upperdir={path / 'diff'}", f"workdir={path / 'work'}"]
        if lease.project:
            options += [f"project={lease.project}", f"size={lease.size}"]
        return overlay_of(lower, *options)

    def stack(self, lease: Lease) -> list[str]:
        """Directories of a lease from the writable one to the lowest."""
        path = str(self.directory(lease.id) / "diff")
        return [path, *self._layers.directories(lease.layers)]

    def release(self, identity: str) -> bool:
        """Take back; whether there was one."""
        path = self.directory(identity)
        known = self.table.pop(identity, None)
        if path not in self._left and path.exists():
            if _was_untouched(path):
                self._left.add(path)
            else:
                self._layers.discard(path)
        return known is not None

    def sweep(self) -> None:
        """Delete what is left of those that were taken back untouched."""
        for path in tuple(self._left):
            if not _removed(path):
                self._layers.discard(path)
            self._left.discard(path)

    def users_of(self, image: str) -> list[str]:
        """Containers that an image was lent to, sorted."""
        return sorted(lease.id for lease in self.table.values() if lease.image.id == image)

    def layers_in_use(self) -> set[str]:
        """Keys of all layers that leases need."""
        return {key for lease in self.table.values() for key in lease.layers}


def _synchronize(paths: Sequence[Path]) -> None:
    for path in paths:
        with contextlib.suppress(FileNotFoundError):  # it was taken back meanwhile
            with (path / "lease.json").open("rb") as file:
                os.fsync(file.fileno())
            sync_directory(path)
    sync_directory(paths[0].parent)


def _count(path: Path, project: int) -> None:
    """What will be below it is counted as the project's; whoever mounts the layer sets the limit."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        mark(directory, project)
    finally:
        os.close(directory)


def _was_untouched(path: Path) -> bool:
    """Delete lease and layer of a container that wrote nothing: most do, and need no workshop.

    The lease goes first: what is left without one is deleted at the next start.
    """
    try:
        os.unlink(path / "lease.json")
        os.rmdir(path / "diff")
    except OSError:
        return False
    return True


def _removed(path: Path) -> bool:
    """Delete the rest."""
    try:
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(path / "work" / "work")
        os.rmdir(path / "work")
        os.rmdir(path)
    except OSError:
        return False
    return True
