"""Checks of slot `image` that need a registry: pull and push."""

from __future__ import annotations

import json
import secrets

from sagong.conformance.image_lab import Archive, ImageLab, layer, loaded, refused
from sagong.contracts.image import (
    Artifact,
    Credentials,
    DeriveRequest,
    DistributionRequest,
    ImageRef,
    Login,
    LoginRequest,
    Platform,
    Progress,
    PullRequest,
    PushRequest,
    RemoveRequest,
    SearchRequest,
    TagRequest,
)
from sagong.errors import InvalidArgument, NotFound, Unavailable
from sagong.model.oci import MediaType, digest_of


async def _pull(lab: ImageLab, reference: str, policy: str = "always") -> list[Progress]:
    request = PullRequest(id=f"suite-{reference}", reference=reference, policy=policy)
    return [item async for item in lab.images.pull(request)]


async def _push(lab: ImageLab, reference: str) -> list[Progress]:
    request = PushRequest(id=f"suite-{reference}", reference=reference)
    return [item async for item in lab.images.push(request)]


def _fresh(text: str) -> Archive:
    """An image that the registry does not remember of an earlier run."""
    fresh = secrets.token_hex(8)
    return Archive(layers=[layer(("text", text + fresh)), layer(("more", fresh * 100))])


async def _pushed(lab: ImageLab, text: str) -> tuple[str, Archive, list[Progress]]:
    image = _fresh(text)
    name = f"{lab.registry}/suite/{text}:v1"
    await loaded(lab, image)
    await lab.images.tag(TagRequest(source=image.id, target=name))
    return name, image, await _push(lab, name)


async def check_a_pushed_image_can_be_pulled(lab: ImageLab) -> None:
    if not lab.registry:
        return
    name, image, told = await _pushed(lab, "round-trip")
    digest = told[-1].digest
    assert digest.startswith("sha256:") and told[-1].size > 0
    assert {"Preparing", "Pushed"} <= {item.status for item in told}
    await lab.images.remove(RemoveRequest(reference=image.id, force=True))
    await refused(NotFound, lab.images.inspect(ImageRef(reference=name)))
    pulled = await _pull(lab, name)
    assert pulled[-1].image == image.id and pulled[-1].digest == digest
    assert (pulled[0].id, pulled[0].status) == ("v1", "Pulling from suite/round-trip")
    assert {"Pulling fs layer", "Pull complete"} <= {item.status for item in pulled}
    again = await _pull(lab, name)
    assert [item.status.partition(" ")[0] for item in again] == ["Pulling", "Image"]
    found = await lab.images.inspect(ImageRef(reference=name))
    assert [one.diff_id for one in found.layers] == image.diff_ids
    assert found.tags == (name,) and found.digests == (f"{name.removesuffix(':v1')}@{digest}",)


async def check_pushing_again_sends_nothing(lab: ImageLab) -> None:
    if not lab.registry:
        return
    name, _, first = await _pushed(lab, "pushed-twice")
    second = await _push(lab, name)
    assert second[-1].digest == first[-1].digest
    assert "Pushed" not in {item.status for item in second}
    assert "Layer already exists" in {item.status for item in second}


async def check_images_are_pushed_as_an_index(lab: ImageLab) -> None:
    if not lab.registry:
        return
    name, image = f"{lab.registry}/suite/index:v1", _fresh("index")
    await loaded(lab, image)
    raw = (await lab.images.inspect(ImageRef(reference=image.id))).raw
    document = {**json.loads(raw), "architecture": "arm64"}
    other = await lab.images.derive(
        DeriveRequest(id="suite-index", parent=image.id, document=json.dumps(document).encode())
    )
    request = PushRequest(id="suite-index", reference=name, parts=(image.id, other.id))
    told = [item async for item in lab.images.push(request)]
    assert [item.digest for item in told if item.digest] == [told[-1].digest]
    found = await lab.images.distribution(DistributionRequest(reference=name))
    assert found.digest == told[-1].digest and len(found.parts) == len(found.kinds) == 2
    assert found.platforms[1] == Platform(architecture="arm64", os="linux")
    by_digest = f"{name.removesuffix(':v1')}@{found.parts[1]}"
    assert (await _pull(lab, by_digest))[-1].image == other.id
    pulled = await _pull(lab, name)
    assert pulled[-1].image == image.id and pulled[-1].digest == told[-1].digest
    # A name may stand for all of them, until it is another's.
    parts = (image.id, other.id)
    await lab.images.tag(TagRequest(source=image.id, target=name, parts=parts))
    assert (await _push(lab, name))[-1].digest == told[-1].digest
    await lab.images.tag(TagRequest(source=image.id, target=name))
    assert (await _push(lab, name))[-1].digest != told[-1].digest
    await refused(NotFound, _drained(lab, PushRequest(id="no", reference=name, parts=("f" * 64,))))


async def _drained(lab: ImageLab, request: PushRequest) -> None:
    async for _ in lab.images.push(request):
        continue


async def check_a_digest_can_be_pulled(lab: ImageLab) -> None:
    if not lab.registry:
        return
    name, image, told = await _pushed(lab, "by-digest")
    await lab.images.remove(RemoveRequest(reference=image.id, force=True))
    reference = f"{name.removesuffix(':v1')}@{told[-1].digest}"
    await _pull(lab, reference)
    found = await lab.images.inspect(ImageRef(reference=reference))
    assert found.id == image.id and found.tags == ()


async def check_the_last_tag_of_a_repository_takes_its_digests(lab: ImageLab) -> None:
    if not lab.registry:
        return
    name, image, told = await _pushed(lab, "last-tag")
    repository, other = name.removesuffix(":v1"), f"{lab.registry}/suite/other-tag:v1"
    for target in (f"{repository}:v2", other):
        await lab.images.tag(TagRequest(source=image.id, target=target))
    by_digest = f"{repository}@{told[-1].digest}"
    removed = await lab.images.remove(RemoveRequest(reference=name))
    assert removed.untagged == (name,) and not removed.deleted
    removed = await lab.images.remove(RemoveRequest(reference=f"{repository}:v2"))
    assert removed.untagged == (f"{repository}:v2", by_digest) and not removed.deleted
    await _push(lab, other)
    await _pull(lab, by_digest)
    removed = await lab.images.remove(RemoveRequest(reference=other))
    assert len(removed.untagged) == 2 and not removed.deleted, (
        "another repository's digest keeps it"
    )
    assert (await lab.images.remove(RemoveRequest(reference=by_digest))).deleted


async def check_a_present_image_is_not_asked_for_again(lab: ImageLab) -> None:
    name = "127.0.0.1:1/nobody/listens:v1"
    image = Archive(layers=[layer(("text", "present"))], names=[name])
    await loaded(lab, image)
    told = await _pull(lab, name, "missing")
    assert told[-1].image == image.id


async def check_an_unknown_tag_is_not_found(lab: ImageLab) -> None:
    if not lab.registry:
        return
    name, _, _ = await _pushed(lab, "unknown-tag")
    wanted = name.replace(":v1", ":v2")
    error = await refused(NotFound, _pull(lab, wanted))
    assert error.message == (f"manifest for {wanted} not found: manifest unknown: manifest unknown")


async def check_an_unknown_image_is_not_pushed(lab: ImageLab) -> None:
    error = await refused(NotFound, _push(lab, "127.0.0.1:1/never/heard-of"))
    assert error.message.startswith("An image does not exist locally with the tag: ")


async def check_a_silent_registry_is_unavailable(lab: ImageLab) -> None:
    error = await refused(Unavailable, _pull(lab, "127.0.0.1:1/nobody/there:v1"))
    assert "dial tcp 127.0.0.1:1: connect: connection refused" in error.message


async def check_impossible_names_are_not_pulled(lab: ImageLab) -> None:
    await refused(InvalidArgument, _pull(lab, "lower/UPPER:v1"))


async def check_a_search_finds_repositories(lab: ImageLab) -> None:
    if not lab.registry:
        return
    word = f"look{secrets.token_hex(6)}"
    await _pushed(lab, f"{word}-a")
    await _pushed(lab, f"{word}-b")
    for term, wanted in ((word, ["-a", "-b"]), (f"{word}-b", ["-b"]), ("never-there", [])):
        found = await lab.images.search(SearchRequest(term=f"{lab.registry}/{term}"))
        names = sorted(one.name for one in found.results)
        assert names == [f"{lab.registry}/suite/{word}{end}" for end in wanted]
    few = await lab.images.search(SearchRequest(term=f"{lab.registry}/{word}", limit=1))
    assert len(few.results) == 1
    none = await lab.images.search(SearchRequest(term=f"{lab.registry}/{word}", stars=10_000))
    assert none.results == ()


async def check_a_name_is_described(lab: ImageLab) -> None:
    if not lab.registry:
        return
    name, _, told = await _pushed(lab, "described")
    found = await lab.images.distribution(DistributionRequest(reference=name))
    assert (found.digest, found.size) == (told[-1].digest, told[-1].size)
    assert found.media_type.endswith("+json")
    assert found.platforms == (Platform(architecture="amd64", os="linux"),)
    assert found.parts == () and found.kinds[0] in (MediaType.OCI_CONFIG, MediaType.DOCKER_CONFIG)
    by_digest = f"{name.removesuffix(':v1')}@{found.digest}"
    assert await lab.images.distribution(DistributionRequest(reference=by_digest)) == found
    unknown = DistributionRequest(reference=name.replace(":v1", ":v2"))
    await refused(NotFound, lab.images.distribution(unknown))


async def check_all_tags_are_pushed_and_pulled(lab: ImageLab) -> None:
    if not lab.registry:
        return
    image = Archive(layers=[layer(("text", secrets.token_hex(8)))])
    repository = f"{lab.registry}/suite/tags{secrets.token_hex(6)}"
    await loaded(lab, image)
    for tag in ("one", "two"):
        await lab.images.tag(TagRequest(source=image.id, target=f"{repository}:{tag}"))
    request = PushRequest(id="suite-all", reference=repository, all_tags=True)
    told = [item async for item in lab.images.push(request)]
    assert [item.reference.rpartition(":")[2] for item in told if item.image] == ["one", "two"]
    await lab.images.remove(RemoveRequest(reference=image.id, force=True))
    wanted = PullRequest(id="suite-all", reference=repository, all_tags=True)
    pulled = [item async for item in lab.images.pull(wanted)]
    ended = {item.reference.rpartition(":")[2] for item in pulled if item.image}
    assert ended == {"one", "two"}
    found = await lab.images.inspect(ImageRef(reference=f"{repository}:two"))
    assert found.tags == (f"{repository}:one", f"{repository}:two")


async def check_a_registry_for_everybody_takes_a_login(lab: ImageLab) -> None:
    if not lab.registry:
        return
    given = Credentials(username="u", password="p", server=lab.registry)
    assert await lab.images.login(LoginRequest(credentials=given)) == Login()


async def check_questions_to_nobody_are_unavailable(lab: ImageLab) -> None:
    nobody = "127.0.0.1:1"
    given = Credentials(username="u", password="p", server=nobody)
    for work in (
        lab.images.search(SearchRequest(term=f"{nobody}/a")),
        lab.images.distribution(DistributionRequest(reference=f"{nobody}/a")),
        lab.images.login(LoginRequest(credentials=given)),
    ):
        error = await refused(Unavailable, work)
        assert "connection refused" in error.message


async def check_impossible_searches_are_invalid(lab: ImageLab) -> None:
    for term, limit in (("a", 0), ("a", 101), ("", 5), ("http://r.test/a", 5), ("127.0.0.1:1/", 5)):
        await refused(InvalidArgument, lab.images.search(SearchRequest(term=term, limit=limit)))


async def check_notes_go_out_with_an_image(lab: ImageLab) -> None:
    """Artifacts and annotations are of what is sent; the name's next push has them, too."""
    if not lab.registry:
        return
    name, image, plain = await _pushed(lab, "noted")
    blob = secrets.token_hex(8).encode()
    described = {"mediaType": MediaType.EMPTY, "digest": digest_of(blob), "size": len(blob)}
    manifest = {"schemaVersion": 2, "mediaType": MediaType.OCI_MANIFEST, "config": described}
    artifact = Artifact(manifest=json.dumps(manifest).encode(), blobs=(blob,))
    request = PushRequest(
        id="suite-noted",
        reference=name,
        parts=(image.id,),
        artifacts=(artifact,),
        annotations=(("a", "b"),),
    )
    noted = [item async for item in lab.images.push(request)]
    found = await lab.images.distribution(DistributionRequest(reference=name))
    assert found.digest == noted[-1].digest
    # Who looks for images sees no artifact, and the image is another by its annotation.
    assert len(found.parts) == 1 and found.parts[0] != plain[-1].digest
    assert (await _push(lab, name))[-1].digest == noted[-1].digest
    await lab.images.tag(TagRequest(source=image.id, target=name))
    assert (await _push(lab, name))[-1].digest == plain[-1].digest
    assert [item async for item in lab.images.push(request)][-1].digest == noted[-1].digest
    assert (await _pull(lab, name))[-1].image == image.id
