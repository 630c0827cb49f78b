"""A push that its client gives up: what was sent is withdrawn from the registry."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.system.image.odd_registry import CONFIG, Handler, OddRegistry, digest, odd_registry

from sagong.conformance.image_lab import layer
from sagong.contracts.image import PullRequest, PushRequest, TagRequest
from sagong.testing import local
from sagong_image_overlay import ImageOverlay

pytestmark = pytest.mark.root
UPLOADS = "/v2/b/blobs/uploads/"


@pytest.fixture
def odd() -> Iterator[OddRegistry]:
    """A registry of this test's own."""
    with odd_registry() as registry:
        yield registry


def takes_uploads(odd: OddRegistry) -> None:
    """Uploads come slowly; nothing is there yet, nor can it be mounted."""

    def upload(handler: Handler) -> bool:
        if handler.command == "POST":
            return handler.give(202, Location=f"{UPLOADS}{len(odd.seen)}")
        return handler.give(204 if handler.command == "DELETE" else 202, Location=handler.path)

    odd.odd[UPLOADS] = upload
    odd.odd["/v2/b/blobs/sha256"] = lambda handler: handler.give(404)
    odd.slow = UPLOADS


async def test_a_push_that_is_given_up_withdraws_its_upload(
    odd: OddRegistry, tmp_path: Path
) -> None:
    tar = layer(("big", "x" * (40 << 20)))
    config = {"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": [digest(tar)]}}
    described = odd.blob(json.dumps(config).encode(), CONFIG)
    odd.image("a", config=described, layers=[odd.blob(gzip.compress(tar, 0, mtime=0))])
    takes_uploads(odd)
    names = [f"{odd.host}/{name}:v1" for name in "ab"]
    async with local(ImageOverlay, data=tmp_path) as images:
        async for _ in images.pull(PullRequest(id="pull", reference=names[0])):
            pass
        await images.tag(TagRequest(source=names[0], target=names[1]))
        pushing = images.push(PushRequest(id="push", reference=names[1]))
        async for progress in pushing:
            if progress.status == "Pushing":
                break
        await pushing.aclose()  # type: ignore[attr-defined]
        while "PATCH" not in {one.method for one in odd.seen}:
            await asyncio.sleep(0.05)
    (sent,) = [one for one in odd.seen if one.method == "PATCH"]
    assert len(sent.body) < 40 << 20, "it was sent to its end"
    assert sent.path in odd.paths("DELETE")
    assert not odd.paths("PUT")
