"""Garbage collection frees the disk, spares what is being worked on, and survives a crash."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from tests.system.image.odd_registry import odd_registry

from sagong.conformance.image_lab import (
    Archive,
    ImageLab,
    docker_archive,
    layer,
    load,
    loaded,
    read_text,
)
from sagong.contracts.image import (
    CommitRequest,
    DeriveRequest,
    ImageQuery,
    ImageRef,
    PrepareRequest,
    PullRequest,
    RemoveRequest,
    RootRef,
    TagRequest,
)
from sagong.errors import NotFound
from sagong.testing import local
from sagong_image_overlay import ImageOverlay

pytestmark = pytest.mark.root
FAST = {"registries": {"attempts": 1, "seconds": 30.0}}


def image(text: str, size: int = 200_000) -> Archive:
    """An image of two layers that no other has."""
    layers = [layer(("etc/name", text)), layer(("large", text * (size // len(text))))]
    return Archive(layers=layers, names=[f"suite.test/{text}:1"])


def files_below(data: Path) -> list[str]:
    """Files of content, layers and facts."""
    places = ("content", "l", "layers", "c", "trash", "tmp")
    done = subprocess.run(
        ["find", *(str(data / place) for place in places), "-type", "f"],
        capture_output=True,
        text=True,
    )
    return done.stdout.split()


def directories_of_layers(data: Path) -> list[str]:
    """Unpacked layers, and what is not deleted yet."""
    return [*os.listdir(data / "l"), *os.listdir(data / "trash")]


async def emptied(data: Path) -> bool:
    """Whether nothing is left, after the tidying that goes on in the background."""
    for _ in range(3000):
        if not files_below(data) and not directories_of_layers(data):
            return True
        await asyncio.sleep(0.02)
    return False


async def removing(images: ImageOverlay) -> None:
    """Remove every image by its id."""
    for one in (await images.list(ImageQuery(all=True))).images:
        await images.remove(RemoveRequest(reference=one.id, force=True))


async def pruning(images: ImageOverlay) -> None:
    """Prune everything."""
    await images.prune(ImageQuery(dangling=False))


@pytest.mark.parametrize("clear", [removing, pruning])
async def test_nothing_is_left_on_disk(
    tmp_path: Path, clear: Callable[[ImageOverlay], Awaitable[None]]
) -> None:
    async with local(ImageOverlay, data=tmp_path) as images:
        lab = ImageLab(images)
        for number in range(3):
            found = await loaded(lab, image(f"left-{number}"))
            prepared = await images.prepare(PrepareRequest(id=f"c{number}", image=found.id))
            Path(prepared.upper, "new").write_text("x" * 10_000)
            await images.commit(CommitRequest(id=f"c{number}", container=f"c{number}"))
            await images.release(RootRef(id=f"c{number}"))
        assert files_below(tmp_path)
        await clear(images)
        assert await emptied(tmp_path), files_below(tmp_path)


async def test_interrupted_downloads_go_with_a_prune(tmp_path: Path) -> None:
    with odd_registry() as odd:
        odd.image("a")
        whole = max(odd.blobs.values(), key=len)
        odd.odd["/v2/a/blobs/"] = lambda handler: (
            len(odd.blobs[handler.path.rpartition("/")[2]]) == len(whole)
            and handler.give(200, whole[:100], Content_Length=str(len(whole)), Connection="close")
        )
        async with local(ImageOverlay, data=tmp_path, config=FAST) as images:
            request = PullRequest(id="p", reference=f"{odd.host}/a:v1")
            with pytest.raises(Exception, match=r"EOF|ended"):
                _ = [item async for item in images.pull(request)]
            assert files_below(tmp_path)
            await pruning(images)
            assert await emptied(tmp_path), files_below(tmp_path)


async def test_work_goes_on_while_all_is_pruned(tmp_path: Path) -> None:
    """Loads, pulls, commits and derived images never miss what a prune beside them took away."""
    with odd_registry() as odd:
        for number in range(6):
            odd.image(f"p{number}")
        async with local(ImageOverlay, data=tmp_path, config=FAST) as images:
            done = asyncio.Event()

            async def prune() -> None:
                while not done.is_set():
                    await images.prune(ImageQuery())
                    await asyncio.sleep(0)

            work = asyncio.create_task(prune())
            try:
                async with asyncio.timeout(60):
                    await asyncio.gather(
                        *(_load(images, number) for number in range(4)),
                        *(_pull(images, f"{odd.host}/p{number}:v1") for number in range(6)),
                        _build(images),
                        _nameless(images),
                    )
            finally:
                done.set()
                await work


async def _load(images: ImageOverlay, number: int) -> None:
    for turn in range(3):
        archive = image(f"work-{number}-{turn}", 50_000)
        await load(ImageLab(images), docker_archive(archive))
        name = f"l{number}-{turn}"
        prepared = await images.prepare(PrepareRequest(id=name, image=archive.names[0]))
        Path(prepared.upper, "new").write_text(name)
        made = await images.commit(
            CommitRequest(id=name, container=name, reference=f"suite.test/made-{name}")
        )
        await images.prepare(PrepareRequest(id=f"{name}-2", image=made.id))
        assert await read_text(ImageLab(images), f"{name}-2", "/new") == name


async def _pull(images: ImageOverlay, name: str) -> None:
    for _ in range(2):
        told = [i async for i in images.pull(PullRequest(id=name, reference=name))]
        identity = f"p-{told[-1].image[7:20]}"
        await images.prepare(PrepareRequest(id=identity, image=name))
        await images.release(RootRef(id=identity))
        await images.remove(RemoveRequest(reference=name))


async def _build(images: ImageOverlay) -> None:
    for number in range(10):
        document = json.dumps({"config": {"Cmd": [str(number)]}}).encode()
        made = await images.derive(
            DeriveRequest(id="d", document=document, reference=f"suite.test/step:{number}")
        )
        name = f"b{number}"
        prepared = await images.prepare(PrepareRequest(id=name, image=made.id))
        Path(prepared.upper, "step").write_text(name)
        made = await images.commit(
            CommitRequest(
                id=name,
                container=name,
                document=document,
                consume=True,
                reference=f"suite.test/layer:{number}",
            )
        )
        await images.prepare(PrepareRequest(id=f"{name}-2", image=made.id))
        assert await read_text(ImageLab(images), f"{name}-2", "/step") == name


async def _nameless(images: ImageOverlay) -> None:
    """What nobody names a prune may take at any moment: it is there, or it is said not to be."""
    for number in range(30):
        document = json.dumps({"config": {"Cmd": ["nameless", str(number)]}}).encode()
        with contextlib.suppress(NotFound):
            made = await images.derive(DeriveRequest(id="n", document=document))
            await images.tag(TagRequest(source=made.id, target=f"suite.test/late:{number}"))
            await images.inspect(ImageRef(reference=f"suite.test/late:{number}"))


async def test_a_crash_between_removing_and_collecting_is_swept_at_the_start(
    tmp_path: Path,
) -> None:
    async with local(ImageOverlay, data=tmp_path) as images:
        found = await loaded(ImageLab(images), image("crash"))
        await asyncio.sleep(0)
        index = (tmp_path / "index.json").read_bytes()
        assert found.id.encode() in index
    document = json.loads(index)
    document |= {"images": [], "names": {}}
    (tmp_path / "index.json").write_text(json.dumps(document))
    (tmp_path / "litter").touch()
    async with local(ImageOverlay, data=tmp_path):
        assert await emptied(tmp_path), files_below(tmp_path)
        assert not (tmp_path / "litter").exists()
