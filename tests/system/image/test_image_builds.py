"""Steps of a build: layers that are taken as they are, images without a layer of their own, crashes."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from sagong.conformance.image_lab import Archive, ImageLab, layer, lent, loaded, read_text
from sagong.contracts.image import (
    CommitRequest,
    DeriveRequest,
    ImageQuery,
    ImageRef,
    PrepareRequest,
    RemoveRequest,
    RootRef,
)
from sagong.testing import local
from sagong_image_overlay import ImageOverlay

pytestmark = pytest.mark.root


def document(step: str) -> bytes:
    """A config of one step."""
    history = [{"created_by": step, "empty_layer": True}]
    return json.dumps({"config": {"Cmd": [step]}, "history": history}).encode()


def image(name: str) -> Archive:
    """An image of one small layer."""
    return Archive(layers=[layer("etc/", ("etc/name", name))], names=[f"suite.test/{name}:1"])


async def test_a_consumed_layer_is_moved_not_written_again(tmp_path: Path) -> None:
    async with local(ImageOverlay, data=tmp_path) as images:
        prepared = await lent(ImageLab(images), "step", image("moved"))
        file = Path(prepared.upper) / "file"
        file.write_text("content")
        inode = file.stat().st_ino
        os.chown(prepared.upper, 1000, 1000)
        os.chmod(prepared.upper, 0o2750)
        made = await images.commit(
            CommitRequest(id="c", container="step", document=document("moved"), consume=True)
        )
        again = await images.prepare(PrepareRequest(id="next", image=made.id))
        (found,) = [path for path in again.lower if (Path(path) / "file").exists()]
        assert (Path(found) / "file").stat().st_ino == inode
        assert stat.S_IMODE(os.stat(found).st_mode) == 0o2750 and os.stat(found).st_uid == 1000
        assert not (tmp_path / "c/step").exists()


async def test_a_step_costs_no_second_layer_of_mount_points(tmp_path: Path) -> None:
    async with local(ImageOverlay, data=tmp_path) as images:
        prepared = await lent(ImageLab(images), "step", image("points"))
        points = prepared.lower[0]
        (Path(prepared.upper) / "file").write_text("content")
        made = await images.commit(
            CommitRequest(id="c", container="step", document=document("points"), consume=True)
        )
        same = await images.prepare(PrepareRequest(id="same", image=made.id))
        assert same.lower[0] == points
        (Path(same.upper) / "etc").mkdir()
        (Path(same.upper) / "etc/hosts").write_text("own")
        made = await images.commit(
            CommitRequest(id="d", container="same", document=document("hosts"), consume=True)
        )
        other = await images.prepare(PrepareRequest(id="other", image=made.id))
        assert other.lower[0] != points
        assert await read_text(ImageLab(images), "other", "/etc/hosts") == "own"


async def test_a_layer_that_is_lost_is_unpacked_from_its_blob(tmp_path: Path) -> None:
    async with local(ImageOverlay, data=tmp_path) as images:
        prepared = await lent(ImageLab(images), "step", image("lost"))
        (Path(prepared.upper) / "file").write_text("content")
        made = await images.commit(
            CommitRequest(id="c", container="step", document=document("lost"), consume=True)
        )
    for path in (tmp_path / "layers").iterdir():
        path.unlink()
    async with local(ImageOverlay, data=tmp_path) as images:
        await images.prepare(PrepareRequest(id="next", image=made.id))
        assert await read_text(ImageLab(images), "next", "/file") == "content"
        assert await read_text(ImageLab(images), "next", "/etc/name") == "lost"


async def test_parents_that_make_a_circle_are_no_parents(tmp_path: Path) -> None:
    """A derived image whose document is that of an ancestor is that ancestor."""
    async with local(ImageOverlay, data=tmp_path) as images:
        found = await loaded(ImageLab(images), image("circle"))
        first = await images.derive(DeriveRequest(id="1", parent=found.id, document=document("1")))
        back = json.loads(found.raw)
        del back["rootfs"]
        again = await images.derive(
            DeriveRequest(id="2", parent=first.id, document=json.dumps(back).encode())
        )
        for one in (found, first, again):
            assert (await images.inspect(ImageRef(reference=one.id))).parent != one.id
        await images.remove(RemoveRequest(reference="suite.test/circle:1"))
        await images.prune(ImageQuery(dangling=False))
        assert not (await images.list(ImageQuery(all=True))).images


async def test_a_tree_of_steps_is_gone_with_its_last_name(tmp_path: Path) -> None:
    async with local(ImageOverlay, data=tmp_path) as images:
        parent = ""
        for number in range(20):
            name = "suite.test/built:1" if number == 19 else ""
            made = await images.derive(
                DeriveRequest(id="n", parent=parent, document=document(str(number)), reference=name)
            )
            parent = made.id
        await images.prune(ImageQuery())
        assert len((await images.list(ImageQuery(all=True))).images) == 20
        removed = await images.remove(RemoveRequest(reference="suite.test/built:1"))
        assert len(removed.deleted) == 20
        assert not list((tmp_path / "content/sha256").iterdir())


async def test_a_failed_commit_leaves_the_lease(tmp_path: Path) -> None:
    async with local(ImageOverlay, data=tmp_path) as images:
        await lent(ImageLab(images), "step", image("failed"))
        with pytest.raises(Exception, match="JSON"):
            await images.commit(
                CommitRequest(id="c", container="step", document=b"[", consume=True)
            )
        assert (await images.changes(RootRef(id="step"))).changes == ()
