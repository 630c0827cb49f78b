"""Checks of slot `image`: what a build of a Dockerfile does, step by step."""

from __future__ import annotations

import json
import os
import stat
import tarfile
from pathlib import Path

from sagong.conformance.image_lab import (
    Archive,
    ImageLab,
    entry,
    layer,
    lent,
    loaded,
    missing,
    read_text,
    refused,
    uploaded,
    written,
)
from sagong.contracts.image import (
    ArchiveRequest,
    CommitRequest,
    DeriveRequest,
    Image,
    ImageQuery,
    ImageRef,
    PrepareRequest,
    RemoveRequest,
    RootRef,
    SquashRequest,
)
from sagong.errors import InvalidArgument, NotFound


def _image(text: str, *more: bytes, names: tuple[str, ...] = ()) -> Archive:
    first = layer("etc/", ("etc/text", text), "srv/", ("srv/one", "1"), ("srv/two", "2"))
    return Archive(layers=[first, *more], names=list(names or (f"suite.test/{text}:v1",)))


def _document(step: str, **more: object) -> bytes:
    history = [{"created_by": "first"}, {"created_by": step, "empty_layer": True}]
    created = {"created": "2024-02-02T00:00:00Z", "history": history}
    return json.dumps({**created, "config": {"Cmd": [step]}, **more}).encode()


async def _derived(lab: ImageLab, parent: str, step: str, **more: object) -> Image:
    request = DeriveRequest(id=step, parent=parent, document=_document(step, **more))
    return await lab.images.derive(request)


async def _children(lab: ImageLab, parent: str) -> list[str]:
    return [image.id for image in (await lab.images.list(ImageQuery(parent=parent))).images]


async def check_a_derived_image_has_the_layers_of_its_parent(lab: ImageLab) -> None:
    image = await loaded(lab, _image("derive"))
    made = await _derived(lab, image.id, "derive-1")
    assert made.id != image.id and made.parent == image.id
    assert made.layers == image.layers and made.architecture == image.architecture
    assert made.config.cmd == ("derive-1",) and made.created.startswith("2024-02-02")
    await lab.images.prepare(PrepareRequest(id="suite-derive", image=made.id))
    assert await read_text(lab, "suite-derive", "/etc/text") == "derive"


async def check_a_derived_config_is_kept_as_it_stands(lab: ImageLab) -> None:
    image = await loaded(lab, _image("asis"))
    made = await _derived(lab, image.id, "asis-1", container_config={"Cmd": ["x"]}, strange=[1])
    raw = json.loads(made.raw)
    assert (raw.get("container_config"), raw.get("strange")) == ({"Cmd": ["x"]}, [1])
    assert raw["rootfs"] == {"type": "layers", "diff_ids": [one.diff_id for one in image.layers]}
    assert json.loads(made.history) == raw["history"]


async def check_images_are_found_by_their_step(lab: ImageLab) -> None:
    image = await loaded(lab, _image("steps"))
    steps = ({"Cmd": ["x"], "Env": ["A=1"]}, {"Cmd": ["x"], "Env": ["A=2"]})
    made = [
        await _derived(lab, image.id, f"steps-{number}", container_config=step)
        for number, step in enumerate(steps)
    ]

    async def found(step: bytes, parent: str = image.id) -> list[str]:
        query = ImageQuery(parent=parent, all=True, step=step)
        return [one.id for one in (await lab.images.list(query)).images]

    assert await found(b'{"Env": ["A=2"], "Cmd": ["x"]}') == [made[1].id]
    assert await found(json.dumps(steps[0]).encode(), parent="") == [made[0].id]
    assert await found(b'{"Cmd": ["x"]}') == []
    await refused(InvalidArgument, found(b"{"))


async def check_deriving_again_is_the_same_image(lab: ImageLab) -> None:
    image = await loaded(lab, _image("again"))
    assert await _derived(lab, image.id, "again-1") == await _derived(lab, image.id, "again-1")
    assert len(await _children(lab, image.id)) == 1


async def check_a_derived_image_can_be_named(lab: ImageLab) -> None:
    image = await loaded(lab, _image("naming"))
    request = DeriveRequest(
        id="n", parent=image.id, document=_document("naming-1"), reference="suite.test/named"
    )
    assert (await lab.images.derive(request)).tags == ("suite.test/named:latest",)
    assert (await lab.images.derive(request)).tags == ("suite.test/named:latest",)


async def check_deriving_needs_an_image_and_a_document(lab: ImageLab) -> None:
    await refused(NotFound, _derived(lab, "sha256:" + "0" * 64, "none"))
    for document in (b"", b"[]", b"{", b'{"history": 5}', b'{"config": {"Cmd": "x"}}'):
        await refused(InvalidArgument, lab.images.derive(DeriveRequest(id="n", document=document)))


async def check_layers_can_be_those_of_another_image(lab: ImageLab) -> None:
    image = await loaded(lab, _image("lowest", layer(("top", "2"))))
    parent = await _derived(lab, "", "lowest-parent")

    def of(count: int) -> DeriveRequest:
        step = f"lowest-{count}"
        return DeriveRequest(
            id=step, parent=parent.id, document=_document(step), layers_of=image.id, layers=count
        )

    made = [await lab.images.derive(of(count)) for count in range(3)]
    assert [one.layers for one in made] == [image.layers[:count] for count in range(3)]
    assert {one.parent for one in made} == {parent.id}
    await lab.images.prepare(PrepareRequest(id="suite-lowest", image=made[1].id))
    assert await read_text(lab, "suite-lowest", "/etc/text") == "lowest"
    await refused(NotFound, lab.images.stat(ArchiveRequest(id="suite-lowest", path="/top")))
    await refused(InvalidArgument, lab.images.derive(of(3)))


async def check_an_image_can_be_of_no_layers(lab: ImageLab) -> None:
    made = await _derived(lab, "", "scratch-1")
    assert made.layers == () and made.parent == "" and made.os == "linux" and made.architecture
    await lab.images.prepare(PrepareRequest(id="suite-scratch-0", image=made.id))
    await lab.images.release(RootRef(id="suite-scratch-0"))


async def check_children_are_told_after_a_restart(lab: ImageLab) -> None:
    image = await loaded(lab, _image("children"))
    first = await _derived(lab, image.id, "children-1")
    last = await _derived(lab, first.id, "children-2")
    if lab.restart is not None:
        lab.images = await lab.restart()
    assert await _children(lab, image.id) == [first.id]
    assert await _children(lab, first.id) == [last.id]
    assert await _children(lab, last.id) == []


async def check_intermediate_images_are_hidden(lab: ImageLab) -> None:
    image = await loaded(lab, _image("hidden"))
    first = await _derived(lab, image.id, "hidden-1")
    last = await _derived(lab, first.id, "hidden-2")
    shown = {one.id for one in (await lab.images.list(ImageQuery())).images}
    assert last.id in shown and first.id not in shown
    assert first.id in {one.id for one in (await lab.images.list(ImageQuery(all=True))).images}


async def check_a_built_image_takes_its_parents_along(lab: ImageLab) -> None:
    image = await loaded(lab, _image("along"))
    first = await _derived(lab, image.id, "along-1")
    request = DeriveRequest(
        id="n", parent=first.id, document=_document("along-2"), reference="suite.test/built:1"
    )
    last = await lab.images.derive(request)
    await lab.images.prune(ImageQuery())
    assert (await lab.images.inspect(ImageRef(reference=first.id))).id == first.id, "was pruned"
    removed = await lab.images.remove(RemoveRequest(reference="suite.test/built:1"))
    assert removed.deleted == (last.id, first.id), "the tagged parent stays, others go"


async def check_prune_can_be_narrowed(lab: ImageLab) -> None:
    def labelled(name: str, created: str, **labels: str) -> Archive:
        return Archive(
            layers=[layer(("name", name))], config={"Labels": labels}, names=[], created=created
        )

    old = await loaded(lab, labelled("narrow-1", "2001-01-01T00:00:00Z", keep="no"))
    new = await loaded(lab, labelled("narrow-2", "2011-01-01T00:00:00Z", keep="no"))
    kept = await loaded(lab, labelled("narrow-3", "2001-01-01T00:00:00Z", keep="yes"))
    limit = 1_100_000_000.0
    removed = await lab.images.prune(ImageQuery(labels=("keep=no",), until=limit))
    assert removed.deleted[:1] == (old.id,)
    removed = await lab.images.prune(ImageQuery(labels=("keep",), without_labels=("keep=yes",)))
    assert removed.deleted[:1] == (new.id,)
    assert (await lab.images.prune(ImageQuery(labels=("keep=yes",)))).deleted[:1] == (kept.id,)


async def check_a_prune_takes_images_with_those_made_of_them(lab: ImageLab) -> None:
    """Their own times say nothing of the order: builds that can be repeated have them in the past."""
    name, made = "suite.test/pruned-parent:v1", "2031-01-01T00:00:00Z"
    image = Archive(layers=[layer(("text", "pruned"))], names=[name], created=made)
    await loaded(lab, image)
    document = json.dumps({"created": "2001-01-01T00:00:00Z"}).encode()
    child = await lab.images.derive(
        DeriveRequest(
            id="suite-pruned",
            parent=image.id,
            document=document,
            reference="suite.test/pruned-child:v1",
        )
    )
    removed = await lab.images.prune(ImageQuery(dangling=False))
    assert {image.id, child.id} <= set(removed.deleted)


async def check_a_commit_can_bring_its_document(lab: ImageLab) -> None:
    image = _image("document")
    prepared = await lent(lab, "suite-document", image)
    (Path(prepared.upper) / "new").write_text("by the step")
    request = CommitRequest(
        id="suite-document-1", container="suite-document", document=_document("document-1")
    )
    made = await lab.images.commit(request)
    assert made.parent == image.id and len(made.layers) == 2
    raw = json.loads(made.raw)
    assert raw["rootfs"]["diff_ids"] == [one.diff_id for one in made.layers]
    assert raw["history"][-1] == {"created_by": "document-1"}, "there is a layer"
    assert raw["config"] == {"Cmd": ["document-1"]} and raw["created"].startswith("2024-02-02")
    assert (await lab.images.commit(request)).id == made.id
    await lab.images.prepare(PrepareRequest(id="suite-document-2", image=made.id))
    assert await read_text(lab, "suite-document-2", "/new") == "by the step"


async def check_what_was_mounted_upon_is_left_out(lab: ImageLab) -> None:
    for consume in (False, True):
        name = f"suite-stubs-{consume}"
        upper = Path((await lent(lab, name, _image("stubs"))).upper)
        for path in ("run/secrets", "empty", "full"):
            (upper / path).mkdir(parents=True)
        for path in ("run/secrets/one", "full/kept"):
            (upper / path).touch()
        stubs = ("/run/secrets", "/run/secrets/one", "/empty", "/full", "/not/there")
        document = _document(name)
        made = await lab.images.commit(
            CommitRequest(id=name, container=name, document=document, consume=consume, stubs=stubs)
        )
        await lab.images.prepare(PrepareRequest(id=f"{name}-2", image=made.id))
        for path in ("/run/secrets", "/empty"):
            assert await missing(lab, f"{name}-2", path), path
        for path in ("/run", "/full/kept", "/srv/one"):
            await lab.images.stat(ArchiveRequest(id=f"{name}-2", path=path))


async def check_a_commit_of_nothing_has_no_layer(lab: ImageLab) -> None:
    image = _image("nothing")
    await lent(lab, "suite-nothing", image)
    document = json.dumps({"history": [{"created_by": "RUN true"}]}).encode()
    made = await lab.images.commit(
        CommitRequest(id="suite-nothing-1", container="suite-nothing", document=document)
    )
    assert [one.diff_id for one in made.layers] == image.diff_ids and made.parent == image.id
    assert json.loads(made.history) == [{"created_by": "RUN true", "empty_layer": True}]


async def check_a_commit_can_consume_the_lease(lab: ImageLab) -> None:
    image = _image("consume")
    prepared = await lent(lab, "suite-consume", image)
    upper = Path(prepared.upper)
    (upper / "srv").mkdir(exist_ok=True)
    (upper / "srv/new").write_text("of the step")
    (upper / "srv/new").chmod(0o640)
    (upper / "srv/hard").hardlink_to(upper / "srv/new")
    (upper / "srv/soft").symlink_to("new")
    os.mknod(upper / "srv/two", stat.S_IFCHR, 0)
    request = CommitRequest(
        id="suite-consume-1",
        container="suite-consume",
        document=_document("consume-1"),
        consume=True,
    )
    made = await lab.images.commit(request)
    await refused(NotFound, lab.images.changes(RootRef(id="suite-consume")))
    await lab.images.release(RootRef(id="suite-consume"))
    assert (await lab.images.commit(request)).id == made.id, "the same commit again"
    await lab.images.prepare(PrepareRequest(id="suite-consume-2", image=made.id))
    assert await read_text(lab, "suite-consume-2", "/srv/hard") == "of the step"
    assert await read_text(lab, "suite-consume-2", "/etc/text") == "consume"
    assert await missing(lab, "suite-consume-2", "/srv/two")
    found = await lab.images.stat(ArchiveRequest(id="suite-consume-2", path="/srv/new"))
    assert stat.S_IMODE(found.mode) == 0o640 and found.size == len("of the step")
    assert await _stays(lab, made.id)


async def _stays(lab: ImageLab, identity: str) -> bool:
    """Whether a restart changes nothing."""
    if lab.restart is not None:
        lab.images = await lab.restart()
    await lab.images.prepare(PrepareRequest(id="suite-stays", image=identity))
    found = await read_text(lab, "suite-stays", "/srv/new") == "of the step"
    await lab.images.release(RootRef(id="suite-stays"))
    return found


async def check_an_empty_root_can_be_lent(lab: ImageLab) -> None:
    for bare in (False, True):
        name = f"suite-empty-{bare}".lower()
        prepared = await lab.images.prepare(PrepareRequest(id=name, image="", bare=bare))
        assert prepared.image.id == ""
        request = ArchiveRequest(id=name, path="/")
        await written(lab, request, layer("srv/", ("srv/new", f"of the step {bare}")))
        made = await lab.images.commit(
            CommitRequest(id=name, container=name, document=_document(name), consume=True)
        )
        assert made.parent == "" and len(made.layers) == 1 and made.architecture
        await lab.images.prepare(PrepareRequest(id=f"{name}-2", image=made.id))
        assert await read_text(lab, f"{name}-2", "/srv/new") == f"of the step {bare}"


async def check_bare_roots_show_the_image_alone(lab: ImageLab) -> None:
    image = await loaded(lab, _image("bare"))
    for bare in (True, False):
        name = f"suite-bare-{bare}".lower()
        await lab.images.prepare(PrepareRequest(id=name, image=image.id, bare=bare))
        found = await lab.images.directory(ArchiveRequest(id=name, path="/"))
        names = [one.name for one in found.entries]
        assert names == ["etc", "srv"] if bare else {"etc", "srv"} <= set(names)


async def check_directories_are_told(lab: ImageLab) -> None:
    link = (entry("srv/link", 0o777, tarfile.SYMTYPE, linkname="/etc/text"), b"")
    image = _image("names", layer(link, ("srv/.wh.two", ""), ("srv/b", "22"), "srv/dir/"))
    await lent(lab, "suite-names", image)

    async def names(path: str) -> list[str]:
        found = await lab.images.directory(ArchiveRequest(id="suite-names", path=path))
        return [one.name for one in found.entries]

    assert await names("/srv") == ["b", "dir", "link", "one"]
    assert await names("/srv/dir") == []
    found = await lab.images.directory(ArchiveRequest(id="suite-names", path="srv/"))
    by_name = {one.name: one for one in found.entries}
    assert by_name["b"].size == 2 and stat.S_ISREG(by_name["b"].mode)
    assert stat.S_ISDIR(by_name["dir"].mode) and by_name["link"].link_target == "/etc/text"
    await refused(NotFound, names("/none"))
    await refused(InvalidArgument, names("/srv/b"))


async def check_extraction_makes_directories_if_so_asked(lab: ImageLab) -> None:
    link = (entry("alias", 0o777, tarfile.SYMTYPE, linkname="srv"), b"")
    await lent(lab, "suite-makes", _image("makes", layer(link)))

    async def extract(path: str, *, make: bool) -> None:
        await lab.images.write_archive(
            ArchiveRequest(
                id="suite-makes",
                path=path,
                upload=await uploaded(lab, layer(("file", "x"))),
                make_path=make,
                uid=7,
                gid=8,
            )
        )

    await refused(NotFound, extract("/alias/a/b", make=False))
    await extract("/alias/a/b", make=True)
    await extract("/alias/a/b", make=True)
    assert await read_text(lab, "suite-makes", "/srv/a/b/file") == "x"
    data = await read_text(lab, "suite-makes", "/srv/one")
    assert data == "1", "what was there is gone"
    found = await lab.images.directory(ArchiveRequest(id="suite-makes", path="/srv"))
    made = next(one for one in found.entries if one.name == "a")
    assert stat.S_IMODE(made.mode) == 0o755
    await refused(InvalidArgument, extract("/srv/one/below", make=True))


async def check_layers_are_squashed(lab: ImageLab) -> None:
    image = _image(
        "squash",
        layer("srv/", ("srv/.wh.one", ""), ("srv/three", "3"), "new/", ("new/a", "a")),
        layer("new/", ("new/.wh..wh..opq", ""), ("new/b", "b"), ("srv/three", "three")),
    )
    base = await loaded(lab, Archive(layers=image.layers[:1], names=["suite.test/base:1"]))
    whole = await loaded(lab, image)
    made = await lab.images.squash(
        SquashRequest(id="s", image=whole.id, base=base.id, reference="suite.test/squashed")
    )
    assert made.parent == base.id and made.tags == ("suite.test/squashed:latest",)
    assert [one.diff_id for one in made.layers][:1] == image.diff_ids[:1]
    assert len(made.layers) == 2
    entries = json.loads(made.history)
    assert [one.get("empty_layer", False) for one in entries] == [False, True, True, False]
    alone = await lab.images.squash(SquashRequest(id="t", image=whole.id))
    assert len(alone.layers) == 1 and alone.parent == ""
    for number, one in enumerate((made, alone, whole)):
        name = f"suite-squash-{number}"
        await lab.images.prepare(PrepareRequest(id=name, image=one.id))
        assert await read_text(lab, name, "/srv/three") == "three"
        assert await read_text(lab, name, "/etc/text") == "squash"
        assert await read_text(lab, name, "/new/b") == "b"
        for path in ("/srv/one", "/new/a"):
            assert await missing(lab, name, path), path


async def check_only_what_is_below_can_be_kept_apart(lab: ImageLab) -> None:
    first, second = await loaded(lab, _image("apart-1")), await loaded(lab, _image("apart-2"))
    request = SquashRequest(id="s", image=first.id, base=second.id)
    await refused(InvalidArgument, lab.images.squash(request))
