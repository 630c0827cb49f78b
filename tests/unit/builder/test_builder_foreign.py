"""What other builders have left: BuildKit's caches are told from images, and images stay images."""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

import pytest

from sagong.errors import FailedPrecondition
from sagong.model import oci
from sagong_builder.buildkit.content import ContentStore
from sagong_builder.buildkit.stored import StoredImages
from sagong_builder.foreign import check_made_here
from sagong_builder.shop import Shop

RECORDS = "application/vnd.buildkit.cacheconfig.v0"


class Store:
    """A directory of the client's: blobs by their digests."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}

    def put(self, document: dict[str, Any]) -> dict[str, Any]:
        """Keep a document; its descriptor."""
        raw = json.dumps(document).encode()
        digest = oci.digest_of(raw)
        self.blobs[digest] = raw
        kind = document.get("mediaType", "application/vnd.oci.image.config.v1+json")
        return {"mediaType": kind, "digest": digest, "size": len(raw)}

    def image(self, kind: str = "", **config: Any) -> dict[str, Any]:
        """An image whose config says more."""
        rootfs = {"type": "layers", "diff_ids": []}
        made = self.put({"architecture": "amd64", "os": "linux", "rootfs": rootfs, **config})
        if kind:
            made["mediaType"] = kind
        media = "application/vnd.oci.image.manifest.v1+json"
        return self.put({"schemaVersion": 2, "mediaType": media, "config": made, "layers": []})

    def index(self, *entries: dict[str, Any]) -> str:
        """An index of them; its digest."""
        media = "application/vnd.oci.image.index.v1+json"
        made = self.put({"schemaVersion": 2, "mediaType": media, "manifests": entries})
        return str(made["digest"])

    async def document(self, digest: str) -> bytes:
        """As the client lends it."""
        return self.blobs[digest]


def stored(store: Store) -> StoredImages:
    """What is read of it."""
    return StoredImages(cast(Shop, None), cast(ContentStore, store))


def test_records_of_buildkits_are_named_as_such() -> None:
    store = Store()
    records = {**store.put({"layers": [], "records": []}), "mediaType": RECORDS}
    for digest in (store.index(store.image(), records), store.image(RECORDS)["digest"]):
        with pytest.raises(FailedPrecondition, match="a cache of BuildKit's"):
            asyncio.run(stored(store).all(digest))
    check_made_here(["application/vnd.oci.image.manifest.v1+json"], b"{}")


def test_an_image_with_records_in_it_is_no_cache_and_still_an_image() -> None:
    store = Store()
    inline = {"moby.buildkit.cache.v0": "eyJsYXllcnMiOltdfQ=="}
    images = stored(store)
    image = asyncio.run(images.one(store.index(store.image(**inline)), "linux/amd64"))
    with pytest.raises(FailedPrecondition, match="a cache of BuildKit's"):
        images.offer(image)
    plain = asyncio.run(images.one(store.index(store.image()), "linux/amd64"))
    assert images.offer(plain).id == plain.id
