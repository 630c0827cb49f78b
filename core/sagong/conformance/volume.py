"""What every provider of slot `volume` must do."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sagong.contracts.volume import (
    PublishRequest,
    UnpublishRequest,
    Volume,
    VolumeRef,
    Volumes,
)
from sagong.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound

__all__ = ["VolumeLab"]


@dataclass(frozen=True)
class VolumeLab:
    """The candidate, an empty directory for the checks, and `restart`, which gives its successor."""

    volumes: Volumes
    scratch: Path
    restart: Callable[[], Awaitable[Volumes]]


async def refused(work: Awaitable[Any], kind: type[Exception]) -> str:
    """The message of the expected error."""
    try:
        await work
    except kind as error:
        return str(error)
    raise AssertionError(f"no {kind.__name__}")


async def _publish(lab: VolumeLab, owner: str = "c1", **facts: Any) -> Path:
    facts = {"name": "v", **facts}
    return Path((await lab.volumes.publish(PublishRequest(owner=owner, **facts))).path)


async def check_nothing_is_there_at_first(lab: VolumeLab) -> None:
    assert (await lab.volumes.list()).volumes == ()


async def check_a_volume_is_made_and_listed(lab: VolumeLab) -> None:
    made = await lab.volumes.create(Volume(name="v", labels=(("a", "b"),)))
    assert made.mountpoint
    assert made.created > 0
    assert (await lab.volumes.list()).volumes == (made,)
    assert await lab.volumes.inspect(VolumeRef(name="v")) == made


async def check_the_same_again_is_the_same(lab: VolumeLab) -> None:
    first = await lab.volumes.create(Volume(name="v"))
    assert await lab.volumes.create(Volume(name="v")) == first


async def check_other_options_are_another_volume(lab: VolumeLab) -> None:
    await lab.volumes.create(Volume(name="v"))
    options = (("type", "none"), ("o", "bind"), ("device", str(lab.scratch)))
    await refused(lab.volumes.create(Volume(name="v", options=options)), AlreadyExists)


async def check_names_are_checked(lab: VolumeLab) -> None:
    for name in ("", "../x", "a/b", "-x"):
        await refused(lab.volumes.create(Volume(name=name)), InvalidArgument)


async def check_volumes_are_listed_by_name(lab: VolumeLab) -> None:
    for name in ("c", "a", "b"):
        await lab.volumes.create(Volume(name=name))
    assert [v.name for v in (await lab.volumes.list()).volumes] == ["a", "b", "c"]


async def check_unknown_is_not_found(lab: VolumeLab) -> None:
    assert "nope" in await refused(lab.volumes.inspect(VolumeRef(name="nope")), NotFound)
    await refused(_publish(lab, name="nope"), NotFound)
    await refused(lab.volumes.usage(VolumeRef(name="nope")), NotFound)


async def check_deleting_what_is_not_is_no_error(lab: VolumeLab) -> None:
    await lab.volumes.delete(VolumeRef(name="nope"))


async def check_deleted_is_gone_with_its_content(lab: VolumeLab) -> None:
    await lab.volumes.create(Volume(name="v"))
    path = await _publish(lab)
    (path / "file").write_text("x")
    await lab.volumes.unpublish(UnpublishRequest(owner="c1"))
    await lab.volumes.delete(VolumeRef(name="v"))
    assert not path.exists()
    await refused(lab.volumes.inspect(VolumeRef(name="v")), NotFound)


async def check_a_new_one_of_the_name_is_empty(lab: VolumeLab) -> None:
    await check_deleted_is_gone_with_its_content(lab)
    await lab.volumes.create(Volume(name="v"))
    assert list((await _publish(lab)).iterdir()) == []


async def check_a_published_one_is_not_deleted(lab: VolumeLab) -> None:
    await lab.volumes.create(Volume(name="v"))
    path = await _publish(lab)
    assert "in use" in await refused(lab.volumes.delete(VolumeRef(name="v")), FailedPrecondition)
    assert path.exists()


async def check_all_owners_have_to_go_first(lab: VolumeLab) -> None:
    await lab.volumes.create(Volume(name="v"))
    assert await _publish(lab, "c1") == await _publish(lab, "c2")
    await lab.volumes.unpublish(UnpublishRequest(owner="c1", name="v"))
    await refused(lab.volumes.delete(VolumeRef(name="v")), FailedPrecondition)
    await lab.volumes.unpublish(UnpublishRequest(owner="c2", name="v"))
    await lab.volumes.delete(VolumeRef(name="v"))


async def check_publishing_twice_is_publishing_once(lab: VolumeLab) -> None:
    await lab.volumes.create(Volume(name="v"))
    assert await _publish(lab) == await _publish(lab)
    await lab.volumes.unpublish(UnpublishRequest(owner="c1"))
    await lab.volumes.delete(VolumeRef(name="v"))


async def check_unpublishing_without_a_name_is_all(lab: VolumeLab) -> None:
    for name in ("v", "w"):
        await lab.volumes.create(Volume(name=name))
        await _publish(lab, name=name)
    await lab.volumes.unpublish(UnpublishRequest(owner="c1"))
    await lab.volumes.unpublish(UnpublishRequest(owner="c1"))
    for name in ("v", "w"):
        await lab.volumes.delete(VolumeRef(name=name))


async def check_content_stays_between_owners(lab: VolumeLab) -> None:
    await lab.volumes.create(Volume(name="v"))
    (await _publish(lab, "c1") / "file").write_text("kept")
    await lab.volumes.unpublish(UnpublishRequest(owner="c1"))
    assert (await _publish(lab, "c2") / "file").read_text() == "kept"


def _layer(lab: VolumeLab, name: str) -> Path:
    path = lab.scratch / name
    path.mkdir()
    return path


async def check_a_new_volume_takes_the_images_content(lab: VolumeLab) -> None:
    upper, lower = _layer(lab, "upper"), _layer(lab, "lower")
    (lower / "both").write_text("lower")
    (upper / "both").write_text("upper")
    (lower / "deep").mkdir(mode=0o750)
    (lower / "deep" / "x").write_text("x")
    os.link(lower / "deep" / "x", lower / "deep" / "y")
    (lower / "link").symlink_to("deep/x")
    await lab.volumes.create(Volume(name="v"))
    path = await _publish(lab, seed=(str(upper), str(lower), str(lab.scratch / "none")))
    assert (path / "both").read_text() == "upper"
    assert (path / "link").read_text() == "x"
    assert (path / "deep").stat().st_mode & 0o777 == 0o750
    assert (path / "deep" / "x").stat().st_ino == (path / "deep" / "y").stat().st_ino


async def check_what_a_layer_deletes_is_not_copied(lab: VolumeLab) -> None:
    upper, lower = _layer(lab, "upper"), _layer(lab, "lower")
    (lower / "gone").write_text("x")
    (lower / "kept").write_text("x")
    os.mknod(upper / "gone", 0o020000, 0)
    await lab.volumes.create(Volume(name="v"))
    path = await _publish(lab, seed=(str(upper), str(lower)))
    assert [p.name for p in path.iterdir()] == ["kept"]


async def check_owners_of_copied_files_are_kept(lab: VolumeLab) -> None:
    layer = _layer(lab, "layer")
    (layer / "file").write_text("x")
    os.chown(layer / "file", 1234, 4321)
    os.utime(layer / "file", (1_000_000_000, 1_000_000_000))
    await lab.volumes.create(Volume(name="v"))
    found = (await _publish(lab, seed=(str(layer),)) / "file").stat()
    assert (found.st_uid, found.st_gid, int(found.st_mtime)) == (1234, 4321, 1_000_000_000)


async def check_a_used_volume_is_never_filled(lab: VolumeLab) -> None:
    layer = _layer(lab, "layer")
    (layer / "file").write_text("image")
    await lab.volumes.create(Volume(name="v"))
    path = await _publish(lab, "c1")
    (path / "own").write_text("own")
    assert await _publish(lab, "c2", seed=(str(layer),)) == path
    assert [p.name for p in path.iterdir()] == ["own"]


async def check_an_emptied_volume_stays_empty(lab: VolumeLab) -> None:
    layer = _layer(lab, "layer")
    (layer / "file").write_text("image")
    await lab.volumes.create(Volume(name="v"))
    path = await _publish(lab, "c1", seed=(str(layer),))
    (path / "file").unlink()
    await _publish(lab, "c2", seed=(str(layer),))
    assert list(path.iterdir()) == []


async def check_a_directory_of_the_machine_can_be_a_volume(lab: VolumeLab) -> None:
    own = _layer(lab, "own")
    options = (("type", "none"), ("o", "bind"), ("device", str(own)))
    await lab.volumes.create(Volume(name="v", options=options))
    assert await _publish(lab) == own
    await lab.volumes.unpublish(UnpublishRequest(owner="c1"))
    await lab.volumes.delete(VolumeRef(name="v"))
    assert own.exists()


async def check_options_that_are_not_offered_are_refused(lab: VolumeLab) -> None:
    wrong = [(("colour", "red"),), (("type", "none"), ("o", "bind"), ("device", "relative"))]
    for options in wrong:
        await refused(lab.volumes.create(Volume(name="v", options=options)), InvalidArgument)
    assert (await lab.volumes.list()).volumes == ()


async def check_a_subpath_stays_inside(lab: VolumeLab) -> None:
    await lab.volumes.create(Volume(name="v"))
    path = await _publish(lab)
    (path / "sub" / "deep").mkdir(parents=True)
    (path / "out").symlink_to("/etc")
    assert await _publish(lab, subpath="sub/deep") == path / "sub" / "deep"
    for subpath in ("../x", "/etc", "out", "sub/../../x"):
        await refused(_publish(lab, subpath=subpath), InvalidArgument)
    await refused(_publish(lab, subpath="none"), NotFound)


async def check_usage_counts_bytes_and_owners(lab: VolumeLab) -> None:
    await lab.volumes.create(Volume(name="v"))
    (await _publish(lab) / "file").write_bytes(b"x" * 100_000)
    found = await lab.volumes.usage(VolumeRef(name="v"))
    assert 100_000 <= found.size < 300_000
    assert found.owners == ("c1",)


async def check_everything_survives_a_restart(lab: VolumeLab) -> None:
    made = await lab.volumes.create(Volume(name="v", labels=(("a", "b"),)))
    (await _publish(lab) / "file").write_text("kept")
    volumes = await lab.restart()
    assert (await volumes.list()).volumes == (made,)
    await refused(volumes.delete(VolumeRef(name="v")), FailedPrecondition)
    path = Path((await volumes.publish(PublishRequest(name="v", owner="c2"))).path)
    assert (path / "file").read_text() == "kept"
