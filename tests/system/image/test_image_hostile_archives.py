"""Hostile archives: whatever they hold, nothing outside is touched, nothing crashes or fills up."""

from __future__ import annotations

import asyncio
import bz2
import gzip
import io
import json
import os
import random
import stat
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zstandard
from tests.system.image.odd_registry import INDEX, MANIFEST, digest

from sagong.conformance.image_lab import (
    Archive,
    ImageLab,
    docker_archive,
    entry,
    layer,
    lent,
    load,
    loaded,
    refused,
    uploaded,
    written,
)
from sagong.contracts.image import (
    ArchiveRequest,
    ImageQuery,
    ImportRequest,
    PrepareRequest,
    RootRef,
)
from sagong.errors import InvalidArgument, ResourceExhausted, SagongError
from sagong.testing import local
from sagong_image_overlay import ImageOverlay

pytestmark = pytest.mark.root
PLACES = (
    "a", "b", "a/b", "a/b/c", "l", "l/x", "l/../x", "../x", "../../../../tmp/sagong-outside",
    "/tmp/sagong-outside", "/etc/passwd", "a/../../x", ".", "./", "..", "", "a//b/", "l/b/../../..",
    "x\udcff\udc80y", "n" * 255, "n" * 256, "d/" * 200 + "f",
)  # fmt: skip
TARGETS = (
    "/",
    "..",
    "../..",
    "../../../../../../..",
    "a",
    "a/b",
    "l",
    "/tmp",
    "/etc/passwd",
    ".",
    "",
)
KINDS = (
    tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE,
    tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.CONTTYPE, b"W",
)  # fmt: skip
WHITEOUTS = (".wh.", ".wh...", ".wh.a", ".wh.b", ".wh..wh..opq", ".wh..wh.plnk", ".wh.l", ".wh.x")


def headers(chance: random.Random) -> tuple[Any, bytes]:
    """One hostile member."""
    name = chance.choice(PLACES)
    kind = chance.choice(KINDS)
    if chance.random() < 0.3:
        name = f"{name}/{chance.choice(WHITEOUTS)}".lstrip("/")
        kind = chance.choice((tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE))
    attributes = {
        "SCHILY.xattr.trusted.overlay.opaque": "y",
        "SCHILY.xattr.user.overlay.opaque": "y",
    }
    attributes |= {"SCHILY.xattr.user.kept": "v", "SCHILY.xattr.security.selinux": "x"}
    facts: dict[str, Any] = {
        "linkname": chance.choice(TARGETS),
        "uid": chance.choice((0, 1000, 65534, (1 << 31))),
        "mtime": chance.choice((0, 1_600_000_000, -1, 1 << 33)),
        "pax_headers": attributes if chance.random() < 0.2 else {},
        "devmajor": chance.choice((0, 1, 8)),
        "devminor": chance.choice((0, 3)),
    }
    data = b"hostile" if kind in (tarfile.REGTYPE, tarfile.CONTTYPE) else b""
    return entry(name, chance.choice((0o644, 0o4755, 0o1777, 0)), kind, **facts), data


def outside() -> set[tuple[str, int, int]]:
    """What lies where hostile names lead to."""
    found = set()
    for place in ("/", "/tmp", "/etc"):
        for name in ("x", "a", "b", "passwd", "sagong-outside"):
            path = Path(place, name)
            if os.path.lexists(path):
                status = path.lstat()
                found.add((str(path), status.st_ino, status.st_size))
    return found


@pytest.mark.parametrize("seed", range(6))
async def test_nothing_outside_is_touched(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    before = outside()
    async with local(ImageOverlay, data=tmp_path) as images:
        lab = ImageLab(images)
        kept = set(os.listdir(tmp_path))
        await lent(lab, "target", Archive(layers=[layer("a/", ("a/b", "b"))]))
        for number in range(12):
            members = [headers(chance) for _ in range(chance.randrange(1, 12))]
            layers = [layer(*members), layer(*[headers(chance) for _ in range(4)])]
            try:
                found = await loaded(lab, Archive(layers=layers))
                name = f"c{number}"
                await images.prepare(PrepareRequest(id=name, image=found.id))
                msgspec.msgpack.encode(await images.changes(RootRef(id=name)))
                told = await images.directory(ArchiveRequest(id=name, path="/"))
                msgspec.msgpack.encode(told)
            except (InvalidArgument, ResourceExhausted) as error:
                assert error.message and "Traceback" not in error.message
            try:
                await written(lab, ArchiveRequest(id="target", path="/a"), layers[0])
            except (InvalidArgument, ResourceExhausted):
                pass
        assert set(os.listdir(tmp_path)) <= kept | {"litter", "index.json"}
        for root, _, files in os.walk(tmp_path / "l"):
            for one in files:
                path = Path(root, one)
                keys = os.listxattr(path, follow_symlinks=False) if not path.is_symlink() else ()
                assert not any(key.startswith("trusted.") for key in keys)
    assert outside() == before


def raw_member(name: bytes, size: bytes, kind: bytes = b"0", data: bytes = b"") -> bytes:
    """A header with a size field as it stands, and what follows it."""
    field = size.ljust(12, b"\0")
    head = name.ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + field + b"0" * 11 + b"\0"
    rest = kind + bytes(100) + b"ustar\x0000" + bytes(247)
    total = sum(head) + 8 * 32 + sum(rest)
    return head + b"%06o\0 " % total + rest + data


def pax(*records: tuple[str, str], kind: bytes = b"x") -> bytes:
    """A PAX header of these records."""
    body = b""
    for key, value in records:
        text = f" {key}={value}\n".encode()
        length = len(text) + len(str(len(text) + len(str(len(text)))))
        body += f"{length}".encode() + text
    padded = body + bytes(-len(body) % 512)
    return raw_member(b"pax", b"%011o" % len(body), kind, padded)


ENDING = bytes(1024)
ODD: dict[str, bytes] = {
    "a negative size": raw_member(b"f", b"\xff" * 12) + ENDING,
    "a size without end": raw_member(b"f", b"\x80" + b"\xff" * 11) + ENDING,
    "a negative size in PAX": pax(("size", "-1")) + raw_member(b"f", b"0") + ENDING,
    "a huge extension": raw_member(b"f", b"77777777777", b"x") + ENDING,
    "a PAX record that is longer than its header": raw_member(
        b"p", b"20", b"x", b"99999999 path=x\n".ljust(512, b"\0")
    ),
    "an unknown kind": raw_member(b"f", b"0", b"Z") + ENDING,
    "a wrong checksum": raw_member(b"f", b"0")[:150] + b"9" + raw_member(b"f", b"0")[151:],
    "half a header": raw_member(b"f", b"0")[:300],
    "content that is missing": raw_member(b"f", b"00000001000"),
    "nothing but noise": bytes(range(256)) * 8,
}


@pytest.mark.parametrize("name", ODD)
async def test_odd_archives_are_refused(tmp_path: Path, name: str) -> None:
    async with local(ImageOverlay, data=tmp_path) as images:
        await refused(SagongError, loaded(ImageLab(images), Archive(layers=[ODD[name]])))
        assert (await images.list(ImageQuery(all=True))).images == ()


def endless(pack: Any, piece: bytes, count: int) -> bytes:
    """Much of little, compressed."""
    return b"".join([*(pack.compress(piece) for _ in range(count)), pack.flush()])


async def imported(images: ImageOverlay, raw: bytes) -> None:
    """Import a root filesystem."""
    upload = await uploaded(ImageLab(images), raw)
    async for _ in images.import_(ImportRequest(upload=upload)):
        pass


async def test_bombs_are_cut_off(tmp_path: Path) -> None:
    """By their ratio, by their size, by their number of headers and by what follows their end."""
    zeros = bytes(1 << 20)
    head = raw_member(b"zeros", b"%011o" % (3 << 30))
    config = {"max_layer_size": 64 << 20, "max_layer_entries": 1000, "max_layer_ratio": 2000}
    async with local(ImageOverlay, data=tmp_path, config=config) as images:
        lab = ImageLab(images)
        bomb = bz2.BZ2Compressor(1)
        packed = bomb.compress(head) + endless(bomb, zeros, 20)
        assert len(packed) < 20_000
        error = await refused(ResourceExhausted, load(lab, packed))
        assert "unpacks to more than" in error.message
        trailing = endless(zstandard.ZstdCompressor(1).compressobj(), zeros, 200)
        error = await refused(ResourceExhausted, load(lab, trailing))
        assert "raise max_layer_size" in error.message
        many = gzip.compress(pax(("comment", "c" * 400)) * 70_000)
        await refused(SagongError, load(lab, many))
        deep = layer(*(("/".join([f"{n}"] + ["d"] * 900 + ["f"]), "") for n in range(3)))
        error = await refused(ResourceExhausted, loaded(lab, Archive(layers=[deep])))
        assert "needs more than 1000 directories" in error.message
    config = {"max_layer_ratio": 1100}
    async with local(ImageOverlay, data=tmp_path, config=config) as images:
        stream = zstandard.ZstdCompressor(1).compressobj()
        raw = stream.compress(head) + endless(stream, zeros, 1100)
        error = await refused(ResourceExhausted, load(ImageLab(images), raw))
        assert "1100 times its size" in error.message
        assert not os.listdir(tmp_path / "tmp")


async def test_files_of_holes_take_no_room(tmp_path: Path) -> None:
    """A sparse file of a terabyte is copied up as what it is."""
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as file:
        file.write(b"begin")
        file.truncate(200 << 30)
    archive = tmp_path / "sparse.tar"
    subprocess.run(
        ["tar", "-C", str(tmp_path), "--sparse", "-cf", str(archive), "sparse"], check=True
    )
    data = tmp_path / "data"
    data.mkdir()
    async with local(ImageOverlay, data=data) as images:
        lab = ImageLab(images)
        await lent(lab, "holes", Archive(layers=[archive.read_bytes()]))
        link = (entry("hard", 0o644, tarfile.LNKTYPE, linkname="sparse"), b"")
        await written(lab, ArchiveRequest(id="holes", path="/"), layer(link))
        found = await images.stat(ArchiveRequest(id="holes", path="/hard"))
        assert found.size == 200 << 30
        (copied,) = (data / "c/holes/diff").glob("hard")
        assert copied.stat().st_blocks < 1000


async def test_trees_without_end_are_removed(tmp_path: Path) -> None:
    """A container can nest directories deeper than any path; it is released, counted, and gone."""
    async with local(ImageOverlay, data=tmp_path) as images:
        lab = ImageLab(images)
        prepared = await lent(lab, "deep", Archive(layers=[layer(("f", "x"))]))
        nest = (
            "import os, sys\nos.chdir(sys.argv[1])\n"
            "for _ in range(1300):\n    os.mkdir('d' * 40)\n    os.chdir('d' * 40)\n"
        )
        subprocess.run([sys.executable, "-c", nest, prepared.upper], check=True)
        usage = await images.usage()
        assert dict(usage.containers)["deep"] == 0
        error = await refused(ResourceExhausted, images.changes(RootRef(id="deep")))
        assert "bytes of names" in error.message
        await images.release(RootRef(id="deep"))
        for _ in range(1200):
            if not os.listdir(tmp_path / "trash"):
                return
            await asyncio.sleep(0.05)
        raise AssertionError("the trash is never empty")


async def test_deep_paths_of_archives(tmp_path: Path) -> None:
    deep = "d/" * 700 + "f"
    async with local(ImageOverlay, data=tmp_path) as images:
        lab = ImageLab(images)
        found = await loaded(lab, Archive(layers=[layer((deep, "x"))]))
        await images.prepare(PrepareRequest(id="c", image=found.id))
        assert (await images.stat(ArchiveRequest(id="c", path=f"/{deep}"))).size == 1
        await refused(InvalidArgument, loaded(lab, Archive(layers=[layer(("d/" * 2100, "x"))])))


async def test_names_that_are_no_utf8_are_told_as_well_as_can_be(tmp_path: Path) -> None:
    odd = os.fsdecode(b"caf\xe9")
    async with local(ImageOverlay, data=tmp_path) as images:
        lab = ImageLab(images)
        prepared = await lent(lab, "odd", Archive(layers=[layer((entry(odd), b"x"))]))
        Path(prepared.upper, os.fsdecode(b"n\xfe")).write_text("x")
        changes = await images.changes(RootRef(id="odd"))
        assert msgspec.msgpack.encode(changes) and changes.changes[0].path == "/n\ufffd"
        found = await images.directory(ArchiveRequest(id="odd", path="/"))
        assert msgspec.msgpack.encode(found)
        assert "caf\ufffd" in {one.name for one in found.entries}


async def test_special_files_keep_what_they_are(tmp_path: Path) -> None:
    members = (
        (entry("setuid", 0o4755), b"x"),
        (entry("null", 0o666, tarfile.CHRTYPE, devmajor=1, devminor=3), b""),
        (entry("loop", 0o660, tarfile.BLKTYPE, devmajor=7, devminor=9), b""),
        (entry("pipe", 0o644, tarfile.FIFOTYPE), b""),
    )
    async with local(ImageOverlay, data=tmp_path) as images:
        lab = ImageLab(images)
        prepared = await lent(lab, "special", Archive(layers=[layer(*members)]))
        (top,) = [path for path in prepared.lower if Path(path, "setuid").exists()]
        found = {name: os.lstat(Path(top, name)) for name in ("setuid", "null", "loop", "pipe")}
        assert stat.S_IMODE(found["setuid"].st_mode) == 0o4755
        assert found["null"].st_rdev == os.makedev(1, 3) and stat.S_ISCHR(found["null"].st_mode)
        assert found["loop"].st_rdev == os.makedev(7, 9) and stat.S_ISBLK(found["loop"].st_mode)
        assert stat.S_ISFIFO(found["pipe"].st_mode)
        whiteout = (entry("w", 0, tarfile.CHRTYPE, devmajor=0, devminor=0), b"")
        error = await refused(InvalidArgument, loaded(lab, Archive(layers=[layer(whiteout)])))
        assert "device 0:0" in error.message


async def test_archives_of_docker_save_can_lead_nowhere(tmp_path: Path) -> None:
    """Links of an archive that lead out of it name no file of the machine."""
    image = Archive(layers=[layer(("f", "x"))])
    raw = docker_archive(image)
    for target in ("/etc/passwd", "../../../../../../etc/passwd", "manifest.json/.."):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=io.BytesIO(raw)) as old:
            with tarfile.open(fileobj=buffer, mode="w") as new:
                for info in old:
                    if info.name.endswith("layer.tar"):
                        info.type, info.linkname, info.size = tarfile.SYMTYPE, target, 0
                        new.addfile(info)
                    else:
                        new.addfile(info, old.extractfile(info))
        async with local(ImageOverlay, data=tmp_path) as images:
            error = await refused(InvalidArgument, load(ImageLab(images), buffer.getvalue()))
            assert "the archive has no file" in error.message


async def test_documents_of_archives_are_bounded(tmp_path: Path) -> None:
    """A config is held in memory: one of gigabytes would be all there is."""
    zeros = io.BytesIO()
    with tarfile.open(fileobj=zeros, mode="w") as archive:
        for name, size in (("config.json", 9 << 20), ("layer.tar", 10)):
            archive.addfile(entry(name, size=size), io.BytesIO(bytes(size)))
        for config in ("config.json", "no\\u0000name"):
            text = f'[{{"Config": "{config}", "Layers": ["layer.tar"]}}]'.encode()
            info = entry("manifest.json", size=len(text))
            archive.addfile(info, io.BytesIO(text))
    raw = zeros.getvalue()
    small = {"mediaType": MANIFEST, "digest": digest(b"{}"), "size": 2}
    facts = {"schemaVersion": 2, "manifests": [small], "filling": "x" * (4 << 20)}
    large = json.dumps(facts).encode()
    named = {"mediaType": INDEX, "digest": digest(large), "size": len(large)}
    first = raw[: raw.rindex(b"manifest.json") // 512 * 512] + bytes(1024)
    async with local(ImageOverlay, data=tmp_path) as images:
        for archive_bytes, words in ((first, "has more than"), (raw, "has no file")):
            error = await refused(InvalidArgument, load(ImageLab(images), archive_bytes))
            assert words in error.message
        many = json.dumps({"schemaVersion": 2, "manifests": [named] * 80}).encode()
        blobs = [(entry(f"blobs/sha256/{digest(one)[7:]}"), one) for one in (large, b"{}")]
        again = layer((entry("index.json"), many), *blobs)
        error = await refused(ResourceExhausted, load(ImageLab(images), again))
        assert "load its images apart" in error.message
        assert os.listdir(tmp_path / "tmp") == []


async def test_devices_are_told_of_and_never_opened(tmp_path: Path) -> None:
    """Opening one can do something; of one without a driver it can't be done."""
    device = tmp_path / "device"
    os.mknod(device, stat.S_IFCHR | 0o600, os.makedev(511, 7))
    data = tmp_path / "data"
    data.mkdir()
    async with local(ImageOverlay, data=data) as images:
        lab = ImageLab(images)
        prepared = await lent(lab, "d", Archive(layers=[layer(("f", "x"), ("dev", "x"))]))
        request = ArchiveRequest(id="d", path="/dev", mounts=(("/dev", str(device)),))
        assert stat.S_ISCHR((await images.stat(request)).mode)
        os.rename(device, Path(prepared.upper, "new"))
        await written(lab, ArchiveRequest(id="d", path="/"), layer(("new", "file")))
        assert Path(prepared.upper, "new").read_text() == "file"
