"""Specification, "Pull": manifests and blobs, whole and in parts, and what is not there."""

from __future__ import annotations

import pytest
from tests.compat.registry.wire import INDEX, MANIFEST, Client, Content, index

pytestmark = pytest.mark.root
ABSENT = "sha256:" + "0" * 64


def test_the_registry_says_that_it_is_one(registry: Client) -> None:
    assert registry.ask("GET", "/v2/").status == 200


def test_a_manifest_is_pulled_by_tag_and_by_digest(registry: Client, name: str) -> None:
    manifest = registry.push_image(name, "v1")
    for reference in ("v1", manifest.digest):
        found = registry.ask(
            "GET", f"/v2/{name}/manifests/{reference}", headers={"Accept": MANIFEST}
        )
        assert found.status == 200 and found.body == manifest.data
        assert found.headers["content-type"] == MANIFEST
        assert found.headers["docker-content-digest"] == manifest.digest


def test_head_of_a_manifest_tells_size_and_digest(registry: Client, name: str) -> None:
    manifest = registry.push_image(name, "v1")
    for reference in ("v1", manifest.digest):
        found = registry.ask(
            "HEAD", f"/v2/{name}/manifests/{reference}", headers={"Accept": MANIFEST}
        )
        assert (found.status, found.body) == (200, b"")
        assert found.headers["content-length"] == str(len(manifest.data))
        assert found.headers["docker-content-digest"] == manifest.digest


def test_an_unknown_manifest_is_404(registry: Client, name: str) -> None:
    registry.push_image(name, "v1")
    for reference in ("v2", ABSENT):
        found = registry.ask("GET", f"/v2/{name}/manifests/{reference}")
        assert (found.status, found.code) == (404, "MANIFEST_UNKNOWN")
        assert registry.ask("HEAD", f"/v2/{name}/manifests/{reference}").status == 404


def test_a_repository_that_does_not_exist_is_404(registry: Client, name: str) -> None:
    assert registry.ask("GET", f"/v2/{name}/manifests/latest").status == 404
    assert registry.ask("GET", f"/v2/{name}/blobs/{ABSENT}").status == 404
    found = registry.ask("GET", f"/v2/{name}/tags/list")
    assert (found.status, found.code) == (404, "NAME_UNKNOWN")


def test_a_blob_is_pulled(registry: Client, name: str) -> None:
    blob = Content.random(5000)
    registry.push_blob(name, blob)
    found = registry.ask("GET", f"/v2/{name}/blobs/{blob.digest}")
    assert found.status == 200 and found.body == blob.data
    assert found.headers["docker-content-digest"] == blob.digest
    head = registry.ask("HEAD", f"/v2/{name}/blobs/{blob.digest}")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == "5000"
    assert head.headers["docker-content-digest"] == blob.digest


def test_a_large_blob_comes_whole(registry: Client, name: str) -> None:
    blob = Content.random(5 << 20)
    registry.push_blob(name, blob)
    assert registry.ask("GET", f"/v2/{name}/blobs/{blob.digest}").body == blob.data


def test_an_empty_blob_is_a_blob(registry: Client, name: str) -> None:
    blob = Content(b"")
    registry.push_blob(name, blob)
    found = registry.ask("GET", f"/v2/{name}/blobs/{blob.digest}")
    assert (found.status, found.body) == (200, b"")


def test_an_unknown_blob_is_404(registry: Client, name: str) -> None:
    registry.push_blob(name, Content.random())
    found = registry.ask("GET", f"/v2/{name}/blobs/{ABSENT}")
    assert (found.status, found.code) == (404, "BLOB_UNKNOWN")
    assert registry.ask("HEAD", f"/v2/{name}/blobs/{ABSENT}").status == 404


def test_a_blob_of_another_repository_is_unknown_here(registry: Client, name: str) -> None:
    blob = Content.random()
    registry.push_blob(f"{name}-other", blob)
    registry.push_blob(name, Content.random())
    assert registry.ask("GET", f"/v2/{name}/blobs/{blob.digest}").status == 404


@pytest.mark.parametrize(
    ("wanted", "start", "end"),
    [("500-1499", 500, 1500), ("500-", 500, 2048), ("-500", 1548, 2048), ("2000-5000", 2000, 2048)],
)
def test_a_part_of_a_blob(registry: Client, name: str, wanted: str, start: int, end: int) -> None:
    blob = Content.random(2048)
    registry.push_blob(name, blob)
    target = f"/v2/{name}/blobs/{blob.digest}"
    found = registry.ask("GET", target, headers={"Range": f"bytes={wanted}"})
    assert found.status == 206 and found.body == blob.data[start:end]
    assert found.headers["content-range"] == f"bytes {start}-{end - 1}/2048"
    assert found.headers["content-length"] == str(end - start)


@pytest.mark.parametrize("wanted", ["500-0", "5000-10000"])
def test_a_part_outside_of_a_blob_is_416(registry: Client, name: str, wanted: str) -> None:
    blob = Content.random(2048)
    registry.push_blob(name, blob)
    target = f"/v2/{name}/blobs/{blob.digest}"
    assert registry.ask("GET", target, headers={"Range": f"bytes={wanted}"}).status == 416


def test_an_index_and_what_it_lists_are_pulled(registry: Client, name: str) -> None:
    one, two = registry.push_image(name), registry.push_image(name)
    both = index([one, two])
    assert registry.push_manifest(name, both, "multi").status == 201
    accept = {"Accept": f"{INDEX}, {MANIFEST}"}
    found = registry.ask("GET", f"/v2/{name}/manifests/multi", headers=accept)
    assert found.body == both.data and found.headers["content-type"] == INDEX
    for manifest in (one, two):
        target = f"/v2/{name}/manifests/{manifest.digest}"
        assert registry.ask("GET", target, headers=accept).body == manifest.data


def test_what_a_client_has_is_not_sent_again(registry: Client, name: str) -> None:
    manifest = registry.push_image(name, "v1")
    first = registry.ask("GET", f"/v2/{name}/manifests/v1", headers={"Accept": MANIFEST})
    known = {"If-None-Match": first.headers["etag"], "Accept": MANIFEST}
    again = registry.ask("GET", f"/v2/{name}/manifests/{manifest.digest}", headers=known)
    assert (again.status, again.body) == (304, b"")
