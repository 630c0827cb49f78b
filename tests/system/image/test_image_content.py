"""Slot `content` beside `image`: one store, whose blobs live while an image or a hold needs them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from sagong.conformance.content import ContentLab, digest_of
from sagong.conformance.image_lab import Archive, ImageLab, layer, loaded
from sagong.contract import filling
from sagong.contracts.content import BlobRef, Content, Hold, WriteRef
from sagong.contracts.image import ImageQuery, RemoveRequest
from sagong.testing import awaited, local
from sagong_image_overlay import ImageOverlay

pytestmark = pytest.mark.root


def content_of(plugin: ImageOverlay) -> Content:
    """The plugin's other slot."""
    return awaited(Content, filling(plugin, Content))


def image(name: str) -> Archive:
    """An image of one small layer."""
    return Archive(layers=[layer("etc/", ("etc/name", name))], names=[f"suite.test/{name}:1"])


async def test_sweeping_keeps_what_images_need(tmp_path: Path) -> None:
    async with local(ImageOverlay, data=tmp_path) as images:
        found = await loaded(ImageLab(images), image("kept"))
        await content_of(images).sweep()
        assert (tmp_path / "content/sha256" / found.id[7:]).exists()
        await images.remove(RemoveRequest(reference=found.id))
        assert not (tmp_path / "content/sha256" / found.id[7:]).exists()


async def test_what_is_held_outlives_the_image(tmp_path: Path) -> None:
    async with local(ImageOverlay, data=tmp_path) as images:
        found = await loaded(ImageLab(images), image("held"))
        hold = Hold(owner="repository", digest=found.id)
        await content_of(images).hold(hold)
        await images.remove(RemoveRequest(reference=found.id))
        await images.prune(ImageQuery(dangling=False))
        assert (await content_of(images).stat(BlobRef(digest=found.id))).size
        await content_of(images).drop(hold)
        assert (await content_of(images).sweep()).blobs == 1


async def test_a_write_that_nobody_touches_for_a_day_is_gone(tmp_path: Path) -> None:
    async with local(ImageOverlay, data=tmp_path) as images:
        lab = ContentLab(content_of(images))
        for name in ("old", "new"):
            await lab.offset(name)
            await lab.write(b"bytes", 0, name)
        (old,) = (tmp_path / "writes").glob("*old")
        os.utime(old, (time.time() - 90_000,) * 2)
        await lab.content.sweep()
        assert await lab.offset("new") == 5
        assert await lab.offset("old") == 0
    for path in (tmp_path / "writes").iterdir():
        os.utime(path, (time.time() - 90_000,) * 2)
    async with local(ImageOverlay, data=tmp_path) as images:
        assert not list((tmp_path / "writes").iterdir())


async def test_an_abandoned_stream_is_cut(tmp_path: Path) -> None:
    """What it sent is no part of a write of the same name that is begun after it."""
    async with local(ImageOverlay, data=tmp_path) as images:
        lab = ContentLab(content_of(images))
        await lab.offset()
        await lab.write(b"first")
        await lab.content.abandon(WriteRef(id=lab.name()))
        await lab.offset()
        await lab.write(b"second")
        assert (await lab.finish(digest_of(b"second"))).size == 6
        assert not list((tmp_path / "writes").iterdir())
