"""Archives that are imported from URLs: fetched without rights, told of as they come, nothing left."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.system.image.odd_registry import Handler, OddRegistry, odd_registry

from sagong.conformance.image_lab import layer
from sagong.contracts.image import ImageRef, ImportRequest, Progress
from sagong.errors import InvalidArgument, SagongError, Unavailable
from sagong.testing import local
from sagong_image_overlay import ImageOverlay

pytestmark = pytest.mark.root


@pytest.fixture
def odd() -> Iterator[OddRegistry]:
    """A server of this test's own."""
    with odd_registry() as registry:
        yield registry


async def imported(images: ImageOverlay, url: str) -> list[Progress]:
    """All that is told."""
    return [item async for item in images.import_(ImportRequest(url=url, reference="got"))]


def short(handler: Handler, raw: bytes) -> bool:
    """Less than it says, then its end."""
    handler.close_connection = True
    return handler.give(200, raw, Content_Length=f"{len(raw) + 9}")


async def test_an_archive_is_imported_from_a_url(odd: OddRegistry, tmp_path: Path) -> None:
    raw = layer("srv/", ("srv/page", "hello"))
    odd.odd["/moved"] = lambda handler: handler.give(302, Location="/files/root.tar")
    odd.odd["/files/"] = lambda handler: handler.give(200, raw)
    async with local(ImageOverlay, data=tmp_path) as images:
        told = await imported(images, f"http://{odd.host}/moved")
        assert told[0].status == f"Downloading from http://{odd.host}/moved"
        found = await images.inspect(ImageRef(reference="got:latest"))
        assert told[-1].image == found.id and len(found.layers) == 1
        for url, error, words in (
            (f"http://{odd.host}/none", InvalidArgument, r"failed to GET .*/none with status 404"),
            ("http://nobody.invalid/x", Unavailable, "dial tcp: lookup nobody"),
            ("file:///etc/passwd", InvalidArgument, "not a URL of http"),
            ("https://user:word@", InvalidArgument, "not a URL of http"),
        ):
            with pytest.raises(error, match=words):
                await imported(images, url)
        odd.odd["/short"] = lambda handler: short(handler, raw)
        with pytest.raises(SagongError, match="unexpected EOF"):
            await imported(images, f"http://{odd.host}/short")
    assert not list((tmp_path).rglob("file-*"))
