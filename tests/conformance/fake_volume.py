"""A volume store of plain directories: no mounts, no root, no crash safety."""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Sequence
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
from sagong.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound

__all__ = ["FakeVolumes", "Shelf"]


class Shelf:
    """What survives a crash of the fake."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.volumes: dict[str, Volume] = {}
        self.used: set[str] = set()
        self.owners: dict[str, dict[tuple[str, str], str]] = {}


class FakeVolumes:
    """The correct one; the broken ones override a method each."""

    caught_by = ""

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf

    async def create(self, volume: Volume) -> Volume:
        self.check(volume)
        known = self.shelf.volumes.get(volume.name)
        if known is not None:
            return self.same(known, volume)
        place = self.place(volume)
        place.mkdir(parents=True, exist_ok=True)
        made = replace(volume, mountpoint=str(place), created=1.0)
        self.shelf.volumes[volume.name] = made
        return made

    def place(self, volume: Volume) -> Path:
        return Path(dict(volume.options).get("device", self.shelf.root / volume.name))

    def check(self, volume: Volume) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,254}", volume.name):
            raise InvalidArgument(f"name {volume.name!r}")
        options = dict(volume.options)
        if volume.driver != "local" or set(options) - {"type", "device", "o"}:
            raise InvalidArgument(f"{volume.name}: driver or options")
        if ("type" in options) != ("device" in options):
            raise InvalidArgument(f"{volume.name}: type and device belong together")
        if options.get("o") == "bind" and not options["device"].startswith("/"):
            raise InvalidArgument(f"{volume.name}: device must be absolute")

    def same(self, known: Volume, asked: Volume) -> Volume:
        if known.options != asked.options:
            raise AlreadyExists(f"{asked.name} has other options")
        return known

    def get(self, name: str) -> Volume:
        if name not in self.shelf.volumes:
            raise NotFound(f"no volume {name}")
        return self.shelf.volumes[name]

    def owners(self, name: str) -> dict[tuple[str, str], str]:
        return self.shelf.owners.setdefault(name, {})

    async def delete(self, volume: VolumeRef) -> None:
        known = self.shelf.volumes.get(volume.name)
        if known is None:
            return
        owners = [owner for owner, _ in self.owners(volume.name)]
        if owners:
            raise FailedPrecondition(f"{volume.name} is in use by {owners}")
        self.empty(known)
        del self.shelf.volumes[volume.name]
        self.shelf.used.discard(volume.name)

    def empty(self, volume: Volume) -> None:
        if not volume.options:
            shutil.rmtree(volume.mountpoint)

    async def inspect(self, volume: VolumeRef) -> Volume:
        return self.get(volume.name)

    async def list(self) -> VolumeList:
        return VolumeList(volumes=tuple(v for _, v in sorted(self.shelf.volumes.items())))

    async def publish(self, request: PublishRequest) -> Published:
        volume = self.get(request.name)
        place = path = Path(volume.mountpoint)
        fresh = request.name not in self.shelf.used
        self.shelf.used.add(request.name)
        if request.subpath:
            path = self.inside(place, request.subpath, existing=request.existing)
        if request.seed and path.is_dir() and self.seedable(fresh, path):
            layers = [Path(layer) for layer in request.seed]
            found = self.followed(layers, request.seed_path)
            self.seed([layer / found for layer in layers], self.seeded(place, path))
        self.owners(request.name)[request.owner, request.subpath] = str(path)
        return Published(path=str(path))

    def followed(self, layers: Sequence[Path], path: str) -> str:
        done: list[str] = []
        left = path.split("/")[::-1]
        for _ in range(1000):
            if not left:
                return "/".join(done)
            part = left.pop()
            named = [layer.joinpath(*done, part) for layer in layers]
            link = next((p for p in named if os.path.lexists(p)), None)
            if part in ("", "."):
                continue
            if part == "..":
                del done[-1:]
            elif link is not None and link.is_symlink():
                text = os.readlink(link)
                done = [] if text.startswith("/") else done
                left += text.split("/")[::-1]
            else:
                done.append(part)
        raise FailedPrecondition(f"{path}: too many links")

    def seedable(self, fresh: bool, place: Path) -> bool:
        return not os.listdir(place)

    def seeded(self, whole: Path, part: Path) -> Path:
        return part

    def inside(self, place: Path, subpath: str, *, existing: bool) -> Path:
        if subpath.startswith("/") or ".." in subpath.split("/"):
            raise InvalidArgument(f"subpath {subpath}")
        path = (place / subpath).resolve()
        if not path.is_relative_to(place.resolve()):
            raise FailedPrecondition(f"subpath {subpath} leads out")
        if existing and not path.exists():
            raise FailedPrecondition(f"subpath {subpath} is missing")
        if not path.is_file():
            path.mkdir(parents=True, exist_ok=True)
        return path

    def seed(self, layers: Sequence[Path], place: Path) -> None:
        self.merge([layer for layer in layers if layer.is_dir()], place, {})

    def merge(self, layers: Sequence[Path], target: Path, links: dict[int, Path]) -> None:
        names = {name for layer in layers for name in os.listdir(layer)}
        for name in sorted(names):
            having = [layer / name for layer in layers if os.path.lexists(layer / name)]
            if self.is_removed(having[0]):
                continue
            if having[0].is_dir() and not having[0].is_symlink():
                (target / name).mkdir()
                lower = [path for path in having if path.is_dir()]
                self.merge(lower[:1] if self.is_opaque(lower[0]) else lower, target / name, links)
            else:
                self.copy(having[0], target / name, links)
        if layers:
            shutil.copystat(layers[0], target)

    def is_removed(self, path: Path) -> bool:
        found = path.lstat()
        return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0

    def is_opaque(self, path: Path) -> bool:
        return "trusted.overlay.opaque" in os.listxattr(path)

    def copy(self, source: Path, target: Path, links: dict[int, Path]) -> None:
        found = source.lstat()
        if found.st_nlink > 1 and found.st_ino in links:
            os.link(links[found.st_ino], target)
            return
        shutil.copy2(source, target, follow_symlinks=False)
        links[found.st_ino] = target
        if os.geteuid() == 0:
            os.chown(target, found.st_uid, found.st_gid, follow_symlinks=False)

    async def unpublish(self, request: UnpublishRequest) -> None:
        for name in [request.name] if request.name else list(self.shelf.volumes):
            given = self.owners(name)
            for owner, subpath in list(given):
                if owner == request.owner:
                    del given[owner, subpath]

    async def usage(self, volume: VolumeRef) -> VolumeUsage:
        place = Path(self.get(volume.name).mountpoint)
        owners = sorted({owner for owner, _ in self.owners(volume.name)})
        return VolumeUsage(name=volume.name, size=self.size(place), owners=tuple(owners))

    def size(self, place: Path) -> int:
        files = [path.lstat() for path in place.rglob("*") if path.is_file()]
        return sum({found.st_ino: found.st_size for found in files}.values())
