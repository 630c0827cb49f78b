"""Checks of slot `image`: loading, telling, naming, removing, saving and importing images."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import io
import json

import msgspec

from sagong.conformance.image_lab import (
    Archive,
    ImageLab,
    digest,
    docker_archive,
    fetch,
    layer,
    load,
    loaded,
    oci_archive,
    read_tar,
    refused,
    uploaded,
)
from sagong.contracts.image import (
    Image,
    ImageQuery,
    ImageRef,
    ImportRequest,
    LoadRequest,
    PrepareRequest,
    RemoveRequest,
    RootRef,
    SaveRequest,
    TagRequest,
)
from sagong.contracts.streams import KEPT, Address
from sagong.errors import Conflict, InvalidArgument, NotFound, SagongError
from sagong.uploading import send_file

_CONFIG = {
    "Env": ["A=1", "B=two words"],
    "Cmd": ["serve"],
    "Entrypoint": ["/bin/app", "-v"],
    "User": "app:extra",
    "WorkingDir": "/srv",
    "Labels": {"b": "2", "a": "1"},
    "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
    "Volumes": {"/data": {}},
    "StopSignal": "SIGINT",
    "Healthcheck": {"Test": ["CMD", "true"], "Interval": 1000000000},
    "Shell": ["/bin/ash", "-c"],
    "OnBuild": ["RUN true"],
}


def _image(text: str, **facts: object) -> Archive:
    """An image that no other check has."""
    archive = Archive(layers=[layer("etc/", ("etc/text", text))], names=[f"suite.test/{text}:v1"])
    for key, value in facts.items():
        setattr(archive, key, value)
    return archive


async def _ids(lab: ImageLab, query: ImageQuery) -> list[str]:
    return [image.id for image in (await lab.images.list(query)).images]


async def _inspect(lab: ImageLab, reference: str) -> Image:
    return await lab.images.inspect(ImageRef(reference=reference))


async def check_load_tells_each_name(lab: ImageLab) -> None:
    image = _image("names", names=["suite.test/names:v1", "suite.test/names:v2"])
    told = await load(lab, docker_archive(image))
    assert [item.reference for item in told if item.reference] == list(image.names)
    assert {item.image for item in told if item.image} == {image.id}


async def check_load_without_names_tells_the_image(lab: ImageLab) -> None:
    image = _image("nameless", names=[])
    told = await load(lab, docker_archive(image))
    assert told[-1].image == image.id and not told[-1].reference
    assert (await _inspect(lab, image.id)).tags == ()


async def check_load_takes_several_images(lab: ImageLab) -> None:
    first, second = _image("several-a"), _image("several-b")
    await load(lab, docker_archive(first, second))
    for image in (first, second):
        assert (await _inspect(lab, image.names[0])).id == image.id


async def check_layers_that_are_here_need_not_be_in_the_archive(lab: ImageLab) -> None:
    below, above = layer(("below", "here")), layer(("above", "new"))
    image = Archive(layers=[below, above], names=["suite.test/squashed:v1"])
    part = docker_archive(image, lacking=[below])
    await refused(InvalidArgument, load(lab, part))
    await loaded(lab, Archive(layers=[below], names=["suite.test/squashed:below"]))
    assert [item.image for item in await load(lab, part)] == [image.id]
    await lab.images.remove(RemoveRequest(reference="suite.test/squashed:below"))
    await lab.images.prepare(PrepareRequest(id="suite-squashed", image=image.id))
    found = read_tar(await fetch(await lab.images.export(RootRef(id="suite-squashed"))))
    assert (found["below"][1], found["above"][1]) == (b"here", b"new")
    await lab.images.release(RootRef(id="suite-squashed"))


async def check_load_takes_oci_layouts(lab: ImageLab) -> None:
    image = _image("layout")
    await load(lab, oci_archive(image))
    found = await _inspect(lab, image.names[0])
    assert found.id == image.id
    assert found.manifest_digest.startswith("sha256:")


async def check_load_takes_compressed_archives(lab: ImageLab) -> None:
    image = _image("compressed")
    await load(lab, gzip.compress(docker_archive(image)))
    assert (await _inspect(lab, image.names[0])).id == image.id


async def check_load_may_come_before_the_bytes(lab: ImageLab) -> None:
    image = _image("early")
    address = await lab.images.upload()

    async def loading() -> list[object]:
        return [item async for item in lab.images.load(LoadRequest(upload=address.token))]

    task = asyncio.create_task(loading())
    _, writer = await asyncio.open_unix_connection(address.path)
    raw = docker_archive(image)
    writer.write(address.token.encode() + b"\n" + raw[:1000])
    await writer.drain()
    writer.write(raw[1000:])
    writer.write_eof()
    assert await task
    writer.close()


async def check_loading_again_changes_nothing(lab: ImageLab) -> None:
    image = _image("again")
    first = await loaded(lab, image)
    second = await loaded(lab, image)
    assert (first.id, first.tags, first.layers) == (second.id, second.tags, second.layers)
    assert (await _ids(lab, ImageQuery())).count(image.id) == 1


async def check_rubbish_is_refused(lab: ImageLab) -> None:
    before = await _ids(lab, ImageQuery(all=True))
    for raw in (b"this is no archive" * 100, b"", layer(("file", "no manifest"))):
        await refused(InvalidArgument, load(lab, raw))
    assert await _ids(lab, ImageQuery(all=True)) == before


async def check_a_damaged_layer_is_refused(lab: ImageLab) -> None:
    image = _image("damaged")
    raw = docker_archive(image).replace(b"damaged", b"DAMAGED", 1)
    await refused(InvalidArgument, load(lab, raw))
    await refused(NotFound, _inspect(lab, image.id))


async def check_an_upload_is_taken_once(lab: ImageLab) -> None:
    token = await uploaded(lab, docker_archive(_image("once")))
    assert [item async for item in lab.images.load(LoadRequest(upload=token))]

    async def again(name: str) -> None:
        async for _ in lab.images.load(LoadRequest(upload=name)):
            pass

    for name in (token, "never"):
        try:
            await again(name)
        except (InvalidArgument, NotFound):
            continue
        raise AssertionError(f"upload {name} was taken")


async def check_an_upload_begins_at_a_successor(lab: ImageLab) -> None:
    """Whoever has an address is served there, though nothing has come of his upload yet."""
    if lab.restart is None:
        return
    image = _image("begins")
    address = await lab.images.upload()
    lab.images = await lab.restart()
    sending = asyncio.create_task(send_file(address, io.BytesIO(docker_archive(image))))
    request = LoadRequest(upload=address.token)
    assert [item.image async for item in lab.images.load(request)] == [image.id]
    await sending


async def check_an_upload_goes_on_at_a_successor(lab: ImageLab) -> None:
    if lab.restart is None:
        return
    image = _image("broken-off")
    raw = docker_archive(image)
    address = await lab.images.upload()
    reader, writer = await asyncio.open_unix_connection(address.path)
    writer.write(address.token.encode() + b"\n" + raw[:1000])
    await writer.drain()
    await asyncio.sleep(0.1)  # a part of it may have come, or not
    lab.images = await lab.restart()
    with contextlib.suppress(ConnectionError):
        assert await reader.read() == b"", "a part of an upload was taken for the whole"
    writer.close()
    told = await _sent_on(address, raw)
    assert told in (0, 1000), told
    request = LoadRequest(upload=address.token)
    assert [item.image async for item in lab.images.load(request)] == [image.id]


async def _sent_on(address: Address, raw: bytes) -> int:
    """Connect again, hear how many bytes are there, and send the others."""
    reader, writer = await asyncio.open_unix_connection(address.path)
    writer.write(address.token.encode() + b"\n")
    told = await reader.readline()
    assert told.strip().isdigit(), told
    writer.write(raw[int(told) :])
    writer.write_eof()
    assert await reader.read() == KEPT
    writer.close()
    return int(told)


async def check_an_upload_waits_for_a_successor(lab: ImageLab) -> None:
    if lab.restart is None:
        return
    image = _image("waits")
    token = await uploaded(lab, docker_archive(image))
    lab.images = await lab.restart()
    request = LoadRequest(upload=token)
    assert [item.image async for item in lab.images.load(request)] == [image.id]
    try:
        async for _ in lab.images.load(request):
            pass
    except (InvalidArgument, NotFound):
        return
    raise AssertionError("an upload was taken twice")


async def check_what_was_answered_is_answered_by_a_successor(lab: ImageLab) -> None:
    """A provider may end between its work and the answer."""
    if lab.restart is None:
        return
    archive = docker_archive(_image("answered"))
    load = LoadRequest(upload=await uploaded(lab, archive))
    taken = [item async for item in lab.images.load(load)]
    import_ = ImportRequest(upload=await uploaded(lab, layer(("file", "x"))))
    imported = [item async for item in lab.images.import_(import_)]
    lab.images = await lab.restart()
    assert [item async for item in lab.images.load(load)] == taken
    assert [item async for item in lab.images.import_(import_)] == imported
    images = await _ids(lab, ImageQuery(all=True))
    assert {taken[-1].image, imported[-1].image} <= {*images}


async def check_inspect_tells_the_config(lab: ImageLab) -> None:
    image = _image("config", config=_CONFIG)
    found = await loaded(lab, image)
    config = found.config
    assert config.env == ("A=1", "B=two words") and config.cmd == ("serve",)
    assert config.entrypoint == ("/bin/app", "-v") and config.user == "app:extra"
    assert config.working_dir == "/srv" and config.stop_signal == "SIGINT"
    assert dict(config.labels) == {"a": "1", "b": "2"}
    assert set(config.exposed_ports) == {"80/tcp", "53/udp"} and config.volumes == ("/data",)
    assert json.loads(config.healthcheck)["Test"] == ["CMD", "true"]
    assert config.shell == ("/bin/ash", "-c") and config.onbuild == ("RUN true",)


async def check_an_unset_command_is_none(lab: ImageLab) -> None:
    found = await loaded(lab, _image("unset", config={"Entrypoint": []}))
    assert found.config.cmd is None
    assert found.config.entrypoint in ((), None)


async def check_inspect_tells_the_facts(lab: ImageLab) -> None:
    image = _image("facts", architecture="arm64", created="2021-02-03T04:05:06Z")
    found = await loaded(lab, image)
    assert digest(found.raw) == found.id == image.id
    assert found.architecture == "arm64" and found.os == "linux"
    assert found.created == "2021-02-03T04:05:06Z"
    assert [one.diff_id for one in found.layers] == image.diff_ids
    assert found.size >= len("facts") and len(json.loads(found.history)) == 1


async def check_images_are_found_by_every_form(lab: ImageLab) -> None:
    image = _image("forms", names=["forms-of-names:latest", "docker.io/library/forms:v3"])
    await loaded(lab, image)
    hexadecimal = image.id.removeprefix("sha256:")
    for form in (
        "forms-of-names",
        "forms-of-names:latest",
        "docker.io/library/forms-of-names",
        "forms:v3",
        "library/forms:v3",
        image.id,
        hexadecimal,
        hexadecimal[:12],
        "sha256:" + hexadecimal[:12],
    ):
        assert (await _inspect(lab, form)).id == image.id, form


async def check_names_are_told_as_users_write_them(lab: ImageLab) -> None:
    image = _image("familiar", names=["docker.io/library/familiar:v1", "host.test:5000/a/b:c"])
    found = await loaded(lab, image)
    assert set(found.tags) == {"familiar:v1", "host.test:5000/a/b:c"}


async def check_unknown_images_are_not_found(lab: ImageLab) -> None:
    error = await refused(NotFound, _inspect(lab, "never-heard-of"))
    assert error.message == "No such image: never-heard-of:latest"
    await refused(NotFound, _inspect(lab, "sha256:" + "0" * 64))
    await refused(NotFound, _inspect(lab, "never-heard-of@sha256:" + "0" * 64))


async def check_impossible_references_are_invalid(lab: ImageLab) -> None:
    for reference in ("lower/UPPER", "a b", "name:", "-x/y", "a//b", "name@sha256:12"):
        await refused(InvalidArgument, _inspect(lab, reference))


async def check_an_ambiguous_prefix_is_invalid(lab: ImageLab) -> None:
    images = [Archive(config={"Labels": {"n": str(number)}}) for number in range(17)]
    await load(lab, docker_archive(*images))
    digits = [image.id[7:8] for image in images]
    # Of seventeen ids two begin with the same digit. A digit alone could be a name: not with sha256.
    twice = next(digit for digit in digits if digits.count(digit) > 1)
    await refused(InvalidArgument, _inspect(lab, "sha256:" + twice))


async def check_images_are_listed_newest_first(lab: ImageLab) -> None:
    old = _image("older", created="2001-01-01T00:00:00Z")
    new = _image("newer", created="2031-01-01T00:00:00Z")
    await load(lab, docker_archive(new, old))
    ids = await _ids(lab, ImageQuery())
    assert ids.index(new.id) < ids.index(old.id)


async def check_lists_can_be_brief(lab: ImageLab) -> None:
    image = _image("brief")
    await load(lab, docker_archive(image))
    (whole,) = (await lab.images.list(ImageQuery(reference=image.names[0]))).images
    (brief,) = (await lab.images.list(ImageQuery(reference=image.names[0], brief=True))).images
    assert whole.raw and not brief.raw and brief.history == b"[]"
    assert msgspec.structs.replace(brief, raw=whole.raw, history=whole.history) == whole


async def check_lists_can_be_narrowed(lab: ImageLab) -> None:
    named, nameless = _image("narrowed"), _image("narrowed-nameless", names=[])
    await load(lab, docker_archive(named, nameless))
    names = ("narrowed", "narrowed:v1", "narr*:v?", "narr[^z]wed")
    for reference in (f"suite.test/{name}" for name in names):
        assert await _ids(lab, ImageQuery(reference=reference)) == [named.id], reference
    assert await _ids(lab, ImageQuery(reference="suite.test/nothing-like-it")) == []
    await refused(InvalidArgument, _ids(lab, ImageQuery(reference="suite.test/[")))
    dangling = await _ids(lab, ImageQuery(dangling=True))
    assert nameless.id in dangling and named.id not in dangling
    tagged = await _ids(lab, ImageQuery(dangling=False))
    assert named.id in tagged and nameless.id not in tagged


async def check_a_tag_moves(lab: ImageLab) -> None:
    first, second = _image("moves-a"), _image("moves-b")
    await load(lab, docker_archive(first, second))
    for source in (first, second, second):
        await lab.images.tag(TagRequest(source=source.id, target="suite.test/moves"))
    assert (await _inspect(lab, "suite.test/moves:latest")).id == second.id
    assert (await _inspect(lab, first.id)).tags == tuple(first.names)


async def check_tags_need_an_image_and_a_name(lab: ImageLab) -> None:
    image = _image("tagless")
    await loaded(lab, image)
    await refused(NotFound, lab.images.tag(TagRequest(source="never-heard-of", target="x")))
    for target in ("UPPER", "a:b:c", "", "x@" + image.id):
        await refused(InvalidArgument, lab.images.tag(TagRequest(source=image.id, target=target)))


async def check_removing_one_of_two_names_keeps_the_image(lab: ImageLab) -> None:
    image = _image("two", names=["suite.test/two:v1", "suite.test/two:v2"])
    await loaded(lab, image)
    removed = await lab.images.remove(RemoveRequest(reference="suite.test/two:v1"))
    assert removed.untagged == ("suite.test/two:v1",) and removed.deleted == ()
    assert (await _inspect(lab, image.id)).tags == ("suite.test/two:v2",)


async def check_a_name_can_go_without_its_image(lab: ImageLab) -> None:
    image = _image("alone")
    await loaded(lab, image)
    removed = await lab.images.remove(RemoveRequest(reference=image.names[0], keep=True))
    assert removed.untagged == tuple(image.names) and removed.deleted == ()
    assert (await _inspect(lab, image.id)).tags == ()


async def check_removing_the_last_name_deletes_the_image(lab: ImageLab) -> None:
    image = _image("last")
    await loaded(lab, image)
    removed = await lab.images.remove(RemoveRequest(reference=image.names[0]))
    assert removed.untagged == tuple(image.names) and image.id in removed.deleted
    await refused(NotFound, _inspect(lab, image.id))
    # What it needed is gone or not, but it can come back.
    assert (await loaded(lab, image)).id == image.id


async def check_removed_layers_are_told(lab: ImageLab) -> None:
    shared, own = layer(("shared", "by two")), layer(("own", "of one"))
    image = Archive(layers=[shared, own], names=["suite.test/layers:1"])
    other = Archive(layers=[shared], names=["suite.test/layers:2"])
    await load(lab, docker_archive(image, other))
    lowest = digest(shared)
    top = digest(f"{lowest} {digest(own)}".encode())
    removed = await lab.images.remove(RemoveRequest(reference=image.names[0]))
    assert removed.deleted == (image.id, top), "the image, then what nothing else needs"
    removed = await lab.images.remove(RemoveRequest(reference=other.names[0]))
    assert removed.deleted == (other.id, lowest)


async def check_removing_by_id_takes_all_names_of_a_repository(lab: ImageLab) -> None:
    image = _image("by-id", names=["suite.test/by-id:v1", "suite.test/by-id:v2"])
    await loaded(lab, image)
    removed = await lab.images.remove(RemoveRequest(reference=image.id[7:19]))
    assert set(removed.untagged) == set(image.names) and image.id in removed.deleted


async def check_removing_by_id_needs_force_for_two_repositories(lab: ImageLab) -> None:
    image = _image("repos", names=["suite.test/repos-a:v1", "suite.test/repos-b:v1"])
    await loaded(lab, image)
    error = await refused(Conflict, lab.images.remove(RemoveRequest(reference=image.id)))
    assert "image is referenced in multiple repositories" in error.message
    await lab.images.remove(RemoveRequest(reference=image.id, force=True))
    await refused(NotFound, _inspect(lab, image.id))


async def check_used_images_stay(lab: ImageLab) -> None:
    image = _image("used")
    await loaded(lab, image)
    await lab.images.prepare(PrepareRequest(id="suite-used", image=image.names[0]))
    error = await refused(Conflict, lab.images.remove(RemoveRequest(reference=image.names[0])))
    assert "(must force) - container suite-used is using its referenced image" in error.message
    await refused(Conflict, lab.images.remove(RemoveRequest(reference=image.id)))
    await lab.images.release(RootRef(id="suite-used"))
    await lab.images.remove(RemoveRequest(reference=image.names[0]))


async def check_force_removes_used_images_but_not_their_files(lab: ImageLab) -> None:
    image = _image("forced")
    await loaded(lab, image)
    await lab.images.prepare(PrepareRequest(id="suite-forced", image=image.names[0]))
    await lab.images.remove(RemoveRequest(reference=image.names[0], force=True))
    await refused(NotFound, _inspect(lab, image.names[0]))
    address = await lab.images.export(RootRef(id="suite-forced"))
    assert read_tar(await fetch(address))["etc/text"][1] == b"forced"
    await lab.images.release(RootRef(id="suite-forced"))


async def check_what_was_removed_is_told_by_a_successor(lab: ImageLab) -> None:
    """A provider may end between its work and the answer; its successor is told of it once."""
    if lab.restart is None:
        return
    image = await loaded(lab, _image("told", names=["suite.test/told:1", "suite.test/told:2"]))
    name = RemoveRequest(reference="suite.test/told:1")
    untagged = await lab.images.remove(name)
    assert untagged.untagged == ("suite.test/told:1",)
    lab.images = await lab.restart()
    assert (await lab.images.remove(name)).untagged == untagged.untagged
    await refused(NotFound, lab.images.remove(name))
    whole = RemoveRequest(reference=image.id)
    removed = await lab.images.remove(whole)
    lab.images = await lab.restart()
    await refused(NotFound, lab.images.remove(name))
    again = await lab.images.remove(whole)
    assert (again.untagged, again.deleted) == (removed.untagged, removed.deleted)
    assert image.id in again.deleted


async def check_removing_the_unknown_is_not_found(lab: ImageLab) -> None:
    error = await refused(NotFound, lab.images.remove(RemoveRequest(reference="nobody/knows")))
    assert error.message == "No such image: nobody/knows:latest"


async def check_prune_takes_only_what_nothing_uses(lab: ImageLab) -> None:
    named, nameless = _image("prune-named"), _image("prune-nameless", names=[])
    used = _image("prune-used", names=[])
    twice = _image("prune-twice", names=["suite.test/twice:b", "suite.test/twice:a"])
    await load(lab, docker_archive(named, nameless, used, twice))
    await lab.images.prepare(PrepareRequest(id="suite-prune", image=used.id))
    await lab.images.prepare(PrepareRequest(id="suite-prune-twice", image=twice.id))
    removed = await lab.images.prune(ImageQuery(dangling=True))
    assert nameless.id in removed.deleted
    assert named.id not in removed.deleted and used.id not in removed.deleted
    removed = await lab.images.prune(ImageQuery(dangling=False))
    assert named.id in removed.deleted and used.id not in removed.deleted
    assert "suite.test/twice:a" in removed.untagged and twice.id not in removed.deleted
    assert (await lab.images.inspect(ImageRef(reference=twice.id))).tags == ("suite.test/twice:b",)
    for name in ("suite-prune", "suite-prune-twice"):
        await lab.images.release(RootRef(id=name))


async def check_saved_images_can_be_loaded(lab: ImageLab) -> None:
    image = _image("saved", config=_CONFIG, names=["suite.test/saved:v1", "suite.test/saved:v2"])
    before = await loaded(lab, image)
    address = await lab.images.save(SaveRequest(references=("suite.test/saved:v1", image.id)))
    raw = await fetch(address)
    members = read_tar(raw)
    (listed,) = json.loads(members["manifest.json"][1])
    assert listed["RepoTags"] == ["suite.test/saved:v1"]
    assert digest(members[listed["Config"]][1]) == image.id
    assert {"oci-layout", "index.json"} <= set(members)
    await lab.images.remove(RemoveRequest(reference=image.id))
    await load(lab, raw)
    after = await _inspect(lab, image.id)
    assert after.tags == ("suite.test/saved:v1",) and after.layers == before.layers


async def check_saving_the_unknown_is_not_found(lab: ImageLab) -> None:
    await refused(NotFound, lab.images.save(SaveRequest(references=("never-heard-of",))))


async def check_import_makes_an_image(lab: ImageLab) -> None:
    raw = layer("srv/", ("srv/page", "hello"))
    request = ImportRequest(
        upload=await uploaded(lab, raw),
        reference="suite.test/imported",
        message="by the suite",
        changes=('CMD ["/srv/run", "now"]', "ENV A=b C='d e'", "EXPOSE 80", "LABEL x=y"),
    )
    told = [item async for item in lab.images.import_(request)]
    found = await _inspect(lab, "suite.test/imported:latest")
    assert told[-1].image == found.id
    assert found.config.cmd == ("/srv/run", "now") and found.config.env == ("A=b", "C=d e")
    assert found.config.exposed_ports == ("80/tcp",) and found.config.labels == (("x", "y"),)
    assert json.loads(found.history)[-1]["comment"] == "by the suite"
    assert [one.diff_id for one in found.layers] == [digest(raw)]


async def check_import_gets_a_url(lab: ImageLab) -> None:
    raw = layer("srv/", ("srv/page", "from afar"))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.readuntil(b"\r\n\r\n")
        found = asked.split()[1] == b"/root.tar"
        status, body = (b"200 OK", raw) if found else (b"404 Not Found", b"")
        head = b"HTTP/1.1 %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
        writer.write(head % (status, len(body)) + body)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        request = ImportRequest(url=f"http://127.0.0.1:{port}/root.tar", reference="suite.test/url")
        told = [item async for item in lab.images.import_(request)]
        found = await _inspect(lab, "suite.test/url:latest")
        assert told[-1].image == found.id
        assert [one.diff_id for one in found.layers] == [digest(raw)]
        # What is not there is no empty image.
        await refused(SagongError, _imported(lab, f"http://127.0.0.1:{port}/other.tar"))
    await refused(InvalidArgument, _imported(lab, "file:///etc/passwd"))


async def _imported(lab: ImageLab, url: str) -> None:
    async for _ in lab.images.import_(ImportRequest(url=url)):
        pass


async def check_import_refuses_other_changes(lab: ImageLab) -> None:
    request = ImportRequest(upload=await uploaded(lab, layer("a/")), changes=("RUN true",))

    async def work() -> None:
        async for _ in lab.images.import_(request):
            pass

    await refused(InvalidArgument, work())


async def check_usage_counts_layers(lab: ImageLab) -> None:
    before = await lab.images.usage()
    raw = layer(("large", "x" * 300_000))
    await loaded(lab, Archive(layers=[raw], names=["suite.test/usage:v1"]))
    after = await lab.images.usage()
    assert 300_000 <= after.layers - before.layers < 400_000
    assert after.reclaimable - before.reclaimable >= 300_000


async def check_images_survive_a_restart(lab: ImageLab) -> None:
    if lab.restart is None:
        return
    image = _image("survives")
    before = await loaded(lab, image)
    await lab.images.prepare(PrepareRequest(id="suite-survives", image=image.id))
    lab.images = await lab.restart()
    assert await _inspect(lab, image.names[0]) == before
    await refused(Conflict, lab.images.remove(RemoveRequest(reference=image.id)))
    await lab.images.release(RootRef(id="suite-survives"))
