"""Checks of slot `image`: lent root filesystems, their files, changes, commits and archives."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import stat
import tarfile
import tempfile
from pathlib import Path

from sagong.conformance.image_lab import (
    Archive,
    ImageLab,
    entry,
    fetch,
    layer,
    lent,
    loaded,
    missing,
    read_tar,
    read_text,
    refused,
    written,
)
from sagong.contracts.image import (
    ArchiveRequest,
    CommitRequest,
    ImageRef,
    Prepared,
    PrepareRequest,
    RemoveRequest,
    RootRef,
)
from sagong.errors import InvalidArgument, NotFound

_PASSWD = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/:/bin/sh\n"


def _image(text: str, *more: bytes) -> Archive:
    first = layer(
        "etc/",
        ("etc/text", text),
        ("etc/passwd", _PASSWD),
        ("etc/group", "root:x:0:\n"),
        "srv/",
        ("srv/one", "1"),
        ("srv/two", "2"),
        "srv/deep/",
        ("srv/deep/three", "3"),
        (entry("srv/link", 0o777, tarfile.SYMTYPE, linkname="/etc/text"), b""),
        (entry("srv/outside", 0o777, tarfile.SYMTYPE, linkname="../../../../etc"), b""),
    )
    return Archive(layers=[first, *more], names=[f"suite.test/{text}:v1"])


def _options(prepared: Prepared) -> dict[str, str]:
    pairs = (option.partition("=") for option in prepared.root.options)
    return {key: value for key, _, value in pairs}


def _upper(prepared: Prepared) -> Path:
    assert prepared.upper, "a writable root filesystem must name its writable layer"
    return Path(prepared.upper)


async def check_prepare_lends_an_overlay(lab: ImageLab) -> None:
    prepared = await lent(lab, "suite-overlay", _image("overlay"))
    options = _options(prepared)
    assert prepared.root.target == "/" and prepared.root.kind == "overlay"
    assert options["lowerdir"].split(":") == list(prepared.lower)
    assert options["upperdir"] == prepared.upper and os.path.isdir(options["workdir"])
    assert all(os.path.isdir(path) for path in (*prepared.lower, prepared.upper))
    assert any(Path(path, "etc/text").read_text() == "overlay" for path in _with_text(prepared))
    assert not os.listdir(prepared.upper)


def _with_text(prepared: Prepared) -> list[str]:
    return [path for path in prepared.lower if Path(path, "etc/text").is_file()]


async def check_nothing_is_mounted_by_prepare(lab: ImageLab) -> None:
    prepared = await lent(lab, "suite-unmounted", _image("unmounted"))
    mounts = Path("/proc/self/mountinfo").read_text()
    assert not any(path in mounts for path in (prepared.upper, *prepared.lower))


async def check_the_same_id_is_lent_the_same(lab: ImageLab) -> None:
    image = _image("same")
    first = await lent(lab, "suite-same", image)
    _upper(first).joinpath("kept").write_text("yes")
    second = await lab.images.prepare(PrepareRequest(id="suite-same", image=image.names[0]))
    assert (first.root, first.upper, first.image.id) == (
        second.root,
        second.upper,
        second.image.id,
    )
    assert _upper(second).joinpath("kept").is_file()


async def check_two_containers_share_only_the_image(lab: ImageLab) -> None:
    image = _image("shared")
    one = await lent(lab, "suite-shared-1", image)
    two = await lab.images.prepare(PrepareRequest(id="suite-shared-2", image=image.id))
    assert one.lower == two.lower and one.upper != two.upper


async def check_read_only_roots_have_no_layer(lab: ImageLab) -> None:
    image = _image("readonly")
    await loaded(lab, image)
    request = PrepareRequest(id="suite-readonly", image=image.id, readonly=True)
    prepared = await lab.images.prepare(request)
    assert prepared.upper == ""
    assert not any(option.startswith("upperdir=") for option in prepared.root.options)


def _parts() -> Archive:
    above = layer(
        "srv/",
        ("srv/.wh.two", ""),
        ("srv/four", "4"),
        (entry("srv/inside", 0o777, tarfile.SYMTYPE, linkname="/srv/deep"), b""),
    )
    return _image("part", above)


async def _part(lab: ImageLab, image: Archive, path: str) -> Prepared:
    name = "suite-part-" + path.strip("/").replace("/", "-").replace(" ", "")
    request = PrepareRequest(id=name, image=image.id, readonly=True, bare=True, subpath=path)
    return await lab.images.prepare(request)


def _seen(prepared: Prepared) -> set[str]:
    """The names that an overlay of the lower directories shows."""
    shown: dict[str, bool] = {}
    for directory in prepared.lower:
        for name in os.listdir(directory):
            facts = os.lstat(os.path.join(directory, name))
            gone = stat.S_ISCHR(facts.st_mode) and facts.st_rdev == 0
            shown.setdefault(name, not gone)
    return {name for name, there in shown.items() if there}


async def check_a_part_of_an_image_is_lent(lab: ImageLab) -> None:
    image = _parts()
    await loaded(lab, image)
    whole = await _part(lab, image, "srv")
    assert _seen(whole) == {"one", "deep", "link", "outside", "four", "inside"}
    for path in ("srv/inside", "/srv/deep/"):
        assert _seen(await _part(lab, image, path)) == {"three"}
    for path in ("srv/outside", "../etc"):
        assert {"text", "passwd"} <= _seen(await _part(lab, image, path))
    single = await _part(lab, image, "srv/link")
    assert single.root.kind == "bind" and Path(single.root.source).read_text() == "part"
    for path in ("srv/two", "srv/none/x"):
        await refused(NotFound, _part(lab, image, path))
    await refused(InvalidArgument, _part(lab, image, "srv/one/x"))


async def check_a_size_is_kept_or_refused(lab: ImageLab) -> None:
    image = _image("sized")
    await loaded(lab, image)
    request = PrepareRequest(id="suite-sized", image=image.id, storage_size=1 << 20)
    try:
        prepared = await lab.images.prepare(request)
    except InvalidArgument:
        return
    options = dict(option.partition("=")[::2] for option in prepared.root.options)
    assert options.get("size") == str(1 << 20) and int(options["project"]) > 0
    other = await lab.images.prepare(
        PrepareRequest(id="suite-sized-2", image=image.id, storage_size=1 << 20)
    )
    assert f"project={options['project']}" not in other.root.options


async def check_users_and_groups_are_told(lab: ImageLab) -> None:
    prepared = await lent(lab, "suite-users", _image("users"))
    assert prepared.passwd.decode() == _PASSWD and prepared.group == b"root:x:0:\n"
    etc = _upper(prepared) / "etc"
    etc.mkdir()
    etc.joinpath("passwd").write_text("changed:x:5:5::/:\n")
    again = await lab.images.prepare(PrepareRequest(id="suite-users", image=prepared.image.id))
    assert again.passwd == b"changed:x:5:5::/:\n"


async def check_preparing_the_unknown_is_not_found(lab: ImageLab) -> None:
    request = PrepareRequest(id="suite-unknown", image="never-heard-of")
    error = await refused(NotFound, lab.images.prepare(request))
    assert error.message == "No such image: never-heard-of:latest"


async def check_another_platform_is_not_found(lab: ImageLab) -> None:
    image = _image("platform")
    await loaded(lab, image)
    request = PrepareRequest(id="suite-platform", image=image.id, platform="linux/s390x")
    await refused(NotFound, lab.images.prepare(request))
    right = PrepareRequest(id="suite-platform", image=image.id, platform="linux/amd64")
    assert (await lab.images.prepare(right)).image.id == image.id


async def check_impossible_container_ids_are_invalid(lab: ImageLab) -> None:
    image = _image("ids")
    await loaded(lab, image)
    for identity in ("", "../up", "a/b", ".", "x" * 300):
        request = PrepareRequest(id=identity, image=image.id)
        await refused(InvalidArgument, lab.images.prepare(request))


async def check_release_forgets(lab: ImageLab) -> None:
    prepared = await lent(lab, "suite-release", _image("release"))
    for _ in range(2):
        await lab.images.release(RootRef(id="suite-release"))
    await refused(NotFound, lab.images.changes(RootRef(id="suite-release")))
    assert not os.path.exists(prepared.upper)
    await lab.images.release(RootRef(id="suite-never-lent"))


async def check_whiteouts_hide(lab: ImageLab) -> None:
    second = layer("srv/", ("srv/.wh.one", ""), ("srv/deep/.wh..wh..opq", ""), ("srv/new", "n"))
    await lent(lab, "suite-whiteouts", _image("whiteouts", second))
    assert await missing(lab, "suite-whiteouts", "/srv/one")
    assert await missing(lab, "suite-whiteouts", "/srv/deep/three")
    assert await read_text(lab, "suite-whiteouts", "/srv/two") == "2"
    assert await read_text(lab, "suite-whiteouts", "/srv/new") == "n"


async def check_a_layer_may_come_twice(lab: ImageLab) -> None:
    first = layer("srv/", ("srv/one", "1"), ("srv/two", "2"))
    over = layer("srv/", ("srv/one", "other"), ("srv/.wh.two", ""))
    prepared = await lent(lab, "suite-twice", Archive(layers=[first, over, first]))
    assert await read_text(lab, "suite-twice", "/srv/one") == "1"
    assert await read_text(lab, "suite-twice", "/srv/two") == "2"
    # The kernel mounts no directory twice.
    lower = _options(prepared).get("lowerdir", "").split(":")
    assert len(set(lower)) == len(lower)


async def check_directories_without_an_entry_keep_what_they_are(lab: ImageLab) -> None:
    first = layer(
        (entry("tmp", 0o1777, tarfile.DIRTYPE), b""),
        "usr/",
        "usr/lib/",
        (entry("lib", 0o777, tarfile.SYMTYPE, linkname="usr/lib"), b""),
    )
    second = layer(("tmp/file", "t"), ("lib/module", "m"))
    await lent(lab, "suite-implied", Archive(layers=[first, second]))
    tmp = await lab.images.stat(ArchiveRequest(id="suite-implied", path="/tmp"))
    assert stat.S_IMODE(tmp.mode) == 0o1777
    lib = await lab.images.stat(ArchiveRequest(id="suite-implied", path="/lib"))
    assert stat.S_ISLNK(lib.mode)
    assert await read_text(lab, "suite-implied", "/usr/lib/module") == "m"


async def check_owners_modes_times_and_links_are_kept(lab: ImageLab) -> None:
    raw = layer(
        (entry("own", 0o4751, uid=1234, gid=4321), b"text"),
        (entry("hard", 0o4751, tarfile.LNKTYPE, linkname="own"), b""),
        (entry("device", 0o600, tarfile.CHRTYPE, devmajor=1, devminor=3), b""),
        (entry("fifo", 0o640, tarfile.FIFOTYPE), b""),
    )
    await lent(lab, "suite-owners", Archive(layers=[raw]))
    members = read_tar(await fetch(await lab.images.export(RootRef(id="suite-owners"))))
    pair = [members["own"][0], members["hard"][0]]
    (file,) = (info for info in pair if info.isreg())
    (link,) = (info for info in pair if info.islnk())
    assert (file.uid, file.gid, file.mode, file.mtime) == (1234, 4321, 0o4751, 1_600_000_000)
    assert link.linkname == file.name
    device = members["device"][0]
    assert device.ischr() and (device.devmajor, device.devminor) == (1, 3)
    assert members["fifo"][0].isfifo()


async def check_hostile_layers_stay_inside(lab: ImageLab) -> None:
    for name in ("../escape", "a/../../escape"):
        image = Archive(layers=[layer((name, "out"))])
        await refused(InvalidArgument, loaded(lab, image))
        await refused(NotFound, lab.images.inspect(ImageRef(reference=image.id)))
    with tempfile.TemporaryDirectory(prefix="suite-trap-", dir="/tmp") as outside:
        raw = layer(
            (entry("trap", 0o777, tarfile.SYMTYPE, linkname=outside), b""),
            ("trap/file", "out"),
        )
        # A link that leads nowhere inside may also be refused.
        with contextlib.suppress(InvalidArgument):
            await lent(lab, "suite-trap", Archive(layers=[raw]))
        assert os.listdir(outside) == []
    await lent(lab, "suite-absolute", Archive(layers=[layer(("/absolute", "in"))]))
    assert await read_text(lab, "suite-absolute", "/absolute") == "in"


def _change(prepared: Prepared) -> None:
    """What a container does when it changes one file, adds one and deletes one."""
    upper = _upper(prepared)
    upper.joinpath("srv").mkdir()
    upper.joinpath("srv/one").write_text("changed")
    upper.joinpath("srv/new").write_text("new")
    os.mknod(upper / "srv/two", stat.S_IFCHR, os.makedev(0, 0))


async def check_changes_are_told(lab: ImageLab) -> None:
    prepared = await lent(lab, "suite-changes", _image("changes"))
    assert (await lab.images.changes(RootRef(id="suite-changes"))).changes == ()
    _change(prepared)
    found = (await lab.images.changes(RootRef(id="suite-changes"))).changes
    assert [(change.path, change.kind) for change in found] == [
        ("/srv", 0),
        ("/srv/new", 1),
        ("/srv/one", 0),
        ("/srv/two", 2),
    ]


async def check_commit_makes_an_image(lab: ImageLab) -> None:
    image = _image("commit")
    _change(await lent(lab, "suite-commit", image))
    made = await lab.images.commit(
        CommitRequest(
            id="suite-commit-1",
            container="suite-commit",
            reference="suite.test/committed:v1",
            author="the suite",
            comment="why",
            config=json.dumps({"Cmd": ["new"], "Env": ["X=y"]}).encode(),
        )
    )
    assert made.tags == ("suite.test/committed:v1",) and made.parent == image.id
    assert made.config.cmd == ("new",) and made.config.env == ("X=y",)
    assert made.author == "the suite" and len(made.layers) == 2
    assert json.loads(made.history)[-1]["comment"] == "why"
    await lab.images.prepare(PrepareRequest(id="suite-commit-2", image=made.id))
    assert await read_text(lab, "suite-commit-2", "/srv/one") == "changed"
    assert await missing(lab, "suite-commit-2", "/srv/two")
    assert await read_text(lab, "suite-commit-2", "/etc/text") == "commit"


async def check_an_image_with_children_stays(lab: ImageLab) -> None:
    image = _image("parent")
    _change(await lent(lab, "suite-parent", image))
    made = await lab.images.commit(
        CommitRequest(id="suite-parent-1", container="suite-parent", reference="suite.test/child")
    )
    await lab.images.release(RootRef(id="suite-parent"))
    await lab.images.remove(RemoveRequest(reference=image.names[0]))
    await lab.images.prepare(PrepareRequest(id="suite-child", image=made.id))
    assert await read_text(lab, "suite-child", "/etc/text") == "parent"


async def check_commit_of_the_unknown_is_not_found(lab: ImageLab) -> None:
    request = CommitRequest(id="suite-none", container="suite-never-lent")
    await refused(NotFound, lab.images.commit(request))


async def check_stat_tells_a_path(lab: ImageLab) -> None:
    owned = layer((entry("srv/one", uid=12, gid=34), b""))
    await lent(lab, "suite-stat", _image("stat", owned))
    file = await lab.images.stat(ArchiveRequest(id="suite-stat", path="/etc/text"))
    assert (file.name, file.size, file.mtime) == ("text", 4, 1_600_000_000)
    assert stat.S_ISREG(file.mode) and stat.S_IMODE(file.mode) == 0o644
    directory = await lab.images.stat(ArchiveRequest(id="suite-stat", path="/etc/"))
    assert stat.S_ISDIR(directory.mode) and directory.name == "etc"
    link = await lab.images.stat(ArchiveRequest(id="suite-stat", path="/srv/link"))
    assert stat.S_ISLNK(link.mode) and link.link_target == link.real == "/etc/text"
    assert file.real == "/etc/text" and directory.real == "/etc"
    beyond = await lab.images.stat(ArchiveRequest(id="suite-stat", path="/srv/outside/text"))
    assert beyond.real == "/etc/text"
    one = await lab.images.stat(ArchiveRequest(id="suite-stat", path="/srv/one"))
    assert (one.uid, one.gid) == (12, 34)


async def check_missing_paths_are_not_found(lab: ImageLab) -> None:
    await lent(lab, "suite-missing", _image("missing"))
    for path in ("/nothing", "/srv/nothing/at/all"):
        request = ArchiveRequest(id="suite-missing", path=path)
        await refused(NotFound, lab.images.stat(request))
        await refused(NotFound, lab.images.read_archive(request))
    await refused(NotFound, lab.images.stat(ArchiveRequest(id="suite-never-lent", path="/")))


async def check_links_end_inside(lab: ImageLab) -> None:
    await lent(lab, "suite-links", _image("links"))
    assert await read_text(lab, "suite-links", "/srv/outside/text") == "links"
    assert await read_text(lab, "suite-links", "/../../etc/text") == "links"


async def check_archives_are_named_by_the_last_part(lab: ImageLab) -> None:
    await lent(lab, "suite-read", _image("read"))
    address = await lab.images.read_archive(ArchiveRequest(id="suite-read", path="/srv/deep"))
    members = read_tar(await fetch(address))
    assert set(members) == {"deep", "deep/three"} and members["deep/three"][1] == b"3"
    inside = await lab.images.read_archive(ArchiveRequest(id="suite-read", path="/srv/deep/."))
    assert "three" in read_tar(await fetch(inside))


async def check_archives_show_what_changed(lab: ImageLab) -> None:
    _change(await lent(lab, "suite-merged", _image("merged")))
    address = await lab.images.export(RootRef(id="suite-merged"))
    members = read_tar(await fetch(address))
    assert members["srv/one"][1] == b"changed" and members["srv/new"][1] == b"new"
    assert "srv/two" not in members and members["etc/text"][1] == b"merged"


async def check_an_address_is_good_once(lab: ImageLab) -> None:
    await lent(lab, "suite-once", _image("once-only"))
    address = await lab.images.export(RootRef(id="suite-once"))
    assert await fetch(address)
    assert await fetch(address) == b""


async def check_archives_are_extracted(lab: ImageLab) -> None:
    prepared = await lent(lab, "suite-write", _image("write"))
    raw = layer(
        "made/",
        ("made/file", "made"),
        (entry("one", 0o600, uid=77, gid=78), b"replaced"),
        (entry("hard", 0o644, tarfile.LNKTYPE, linkname="two"), b""),
    )
    await written(lab, ArchiveRequest(id="suite-write", path="/srv"), raw)
    assert await read_text(lab, "suite-write", "/srv/made/file") == "made"
    assert await read_text(lab, "suite-write", "/srv/one") == "replaced"
    assert await read_text(lab, "suite-write", "/srv/two") == "2"
    assert os.stat(_upper(prepared) / "srv/one").st_uid == 77
    other = await lab.images.prepare(PrepareRequest(id="suite-other", image=prepared.image.id))
    assert await read_text(lab, "suite-other", "/srv/one") == "1" and other.lower == prepared.lower


async def check_archives_are_given_to_a_user(lab: ImageLab) -> None:
    prepared = await lent(lab, "suite-owner", _image("owner"))
    raw = layer("given/", (entry("given/file", 0o600, uid=77, gid=78), b"x"))
    request = ArchiveRequest(id="suite-owner", path="/srv", copy_uid_gid=True, uid=5, gid=6)
    await written(lab, request, raw)
    for name in ("given", "given/file"):
        facts = os.stat(_upper(prepared) / "srv" / name)
        assert (facts.st_uid, facts.st_gid) == (5, 6)


async def check_archives_replace_what_was_deleted(lab: ImageLab) -> None:
    prepared = await lent(lab, "suite-deleted", _image("deleted"))
    upper = _upper(prepared)
    upper.joinpath("srv").mkdir()
    os.mknod(upper / "srv/deep", stat.S_IFCHR, os.makedev(0, 0))
    raw = layer("deep/", ("deep/four", "4"))
    await written(lab, ArchiveRequest(id="suite-deleted", path="/srv"), raw)
    assert await read_text(lab, "suite-deleted", "/srv/deep/four") == "4"
    assert await missing(lab, "suite-deleted", "/srv/deep/three")


async def check_extraction_needs_a_directory(lab: ImageLab) -> None:
    await lent(lab, "suite-nodir", _image("nodir"))
    raw = layer(("file", "x"))
    work = written(lab, ArchiveRequest(id="suite-nodir", path="/nothing"), raw)
    await refused(NotFound, work)
    work = written(lab, ArchiveRequest(id="suite-nodir", path="/etc/text"), raw)
    await refused(InvalidArgument, work)


async def check_extraction_stays_inside(lab: ImageLab) -> None:
    prepared = await lent(lab, "suite-inside", _image("inside"))
    work = written(lab, ArchiveRequest(id="suite-inside", path="/"), layer(("../../out", "x")))
    await refused(InvalidArgument, work)
    assert not os.path.exists(Path(prepared.upper).parent.parent / "out")
    raw = layer(
        (entry("away", 0o777, tarfile.SYMTYPE, linkname="/srv"), b""), ("away/caught", "in")
    )
    await written(lab, ArchiveRequest(id="suite-inside", path="/"), raw)
    assert await read_text(lab, "suite-inside", "/srv/caught") == "in"
    assert not os.path.exists("/srv/caught")


async def check_kinds_are_not_exchanged_if_so_asked(lab: ImageLab) -> None:
    await lent(lab, "suite-kinds", _image("kinds"))
    request = ArchiveRequest(id="suite-kinds", path="/", no_overwrite_dir_non_dir=True)
    await refused(InvalidArgument, written(lab, request, layer(("srv", "now a file"))))
    await refused(InvalidArgument, written(lab, request, layer("etc/text/")))
    plain = ArchiveRequest(id="suite-kinds", path="/")
    await written(lab, plain, layer(("srv", "now a file")))
    assert await read_text(lab, "suite-kinds", "/srv") == "now a file"


async def check_mounts_are_seen(lab: ImageLab) -> None:
    prepared = await lent(lab, "suite-mounts", _image("mounts"))
    volume = Path(prepared.upper).parent / "suite-volume"
    volume.mkdir()
    volume.joinpath("kept").write_text("on the volume")
    try:
        request = ArchiveRequest(
            id="suite-mounts", path="/srv/kept", mounts=(("/srv", str(volume)),)
        )
        assert (await lab.images.stat(request)).size == len("on the volume")
        target = ArchiveRequest(id="suite-mounts", path="/srv", mounts=request.mounts)
        await written(lab, target, layer(("sent", "to the volume")))
        assert volume.joinpath("sent").read_text() == "to the volume"
        assert await missing(lab, "suite-mounts", "/srv/sent")
    finally:
        for path in volume.iterdir():
            path.unlink()
        volume.rmdir()


async def check_usage_counts_containers(lab: ImageLab) -> None:
    prepared = await lent(lab, "suite-usage", _image("usage"))
    _upper(prepared).joinpath("large").write_bytes(bytes(100_000))
    usage = await lab.images.usage()
    assert 100_000 <= dict(usage.containers)["suite-usage"] < 200_000


async def check_many_are_prepared_at_once(lab: ImageLab) -> None:
    image = _image("many")
    await loaded(lab, image)
    requests = [PrepareRequest(id=f"suite-many-{n}", image=image.id) for n in range(20)]
    prepared = await asyncio.gather(*(lab.images.prepare(request) for request in requests))
    assert len({one.upper for one in prepared}) == 20
    twins = await asyncio.gather(*(lab.images.prepare(requests[0]) for _ in range(5)))
    assert len({one.upper for one in twins}) == 1


async def check_later_entries_replace_earlier_ones(lab: ImageLab) -> None:
    await lent(lab, "suite-later", _image("later"))
    twice = layer("srv/deep/", ("srv/deep/x", "1"), ("srv/deep", "a file"), ("srv/two", "new"))
    await written(lab, ArchiveRequest(id="suite-later", path="/"), twice)
    assert await read_text(lab, "suite-later", "/srv/deep") == "a file"
    assert await read_text(lab, "suite-later", "/srv/two") == "new"
