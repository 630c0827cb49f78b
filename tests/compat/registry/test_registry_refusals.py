"""Requests that are wrong, and requests that are meant to do harm: each has its answer."""

from __future__ import annotations

import socket

import pytest
from tests.compat.registry.wire import CONFIG, MANIFEST, Client, Content, image

pytestmark = pytest.mark.root
# Some clean a path up first, and send the client there.
NOWHERE = (301, 400, 404)


@pytest.mark.parametrize(
    "name",
    [
        "UPPER",
        "-a",
        "a-",
        "a..b",
        "a___b",
        "a/-b",
        "a%20b",
        "a%00b",
        "..%2f..%2fetc",
        pytest.param("a" * 256, id="long"),
    ],
)
def test_names_that_are_none(registry: Client, name: str) -> None:
    for target in (f"/v2/{name}/tags/list", f"/v2/{name}/manifests/v1"):
        assert registry.ask("GET", target).status in NOWHERE
    assert registry.ask("POST", f"/v2/{name}/blobs/uploads/", b"").status in NOWHERE


@pytest.mark.parametrize("tag", [".v1", "-v1", "a" * 129, "v%201", "v%2f1", "v@1", "sha256:1"])
def test_tags_that_are_none(registry: Client, name: str, tag: str) -> None:
    manifest = registry.push_image(name)
    found = registry.ask(
        "PUT", f"/v2/{name}/manifests/{tag}", manifest.data, {"Content-Type": MANIFEST}
    )
    assert found.status in (400, 404)


@pytest.mark.parametrize(
    "path",
    ["/v2/../../etc/passwd", "/v2/a/blobs/..%2f..%2f..%2fetc%2fpasswd", "/v2/a/blobs/sha256:..%2f"],
)
def test_paths_that_lead_elsewhere(registry: Client, path: str) -> None:
    found = registry.ask("GET", path)
    assert found.status in NOWHERE and b"root:" not in found.body


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("PATCH", "/v2/"),
        ("PUT", "/v2/{name}/tags/list"),
        ("POST", "/v2/{name}/manifests/v1"),
        ("PUT", "/v2/_catalog"),
    ],
)
def test_methods_that_are_not_served(registry: Client, name: str, method: str, target: str) -> None:
    found = registry.ask(method, target.format(name=name), b"")
    assert found.status == 405 and "GET" in found.headers["allow"]


def test_an_upload_that_was_never_begun(registry: Client, name: str) -> None:
    registry.push_blob(name, Content.random())
    for id_ in ("00000000-0000-4000-8000-000000000000", "x", "..%2f..%2fx"):
        found = registry.ask("PATCH", f"/v2/{name}/blobs/uploads/{id_}", b"data")
        assert found.status in NOWHERE


def test_an_upload_of_another_repository(registry: Client, name: str) -> None:
    place = registry.begin(name).replace(name, f"{name}-other")
    assert registry.ask("PATCH", place, b"data").status in (400, 404)


@pytest.mark.parametrize("span", ["5-1", "x-y", "0-", "-5", "0-99999999999999999999", "1 - 2"])
def test_chunks_of_no_range(registry: Client, name: str, span: str) -> None:
    place = registry.begin(name)
    assert registry.ask("PATCH", place, b"data", {"Content-Range": span}).status in (400, 416)


def test_a_chunk_that_is_not_as_long_as_its_range(registry: Client, name: str) -> None:
    place = registry.begin(name)
    found = registry.ask("PATCH", place, b"data", {"Content-Range": "0-9"})
    assert (found.status, found.code) == (400, "SIZE_INVALID")


@pytest.mark.parametrize(
    "bomb",
    [b"[" * 200_000, b'{"a":' * 100_000, b'{"schemaVersion":2,"layers":[' + b"{}," * 300_000],
)
def test_documents_that_nest_or_repeat_without_end(
    registry: Client, name: str, bomb: bytes
) -> None:
    registry.push_blob(name, Content.random())
    found = registry.push_manifest(name, Content(bomb, MANIFEST), "bomb")
    assert (found.status, found.code) == (400, "MANIFEST_INVALID")
    assert registry.ask("GET", "/v2/").status == 200


def test_a_document_that_could_be_two_things(registry: Client, name: str) -> None:
    """An image that is an index, too, is pulled as one by some and as the other by others."""
    config = Content(b"{}", CONFIG)
    registry.push_blob(name, config)
    both = image(config, manifests=[])
    found = registry.push_manifest(name, both, "both")
    assert (found.status, found.code) == (400, "MANIFEST_INVALID")


def test_a_head_that_is_too_long(registry: Client) -> None:
    host, _, port = registry.host.partition(":")
    with socket.create_connection((host, int(port)), timeout=60) as raw:
        try:
            raw.sendall(b"GET /v2/ HTTP/1.1\r\nHost: x\r\nX: " + b"y" * (2 << 20) + b"\r\n\r\n")
            answer = raw.recv(1000)
        except ConnectionError:
            answer = b""  # refused while it was still coming
    assert answer == b"" or answer.split()[1] in (b"431", b"400")
    assert registry.ask("GET", "/v2/").status == 200


def test_a_body_that_breaks_off_is_no_blob(registry: Client, name: str) -> None:
    blob = Content.random(1000)
    place = registry.begin(name)
    path = place.partition("://")[2].partition("/")[2] if "://" in place else place.lstrip("/")
    joint = "&" if "?" in path else "?"
    host, _, port = registry.host.partition(":")
    with socket.create_connection((host, int(port)), timeout=60) as raw:
        line = f"PUT /{path}{joint}digest={blob.digest} HTTP/1.1\r\n"
        raw.sendall(f"{line}Host: x\r\nContent-Length: 1000\r\n\r\n".encode() + blob.data[:500])
    assert registry.ask("HEAD", f"/v2/{name}/blobs/{blob.digest}").status == 404
