"""Random layers, unpacked by umoci and by us: both must show the same root filesystem."""

from __future__ import annotations

import os
import random
import shutil
import stat
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import pytest
from tests import sample_image

from sagong.conformance.image_lab import Archive, ImageLab, entry, fetch, layer, loaded
from sagong.contracts.image import PrepareRequest, RootRef
from sagong.testing import local
from sagong_image_overlay import ImageOverlay

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("umoci") is None, reason="needs umoci"),
]
NAMES = ("a", "b", "c")


class Grower:
    """Makes layers that add, replace, hide and link what is there; it knows only the kinds."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._kinds = {"": "directory"}

    def layer(self) -> bytes:
        """Some changes; each path once, as real writers have it."""
        members: list[tuple[Any, bytes]] = []
        below = dict(self._kinds)
        touched: set[str] = set()
        for _ in range(self._chance.randrange(2, 10)):
            parents = [path for path, kind in self._kinds.items() if kind == "directory"]
            parent = self._chance.choice(sorted(parents))
            path = f"{parent}/{self._chance.choice(NAMES)}".lstrip("/")
            if any(path == one or path.startswith(f"{one}/") for one in touched):
                continue
            members += self._change(path, below)
            touched.add(path)
        return layer(*members)

    def _change(self, path: str, below: dict[str, str]) -> list[tuple[tarfile.TarInfo, bytes]]:
        parent, _, base = path.rpartition("/")
        prefix = f"{parent}/" if parent else ""
        kind = self._chance.choice(("directory", "file", "link", "hidden", "opaque"))
        here = below.get(path)
        if kind == "hidden" and here is not None and self._kinds.get(path) == here:
            self._forget(path)
            return [(entry(f"{prefix}.wh.{base}", 0), b"")]
        if kind == "opaque" and here == "directory" and self._kinds.get(path) == here:
            self._forget(path)
            self._kinds[path] = "directory"
            made = entry(path, 0o750, tarfile.DIRTYPE)
            return [(made, b""), (entry(f"{path}/.wh..wh..opq", 0), b"")]
        if kind in ("file", "hidden", "opaque"):
            self._forget(path)
            self._kinds[path] = "file"
            return [
                (entry(path, self._chance.choice((0o644, 0o4755))), os.urandom(3).hex().encode())
            ]
        if kind == "link":
            self._forget(path)
            self._kinds[path] = "link"
            target = self._chance.choice(("a", "/b", "../c", "nowhere"))
            return [(entry(path, 0o777, tarfile.SYMTYPE, linkname=target), b"")]
        if self._kinds.get(path) != "directory":
            self._forget(path)
        self._kinds[path] = "directory"
        mode = self._chance.choice((0o755, 0o700, 0o1777))
        return [(entry(path, mode, tarfile.DIRTYPE), b"")]

    def _forget(self, path: str) -> None:
        for one in [p for p in self._kinds if p == path or p.startswith(f"{path}/")]:
            del self._kinds[one]


def listing(root: Path) -> dict[str, tuple[object, ...]]:
    """What a directory holds: kind, mode, owner, and content or target."""
    found: dict[str, tuple[object, ...]] = {}
    for directory, below, files in os.walk(root):
        for name in (*below, *files):
            path = Path(directory, name)
            facts = path.lstat()
            own: tuple[object, ...] = (facts.st_mode, facts.st_uid, facts.st_gid)
            if stat.S_ISLNK(facts.st_mode):
                own = (*own, os.readlink(path))
            elif stat.S_ISREG(facts.st_mode):
                own = (*own, path.read_bytes())
            found[str(path.relative_to(root))] = own
    return found


async def test_layers_mean_the_same_to_umoci() -> None:
    async with local(ImageOverlay) as images:
        for seed in range(12):
            grower = Grower(seed)
            archive = Archive(layers=[grower.layer() for _ in range(4)])
            with tempfile.TemporaryDirectory(prefix="sagong-d-", dir="/tmp") as place:
                theirs = by_umoci(Path(place), archive)
                ours = await by_us(images, Path(place), f"c{seed}", archive)
            assert ours == theirs, f"seed {seed}"


def by_umoci(place: Path, archive: Archive) -> dict[str, tuple[object, ...]]:
    """The root filesystem as umoci has it."""
    layout = place / "layout"
    sample_image.write_oci_layout(layout, archive.config_blob(), list(archive.layers), "x")
    command = ["umoci", "unpack", "--image", f"{layout}:x", str(place / "bundle")]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return listing(place / "bundle/rootfs")


async def by_us(
    images: ImageOverlay, place: Path, name: str, archive: Archive
) -> dict[str, tuple[object, ...]]:
    """The root filesystem as we export it."""
    found = await loaded(ImageLab(images), archive)
    await images.prepare(PrepareRequest(id=name, image=found.id, bare=True))
    raw = await fetch(await images.export(RootRef(id=name)))
    (place / "ours").mkdir()
    command = ["tar", "-xpf", "-", "-C", str(place / "ours")]
    subprocess.run(command, input=raw, check=True, timeout=60)
    return listing(place / "ours")
