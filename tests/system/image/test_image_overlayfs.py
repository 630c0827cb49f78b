"""image_overlay and the kernel's overlayfs agree: what one writes the other reads alike."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from sagong.conformance.image_lab import (
    Archive,
    ImageLab,
    entry,
    fetch,
    layer,
    lent,
    loaded,
    read_tar,
    written,
)
from sagong.contracts.image import (
    ArchiveRequest,
    CommitRequest,
    Images,
    Prepared,
    PrepareRequest,
    RootRef,
)
from sagong.testing import local
from sagong_image_overlay import ImageOverlay

pytestmark = pytest.mark.root


def inside(prepared: Prepared, script: str) -> str:
    """Run a script on the mounted root filesystem, in a mount namespace of its own."""
    options = ",".join(prepared.root.options)
    mount = f"mount -t overlay overlay -o '{options}' /mnt"
    done = subprocess.run(
        ["unshare", "-m", "sh", "-ec", f"{mount}; cd /mnt; {script}"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


LISTING = (
    "find . -mindepth 1 | LC_ALL=C sort | while read f; do "
    'stat -c "%n %f %u %g %t %T %Y" "$f"; [ -f "$f" ] && [ ! -L "$f" ] && cat "$f"; '
    '[ -L "$f" ] && readlink "$f"; true; done'
)


def tarred(raw: bytes, root: Path) -> None:
    """Unpack an exported tar by GNU tar."""
    subprocess.run(
        ["tar", "-xpf", "-", "--numeric-owner", "-C", str(root)], input=raw, check=True, timeout=60
    )


def listed(root: Path) -> str:
    """The same listing of a plain directory."""
    done = subprocess.run(
        ["sh", "-ec", LISTING], cwd=root, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


def layers() -> list[bytes]:
    """Layers that delete, replace, hide and link in every way."""
    return [
        layer(
            "a/",
            ("a/one", "1"),
            ("a/two", "2"),
            "a/sub/",
            ("a/sub/x", "x"),
            "b/",
            ("b/file", "file"),
            ("c", "a file"),
            "d/",
            ("d/below", "below"),
            (entry("own", 0o4755, uid=1000, gid=1001), b"own"),
            (entry("hard", 0o4755, tarfile.LNKTYPE, linkname="own"), b""),
            (entry("tmp", 0o1777, tarfile.DIRTYPE), b""),
            "usr/",
            "usr/lib/",
            ("usr/lib/old", "old"),
            (entry("lib", 0o777, tarfile.SYMTYPE, linkname="usr/lib"), b""),
        ),
        layer(
            "a/",
            ("a/.wh.one", ""),
            (entry("a/sub", 0o700, tarfile.DIRTYPE), b""),
            ("a/sub/.wh..wh..opq", ""),
            ("a/sub/y", "y"),
            (".wh.b", ""),
            "b/",
            ("b/fresh", "fresh"),
            "c/",
            ("c/now", "a directory"),
            ("d", "now a file"),
            ("tmp/made", "made"),
            ("lib/new", "new"),
            (entry("copy", 0o644, tarfile.LNKTYPE, linkname="own"), b""),
        ),
        layer(".wh.nothing", ("a/three", "3"), ("a/.wh.two", "")),
    ]


async def exported(images: Images, identity: str) -> bytes:
    """A container's files as a tar."""
    return await fetch(await images.export(RootRef(id=identity)))


async def test_the_export_is_what_is_mounted(tmp_path: Path) -> None:
    async with local(ImageOverlay) as images:
        lab = ImageLab(images)
        prepared = await lent(lab, "views", Archive(layers=layers()))
        mounted = inside(prepared, LISTING)
        tarred(await exported(images, "views"), tmp_path)
        assert listed(tmp_path) == mounted
        for line in ("3", "y", "fresh", "a directory", "now a file", "new", "old"):
            assert line in mounted
        for name in ("./a/one", "./a/two", "./a/sub/x", "./b/file", "./d/below"):
            assert f"{name} " not in mounted
        assert "./tmp 43ff " in mounted and "./lib a1ff " in mounted


async def test_what_a_container_does_is_told_and_committed(tmp_path: Path) -> None:
    async with local(ImageOverlay) as images:
        lab = ImageLab(images)
        prepared = await lent(lab, "works", Archive(layers=layers()))
        after = inside(
            prepared,
            "rm -r a/sub; mkdir a/sub; echo n > a/sub/new; rm c/now; echo more >> d; "
            "mkdir e; ln d e/hard; ln -s /d e/soft; mknod e/node c 1 3; mkfifo e/fifo; "
            "mv own moved; chmod 700 tmp; touch -d @1000000000 e/fifo; " + LISTING,
        )
        changes = (await images.changes(RootRef(id="works"))).changes
        told = {change.path: change.kind for change in changes}
        assert told["/a/sub/y"] == 2 and told["/a/sub/new"] == 1 and told["/c/now"] == 2
        assert told["/d"] == 0 and told["/e/node"] == 1 and told["/tmp"] == 0
        assert told["/own"] == 2 and told["/moved"] == 1 and told["/a"] == 0
        made = await images.commit(CommitRequest(id="c", container="works"))
        again = await images.prepare(PrepareRequest(id="after", image=made.id))
        assert inside(again, LISTING) == after
        tarred(await exported(images, "works"), tmp_path)
        assert listed(tmp_path) == after


async def test_what_is_extracted_is_mounted(tmp_path: Path) -> None:
    async with local(ImageOverlay) as images:
        lab = ImageLab(images)
        prepared = await lent(lab, "extracts", Archive(layers=layers()))
        inside(prepared, "rm -r a; rm c/now; mkdir gone; rmdir gone")
        raw = layer("a/", ("a/back", "back"), ("lib/more", "more"), ("deep/er/file", "deep"))
        await written(lab, ArchiveRequest(id="extracts", path="/"), raw)
        mounted = inside(prepared, LISTING)
        tarred(await exported(images, "extracts"), tmp_path)
        assert listed(tmp_path) == mounted
        assert "./a/back " in mounted and "./a/three " not in mounted
        assert "./usr/lib/more " in mounted and "./lib a1ff " in mounted
        assert "deep" in mounted


async def test_archives_of_an_attacker_cannot_forge_overlay_s_marks() -> None:
    async with local(ImageOverlay) as images:
        lab = ImageLab(images)
        forged = entry("usr", 0o755, tarfile.DIRTYPE)
        forged.pax_headers = {
            "SCHILY.xattr.user.overlay.opaque": "y",
            "SCHILY.xattr.trusted.overlay.redirect": "/etc",
            "SCHILY.xattr.user.honest": "yes",
        }
        base = layer("usr/", ("usr/file", "still here"))
        prepared = await lent(lab, "forged", Archive(layers=[base, layer((forged, b""))]))
        assert inside(prepared, "cat usr/file") == "still here"
        top = next(path for path in prepared.lower if os.path.isdir(f"{path}/usr"))
        assert os.listxattr(f"{top}/usr") == ["user.honest"]


async def test_attributes_and_holes_survive(tmp_path: Path) -> None:
    async with local(ImageOverlay) as images:
        lab = ImageLab(images)
        file = tmp_path / "sparse"
        with file.open("wb") as hole:
            hole.seek(8 << 20)
            hole.write(b"end")
        os.setxattr(file, "user.note", b"kept")
        made = subprocess.run(
            ["tar", "-cSf", "-", "--xattrs", "--format=posix", "-C", str(tmp_path), "sparse"],
            capture_output=True,
            check=True,
        )
        gnu = subprocess.run(
            ["tar", "-cSf", "-", "--format=gnu", "-C", str(tmp_path), "sparse"],
            capture_output=True,
            check=True,
        )
        for number, raw in enumerate((made.stdout, gnu.stdout)):
            prepared = await lent(lab, f"holes-{number}", Archive(layers=[raw]))
            path = next(
                f"{top}/sparse" for top in prepared.lower if os.path.exists(f"{top}/sparse")
            )
            facts = os.stat(path)
            assert facts.st_size == (8 << 20) + 3 and facts.st_blocks * 512 < 1 << 20
            assert Path(path).read_bytes().rstrip(b"\0").endswith(b"end")
        members = read_tar(await exported(images, "holes-0"))
        assert members["sparse"][0].pax_headers["SCHILY.xattr.user.note"] == "kept"


async def test_what_is_copied_up_for_a_link_keeps_its_time() -> None:
    async with local(ImageOverlay) as images:
        lab = ImageLab(images)
        below = layer(
            ("file", "x"),
            (entry("soft", 0o777, tarfile.SYMTYPE, linkname="file"), b""),
            (entry("pipe", 0o600, tarfile.FIFOTYPE, uid=7), b""),
        )
        names = ("file", "soft", "pipe")
        above = layer(*((entry(f"{n}2", 0o600, tarfile.LNKTYPE, linkname=n), b"") for n in names))
        prepared = await lent(lab, "times", Archive(layers=[below, above]))
        found = inside(prepared, "stat -c '%n %Y %h %u' file soft pipe").splitlines()
        when = entry("any", 0o600).mtime
        assert found == [f"file {when} 2 0", f"soft {when} 2 0", f"pipe {when} 2 7"]


async def test_a_hundred_layers_fit_into_one_mount() -> None:
    async with local(ImageOverlay) as images:
        lab = ImageLab(images)
        many = [layer((f"f{number}", str(number))) for number in range(100)]
        prepared = await lent(lab, "hundred", Archive(layers=many))
        assert inside(prepared, "ls | grep -c ^f").strip() == "100"


async def test_file_capabilities_are_kept(tmp_path: Path) -> None:
    value = b"\x01\x00\x00\x02\x00\x20\x00\x00" + bytes(12)
    info = tarfile.TarInfo("ping")
    info.mode = 0o755
    info.pax_headers = {"SCHILY.xattr.security.capability": value.decode("latin-1")}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info)
    async with local(ImageOverlay) as images:
        lab = ImageLab(images)
        prepared = await lent(lab, "ping", Archive(layers=[buffer.getvalue()]))
        path = next(f"{top}/ping" for top in prepared.lower if os.path.exists(f"{top}/ping"))
        assert os.getxattr(path, "security.capability") == value


async def test_nothing_runs_when_nothing_is_done() -> None:
    async with local(ImageOverlay) as images:
        lab = ImageLab(images)
        await loaded(lab, Archive(layers=[layer(("f", "x"))]))
        images._store.workshop._end_idle()
        found = subprocess.run(
            ["ps", "--ppid", str(os.getpid()), "-o", "args="], capture_output=True, text=True
        )
        assert "sagong_image_overlay" not in found.stdout and sys.executable
