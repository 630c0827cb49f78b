"""Names, tags, digests, ranges and manifests: what is taken and what is refused, as tables."""

from __future__ import annotations

import json

import pytest

from sagong.model.oci import MediaType
from sagong_registry import grammar
from sagong_registry.documents import accepts, read
from sagong_registry.grammar import Span
from sagong_registry.refusal import Refused

DIGEST = "sha256:" + "a" * 64
CONFIG = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": DIGEST, "size": 2}


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("a", True),
        ("library/busybox", True),
        ("a.b_c__d---e/f", True),
        ("a" * 255, True),
        ("a" * 256, False),
        ("", False),
        ("/a", False),
        ("a/", False),
        ("a//b", False),
        ("A", False),
        ("a___b", False),
        ("a..b", False),
        ("a\n", False),
        ("ä", False),
    ],
)
def test_names(name: str, good: bool) -> None:
    assert grammar.is_name(name) is good


@pytest.mark.parametrize(
    ("tag", "good"),
    [("v1.0_x-Y", True), ("_", True), ("a" * 128, True), ("a" * 129, False), (".a", False),
     ("-a", False), ("", False), ("a\n", False), ("a/b", False)],
)  # fmt: skip
def test_tags(tag: str, good: bool) -> None:
    assert grammar.is_tag(tag) is good


@pytest.mark.parametrize(
    ("header", "span"),
    [
        ("", None),
        ("bytes=0-0", Span(0, 1)),
        ("bytes=5-", Span(5, 100)),
        ("bytes=-5", Span(95, 100)),
        ("bytes=-500", Span(0, 100)),
        ("bytes=90-1000", Span(90, 100)),
        ("bytes=-", None),
        ("bytes=0-1,5-6", None),
        ("lines=0-1", None),
        ("bytes=x-y", None),
    ],
)
def test_ranges(header: str, span: Span | None) -> None:
    assert grammar.requested_span(header, 100) == span


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=100-200", "bytes=5-4", "bytes=-0"])
def test_ranges_outside(header: str) -> None:
    with pytest.raises(Refused) as refused:
        grammar.requested_span(header, 100)
    assert refused.value.status == 416
    assert ("Content-Range", "bytes */100") in refused.value.headers


@pytest.mark.parametrize(
    ("text", "span"), [("", None), ("0-9", Span(0, 10)), ("bytes 5-5/*", Span(5, 6))]
)
def test_ranges_of_chunks(text: str, span: Span | None) -> None:
    assert grammar.sent_span(text) == span


@pytest.mark.parametrize(
    ("header", "good"),
    [
        ("", True),
        ("*/*", True),
        ("application/*", True),
        ("application/json", True),
        (f"text/html, {MediaType.OCI_MANIFEST};q=0.5", True),
        (str(MediaType.OCI_INDEX), False),
        ("text/html", False),
    ],
)
def test_what_a_client_accepts(header: str, good: bool) -> None:
    assert accepts(header, str(MediaType.OCI_MANIFEST)) is good


def image(**more: object) -> bytes:
    return json.dumps({"schemaVersion": 2, "config": CONFIG, "layers": [], **more}).encode()


def test_an_image_is_read() -> None:
    facts = read(image(subject=CONFIG, annotations={"a": "b"}), str(MediaType.OCI_MANIFEST))
    assert [need.digest for need in facts.blobs] == [DIGEST] and facts.manifests == ()
    assert facts.subject == DIGEST and facts.annotations == {"a": "b"}
    assert facts.artifact_type == CONFIG["mediaType"]


def test_a_type_is_guessed_when_nobody_tells_it() -> None:
    assert read(image(), "").media_type == MediaType.OCI_MANIFEST
    index = json.dumps({"schemaVersion": 2, "manifests": []}).encode()
    assert read(index, "").media_type == MediaType.OCI_INDEX


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[" * 100_000,
        b'{"schemaVersion": 2, "layers": []}',
        image(schemaVersion=1),
        image(manifests=[]),
        image(fsLayers=[]),
        image(config={**CONFIG, "digest": "sha256:1"}),
        image(config={**CONFIG, "digest": "md5:" + "0" * 32}),
        image(config={**CONFIG, "size": -1}),
        image(config={**CONFIG, "size": 1 << 62}),
        image(config={"digest": DIGEST, "size": 2}),
        image(layers=[CONFIG] * 10_001),
        image(annotations={"a": 1}),
        image(mediaType=str(MediaType.OCI_INDEX)),
    ],
)
def test_what_is_no_image_is_refused(body: bytes) -> None:
    with pytest.raises(Refused) as refused:
        read(body, str(MediaType.OCI_MANIFEST))
    assert refused.value.faults[0].code == "MANIFEST_INVALID" and refused.value.status == 400


@pytest.mark.parametrize("kind", ["text/plain", str(MediaType.DOCKER_MANIFEST_V1_SIGNED)])
def test_manifests_of_other_kinds_are_415(kind: str) -> None:
    with pytest.raises(Refused) as refused:
        read(image(), kind)
    assert refused.value.status == 415
