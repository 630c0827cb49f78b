"""Unpacked layers: directories that overlayfs takes as lower ones, each unpacked once.

A layer's key is its uncompressed digest; one that only makes sense over the layers below it has the
key `over:CHAIN`, and the mount points that an image lacks have `points:CHAIN`. Directories have
short names, since all of them must fit into one page of mount options.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from sagong.errors import InvalidArgument
from sagong_image_overlay.content import sync_directory
from sagong_image_overlay.settings import Settings
from sagong_image_overlay.workshop import Workshop

__all__ = ["POINTS", "Layer", "Layers", "Spot"]

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"

# What runtimes mount upon, as Docker's init layer has it.
POINTS = (
    "dev/",
    "dev/pts/",
    "dev/shm/",
    "dev/console",
    "proc/",
    "sys/",
    "etc/",
    "etc/hosts",
    "etc/hostname",
    "etc/resolv.conf",
    "etc/mtab->/proc/mounts",
    ".dockerenv",
)


class Layer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An unpacked layer; `boot` is the boot in which it was written until it is surely on disk.

    `implied` tells that some directories have no entry in it; `root` that "/" has one. `passwd` and
    `group` are the files of the image whose mount points it is.
    """

    key: str
    name: str
    size: int = 0
    entries: int = 0
    implied: bool = False
    foreign: bool = False
    root: bool = False
    boot: str = ""
    passwd: bytes = b""
    group: bytes = b""


class Spot(msgspec.Struct, frozen=True, kw_only=True):
    """Where the directories of a store are."""

    root: Path

    @property
    def lower(self) -> Path:
        """Unpacked layers."""
        return self.root / "l"

    @property
    def facts(self) -> Path:
        """What is known of each layer."""
        return self.root / "layers"

    @property
    def work(self) -> Path:
        """What a restart clears."""
        return self.root / "tmp"

    @property
    def uploads(self) -> Path:
        """What comes from clients, and what of it is being loaded."""
        return self.root / "uploads"

    @property
    def trash(self) -> Path:
        """What is being deleted."""
        return self.root / "trash"

    @property
    def jail(self) -> Path:
        """An empty directory: the root of processes that need no files."""
        return self.root / "empty"

    def prepare(self) -> None:
        """Make the directories."""
        own = (self.lower, self.facts, self.work, self.uploads, self.trash, self.jail)
        for path in (*own, self.root / "c"):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)


def _open_blob(paths: Sequence[Path]) -> int:
    """A blob that is perhaps being renamed from its partial to its final path."""
    for path in paths[:-1]:
        with contextlib.suppress(FileNotFoundError):
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    return os.open(paths[-1], os.O_RDONLY | os.O_CLOEXEC)


def _read(path: Path) -> Layer | None:
    """What is known of a layer; a power cut may have left the file without its content."""
    with contextlib.suppress(msgspec.DecodeError):
        return msgspec.json.decode(path.read_bytes(), type=Layer)
    return None


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _short(number: int) -> str:
    text = ""
    while number or not text:
        number, digit = divmod(number, 36)
        text = _DIGITS[digit] + text
    return text


class Layers:
    """The table of unpacked layers, and the making of new ones."""

    def __init__(self, spot: Spot, workshop: Workshop, settings: Settings) -> None:
        self._spot = spot
        self._lower = f"{spot.lower}/"
        self._workshop = workshop
        self._settings = settings
        self._boot = _boot_id()
        self._next = 1
        self._making: dict[str, asyncio.Task[Layer]] = {}
        self.table: dict[str, Layer] = {}

    def load(self) -> None:
        """Read the table; layers that a power cut may have damaged go, and half-made ones."""
        known = set()
        for path in self._spot.facts.glob("*.new"):
            path.unlink()
        for path in self._spot.facts.glob("*.json"):
            self._next = max(self._next, int(path.stem, 36) + 1)
            layer = _read(path)
            if layer is None:
                path.unlink()
            elif layer.boot in ("", self._boot) and (self._spot.lower / layer.name).is_dir():
                self.table[layer.key] = layer
                known.add(layer.name)
            else:
                path.unlink()
        for name in os.listdir(self._spot.lower):
            if name not in known:
                self.discard(self._spot.lower / name)
        for path in self._spot.facts.glob("*.implied"):
            if path.stem not in known:
                path.unlink()

    def directory(self, key: str) -> Path:
        """The lower directory of a layer."""
        return Path(self._lower + self.table[key].name)

    def directories(self, keys: Sequence[str]) -> list[str]:
        """Lower directories from top to bottom, for keys from bottom to top."""
        # A layer that comes again says all there that it said below; overlayfs refuses one twice.
        table, lower = self.table, self._lower
        return [lower + table[key].name for key in dict.fromkeys(reversed(keys))]

    def discard(self, path: Path) -> None:
        """Move a directory away to be deleted in the background.

        By a name that nothing has there: what a killed predecessor moved away may not be deleted yet.
        """
        if os.geteuid() != 0 and path.is_dir():
            # Moving a directory writes its "..": that takes its owner's rights.
            os.chown(path, os.geteuid(), os.getegid())
            os.chmod(path, 0o700)
        os.rename(path, self._spot.trash / f"{path.name}-{secrets.token_hex(6)}")

    def bounds(self) -> dict[str, Any]:
        """The limits of one archive, as arguments of a job."""
        return {
            "max_size": self._settings.max_layer_size,
            "max_entries": self._settings.max_layer_entries,
            "max_ratio": self._settings.max_layer_ratio,
            "reserve": self._settings.reserve,
            "jail": str(self._spot.jail),
        }

    async def unpack(
        self, diff_id: str, blob: Sequence[Path], progress: Callable[[int], None] = lambda _: None
    ) -> Layer:
        """The layer of a blob, which is at one of the paths; InvalidArgument if it is not that."""
        return await self._once(diff_id, lambda: self._unpack(diff_id, blob, progress))

    async def _once(self, key: str, make: Callable[[], Any]) -> Layer:
        """Do not make a layer twice at the same time; a maker's cancellation is only its own."""
        while key not in self.table:
            task = self._making.get(key)
            if task is None:
                task = self._making[key] = asyncio.create_task(make(), name=f"unpack {key}")
                task.add_done_callback(lambda _: self._making.pop(key, None))
                return await task
            try:
                return await asyncio.shield(task)
            except asyncio.CancelledError:
                if not task.cancelled():
                    raise
        return self.table[key]

    async def _unpack(
        self, key: str, blob: Sequence[Path], progress: Callable[[int], None]
    ) -> Layer:
        def work(directory: Path) -> tuple[str, dict[str, Any]]:
            return "unpack", {"root": str(directory), "whiteouts": True}

        return await self._make(key, key, blob, work, progress)

    async def merge(self, key: str, diff_id: str, blob: Path, below: Sequence[str]) -> Layer:
        """The layer of a blob unpacked over the layers `below` (keys from bottom to top)."""

        def work(directory: Path) -> tuple[str, dict[str, Any]]:
            layers = [str(directory), *self.directories(below)]
            return "merge", {"layers": layers, "whiteouts": True}

        return await self._once(key, lambda: self._make(key, diff_id, [blob], work, lambda _: None))

    async def _make(
        self,
        key: str,
        diff_id: str,
        blob: Sequence[Path],
        work: Callable[[Path], tuple[str, dict[str, Any]]],
        progress: Callable[[int], None],
    ) -> Layer:
        name, directory = self._new()
        source = _open_blob(blob)
        try:
            async with self._workshop.heavy:
                job, arguments = work(directory)
                done = await self._workshop.run(
                    job,
                    {**arguments, **self.bounds()},
                    [source],
                    lambda message: progress(message["current"]),
                )
            if done["digest"] != diff_id:
                raise InvalidArgument(
                    f"layer {blob[-1].name[:12]} unpacks to {done['digest']}, its config says {diff_id}"
                )
            return self._keep(key, name, done)
        except BaseException:
            self.discard(directory)
            raise
        finally:
            os.close(source)

    def _new(self) -> tuple[str, Path]:
        name = _short(self._next)
        self._next += 1
        directory = self._spot.lower / name
        directory.mkdir(mode=0o755)
        os.chmod(directory, 0o755)
        if os.geteuid() != 0:
            os.chown(directory, 0, 0)
        return name, directory

    def _keep(self, key: str, name: str, done: dict[str, Any]) -> Layer:
        implied = b"".join(os.fsencode(text) + b"\0" for text in done.get("implied", ()))
        if implied:
            (self._spot.facts / f"{name}.implied").write_bytes(implied)
        layer = Layer(
            key=key,
            name=name,
            size=done.get("size", 0),
            entries=done.get("entries", 0),
            implied=bool(implied),
            foreign=done.get("foreign", False),
            passwd=base64.b64decode(done.get("passwd", "")),
            group=base64.b64decode(done.get("group", "")),
            root=done.get("root", False),
            boot=self._boot,
        )
        self._write(layer)
        self.table[key] = layer
        return layer

    def _write(self, layer: Layer, *, durable: bool = False) -> None:
        path = self._spot.facts / f"{layer.name}.json"
        new = path.with_suffix(".new")
        with new.open("wb") as file:
            file.write(msgspec.json.encode(layer))
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.rename(new, path)

    async def fits(self, key: str, below: Sequence[str]) -> bool:
        """Whether a layer is right over the layers below it as it was unpacked by itself."""
        layer = self.table[key]
        if layer.foreign:
            return False
        if not layer.implied or not below:
            return True
        names = os.open(self._spot.facts / f"{layer.name}.implied", os.O_RDONLY | os.O_CLOEXEC)
        try:
            arguments = {"layers": self.directories(below), "jail": str(self._spot.jail)}
            done = await self._workshop.run("depends", arguments, [names])
        finally:
            os.close(names)
        return not done["depends"]

    async def points(self, chain: str, below: Sequence[str]) -> str:
        """The key of the layer with the mount points that an image of these directories lacks."""
        key = f"points:{chain}"
        layer = await self._once(key, lambda: self._make_points(key, below))
        return layer.key

    async def _make_points(self, key: str, below: Sequence[str]) -> Layer:
        name, directory = self._new()
        try:
            arguments = {
                "layers": [str(directory), *below],
                "paths": POINTS,
                "jail": str(self._spot.jail),
            }
            done = await self._workshop.run("points", arguments)
        except BaseException:
            self.discard(directory)
            raise
        return self._keep(key, name, done)

    def adopt(self, key: str, source: Path, done: dict[str, Any]) -> None:
        """Make a writable layer the unpacked one, as it is; nothing if there is one already."""
        if key in self.table or key in self._making:
            return
        name = _short(self._next)
        self._next += 1
        status = os.stat(source)
        own = (os.geteuid(), os.getegid())
        if own != (status.st_uid, status.st_gid) and os.geteuid() != 0:
            os.chown(source, *own)  # moving it writes its "..", which takes its owner's rights
        os.rename(source, self._spot.lower / name)
        if own != (status.st_uid, status.st_gid) and os.geteuid() != 0:
            os.chown(self._spot.lower / name, status.st_uid, status.st_gid)
        self._keep(key, name, done)

    def drop(self, key: str) -> int:
        """Forget a layer and delete it in the background; its size."""
        layer = self.table.pop(key)
        for suffix in (".json", ".implied"):
            (self._spot.facts / f"{layer.name}{suffix}").unlink(missing_ok=True)
        self.discard(self._spot.lower / layer.name)
        return layer.size

    async def settle(self) -> None:
        """Bring new layers to the disk; then they survive a power cut."""
        fresh = [layer for layer in self.table.values() if layer.boot]
        if not fresh:
            return
        opened = os.open(self._spot.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            await self._workshop.run("flush", {}, [opened])
        finally:
            os.close(opened)
        for layer in fresh:
            if self.table.get(layer.key) is layer:
                settled = msgspec.structs.replace(layer, boot="")
                self._write(settled, durable=True)
                self.table[layer.key] = settled
        await asyncio.to_thread(sync_directory, self._spot.facts)

    async def empty_trash(self) -> None:
        """Delete what was discarded."""
        await self._workshop.run("remove", {"root": str(self._spot.trash)})
