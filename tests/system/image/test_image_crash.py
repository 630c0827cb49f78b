"""image_overlay after kill -9, after a power cut, and with a full disk."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from tests.small_disk import mounted, small_disk

from sagong.conformance.image_lab import (
    Archive,
    ImageLab,
    docker_archive,
    layer,
    lent,
    load,
    loaded,
    read_text,
    refused,
)
from sagong.contracts.image import ImageQuery, ImageRef, PrepareRequest, PullRequest, RootRef
from sagong.errors import InvalidArgument, NotFound, ResourceExhausted
from sagong.testing import local
from sagong_image_overlay import ImageOverlay

pytestmark = pytest.mark.root

WORKER = """
import asyncio, sys
from pathlib import Path
from sagong.conformance.image_lab import Archive, ImageLab, docker_archive, layer, load
from sagong.testing import LocalHost
from sagong_image_overlay import ImageOverlay

async def main():
    images = ImageOverlay(LocalHost("image", data=Path(sys.argv[1]), run=Path(sys.argv[3])))
    await images.start()
    lab = ImageLab(images)
    number = int(sys.argv[2])
    while True:
        number += 1
        files = [(f"f{one}", "x" * 5000) for one in range(200)]
        image = Archive(layers=[layer(("n", str(number)), *files)], names=[f"t/n{number}:v1"])
        await load(lab, docker_archive(image))
        print(number, flush=True)

asyncio.run(main())
"""


def killed_worker(data: Path, first: int, seconds: float) -> list[int]:
    """Load images until the process is killed; the numbers of those that were acknowledged."""
    with tempfile.TemporaryDirectory(prefix="sagong-", dir="/tmp") as run:
        return _killed_worker(data, first, seconds, run)


def _killed_worker(data: Path, first: int, seconds: float, run: str) -> list[int]:
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(data), str(first), run],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    assert worker.stdout is not None
    done = [int(worker.stdout.readline())]
    time.sleep(seconds)
    worker.send_signal(signal.SIGKILL)
    done += [int(line) for line in worker.stdout]
    worker.wait()
    return done


async def tidied(data: Path) -> None:
    """Wait until nothing is left to delete."""
    for _ in range(3000):
        if not os.listdir(data / "trash"):
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"left in the trash: {os.listdir(data / 'trash')}")


async def test_acknowledged_images_survive_kill_9(tmp_path: Path) -> None:
    chance = random.Random(7)
    acknowledged: list[int] = []
    for turn in range(3):
        acknowledged += killed_worker(tmp_path, turn * 1000, chance.uniform(0.05, 0.3))
    async with local(ImageOverlay, data=tmp_path) as images:
        lab = ImageLab(images)
        for number in acknowledged:
            name = f"c{number}"
            await images.prepare(PrepareRequest(id=name, image=f"t/n{number}:v1"))
            assert await read_text(lab, name, "/n") == str(number)
        await tidied(tmp_path)
        assert os.listdir(tmp_path / "tmp") == []
        partial = os.listdir(tmp_path / "content/partial")
        assert [name for name in partial if name.startswith("put-")] == []
        names = {path.stem for path in (tmp_path / "layers").glob("*.json")}
        assert set(os.listdir(tmp_path / "l")) == names


async def test_layers_that_were_not_on_disk_are_unpacked_again(tmp_path: Path) -> None:
    image = Archive(layers=[layer(("text", "again")), layer(("two", "2"))], names=["t/power:v1"])
    async with local(ImageOverlay, data=tmp_path) as images:
        await lent(ImageLab(images), "before", image)
    for path in (tmp_path / "layers").glob("*.json"):
        # As a power cut right after the load leaves it: another boot, and files without content.
        facts = json.loads(path.read_text())
        path.write_text(json.dumps({**facts, "boot": "an-earlier-boot"}))
    for path in (tmp_path / "l").glob("*/text"):
        path.write_text("")
        # Of what is known of a layer, too, only the name may have come to the disk.
        (tmp_path / "layers" / f"{path.parent.name}.json").write_text("")
    async with local(ImageOverlay, data=tmp_path) as images:
        assert (await images.inspect(ImageRef(reference="t/power:v1"))).id == image.id
        assert await read_text(ImageLab(images), "before", "/text") == "again"
        await images.prepare(PrepareRequest(id="again", image=image.id))
        assert await read_text(ImageLab(images), "again", "/text") == "again"


async def settled(data: Path) -> None:
    """Wait until all layers are known to be on the disk."""
    for _ in range(3000):
        facts = [json.loads(p.read_text()) for p in (data / "layers").glob("*.json")]
        if not any(one.get("boot") for one in facts):
            return
        await asyncio.sleep(0.02)
    raise AssertionError("layers are never known to be on disk")


async def test_new_layers_settle(tmp_path: Path) -> None:
    async with local(ImageOverlay, data=tmp_path) as images:
        await loaded(ImageLab(images), Archive(layers=[layer(("text", "settled"))]))
        await settled(tmp_path)


async def leases_settled(images: ImageOverlay) -> None:
    """Wait until new leases are on the disk: that has begun, unasked, and has come to its end."""
    roots = images._store.roots
    for _ in range(3000):
        if not roots._fresh:
            await roots.settle()
            return
        await asyncio.sleep(0.02)
    raise AssertionError("nobody brings leases to the disk")


async def test_what_a_container_has_synchronised_survives_a_power_cut(tmp_path: Path) -> None:
    """The disk as it is a moment after, which is less than what the filesystem shows."""
    image, cut, place = tmp_path / "disk", tmp_path / "cut", tmp_path / "place"
    image.write_bytes(b"")
    os.truncate(image, 48 << 20)
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    place.mkdir()
    with mounted(place, "-o", "loop", str(image)):
        async with local(ImageOverlay, data=place) as images:
            lab = ImageLab(images)
            found = await loaded(lab, Archive(layers=[layer(("f", "x"))]))
            await settled(place)
            prepared = await images.prepare(PrepareRequest(id="kept", image=found.id))
            await leases_settled(images)
            with Path(prepared.upper, "written").open("w") as file:
                file.write("written")
                file.flush()
                os.fsync(file.fileno())
            subprocess.run(["cp", "--sparse=always", str(image), str(cut)], check=True)
    with mounted(place, "-o", "loop", str(cut)):
        async with local(ImageOverlay, data=place) as images:
            assert await read_text(ImageLab(images), "kept", "/written") == "written"


async def test_lost_leases_are_swept(tmp_path: Path) -> None:
    async with local(ImageOverlay, data=tmp_path) as images:
        await lent(ImageLab(images), "kept", Archive(layers=[layer(("f", "x"))]))
    for name, file in (("half-made", ""), ("half-deleted", "f")):
        (tmp_path / f"c/{name}/diff/{file}").mkdir(parents=True)
    async with local(ImageOverlay, data=tmp_path) as images:
        # What nobody wrote in is there for the next lease, by a name that no container has.
        assert {*os.listdir(tmp_path / "c")} == {"kept", ".half-made"}
        assert not os.listdir(tmp_path / "c/.half-made")
        await images.changes(RootRef(id="kept"))
        await tidied(tmp_path)


def command_of(pid: str) -> str:
    """Empty if it has ended meanwhile."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


async def test_a_cancelled_pull_leaves_nothing_running(tmp_path: Path) -> None:
    server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with local(ImageOverlay, data=tmp_path) as images:

        async def pull() -> None:
            request = PullRequest(id="p", reference=f"127.0.0.1:{port}/never/answers:v1")
            async for _ in images.pull(request):
                pass

        task = asyncio.create_task(pull())
        await asyncio.sleep(0.3)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        assert not any("courier" in command_of(child) for child in children)
    server.close()


async def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    raw = docker_archive(Archive(layers=[layer(("large", "x" * (40 << 20)))]))
    with small_disk(tmp_path, "64m"):
        async with local(ImageOverlay, data=tmp_path) as images:
            error = await refused(ResourceExhausted, load(ImageLab(images), raw))
            assert "no space left on device" in error.message
            assert (await images.list(ImageQuery(all=True))).images == ()
            await tidied(tmp_path)
            assert os.listdir(tmp_path / "l") == []


async def test_archives_of_a_few_megabytes_leave_the_reserve_free(tmp_path: Path) -> None:
    with small_disk(tmp_path, "160m"):
        async with local(ImageOverlay, data=tmp_path) as images:
            with pytest.raises(ResourceExhausted, match="no space left on device: "):
                for number in range(12):
                    large = layer(("large", f"{number}" + "x" * (9 << 20)))
                    await load(ImageLab(images), docker_archive(Archive(layers=[large])))
            facts = os.statvfs(tmp_path)
            assert facts.f_bavail * facts.f_frsize >= 40 << 20
            assert (await images.list(ImageQuery(all=True))).images


async def test_bombs_are_refused(tmp_path: Path) -> None:
    import gzip
    import io
    import tarfile

    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=1) as packed:
        info = tarfile.TarInfo("zeros")
        info.size = 300 << 20
        packed.write(info.tobuf())
        for _ in range(300):
            packed.write(bytes(1 << 20))
        packed.write(bytes(1024))
    config = {"max_layer_size": 100 << 20, "max_layer_entries": 1000}
    async with local(ImageOverlay, data=tmp_path, config=config) as images:
        lab = ImageLab(images)
        error = await refused(ResourceExhausted, load(lab, buffer.getvalue()))
        assert "unpacks to more than" in error.message
        many = layer(*((f"f{number}", "") for number in range(1001)))
        await refused(ResourceExhausted, loaded(lab, Archive(layers=[many])))
        cut = gzip.compress(docker_archive(Archive(layers=[layer(("f", "x" * 5000))])))[:-60]
        await refused(InvalidArgument, load(lab, cut))
        await refused(NotFound, images.inspect(ImageRef(reference="zeros")))
        assert os.listdir(tmp_path / "tmp") == []
