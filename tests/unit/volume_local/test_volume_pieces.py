"""Options, subpaths, seeding's corners, and a crash between two steps."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sagong.contracts.volume import PublishRequest, Volume, VolumeRef
from sagong.errors import FailedPrecondition, Internal, InvalidArgument
from sagong.linux import mounts, syscalls
from sagong.testing import local
from sagong_volume_local import VolumeLocal
from sagong_volume_local.backing import backing_of, limited
from sagong_volume_local.places import open_inside, plain_subpath
from sagong_volume_local.seeding import seed

root_only = pytest.mark.root


def volume(**options: str) -> Volume:
    return Volume(name="v", options=tuple(options.items()))


def test_what_stands_behind_options() -> None:
    assert backing_of(volume()).kind == "directory"
    bind = backing_of(volume(type="none", device="/srv/x", o="bind"))
    assert (bind.kind, bind.device) == ("bind", "/srv/x")
    tmpfs = backing_of(volume(type="tmpfs", device="tmpfs", o="size=1m,ro,uid=7"))
    assert (tmpfs.flags, tmpfs.data) == (mounts.MS_RDONLY, "uid=0,gid=0,size=1m,uid=7")
    nfs = backing_of(volume(type="nfs", device=":/x", o="addr=192.0.2.1,rw,noexec"))
    assert (nfs.type, nfs.flags, nfs.data) == ("nfs", mounts.MS_NOEXEC, "addr=192.0.2.1")


def test_sizes() -> None:
    assert limited(volume(size="10g")) == 10 << 30
    assert limited(Volume(name="v", capacity=5)) == 5
    with pytest.raises(InvalidArgument, match="size"):
        limited(volume(size="much"))


@pytest.mark.parametrize("subpath", ["..", "a/../b", "/a", "a\0b"])
def test_subpaths_that_lead_out_are_refused(subpath: str) -> None:
    with pytest.raises(InvalidArgument):
        plain_subpath(subpath)


@pytest.fixture
def here(tmp_path: Path) -> Iterator[int]:
    """A directory as a descriptor."""
    (tmp_path / "inside").mkdir()
    descriptor = os.open(tmp_path / "inside", os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def test_links_are_followed_inside_only(here: int, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    os.mkdir("real", dir_fd=here)
    os.symlink("real", "good", dir_fd=here)
    os.symlink(str(tmp_path / "outside"), "bad", dir_fd=here)
    os.symlink("nothing", "loose", dir_fd=here)
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    good = open_inside(here, ("good", "new"), "good/new", make=True)
    assert (tmp_path / "inside" / "real" / "new").is_dir()
    os.close(good)
    for parts in (("bad",), ("loose",), ("file", "x")):
        with pytest.raises(FailedPrecondition):
            open_inside(here, parts, "/".join(parts), make=True)
    assert not list((tmp_path / "outside").iterdir())


@pytest.fixture
def copied(tmp_path: Path) -> Iterator[tuple[Path, Path, int]]:
    """Layers' parent, target, and the target's descriptor."""
    (tmp_path / "layers").mkdir()
    (tmp_path / "target").mkdir()
    descriptor = os.open(tmp_path / "target", os.O_RDONLY)
    yield tmp_path / "layers", tmp_path / "target", descriptor
    os.close(descriptor)


def test_holes_stay_holes_and_attributes_stay(copied: tuple[Path, Path, int]) -> None:
    layers, target, descriptor = copied
    (layers / "a").mkdir()
    with open(layers / "a" / "sparse", "wb") as file:
        file.seek(64 << 20)
        file.write(b"end")
    os.setxattr(layers / "a" / "sparse", "user.colour", b"blue")
    os.mkfifo(layers / "a" / "pipe")
    assert seed(descriptor, [str(layers / "a")], "", str(layers))
    found = (target / "sparse").stat()
    assert found.st_size == (64 << 20) + 3 and found.st_blocks < 1000
    assert os.getxattr(target / "sparse", "user.colour") == b"blue"
    assert stat.S_ISFIFO((target / "pipe").lstat().st_mode)
    assert found.st_mtime_ns == (layers / "a" / "sparse").stat().st_mtime_ns


@root_only
def test_a_parent_removed_above_hides_what_is_below(copied: tuple[Path, Path, int]) -> None:
    layers, target, descriptor = copied
    (layers / "top").mkdir()
    os.mknod(layers / "top" / "var", stat.S_IFCHR | 0o600, os.makedev(0, 0))
    (layers / "low" / "var" / "lib").mkdir(parents=True)
    (layers / "low" / "var" / "lib" / "x").write_text("x")
    names = [str(layers / name / "var" / "lib") for name in ("top", "low")]
    assert not seed(descriptor, names, "", str(layers))
    assert seed(descriptor, names[1:], "", str(layers))
    assert os.listdir(target) == ["x"]


@root_only
def test_opaque_parents_and_capabilities(copied: tuple[Path, Path, int]) -> None:
    layers, target, descriptor = copied
    for name in ("top", "low"):
        (layers / name / "var" / "lib").mkdir(parents=True)
        (layers / name / "var" / "lib" / name).write_text(name)
    os.setxattr(layers / "top" / "var", "user.overlay.opaque", b"y")
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    os.setxattr(layers / "top" / "var" / "lib" / "top", "security.capability", capability)
    os.chown(layers / "top" / "var" / "lib" / "top", 7, 7)
    os.setxattr(layers / "top" / "var" / "lib" / "top", "security.capability", capability)
    names = [str(layers / name / "var" / "lib") for name in ("top", "low")]
    seed(descriptor, names, "", str(layers))
    assert os.listdir(target) == ["top"]
    assert os.getxattr(target / "top", "security.capability") == capability


def test_a_layer_is_never_entered_by_a_link(copied: tuple[Path, Path, int], tmp_path: Path) -> None:
    layers, target, descriptor = copied
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key").write_text("k")
    (layers / "a").mkdir()
    (layers / "a" / "var").symlink_to(tmp_path / "secret")
    (tmp_path / "secret" / "lib").mkdir()
    for inner in ("var", "var/lib"):
        assert not seed(descriptor, [str(layers / "a" / inner)], "", str(layers))
    assert not os.listdir(target)


@contextlib.asynccontextmanager
async def plugin(base: Path, **config: object):  # type: ignore[no-untyped-def]
    """The plugin below `base`, nothing left mounted."""
    for name in ("plugins/data", "run"):
        (base / name).mkdir(parents=True, exist_ok=True)
    try:
        async with local(
            VolumeLocal, data=base / "plugins/data", run=base / "run", config=config
        ) as found:
            yield found
    finally:
        for entry in reversed(mounts.mount_table()):
            if entry.target.startswith(f"{base}/"):
                with contextlib.suppress(OSError):
                    syscalls.umount(entry.target, mounts.MNT_DETACH)


@root_only
async def test_what_a_crash_left_is_swept(tmp_path: Path) -> None:
    async with plugin(tmp_path) as volumes:
        await volumes.create(Volume(name="kept"))
    root = tmp_path / "plugins/data/volumes"
    for name in (".new-1", ".gone-1"):
        (root / name / "_data").mkdir(parents=True)
    (root / "kept" / ".seed-1" / "half").mkdir(parents=True)
    stray = tmp_path / "run" / "mounts" / "volume-0000"
    stray.mkdir()
    async with plugin(tmp_path) as volumes:
        assert [v.name for v in (await volumes.list()).volumes] == ["kept"]
        for task in asyncio_tasks():
            await task
        assert not stray.exists()
        assert sorted(p.name for p in root.iterdir()) == ["kept"]
        assert sorted(p.name for p in (root / "kept").iterdir()) == ["_data", "volume"]


def asyncio_tasks() -> list[asyncio.Task[Any]]:
    current = asyncio.current_task()
    return [task for task in asyncio.all_tasks() if task is not current]


@root_only
async def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    async with plugin(tmp_path) as volumes:
        await volumes.create(Volume(name="v"))
    record = tmp_path / "plugins/data/volumes/v/volume"
    msgspec.msgpack.decode(record.read_bytes())
    record.write_bytes(b"\xc1")
    with pytest.raises(Internal, match="volumes/v/volume is damaged"):
        async with plugin(tmp_path):
            pass


@root_only
async def test_after_a_reboot_mounts_are_made_again(tmp_path: Path) -> None:
    options = (("type", "tmpfs"), ("device", "tmpfs"))
    request = PublishRequest(name="t", owner="o", subpath="a")
    async with plugin(tmp_path) as volumes:
        await volumes.create(Volume(name="t", options=options))
        first = (await volumes.publish(request)).path
    for entry in reversed(mounts.mount_table()):
        if entry.target.startswith(f"{tmp_path}/"):
            syscalls.umount(entry.target, mounts.MNT_DETACH)
    async with plugin(tmp_path) as volumes:
        assert (await volumes.publish(request)).path == first
        targets = {entry.target for entry in mounts.mount_table()}
        assert first in targets


@root_only
async def test_a_filesystem_that_the_kernel_lacks_is_named(tmp_path: Path) -> None:
    options = (("type", "nosuchfs"), ("device", "server:/export"), ("o", "ro"))
    async with plugin(tmp_path) as volumes:
        await volumes.create(Volume(name="far", options=options))
        with pytest.raises(FailedPrecondition, match="has no filesystem nosuchfs: load its module"):
            await volumes.publish(PublishRequest(name="far", owner="o"))
        assert not list((tmp_path / "run" / "mounts").iterdir()), "a place is left"
        await volumes.delete(VolumeRef(name="far"))


@root_only
async def test_a_capacity_without_quotas_is_refused_or_ignored(tmp_path: Path) -> None:
    async with plugin(tmp_path) as volumes:
        try:
            await volumes.create(Volume(name="v", capacity=1 << 20))
        except InvalidArgument as error:
            assert "prjquota" in error.message
            with pytest.raises(Exception, match="no such volume"):
                await volumes.inspect(VolumeRef(name="v"))
    async with plugin(tmp_path, quotas="optional") as volumes:
        await volumes.create(Volume(name="w", capacity=1 << 20))
