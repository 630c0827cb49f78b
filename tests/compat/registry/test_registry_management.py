"""Specification, "Content Management": tags, manifests and blobs are deleted."""

from __future__ import annotations

import pytest
from tests.compat.registry.wire import MANIFEST, Client, Content

pytestmark = pytest.mark.root
ACCEPT = {"Accept": MANIFEST}


def test_a_tag_is_deleted_and_its_manifest_stays(registry: Client, name: str) -> None:
    manifest = registry.push_image(name, "v1")
    registry.push_manifest(name, manifest, "v2")
    assert registry.ask("DELETE", f"/v2/{name}/manifests/v1").status == 202
    assert registry.ask("HEAD", f"/v2/{name}/manifests/v1", headers=ACCEPT).status == 404
    for reference in ("v2", manifest.digest):
        target = f"/v2/{name}/manifests/{reference}"
        assert registry.ask("HEAD", target, headers=ACCEPT).status == 200
    assert registry.ask("GET", f"/v2/{name}/tags/list").json["tags"] == ["v2"]


def test_a_manifest_is_deleted_with_its_tags(registry: Client, name: str) -> None:
    manifest, other = registry.push_image(name, "v1"), registry.push_image(name, "v2")
    assert registry.ask("DELETE", f"/v2/{name}/manifests/{manifest.digest}").status == 202
    for reference in ("v1", manifest.digest):
        target = f"/v2/{name}/manifests/{reference}"
        assert registry.ask("GET", target, headers=ACCEPT).status == 404
    assert registry.ask("GET", f"/v2/{name}/tags/list").json["tags"] == ["v2"]
    target = f"/v2/{name}/manifests/{other.digest}"
    assert registry.ask("GET", target, headers=ACCEPT).status == 200


def test_a_blob_is_deleted_here_and_nowhere_else(registry: Client, name: str) -> None:
    blob = Content.random()
    for one in (name, f"{name}-other"):
        registry.push_blob(one, blob)
    assert registry.ask("DELETE", f"/v2/{name}/blobs/{blob.digest}").status == 202
    assert registry.ask("HEAD", f"/v2/{name}/blobs/{blob.digest}").status == 404
    assert registry.ask("GET", f"/v2/{name}-other/blobs/{blob.digest}").body == blob.data


def test_a_deleted_blob_can_be_pushed_again(registry: Client, name: str) -> None:
    blob = Content.random()
    registry.push_blob(name, blob)
    assert registry.ask("DELETE", f"/v2/{name}/blobs/{blob.digest}").status == 202
    registry.push_blob(name, blob)
    assert registry.ask("GET", f"/v2/{name}/blobs/{blob.digest}").body == blob.data


@pytest.mark.parametrize("what", ["manifests/v9", "manifests/sha256:", "blobs/sha256:"])
def test_what_is_not_there_can_not_be_deleted(registry: Client, name: str, what: str) -> None:
    registry.push_image(name, "v1")
    target = f"/v2/{name}/{what}" + ("f" * 64 if what.endswith(":") else "")
    assert registry.ask("DELETE", target).status == 404
