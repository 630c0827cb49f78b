"""What every implementation of slot `volume` must do, sentence by sentence of its contract.

The lab holds the candidate and a scratch directory. Checks use names of their own, so one candidate
can serve them all. Published paths are looked at with plain files; what needs root is left out
without it.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import stat
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from sagong.conformance.refusals import raises
from sagong.contracts.volume import (
    PublishRequest,
    UnpublishRequest,
    Volume,
    VolumeRef,
    Volumes,
    VolumeUsage,
)
from sagong.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
)

__all__ = ["VolumeLab", "raises"]


@dataclass
class VolumeLab:
    """A candidate, and powers that may be missing; checks that need one then pass.

    `restart` kills the candidate without warning and starts it again on the same data; `mounts`
    tells that it can mount filesystems here.
    """

    volumes: Volumes
    scratch: Path
    restart: Callable[[], Awaitable[Volumes]] | None = None
    mounts: bool = False
    area: str = field(default_factory=lambda: secrets.token_hex(4))

    def name(self, name: str) -> str:
        """A name that no other check uses."""
        return f"{self.area}-{name}"

    async def make(self, name: str = "v", **more: object) -> Volume:
        """A volume."""
        return await self.volumes.create(Volume(name=self.name(name), **more))  # type: ignore[arg-type]

    async def publish(
        self,
        name: str = "v",
        owner: str = "o",
        *,
        seed: tuple[Path, ...] = (),
        subpath: str = "",
        existing: bool = False,
        readonly: bool = False,
        seed_path: str = "",
    ) -> Path:
        """Where the volume is for that owner."""
        request = PublishRequest(
            name=self.name(name),
            owner=self.name(owner),
            subpath=subpath,
            existing=existing,
            readonly=readonly,
            seed=tuple(map(str, seed)),
            seed_path=seed_path,
        )
        return Path((await self.volumes.publish(request)).path)

    async def take_back(self, owner: str = "o", name: str = "") -> None:
        """Unpublish."""
        request = UnpublishRequest(owner=self.name(owner), name=self.name(name) if name else "")
        await self.volumes.unpublish(request)

    async def delete(self, name: str = "v", *, force: bool = False) -> None:
        """Delete."""
        await self.volumes.delete(VolumeRef(name=self.name(name), force=force))

    async def usage(self, name: str = "v") -> VolumeUsage:
        """Usage."""
        return await self.volumes.usage(VolumeRef(name=self.name(name)))

    def layer(self, name: str, **files: str) -> Path:
        """A directory of an image's layer."""
        path = self.scratch / self.area / name
        path.mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            (path / file).write_text(text)
        return path


async def check_created_volume_is_told(lab: VolumeLab) -> None:
    made = await lab.make(labels=(("a", "b"),), owner="kube")
    assert (
        (made.labels, made.owner) == ((("a", "b"),), "kube")
        and made.created > 0
        and made.mountpoint
    )
    assert await lab.volumes.inspect(VolumeRef(name=made.name)) == made
    assert made in (await lab.volumes.list()).volumes


async def check_same_volume_again_is_the_one_there_is(lab: VolumeLab) -> None:
    first = await lab.make()
    (await lab.publish() / "kept").write_text("x")
    assert await lab.make() == first
    assert (await lab.publish() / "kept").read_text() == "x"
    names = [volume.name for volume in (await lab.volumes.list()).volumes]
    assert names.count(first.name) == 1


async def check_volumes_made_at_once_are_one(lab: VolumeLab) -> None:
    made = await asyncio.gather(*(lab.make() for _ in range(8)))
    assert all(volume == made[0] for volume in made), "not all got the same volume"


async def check_other_options_are_another_volume(lab: VolumeLab) -> None:
    await lab.make()
    with raises(AlreadyExists, "a volume changed its options"):
        await lab.make(options=(("type", "tmpfs"), ("device", "tmpfs")))


async def check_wrong_names_are_refused(lab: VolumeLab) -> None:
    for name in ("", "../up", "a/b", ".hidden", "with space", "x" * 300):
        with raises(InvalidArgument, f"{name!r} was made"):
            await lab.volumes.create(Volume(name=name))


async def check_wrong_options_are_refused(lab: VolumeLab) -> None:
    for options in (
        (("flavour", "sweet"),),
        (("type", "tmpfs"),),
        (("device", "/somewhere"),),
        (("type", "none"), ("device", "relative"), ("o", "bind")),
    ):
        with raises(InvalidArgument, f"{options} were taken"):
            await lab.make(options=options)
    with raises(InvalidArgument, "an unknown driver was taken"):
        await lab.make(driver="no such driver")


async def check_list_is_by_name(lab: VolumeLab) -> None:
    for name in ("c", "a", "b"):
        await lab.make(name)
    names = [volume.name for volume in (await lab.volumes.list()).volumes]
    assert names == sorted(names), names


async def check_unknown_volume_is_not_found(lab: VolumeLab) -> None:
    for call in (lab.publish, lab.usage):
        with raises(NotFound, "a missing volume was found") as found:
            await call("missing")
        assert lab.name("missing") in found[0].message
    with raises(NotFound, "a missing volume was found"):
        await lab.volumes.inspect(VolumeRef(name=lab.name("missing")))


async def check_deleted_volume_is_gone_with_its_content(lab: VolumeLab) -> None:
    await lab.make()
    path = await lab.publish()
    (path / "old").write_text("x")
    await lab.take_back()
    await lab.delete()
    await lab.delete()
    assert lab.name("v") not in {volume.name for volume in (await lab.volumes.list()).volumes}
    assert not (path / "old").exists(), "the content is still there"
    await lab.make()
    assert not (await lab.publish() / "old").exists(), "the new one has the old one's content"


async def check_published_volume_is_not_deleted(lab: VolumeLab) -> None:
    await lab.make()
    await lab.publish()
    for force in (False, True):
        with raises(FailedPrecondition, "a published volume was deleted") as found:
            await lab.delete(force=force)
        assert lab.name("o") in found[0].message, "the error does not name the owner"
    await lab.take_back()
    await lab.delete()


async def check_content_stays_between_owners(lab: VolumeLab) -> None:
    await lab.make()
    (await lab.publish(owner="first") / "file").write_text("hello")
    await lab.take_back("first")
    assert (await lab.publish(owner="second") / "file").read_text() == "hello"


async def check_owners_share_a_volume(lab: VolumeLab) -> None:
    await lab.make()
    first, second = await lab.publish(owner="first"), await lab.publish(owner="second")
    (first / "file").write_text("hello")
    assert (second / "file").read_text() == "hello"
    await lab.take_back("first")
    assert (second / "file").read_text() == "hello", "it went with the first owner"


async def check_same_owner_again_gets_the_same_path(lab: VolumeLab) -> None:
    await lab.make()
    assert await lab.publish() == await lab.publish()
    assert (await lab.usage()).owners == (lab.name("o"),)


async def check_owner_gives_back_all_or_one(lab: VolumeLab) -> None:
    for name in ("a", "b", "c"):
        await lab.make(name)
        await lab.publish(name)
    await lab.take_back(name="a")
    await lab.delete("a")
    with raises(FailedPrecondition, "more was taken back than asked"):
        await lab.delete("b")
    await lab.take_back()
    await lab.delete("b")
    await lab.delete("c")


async def check_taking_back_the_unknown_is_no_error(lab: VolumeLab) -> None:
    await lab.make()
    await lab.take_back("nobody")
    await lab.take_back("nobody", "v")
    await lab.take_back("nobody", "missing")


async def check_usage_counts_bytes_and_owners(lab: VolumeLab) -> None:
    await lab.make()
    path = await lab.publish()
    before = (await lab.usage()).size
    (path / "sub").mkdir()
    (path / "sub" / "file").write_bytes(bytes(100_000))
    os.link(path / "sub" / "file", path / "again")
    usage = await lab.usage()
    grown = usage.size - before
    assert 100_000 <= grown < 200_000, f"100 kB under two names count as {grown}"
    assert usage.owners == (lab.name("o"),)
    await lab.take_back()
    assert (await lab.usage()).owners == ()


async def check_seed_fills_a_new_volume(lab: VolumeLab) -> None:
    layer = lab.layer("layer", file="from the image")
    (layer / "deep" / "er").mkdir(parents=True)
    (layer / "deep" / "er" / "x").write_text("y")
    await lab.make()
    path = await lab.publish(seed=(layer,))
    assert (path / "file").read_text() == "from the image"
    assert (path / "deep" / "er" / "x").read_text() == "y"


async def check_seed_fills_whatever_is_empty(lab: VolumeLab) -> None:
    layer = lab.layer("layer", file="from the image")
    await lab.make()
    path = await lab.publish(owner="a")
    assert (await lab.publish(owner="b", seed=(layer,))) == path
    assert (path / "file").read_text() == "from the image", "one who has it sees another volume"
    (path / "file").unlink()
    again = await lab.publish(owner="c", seed=(layer,), readonly=True)
    assert (again / "file").read_text() == "from the image"


async def check_seed_fills_a_part(lab: VolumeLab) -> None:
    layer = lab.layer("layer", file="from the image")
    await lab.make()
    whole = await lab.publish(owner="whole")
    (whole / "a").mkdir()
    (whole / "one").write_text("1")
    for subpath in ("a", "one"):
        await lab.publish(owner=subpath, subpath=subpath, existing=True, seed=(layer,))
    assert (whole / "a" / "file").read_text() == "from the image"
    assert sorted(os.listdir(whole)) == ["a", "one"] and (whole / "one").read_text() == "1"


async def check_seed_is_found_behind_links(lab: VolumeLab) -> None:
    top, middle, bottom = (lab.layer(name) for name in ("top", "middle", "bottom"))
    (bottom / "run" / "app").mkdir(parents=True)
    (bottom / "run" / "app" / "file").write_text("from the image")
    (bottom / "var" / "run").mkdir(parents=True)
    (middle / "var").mkdir()
    (middle / "var" / "run").symlink_to("../run")
    (top / "run").mkdir()
    (top / "run" / "two").symlink_to("/../run/./app")
    (top / "out").symlink_to("/" + "../" * 20 + str(lab.layer("outside", treasure="gold"))[1:])
    (top / "round").symlink_to("/round")
    layers = (top, middle, bottom)
    for name, place in (("a", "/var/run/app"), ("b", "/run/two"), ("c", "/var/run/two/")):
        await lab.make(name)
        path = await lab.publish(name, seed=layers, seed_path=place)
        assert (path / "file").read_text() == "from the image", f"{place} was not found"
    await lab.make("d")
    path = await lab.publish("d", seed=layers, seed_path="/out")
    assert not os.listdir(path), "a link led out of the image"
    await lab.make("e")
    with raises(FailedPrecondition, "a link that leads to itself led somewhere"):
        await lab.publish("e", seed=layers, seed_path="/round")


async def check_seed_leaves_content_alone(lab: VolumeLab) -> None:
    layer = lab.layer("layer", file="from the image", other="x")
    await lab.make()
    ((await lab.publish(owner="a")) / "file").write_text("mine")
    path = await lab.publish(owner="b", seed=(layer,))
    assert (path / "file").read_text() == "mine" and not (path / "other").exists()


async def check_upper_layers_win(lab: VolumeLab) -> None:
    top, bottom = lab.layer("top", same="top"), lab.layer("bottom", same="bottom", low="low")
    await lab.make()
    path = await lab.publish(seed=(top, lab.scratch / "missing", bottom))
    assert (path / "same").read_text() == "top" and (path / "low").read_text() == "low"


async def check_seed_keeps_modes_and_links(lab: VolumeLab) -> None:
    layer = lab.layer("layer", one="1", secret="s")
    os.chmod(layer / "secret", 0o600)
    os.chmod(layer, 0o751)
    os.link(layer / "one", layer / "two")
    (layer / "link").symlink_to("/etc/hostname")
    if os.geteuid() == 0:
        os.chown(layer / "secret", 1234, 5678)
    await lab.make()
    path = await lab.publish(seed=(layer,))
    assert stat.S_IMODE((path / "secret").stat().st_mode) == 0o600
    assert stat.S_IMODE(path.stat().st_mode) == 0o751, "the directory's own mode is lost"
    assert (path / "one").stat().st_ino == (path / "two").stat().st_ino, "a hard link became two"
    assert os.readlink(path / "link") == "/etc/hostname", "a link was followed"
    if os.geteuid() == 0:
        found = (path / "secret").stat()
        assert (found.st_uid, found.st_gid) == (1234, 5678), "the owner is lost"


async def check_removed_files_are_not_copied(lab: VolumeLab) -> None:
    if os.geteuid() != 0:
        return
    top, bottom = lab.layer("top"), lab.layer("bottom", gone="x", kept="y")
    os.mknod(top / "gone", stat.S_IFCHR | 0o600, os.makedev(0, 0))
    for layer, name in ((top, "new"), (bottom, "old")):
        (layer / "opaque").mkdir()
        (layer / "opaque" / name).write_text(name)
    os.setxattr(top / "opaque", "trusted.overlay.opaque", b"y")
    await lab.make()
    path = await lab.publish(seed=(top, bottom))
    assert sorted(os.listdir(path)) == ["kept", "opaque"]
    assert os.listdir(path / "opaque") == ["new"]


async def check_subpath_is_a_part(lab: VolumeLab) -> None:
    await lab.make()
    whole = await lab.publish(owner="whole")
    (whole / "a" / "b").mkdir(parents=True)
    (whole / "a" / "b" / "file").write_text("x")
    part = await lab.publish(owner="part", subpath="a/b")
    assert (part / "file").read_text() == "x"
    (part / "new").write_text("y")
    assert (whole / "a" / "b" / "new").read_text() == "y", "the part is a copy"
    await lab.take_back("part")
    assert (whole / "a" / "b" / "new").read_text() == "y"


async def check_subpath_may_have_to_be_there(lab: VolumeLab) -> None:
    await lab.make()
    whole = await lab.publish(owner="whole")
    with raises(FailedPrecondition, "what is missing was made"):
        await lab.publish(owner="part", subpath="a/b", existing=True)
    assert not os.listdir(whole)
    (whole / "a").mkdir()
    (whole / "a" / "file").write_text("x")
    part = await lab.publish(owner="part", subpath="a", existing=True)
    assert (part / "file").read_text() == "x"
    await lab.take_back("part")


async def check_subpath_may_be_a_file(lab: VolumeLab) -> None:
    await lab.make()
    whole = await lab.publish(owner="whole")
    (whole / "a").mkdir()
    (whole / "a" / "file").write_text("x")
    part = await lab.publish(owner="part", subpath="a/file", existing=True)
    assert part.read_text() == "x"
    part.write_text("y")
    assert (whole / "a" / "file").read_text() == "y", "the file is a copy"
    await lab.take_back("part")
    assert (whole / "a" / "file").read_text() == "y"


async def check_subpath_stays_inside(lab: VolumeLab) -> None:
    outside = lab.layer("outside", treasure="gold")
    await lab.make()
    whole = await lab.publish(owner="whole")
    for subpath in ("..", "a/../..", "/etc"):
        with raises(InvalidArgument, f"{subpath} was published"):
            await lab.publish(owner="thief", subpath=subpath)
    (whole / "link").symlink_to(outside)
    (whole / "up").symlink_to("../../../../../../../..")
    for subpath in ("link", f"up/{outside}"):
        try:
            path = await lab.publish(owner="thief", subpath=subpath)
        except (FailedPrecondition, InvalidArgument, NotFound):
            continue
        assert not (path / "treasure").exists(), f"{subpath} leads out of the volume"
        await lab.take_back("thief")


async def check_everything_survives_a_crash(lab: VolumeLab) -> None:
    if lab.restart is None:
        return
    made = await lab.make(labels=(("k", "v"),))
    path = await lab.publish()
    (path / "file").write_text("x")
    lab.volumes = await lab.restart()
    assert await lab.volumes.inspect(VolumeRef(name=made.name)) == made
    with raises(FailedPrecondition, "publications were forgotten"):
        await lab.delete()
    assert (await lab.publish()) == path
    assert (path / "file").read_text() == "x"
    await lab.take_back()
    await lab.delete()


async def check_tmpfs_lives_while_published(lab: VolumeLab) -> None:
    if not lab.mounts:
        return
    await lab.make(options=(("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m,mode=0750")))
    first, second = await lab.publish(owner="a"), await lab.publish(owner="b")
    (first / "file").write_text("x")
    assert (second / "file").read_text() == "x"
    assert stat.S_IMODE(first.stat().st_mode) == 0o750
    assert os.statvfs(first).f_blocks * os.statvfs(first).f_frsize == 1 << 20
    for owner in ("a", "b"):
        await lab.take_back(owner)
    assert not (first / "file").exists(), "it is still mounted"
    await lab.delete()


async def check_bind_leads_to_the_directory(lab: VolumeLab) -> None:
    place = lab.layer("place", file="there")
    await lab.make(options=(("type", "none"), ("device", str(place)), ("o", "bind")))
    path = await lab.publish()
    assert (path / "file").read_text() == "there"
    await lab.take_back()
    await lab.delete()
    assert (place / "file").read_text() == "there", "deleting took the directory's content"


async def check_impossible_mounts_are_told(lab: VolumeLab) -> None:
    if not lab.mounts:
        return
    await lab.make(options=(("type", "no_such_filesystem"), ("device", "x")))
    with raises(FailedPrecondition, "an unknown filesystem was mounted"):
        await lab.publish()
    await lab.delete(force=True)
