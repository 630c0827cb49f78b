"""Archives of other tools are loaded, ours are read by them, and a round trip changes no digest."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard
from tests import sample_image

from sagong.conformance.image_lab import ImageLab, fetch, load, read_text, uploaded
from sagong.contracts.image import (
    Image,
    ImageRef,
    LoadRequest,
    PrepareRequest,
    SaveRequest,
    TagRequest,
)
from sagong.errors import InvalidArgument, NotFound
from sagong.testing import local
from sagong_image_overlay import ImageOverlay

pytestmark = pytest.mark.root
NAME = "suite.test/archived:1"


def run(*command: str, directory: Path) -> str:
    """Run a tool of others, its state below the directory."""
    own = {"XDG_DATA_HOME": str(directory), "TMPDIR": str(directory)}
    if command[0] == "skopeo":
        own["_CONTAINERS_ROOTLESS_UID"] = "1"  # what it knows of blobs lies there, too
    done = subprocess.run(
        command,
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **own},
    )
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def needs(tool: str) -> pytest.MarkDecorator:
    """Left out where a tool is not installed."""
    return pytest.mark.skipif(shutil.which(tool) is None, reason=f"needs {tool}")


def storage(directory: Path, tool: str = "podman") -> tuple[str, ...]:
    """A tool's command with a store of its own."""
    own = ("--root", f"{directory}/store", "--runroot", f"{directory}/run")
    return (tool, *own, "--storage-driver", "vfs")


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> sample_image.Sample:
    """The busybox image."""
    return sample_image.build(tmp_path_factory.mktemp("sample"))


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory of a short name, as podman demands it."""
    with tempfile.TemporaryDirectory(prefix="sagong-a-", dir="/tmp") as directory:
        yield Path(directory)


async def loaded(images: ImageOverlay, raw: bytes, platform: str = "") -> Image:
    """Load an archive of one image."""
    upload = await uploaded(ImageLab(images), raw)
    request = LoadRequest(upload=upload, platform=platform)
    told = [item async for item in images.load(request)]
    return await images.inspect(ImageRef(reference=told[-1].image))


async def saved(images: ImageOverlay, *names: str) -> bytes:
    """Save images."""
    return await fetch(await images.save(SaveRequest(references=names)))


def tarred(directory: Path) -> bytes:
    """A directory as a tar."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(directory, arcname=".")
    return buffer.getvalue()


# Archives that other tools make of the sample.


def by_skopeo(form: str) -> Callable[[sample_image.Sample, Path], bytes]:
    """skopeo's archives."""

    def make(sample: sample_image.Sample, directory: Path) -> bytes:
        target = f"{form}:{directory}/out.tar:{NAME}"
        run("skopeo", "copy", "-q", f"oci:{sample.oci_layout}", target, directory=directory)
        return (directory / "out.tar").read_bytes()

    return make


def by_podman(form: str) -> Callable[[sample_image.Sample, Path], bytes]:
    """podman's archives."""

    def make(sample: sample_image.Sample, directory: Path) -> bytes:
        podman = storage(directory)
        run(*podman, "load", "-q", "-i", str(sample.docker_archive), directory=directory)
        run(*podman, "tag", sample.name, NAME, directory=directory)
        run(*podman, "save", "-q", f"--format={form}", "-o", "out.tar", NAME, directory=directory)
        return (directory / "out.tar").read_bytes()

    return make


def by_umoci(sample: sample_image.Sample, directory: Path) -> bytes:
    """An OCI layout of umoci's, as a tar."""
    shutil.copytree(sample.oci_layout, directory / "layout")
    index = directory / "layout/index.json"
    index.write_text(index.read_text().replace(sample.name, "old"))
    command = ("umoci", "config", "--image", "layout:old", "--tag", "new", "--config.cmd", "sh")
    run(*command, directory=directory)
    run("umoci", "rm", "--image", "layout:old", directory=directory)
    return tarred(directory / "layout")


def by_buildah(sample: sample_image.Sample, directory: Path) -> bytes:
    """buildah's OCI archive."""
    buildah = storage(directory, "buildah")
    source = f"docker-archive:{sample.docker_archive}"
    name = run(*buildah, "from", source, directory=directory).strip()
    run(*buildah, "config", "--cmd", "sh", name, directory=directory)
    run(*buildah, "commit", "-q", name, f"oci-archive:out.tar:{NAME}", directory=directory)
    return (directory / "out.tar").read_bytes()


MAKERS = [
    pytest.param(by_skopeo("docker-archive"), id="skopeo-docker", marks=needs("skopeo")),
    pytest.param(by_skopeo("oci-archive"), id="skopeo-oci", marks=needs("skopeo")),
    pytest.param(by_podman("docker-archive"), id="podman-docker", marks=needs("podman")),
    pytest.param(by_podman("oci-archive"), id="podman-oci", marks=needs("podman")),
    pytest.param(by_umoci, id="umoci", marks=needs("umoci")),
    pytest.param(by_buildah, id="buildah", marks=needs("buildah")),
]


@pytest.mark.parametrize("make", MAKERS)
async def test_archives_of_others_are_loaded_and_go_round(
    sample: sample_image.Sample,
    place: Path,
    make: Callable[[sample_image.Sample, Path], bytes],
) -> None:
    raw = make(sample, place)
    async with local(ImageOverlay) as images:
        found = await loaded(images, raw)
        assert [one.diff_id for one in found.layers[:2]] == list(sample.diff_ids)
        assert found.config.cmd == ("sh",)
        await images.prepare(PrepareRequest(id="c", image=found.id))
        text = await read_text(ImageLab(images), "c", "/etc/sample-release")
        assert text == "second layer\n"
        await images.tag(TagRequest(source=found.id, target=NAME))
        again = await saved(images, NAME)
        assert await saved(images, NAME) == again
    async with local(ImageOverlay) as images:
        back = await loaded(images, again)
        assert (back.id, back.manifest_digest, back.tags) == (
            found.id,
            found.manifest_digest,
            (NAME,),
        )
        assert await saved(images, NAME) == again


READERS = [
    pytest.param("skopeo", "docker-archive", marks=needs("skopeo")),
    pytest.param("skopeo", "oci-archive", marks=needs("skopeo")),
    pytest.param("podman", "", marks=needs("podman")),
    pytest.param("umoci", "", marks=needs("umoci")),
]


@pytest.mark.parametrize(("tool", "form"), READERS)
async def test_others_read_our_archives(
    sample: sample_image.Sample, place: Path, tool: str, form: str
) -> None:
    async with local(ImageOverlay) as images:
        found = await loaded(images, sample.docker_archive.read_bytes())
        await images.tag(TagRequest(source=found.id, target=NAME))
        (place / "ours.tar").write_bytes(await saved(images, NAME))
    if tool == "skopeo":
        name = f":{NAME}" if form == "docker-archive" else ""
        source = f"{form}:{place}/ours.tar{name}"
        raw = run(tool, "inspect", "--config", "--raw", source, directory=place)
        assert json.loads(raw)["rootfs"]["diff_ids"] == list(sample.diff_ids)
    elif tool == "podman":
        podman = storage(place)
        run(*podman, "load", "-q", "-i", "ours.tar", directory=place)
        told = run(*podman, "image", "inspect", NAME, "--format", "{{.Id}}", directory=place)
        assert told.strip() == sample.image_id.removeprefix("sha256:")
    else:
        with tarfile.open(place / "ours.tar") as tar:
            tar.extractall(place / "layout", filter="data")
        run(tool, "unpack", "--image", "layout:1", "bundle", directory=place)
        root = place / "bundle/rootfs"
        assert (root / "etc/sample-release").read_text() == "second layer\n"


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "xz": lambda raw: lzma.compress(raw, preset=0),
    "bzip2": lambda raw: bz2.compress(raw, 1),
    "zstd": lambda raw: zstandard.ZstdCompressor(1).compress(raw),
}


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("whole", [True, False], ids=["archive", "layers"])
async def test_every_compression(
    sample: sample_image.Sample, place: Path, packer: str, whole: bool
) -> None:
    raw = sample.docker_archive.read_bytes()
    packed = PACKERS[packer](raw) if whole else with_layers(raw, PACKERS[packer])
    async with local(ImageOverlay) as images:
        found = await loaded(images, packed)
        assert found.id == sample.image_id
        await images.prepare(PrepareRequest(id="c", image=found.id))
        text = await read_text(ImageLab(images), "c", "/etc/sample-release")
        assert text == "second layer\n"


def with_layers(raw: bytes, pack: Callable[[bytes], bytes]) -> bytes:
    """The archive with each layer packed."""
    buffer = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(raw)) as old,
        tarfile.open(fileobj=buffer, mode="w") as new,
    ):
        for info in old:
            file = old.extractfile(info)
            data = file.read() if file else b""
            data = pack(data) if info.name.endswith("layer.tar") else data
            info.size = len(data)
            new.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


async def test_docker_s_old_archives_share_layers_by_links(sample: sample_image.Sample) -> None:
    """Docker before 25 saves a layer that two images share as a link to the other's file."""
    buffer = io.BytesIO()
    with tarfile.open(sample.docker_archive) as old, tarfile.open(fileobj=buffer, mode="w") as new:
        members = {info.name: old.extractfile(info) for info in old}
        raw = {name: file.read() for name, file in members.items() if file}
        (saved_one,) = json.loads(raw["manifest.json"])
        config = json.loads(raw[saved_one["Config"]])
        config["author"] = "another image"
        other = json.dumps(config).encode()
        links = [f"other{number}/layer.tar" for number in range(len(saved_one["Layers"]))]
        listed = [saved_one, {"Config": "other.json", "RepoTags": [NAME], "Layers": links}]
        files = {**raw, "other.json": other, "manifest.json": json.dumps(listed).encode()}
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            new.addfile(info, io.BytesIO(data))
        for link, target in zip(links, saved_one["Layers"]):
            info = tarfile.TarInfo(link)
            info.type, info.linkname = tarfile.SYMTYPE, f"../{target}"
            new.addfile(info)
    async with local(ImageOverlay) as images:
        told = await load(ImageLab(images), buffer.getvalue())
        assert [item.reference for item in told if item.image] == [sample.name, NAME]
        found = await images.inspect(ImageRef(reference=NAME))
        assert found.author == "another image"


async def test_a_platform_is_chosen_of_a_layout(sample: sample_image.Sample, place: Path) -> None:
    shutil.copytree(sample.oci_layout, place / "layout")
    blobs = place / "layout/blobs/sha256"
    top = json.loads((place / "layout/index.json").read_text())["manifests"][0]
    manifest = json.loads((blobs / top["digest"][7:]).read_text())
    config = json.loads((blobs / manifest["config"]["digest"][7:]).read_text())
    listed = [{**top, "platform": {"os": "linux", "architecture": config["architecture"]}}]
    for architecture, variant in (("arm", "v7"), ("s390x", "")):
        raw = json.dumps({**config, "architecture": architecture, "variant": variant}).encode()
        own = sample_image._digest(raw)
        (blobs / own[7:]).write_bytes(raw)
        changed = {**manifest["config"], "digest": own, "size": len(raw)}
        raw = json.dumps({**manifest, "config": changed}).encode()
        own = sample_image._digest(raw)
        (blobs / own[7:]).write_bytes(raw)
        facts = {"os": "linux", "architecture": architecture}
        facts |= {"variant": variant} if variant else {}
        described = {**top, "digest": own, "size": len(raw), "platform": facts}
        described.pop("annotations", None)
        listed.append(described)
    kind = "application/vnd.oci.image.index.v1+json"
    raw = json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": listed}).encode()
    own = sample_image._digest(raw)
    (blobs / own[7:]).write_bytes(raw)
    note = {"org.opencontainers.image.ref.name": NAME}
    described = {"mediaType": kind, "digest": own, "size": len(raw), "annotations": note}
    index = {"schemaVersion": 2, "manifests": [described]}
    (place / "layout/index.json").write_text(json.dumps(index))
    archive = tarred(place / "layout")
    async with local(ImageOverlay) as images:
        assert (await loaded(images, archive)).architecture == config["architecture"]
        arm = await loaded(images, archive, "linux/arm/v7")
        assert (arm.architecture, arm.variant, arm.tags) == ("arm", "v7", (NAME,))
        with pytest.raises(NotFound, match="no manifest for linux/riscv64"):
            await loaded(images, archive, "linux/riscv64")
        request = SaveRequest(references=(NAME,), platform="linux/arm64")
        with pytest.raises(NotFound, match="wanted linux/arm64, actual: linux/arm/v7"):
            await images.save(request)


async def test_archives_that_lack_something_are_refused(sample: sample_image.Sample) -> None:
    whole = sample.docker_archive.read_bytes()
    async with local(ImageOverlay) as images:
        for left_out in ("layer.tar", ".json"):
            buffer = io.BytesIO()
            with tarfile.open(fileobj=io.BytesIO(whole)) as old:
                with tarfile.open(fileobj=buffer, mode="w") as new:
                    for info in old:
                        if not info.name.endswith(left_out) or info.name == "manifest.json":
                            new.addfile(info, old.extractfile(info))
            with pytest.raises(InvalidArgument, match="the archive has no file"):
                await loaded(images, buffer.getvalue())
        for cut in (len(whole) // 2, len(whole) // 3):
            with pytest.raises(InvalidArgument):
                await loaded(images, whole[:cut])
