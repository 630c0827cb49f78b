"""A random walk over the store, killed at any step that changes a file: what is kept, what is freed.

A child does the walk and ends by SIGKILL at some rename, removal, creation or directory below the
store's data: Python's audit events count them. Whatever was told to be done is there afterwards, all
that is listed can be run and saved, and a prune leaves no file that nobody needs.

What had come of an upload is needed: its client may go on with it at the successor, which gives it a
minute to (ADR 415) and then drops it. No prune takes it before; so the last life gives no minute, and
must end with none.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import random
import signal
import sys
import tarfile
import tempfile
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.system.image.odd_registry import odd_registry

from sagong.conformance.image_lab import (
    Archive,
    ImageLab,
    docker_archive,
    fetch,
    layer,
    load,
    read_text,
)
from sagong.contracts.image import (
    CommitRequest,
    Image,
    ImageQuery,
    PrepareRequest,
    PullRequest,
    RemoveRequest,
    RootRef,
    SaveRequest,
    TagRequest,
)
from sagong.testing import local
from sagong_image_overlay import ImageOverlay

pytestmark = pytest.mark.root
CHANGES = frozenset(
    ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.chown", "os.link", "open")
)
# What a killed store leaves of an upload for its successor, by design (ADR 415).
UPLOADS = frozenset((".answer", ".part", ".whole", ".files"))
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


@dataclass(frozen=True)
class Life:
    """A child: where, of which chance, killed at which change, and where it tells what it did."""

    data: Path
    run: Path
    seed: str
    host: str
    kill: int
    told: int


class Walk:
    """Steps of a walk. What holds is told before it may cease to, and after it began to."""

    def __init__(self, images: ImageOverlay, life: Life) -> None:
        self.images = images
        self.lab = ImageLab(images)
        self.life = life
        self.chance = random.Random(life.seed)
        self.names: dict[str, str] = {}
        self.roots: dict[str, str] = {}
        self.count = 0

    def fresh(self) -> str:
        """A name that was never used."""
        self.count += 1
        return f"w{self.life.seed.replace('/', '-')}-{self.count}"

    async def step(self) -> None:
        """One of the things that are done to a store, if it can be done now."""
        steps = [self.load, self.load, self.pull, self.prune]
        if self.names:
            steps += [self.tag, self.remove, self.run, self.run]
        if self.roots:
            steps += [self.commit, self.release]
        await self.chance.choice(steps)()

    def tell(self, kind: str, name: str, text: str = "") -> None:
        """To the parent, which reads it though this process is killed."""
        os.write(self.life.told, json.dumps([kind, name, text]).encode() + b"\n")
        table = self.names if "name" in kind else self.roots
        if kind.startswith("no "):
            table.pop(name, None)
        else:
            table[name] = text

    async def load(self) -> None:
        text = self.fresh()
        shared = layer("etc/", ("etc/base", self.chance.choice("xyz") * 3000))
        name = f"walk.test/{text}:1"
        await load(self.lab, docker_archive(Archive(layers=[shared, made_of(text)], names=[name])))
        self.tell("name", name, text)

    async def pull(self) -> None:
        number = self.chance.randrange(3)
        name = f"{self.life.host}/p{number}:v1"
        async for _ in self.images.pull(PullRequest(id=name, reference=name)):
            pass
        self.tell("name", name, f"p{number} amd64")

    async def prune(self) -> None:
        await self.images.prune(ImageQuery())

    async def tag(self) -> None:
        name, text = self.chance.choice(sorted(self.names.items()))
        target = f"walk.test/{self.fresh()}:1"
        await self.images.tag(TagRequest(source=name, target=target))
        self.tell("name", target, text)

    async def remove(self) -> None:
        name = self.chance.choice(sorted(self.names))
        self.tell("no name", name)
        await self.images.remove(RemoveRequest(reference=name, force=True))

    async def run(self) -> None:
        name, text = self.chance.choice(sorted(self.names.items()))
        identity = self.fresh()
        prepared = await self.images.prepare(PrepareRequest(id=identity, image=name))
        if self.chance.random() < 0.7:
            Path(prepared.upper, "new").write_text(identity)
        self.tell("root", identity, text)

    async def commit(self) -> None:
        identity, text = self.chance.choice(sorted(self.roots.items()))
        consume = self.chance.random() < 0.4
        if consume:
            self.tell("no root", identity)
        name = f"walk.test/{self.fresh()}:1"
        await self.images.commit(
            CommitRequest(
                id=name,
                container=identity,
                reference=name,
                consume=consume,
                document=b"{}" if consume else b"",
            )
        )
        self.tell("name", name, text)

    async def release(self) -> None:
        identity = self.chance.choice(sorted(self.roots))
        self.tell("no root", identity)
        await self.images.release(RootRef(id=identity))


def made_of(text: str) -> bytes:
    """A layer that tells which it is."""
    return layer(("name", text), ("large", text * 300))


def killed_at(data: Path, number: int) -> None:
    """End this process by SIGKILL at its so manyth change of a file of the store."""
    top, count = str(data), 0

    def hear(event: str, facts: tuple[Any, ...]) -> None:
        nonlocal count
        if event not in CHANGES or not str(facts[0]).startswith(top):
            return
        if event == "open" and not (isinstance(facts[2], int) and facts[2] & WRITES):
            return
        count += 1
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hear)


async def walk(life: Life) -> None:
    """The child's part."""
    async with local(ImageOverlay, data=life.data, run=life.run) as images:
        going = Walk(images, life)
        killed_at(life.data, life.kill)
        for _ in range(10):
            await going.step()


class Known:
    """What the walks have told: names and roots that must be there."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {}
        self.roots: dict[str, str] = {}

    def hear(self, lines: Iterable[str]) -> None:
        """Believe it."""
        for kind, name, text in (json.loads(line) for line in lines if line.strip()):
            table = self.names if "name" in kind else self.roots
            if kind.startswith("no "):
                table.pop(name, None)
            else:
                table[name] = text


def killed_walk(data: Path, seed: str, host: str, kill: int) -> list[str]:
    """What a walk told before its end, by a fork of this process and all that it started."""
    with tempfile.TemporaryDirectory(prefix="sagong-w-", dir="/tmp") as run:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.setsid()
                os.close(reading)
                asyncio.run(walk(Life(data, Path(run), seed, host, kill, writing)))
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        os.close(writing)
        _, status = os.waitpid(child, 0)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)  # couriers and the workshop
        with os.fdopen(reading) as file:
            told = file.read().split("\n")
    assert os.waitstatus_to_exitcode(status) in (0, -signal.SIGKILL)
    return told


async def holds(images: ImageOverlay, known: Known) -> None:
    """All that was told is there; all that is listed can be run and saved."""
    lab = ImageLab(images)
    for identity, text in known.roots.items():
        assert await read_text(lab, identity, "/name") == text
    found = (await images.list(ImageQuery(all=True))).images
    names = {name: image for image in found for name in image.tags}
    assert set(known.names) <= set(names)
    for number, image in enumerate(found):
        await images.prepare(PrepareRequest(id=f"check{number}", image=image.id))
        text = await read_text(lab, f"check{number}", "/name")
        assert {known.names.get(name, text) for name in image.tags} <= {text}
        await images.release(RootRef(id=f"check{number}"))
        await saved_whole(images, image)


async def saved_whole(images: ImageOverlay, image: Image) -> None:
    """The archive has every blob that its manifest names."""
    raw = await fetch(await images.save(SaveRequest(references=(image.id,))))
    with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
        names = set(archive.getnames())
        file = archive.extractfile(f"blobs/sha256/{image.manifest_digest[7:]}")
        assert file is not None
        manifest = json.load(file)
    for part in (manifest["config"], *manifest["layers"]):
        assert f"blobs/sha256/{part['digest'][7:]}" in names


def needed(data: Path) -> set[str]:
    """Blobs that the index and the leases name."""
    index = json.loads((data / "index.json").read_text()) if (data / "index.json").exists() else {}
    found: set[str] = set()
    for one in index.get("images", ()):
        found |= {one["id"], one["manifest"], *one.get("blobs", ()), *one.get("packed_blobs", ())}
    for path in (data / "c").glob("*/lease.json"):
        found |= set(json.loads(path.read_text())["content"])
    return {digest.partition(":")[2] for digest in found}


async def wait_tidied(data: Path) -> None:
    """What was discarded is deleted in the background."""
    await wait_empty(data / "trash")


async def wait_empty(directory: Path) -> None:
    """Nothing is left in it soon."""
    for _ in range(3000):
        if not os.listdir(directory):
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"{directory.name} is never empty: {os.listdir(directory)}")


async def check(data: Path, known: Known, *, last: bool) -> None:
    """A new life of the store: nothing is missing, and after a prune nothing is left over."""
    async with local(ImageOverlay, data=data) as images:
        await holds(images, known)
        await images.prune(ImageQuery())
        await wait_tidied(data)
        assert set(os.listdir(data / "content/sha256")) == needed(data)
        facts = {path.stem for path in (data / "layers").glob("*.json")}
        assert set(os.listdir(data / "l")) == facts
        assert not list((data / "layers").glob("*.new"))
        assert {path.stem for path in (data / "layers").glob("*.implied")} <= facts
        assert not os.listdir(data / "content/partial") and not os.listdir(data / "tmp")
        assert {path.suffix for path in (data / "uploads").iterdir()} <= UPLOADS
        await holds(images, known)
        if last:
            await wait_empty(data / "uploads")
            # Those with a dot are spare: empty, and nobody's.
            for name in os.listdir(data / "c"):
                if not name.startswith("."):
                    await images.release(RootRef(id=name))
            await images.prune(ImageQuery(dangling=False))
            await wait_tidied(data)
            left = [str(path) for path in data.rglob("*") if path.is_file()]
            assert left == [str(data / "index.json")]


def test_killed_at_any_step_the_store_keeps_what_it_told_and_frees_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = os.environ.get("SAGONG_WALK_SEED", "1")
    rounds = int(os.environ.get("SAGONG_WALK_ROUNDS", "6"))
    chance, known = random.Random(seed), Known()
    data = tmp_path / "data"
    data.mkdir()
    with odd_registry() as registry:
        for number in range(3):
            registry.image(f"p{number}")
        for number in range(rounds):
            kill = chance.randrange(1, 120)
            print(f"seed {seed}, round {number}: killed at change {kill}")
            known.hear(killed_walk(data, f"{seed}/{number}", registry.host, kill))
            last = number == rounds - 1
            if last:
                monkeypatch.setattr("sagong_image_overlay.uploads._KEPT_SECONDS", 0.0)
            asyncio.run(check(data, known, last=last))
