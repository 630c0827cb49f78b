"""Checks of slot `image` that need a registry: pull and push."""

from __future__ import annotations

import secrets

from sagong.conformance.image_lab import Archive, ImageLab, layer, loaded, refused
from sagong.contracts.image import (
    ImageRef,
    Progress,
    PullRequest,
    PushRequest,
    RemoveRequest,
    TagRequest,
)
from sagong.errors import InvalidArgument, NotFound, Unavailable


async def _pull(lab: ImageLab, reference: str, policy: str = "always") -> list[Progress]:
    request = PullRequest(id=f"suite-{reference}", reference=reference, policy=policy)
    return [item async for item in lab.images.pull(request)]


async def _push(lab: ImageLab, reference: str) -> list[Progress]:
    request = PushRequest(id=f"suite-{reference}", reference=reference)
    return [item async for item in lab.images.push(request)]


async def _pushed(lab: ImageLab, text: str) -> tuple[str, Archive, list[Progress]]:
    # The registry may remember an earlier run.
    fresh = secrets.token_hex(8)
    image = Archive(layers=[layer(("text", text + fresh)), layer(("more", fresh * 100))])
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
    assert {"Pulling fs layer", "Pull complete"} <= {item.status for item in pulled}
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


async def check_a_digest_can_be_pulled(lab: ImageLab) -> None:
    if not lab.registry:
        return
    name, image, told = await _pushed(lab, "by-digest")
    await lab.images.remove(RemoveRequest(reference=image.id, force=True))
    reference = f"{name.removesuffix(':v1')}@{told[-1].digest}"
    await _pull(lab, reference)
    found = await lab.images.inspect(ImageRef(reference=reference))
    assert found.id == image.id and found.tags == ()


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
