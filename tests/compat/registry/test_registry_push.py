"""Specification, "Push": blobs in one piece and in chunks, mounted ones, manifests, tags, subjects."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator

import pytest
from tests.compat.registry.wire import (
    CONFIG,
    EMPTY,
    INDEX,
    MANIFEST,
    Answer,
    Client,
    Content,
    described,
    image,
    index,
    with_query,
)

pytestmark = pytest.mark.root
OCTETS = {"Content-Type": "application/octet-stream"}
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def pulled(registry: Client, name: str, blob: Content) -> bool:
    found = registry.ask("GET", f"/v2/{name}/blobs/{blob.digest}")
    return found.status == 200 and found.body == blob.data


def chunk(registry: Client, place: str, data: bytes, start: int, method: str = "PATCH") -> Answer:
    headers = {**OCTETS, "Content-Range": f"{start}-{start + len(data) - 1}"}
    return registry.ask(method, place, data, headers)


def test_post_then_put(registry: Client, name: str) -> None:
    blob = Content.random()
    place = registry.begin(name)
    assert UUID.search(place)
    made = registry.ask("PUT", with_query(place, digest=blob.digest), blob.data, OCTETS)
    assert made.status == 201
    assert registry.ask("GET", made.headers["location"]).body == blob.data


def test_a_single_post(registry: Client, name: str) -> None:
    blob = Content.random()
    target = with_query(f"/v2/{name}/blobs/uploads/", digest=blob.digest)
    made = registry.ask("POST", target, blob.data, OCTETS)
    assert made.status in (201, 202)
    if made.status == 202:  # allowed: the registry wants the other way
        place = with_query(made.headers["location"], digest=blob.digest)
        assert registry.ask("PUT", place, blob.data, OCTETS).status == 201
    assert pulled(registry, name, blob)


def test_one_chunk_of_unknown_length(registry: Client, name: str) -> None:
    blob = Content.random(3000)
    place = registry.begin(name)

    def pieces() -> Iterator[bytes]:
        for at in range(0, 3000, 1000):
            yield blob.data[at : at + 1000]

    sent = registry.ask("PATCH", place, pieces(), {**OCTETS, "Transfer-Encoding": "chunked"})
    assert sent.status == 202 and sent.headers["range"] == "0-2999"
    place = with_query(sent.headers["location"], digest=blob.digest)
    assert registry.ask("PUT", place, b"").status == 201
    assert pulled(registry, name, blob)


@pytest.mark.parametrize("last", ["PATCH", "PUT"])
def test_chunks_in_order(registry: Client, name: str, last: str) -> None:
    blob = Content.random(2500)
    place = registry.begin(name)
    for start in (0, 1000):
        sent = chunk(registry, place, blob.data[start : start + 1000], start)
        assert sent.status == 202 and sent.headers["range"] == f"0-{start + 999}"
        place = sent.headers["location"]
    if last == "PATCH":
        place = chunk(registry, place, blob.data[2000:], 2000).headers["location"]
        made = registry.ask("PUT", with_query(place, digest=blob.digest), b"")
    else:
        final = with_query(place, digest=blob.digest)
        made = chunk(registry, final, blob.data[2000:], 2000, "PUT")
    assert made.status == 201 and pulled(registry, name, blob)


def test_a_chunk_out_of_order_is_416_and_the_upload_goes_on(registry: Client, name: str) -> None:
    blob = Content.random(3000)
    place = registry.begin(name)
    place = chunk(registry, place, blob.data[:1000], 0).headers["location"]
    for wrong in (2000, 0):
        assert chunk(registry, place, blob.data[wrong : wrong + 1000], wrong).status == 416
    where = registry.ask("GET", place)
    assert where.status == 204 and where.headers["range"] == "0-999"
    place = chunk(registry, where.headers["location"], blob.data[1000:], 1000).headers["location"]
    assert registry.ask("PUT", with_query(place, digest=blob.digest), b"").status == 201
    assert pulled(registry, name, blob)


def test_a_final_chunk_out_of_order_is_416(registry: Client, name: str) -> None:
    blob = Content.random(2000)
    place = registry.begin(name)
    place = chunk(registry, place, blob.data[:1000], 0).headers["location"]
    final = with_query(place, digest=blob.digest)
    assert chunk(registry, final, blob.data[1500:], 1500, "PUT").status == 416


def test_an_upload_that_is_given_up_is_gone(registry: Client, name: str) -> None:
    place = registry.begin(name)
    place = chunk(registry, place, b"x" * 100, 0).headers["location"]
    assert registry.ask("DELETE", place).status == 204
    found = registry.ask("GET", place)
    assert (found.status, found.code) == (404, "BLOB_UPLOAD_UNKNOWN")
    assert chunk(registry, place, b"y", 100).status == 404


def test_bytes_that_are_not_the_digest_are_refused(registry: Client, name: str) -> None:
    blob, other = Content.random(), Content.random()
    place = registry.begin(name)
    found = registry.ask("PUT", with_query(place, digest=other.digest), blob.data, OCTETS)
    assert (found.status, found.code) == (400, "DIGEST_INVALID")
    for one in (blob, other):
        assert registry.ask("HEAD", f"/v2/{name}/blobs/{one.digest}").status == 404


@pytest.mark.parametrize("digest", ["sha256:0", "md5:" + "0" * 32, "x", "sha256:" + "G" * 64])
def test_a_digest_that_is_none_is_refused(registry: Client, name: str, digest: str) -> None:
    place = registry.begin(name)
    found = registry.ask("PUT", with_query(place, digest=digest), b"data", OCTETS)
    assert (found.status, found.code) == (400, "DIGEST_INVALID")


def test_an_upload_without_a_digest_is_refused(registry: Client, name: str) -> None:
    found = registry.ask("PUT", registry.begin(name), b"data", OCTETS)
    assert (found.status, found.code) == (400, "DIGEST_INVALID")


def test_sha512(registry: Client, name: str) -> None:
    blob = Content.random(1000, algorithm="sha512")
    place = registry.begin(name, "?digest-algorithm=sha512")
    made = registry.ask("PUT", with_query(place, digest=blob.digest), blob.data, OCTETS)
    assert made.status == 201 and pulled(registry, name, blob)
    config = Content(b"{}", CONFIG)
    registry.push_blob(name, config)
    manifest = image(config, [blob])
    manifest = Content(manifest.data, MANIFEST, "sha512")
    pushed = registry.push_manifest(name, manifest)
    assert pushed.status == 201
    assert pushed.headers["docker-content-digest"] == manifest.digest
    found = registry.ask("GET", f"/v2/{name}/manifests/{manifest.digest}")
    assert found.body == manifest.data


def test_a_blob_is_mounted_from_another_repository(registry: Client, name: str) -> None:
    blob = Content.random()
    registry.push_blob(f"{name}-source", blob)
    query = f"?mount={blob.digest}&from={name}-source"
    made = registry.ask("POST", f"/v2/{name}/blobs/uploads/{query}", b"")
    assert made.status == 201
    assert registry.ask("GET", made.headers["location"]).body == blob.data


def test_a_mount_of_what_is_not_there_begins_an_upload(registry: Client, name: str) -> None:
    blob = Content.random()
    query = f"?mount={blob.digest}&from={name}-source"
    begun = registry.ask("POST", f"/v2/{name}/blobs/uploads/{query}", b"")
    assert begun.status == 202
    place = with_query(begun.headers["location"], digest=blob.digest)
    assert registry.ask("PUT", place, blob.data, OCTETS).status == 201


def test_a_mount_without_a_source_may_be_an_upload(registry: Client, name: str) -> None:
    blob = Content.random()
    registry.push_blob(f"{name}-source", blob)
    answer = registry.ask("POST", f"/v2/{name}/blobs/uploads/?mount={blob.digest}", b"")
    assert answer.status in (201, 202)
    assert (answer.status == 201) == pulled(registry, name, blob)


def test_a_manifest_keeps_its_bytes(registry: Client, name: str) -> None:
    config = Content(b"{}", CONFIG)
    registry.push_blob(name, config)
    text = json.dumps(json.loads(image(config, extra={"a": 1}).data), indent=7) + "\n\n"
    manifest = Content(text.encode(), MANIFEST)
    pushed = registry.push_manifest(name, manifest, "spaced")
    assert pushed.status == 201
    assert pushed.headers["docker-content-digest"] == manifest.digest
    found = registry.ask("GET", pushed.headers["location"], headers={"Accept": MANIFEST})
    assert found.body == manifest.data


def test_parameters_of_the_content_type_are_ignored(registry: Client, name: str) -> None:
    config = Content(b"{}", CONFIG)
    registry.push_blob(name, config)
    manifest = image(config)
    target, headers = f"/v2/{name}/manifests/v1", {"Content-Type": f"{MANIFEST}; charset=utf-8"}
    assert registry.ask("PUT", target, manifest.data, headers).status == 201
    found = registry.ask("GET", target, headers={"Accept": MANIFEST})
    assert found.headers["content-type"] == MANIFEST


def test_a_manifest_whose_blobs_are_missing_is_refused(registry: Client, name: str) -> None:
    config, layer = Content(b"{}", CONFIG), Content.random()
    registry.push_blob(name, config)
    found = registry.push_manifest(name, image(config, [layer]), "v1")
    assert found.status in (400, 404) and found.code == "MANIFEST_BLOB_UNKNOWN"
    assert registry.ask("HEAD", f"/v2/{name}/manifests/v1").status == 404


def test_an_index_whose_manifests_are_missing_is_refused(registry: Client, name: str) -> None:
    here, missing = registry.push_image(name), image(Content(b"{}", CONFIG))
    found = registry.push_manifest(name, index([here, missing]), "v1")
    assert found.status in (400, 404) and found.code == "MANIFEST_BLOB_UNKNOWN"


def test_layers_that_are_never_pushed_need_not_be_there(registry: Client, name: str) -> None:
    config = Content(b"{}", CONFIG)
    registry.push_blob(name, config)
    kind = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
    foreign = described(Content.random(media_type=kind), urls=["https://example.test/layer"])
    document = json.loads(image(config).data)
    document["layers"] = [foreign]
    manifest = Content(json.dumps(document).encode(), MANIFEST)
    assert registry.push_manifest(name, manifest, "foreign").status == 201


def test_an_index_within_an_index(registry: Client, name: str) -> None:
    inner = index([registry.push_image(name)])
    assert registry.push_manifest(name, inner).status == 201
    outer = index([inner])
    assert registry.push_manifest(name, outer, "nested").status == 201
    found = registry.ask("GET", f"/v2/{name}/manifests/nested", headers={"Accept": INDEX})
    assert found.body == outer.data


def test_an_empty_index_and_an_image_without_layers(registry: Client, name: str) -> None:
    assert registry.push_manifest(name, index([]), "none").status == 201
    config = Content(b"{}", EMPTY)
    registry.push_blob(name, config)
    artifact = image(config, artifactType="application/vnd.example.thing")
    assert registry.push_manifest(name, artifact, "artifact").status == 201


def test_data_and_unknown_fields_are_kept(registry: Client, name: str) -> None:
    config = Content(b"{}", EMPTY)
    registry.push_blob(name, config)
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": described(config, data="e30=", custom=[1, {"a": None}]),
        "layers": [],
        "org.example.custom": {"deep": [{}]},
    }
    manifest = Content(json.dumps(document).encode(), MANIFEST)
    assert registry.push_manifest(name, manifest, "custom").status == 201
    found = registry.ask("GET", f"/v2/{name}/manifests/custom", headers={"Accept": MANIFEST})
    assert found.body == manifest.data


def test_a_manifest_by_the_wrong_digest_is_refused(registry: Client, name: str) -> None:
    config = Content(b"{}", CONFIG)
    registry.push_blob(name, config)
    found = registry.push_manifest(name, image(config), "sha256:" + "1" * 64)
    assert (found.status, found.code) == (400, "DIGEST_INVALID")


def test_a_manifest_whose_type_is_not_its_content_type_is_refused(
    registry: Client, name: str
) -> None:
    manifest = registry.push_image(name)
    liar = Content(manifest.data, INDEX)
    found = registry.push_manifest(name, liar, "liar")
    assert (found.status, found.code) == (400, "MANIFEST_INVALID")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"schemaVersion": 2}',
        b'{"schemaVersion": "2", "config": {}, "layers": []}',
    ],
)
def test_what_is_no_manifest_is_refused(registry: Client, name: str, body: bytes) -> None:
    registry.push_blob(name, Content.random())
    found = registry.push_manifest(name, Content(body, MANIFEST), "bad")
    assert (found.status, found.code) == (400, "MANIFEST_INVALID")


def test_a_manifest_of_almost_four_megabytes_is_taken(registry: Client, name: str) -> None:
    config = Content(b"{}", CONFIG)
    registry.push_blob(name, config)
    fill = "x" * ((4 << 20) - 1000)
    manifest = image(config, annotations={"fill": fill})
    assert registry.push_manifest(name, manifest, "large").status == 201
    found = registry.ask("GET", f"/v2/{name}/manifests/large", headers={"Accept": MANIFEST})
    assert found.body == manifest.data


def test_a_manifest_above_the_limit_is_413(registry: Client, name: str) -> None:
    config = Content(b"{}", CONFIG)
    registry.push_blob(name, config)
    manifest = image(config, annotations={"fill": "x" * (5 << 20)})
    assert registry.push_manifest(name, manifest, "large").status == 413


def test_a_tag_moves_to_what_is_pushed_last(registry: Client, name: str) -> None:
    first, second = registry.push_image(name, "v1"), registry.push_image(name, "v1")
    found = registry.ask("GET", f"/v2/{name}/manifests/v1", headers={"Accept": MANIFEST})
    assert found.body == second.data
    old = f"/v2/{name}/manifests/{first.digest}"
    assert registry.ask("GET", old, headers={"Accept": MANIFEST}).body == first.data


def test_many_tags_at_once(registry: Client, name: str) -> None:
    manifest = registry.push_image(name)
    wanted = [f"v{number:02}" for number in range(100)]
    query = "&".join(f"tag={tag}" for tag in wanted)
    target = f"/v2/{name}/manifests/{manifest.digest}?{query}"
    pushed = registry.ask("PUT", target, manifest.data, {"Content-Type": MANIFEST})
    assert pushed.status == 201
    assert [tag.strip() for tag in pushed.headers["oci-tag"].split(",")] == wanted
    assert registry.ask("GET", f"/v2/{name}/tags/list").json["tags"] == wanted


def test_a_subject_is_acknowledged_though_it_is_missing(registry: Client, name: str) -> None:
    subject = image(Content(secrets.token_bytes(8), CONFIG))
    config = Content(b"{}", EMPTY)
    registry.push_blob(name, config)
    signature = image(config, subject=described(subject))
    pushed = registry.push_manifest(name, signature)
    assert pushed.status == 201 and pushed.headers["oci-subject"] == subject.digest
