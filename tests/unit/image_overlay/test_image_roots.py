"""Directories of lent root filesystems, which serve again when nobody wrote in them."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path
from typing import Any, cast

import pytest

from sagong.contracts.image import Image
from sagong_image_overlay.layers import Layers, Spot
from sagong_image_overlay.roots import Lease, Roots


class Discarding:
    """Of the layers what roots need: somebody who deletes what was written."""

    def __init__(self) -> None:
        self.table: dict[str, Any] = {}
        self.discarded: list[Path] = []

    def discard(self, path: Path) -> None:
        """At once, where the store does it in its own time."""
        self.discarded.append(path)
        shutil.rmtree(path)


@pytest.fixture
def layers() -> Discarding:
    return Discarding()


@pytest.fixture
def roots(tmp_path: Path, layers: Discarding) -> Roots:
    (tmp_path / "c").mkdir()
    return Roots(Spot(root=tmp_path), cast(Layers, layers))


def lease(identity: str) -> Lease:
    return Lease(id=identity, image=Image(id="sha256:i"), layers=())


def inode(path: Path) -> int:
    return path.stat().st_ino


async def test_a_directory_that_nobody_wrote_in_serves_again(
    tmp_path: Path, roots: Roots, layers: Discarding
) -> None:
    roots.lend(lease("one"))
    first = inode(tmp_path / "c/one")
    mark = tmp_path / "c/one/work/unmarked"
    mark.mkdir()
    (tmp_path / "c/one/work/work").mkdir()  # overlayfs leaves that
    assert roots.release("one")
    mark.rmdir()  # by the container's monitor, a moment later
    assert not (tmp_path / "c/one/diff").exists()
    await roots.sweep()
    roots.lend(lease("two"))
    assert inode(tmp_path / "c/two") == first
    assert sorted(os.listdir(tmp_path / "c/two")) == ["diff", "lease.json", "work"]
    assert os.listdir(tmp_path / "c") == ["two"] and not layers.discarded


async def test_what_was_written_is_seen_by_nobody_else(
    tmp_path: Path, roots: Roots, layers: Discarding
) -> None:
    """In the layer, or beside it."""
    for place in ("diff", "work"):
        roots.lend(lease("one"))
        (tmp_path / "c/one" / place / "secret").write_text("x")
        assert roots.release("one")
        await roots.sweep()
        assert not os.listdir(tmp_path / "c") and len(layers.discarded) == 1
        layers.discarded.clear()


async def test_the_same_container_again_finds_nothing_of_before(
    tmp_path: Path, roots: Roots
) -> None:
    for _ in range(3):
        roots.lend(lease("one"))
        assert roots.release("one") and not roots.release("one")
    await roots.sweep()
    roots.lend(lease("one"))
    assert os.listdir(tmp_path / "c") == ["one"]
    assert sorted(os.listdir(tmp_path / "c/one")) == ["diff", "lease.json", "work"]


async def test_who_is_lent_a_root_while_others_are_swept_keeps_his(
    tmp_path: Path, roots: Roots
) -> None:
    """Of the same name, too."""
    for _ in range(20):
        roots.lend(lease("one"))
        roots.release("one")
        sweeping = asyncio.create_task(roots.sweep())
        await asyncio.sleep(0)
        roots.lend(lease("one"))
        await sweeping
        roots.lend(lease("two"))
        for name in ("one", "two"):
            assert sorted(os.listdir(tmp_path / "c" / name)) == ["diff", "lease.json", "work"]
            roots.release(name)


async def test_no_more_than_a_few_are_kept_and_a_successor_finds_them(
    tmp_path: Path, roots: Roots, layers: Discarding
) -> None:
    names = [f"c{number}" for number in range(40)]
    for name in names:
        roots.lend(lease(name))
    for name in names:
        roots.release(name)
    await roots.sweep()
    kept = os.listdir(tmp_path / "c")
    assert 0 < len(kept) < len(names)
    successor = Roots(Spot(root=tmp_path), cast(Layers, layers))
    successor.load()
    successor.lend(lease("next"))
    assert len(os.listdir(tmp_path / "c")) == len(kept) and not layers.discarded


async def test_a_lease_at_another_place_is_nobodys(
    tmp_path: Path, roots: Roots, layers: Discarding
) -> None:
    """A power cut may bring back the name that a directory had before."""
    roots.lend(lease("one"))
    (tmp_path / "c/one").rename(tmp_path / "c/.zero")
    roots.table.clear()
    roots.load()
    assert not roots.table and layers.discarded == [tmp_path / "c/.zero"]


async def test_what_a_crash_left_is_nobodys_when_it_is_lent_again(
    tmp_path: Path, roots: Roots, layers: Discarding
) -> None:
    """A name among the spare ones that was a container's again gave its directory to the next one."""
    for name in ("one", "two"):
        (tmp_path / f"c/{name}/diff").mkdir(parents=True)
    roots.load()
    for name in ("one", "two", "three"):
        roots.lend(lease(name))
        assert sorted(os.listdir(tmp_path / f"c/{name}")) == ["diff", "lease.json", "work"]
    assert all((tmp_path / f"c/{name}/lease.json").exists() for name in ("one", "two", "three"))
    assert not layers.discarded
