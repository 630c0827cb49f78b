"""Specification, "Content Discovery": tags, repositories, referrers."""

from __future__ import annotations

import re
import secrets
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.compat.registry.wire import (
    EMPTY,
    INDEX,
    MANIFEST,
    Answer,
    Client,
    Content,
    described,
    image,
    index,
)

pytestmark = pytest.mark.root
TAGS = ["1.0", "A", "_x", "a", "a.b", "latest", "v1", "v10", "v2"]


def tagged(registry: Client, name: str) -> Content:
    manifest = registry.push_image(name)
    for tag in reversed(TAGS):
        assert registry.push_manifest(name, manifest, tag).status == 201
    return manifest


def next_page(answer: Answer) -> str:
    found = re.fullmatch(r'<([^>]+)>; ?rel="?next"?', answer.headers.get("link", ""))
    if found is None:
        return ""
    parts = urlsplit(found[1])
    return f"{parts.path}?{parts.query}"


def followed(registry: Client, target: str, key: str) -> list[str]:
    shown: list[str] = []
    while target:
        answer = registry.ask("GET", target)
        assert answer.status == 200, answer.body
        shown += answer.json[key]
        target = next_page(answer)
    return shown


def test_tags_are_listed_in_order(registry: Client, name: str) -> None:
    tagged(registry, name)
    found = registry.ask("GET", f"/v2/{name}/tags/list")
    assert found.status == 200
    assert found.json == {"name": name, "tags": sorted(TAGS)}


@pytest.mark.parametrize("count", [1, 4, 9, 100])
def test_tags_come_in_pages(registry: Client, name: str, count: int) -> None:
    tagged(registry, name)
    first = registry.ask("GET", f"/v2/{name}/tags/list?n={count}")
    assert first.json["tags"] == sorted(TAGS)[:count]
    assert followed(registry, f"/v2/{name}/tags/list?n={count}", "tags") == sorted(TAGS)


def test_tags_behind_another(registry: Client, name: str) -> None:
    tagged(registry, name)
    ordered = sorted(TAGS)
    found = registry.ask("GET", f"/v2/{name}/tags/list?n=3&last={ordered[2]}")
    assert found.json["tags"] == ordered[3:6]
    without = registry.ask("GET", f"/v2/{name}/tags/list?last={ordered[5]}")
    assert without.json["tags"] == ordered[6:]
    absent = registry.ask("GET", f"/v2/{name}/tags/list?n=2&last=b")
    assert absent.json["tags"] == [tag for tag in ordered if tag > "b"][:2]


def test_no_tags_are_an_empty_list_without_a_link(registry: Client, name: str) -> None:
    tagged(registry, name)
    found = registry.ask("GET", f"/v2/{name}/tags/list?n=0")
    assert found.status == 200 and not found.json["tags"] and "link" not in found.headers


def test_a_repository_without_tags_has_an_empty_list(registry: Client, name: str) -> None:
    registry.push_image(name)
    found = registry.ask("GET", f"/v2/{name}/tags/list")
    assert found.status == 200 and not found.json["tags"]


@pytest.mark.parametrize("count", ["-1", "x", "1.5", "%00"])
def test_a_page_of_no_number_is_refused(registry: Client, name: str, count: str) -> None:
    tagged(registry, name)
    assert registry.ask("GET", f"/v2/{name}/tags/list?n={count}").status == 400


def test_repositories_are_listed_in_pages(registry: Client, name: str) -> None:
    names = [f"{name}/{letter}" for letter in "abcd"]
    for one in names:
        registry.push_image(one, "v1")
    listed = followed(registry, "/v2/_catalog?n=3", "repositories")
    assert [one for one in listed if one.startswith(name)] == names
    assert listed == sorted(listed)


def referring(registry: Client, name: str, subject: Content, kind: str, **more: Any) -> Content:
    config = Content(b"{}", EMPTY)
    registry.push_blob(name, config)
    if kind:
        more["artifactType"] = kind
    made = image(config, subject=described(subject), **more)
    pushed = registry.push_manifest(name, made)
    assert pushed.status == 201 and pushed.headers.get("oci-subject") == subject.digest
    return made


def test_referrers_are_listed_with_type_and_annotations(registry: Client, name: str) -> None:
    subject = registry.push_image(name, "v1")
    notes = {"org.example.note": secrets.token_hex(4)}
    bill = referring(registry, name, subject, "application/vnd.example.sbom", annotations=notes)
    plain = referring(registry, name, subject, "")
    listed = index([], subject=described(subject), annotations=notes)
    assert registry.push_manifest(name, listed).headers["oci-subject"] == subject.digest
    found = registry.ask("GET", f"/v2/{name}/referrers/{subject.digest}")
    assert found.status == 200 and found.headers["content-type"] == INDEX
    assert found.json["schemaVersion"] == 2 and found.json["mediaType"] == INDEX
    by_digest = {one["digest"]: one for one in found.json["manifests"]}
    assert by_digest == {
        bill.digest: {
            **described(bill),
            "artifactType": "application/vnd.example.sbom",
            "annotations": notes,
        },
        plain.digest: {**described(plain), "artifactType": EMPTY},
        listed.digest: {**described(listed), "annotations": notes},
    }


def test_referrers_of_one_type(registry: Client, name: str) -> None:
    subject = registry.push_image(name, "v1")
    bill = referring(registry, name, subject, "application/vnd.example.sbom")
    referring(registry, name, subject, "application/vnd.example.signature")
    target = f"/v2/{name}/referrers/{subject.digest}"
    found = registry.ask("GET", f"{target}?artifactType=application/vnd.example.sbom")
    assert [one["digest"] for one in found.json["manifests"]] == [bill.digest]
    assert found.headers["oci-filters-applied"] == "artifactType"
    assert "oci-filters-applied" not in registry.ask("GET", target).headers


def test_no_referrers_are_an_empty_index(registry: Client, name: str) -> None:
    manifest = registry.push_image(name, "v1")
    for digest in (manifest.digest, "sha256:" + "a" * 64):
        found = registry.ask("GET", f"/v2/{name}/referrers/{digest}")
        assert found.status == 200 and found.json["manifests"] == []
        assert found.headers["content-type"] == INDEX


def test_referrers_that_come_before_their_subject(registry: Client, name: str) -> None:
    config = Content(b"{}", EMPTY)
    registry.push_blob(name, config)
    subject = image(config, annotations={"later": "1"})
    signature = referring(registry, name, subject, "application/vnd.example.signature")
    assert registry.push_manifest(name, subject, "v1").status == 201
    found = registry.ask("GET", f"/v2/{name}/referrers/{subject.digest}")
    assert [one["digest"] for one in found.json["manifests"]] == [signature.digest]


def test_a_referrer_that_is_deleted_is_not_listed(registry: Client, name: str) -> None:
    subject = registry.push_image(name, "v1")
    signature = referring(registry, name, subject, "application/vnd.example.signature")
    assert registry.ask("DELETE", f"/v2/{name}/manifests/{signature.digest}").status == 202
    found = registry.ask("GET", f"/v2/{name}/referrers/{subject.digest}")
    assert found.json["manifests"] == []


def test_referrers_of_what_is_no_digest_are_refused(registry: Client, name: str) -> None:
    registry.push_image(name, "v1")
    assert registry.ask("GET", f"/v2/{name}/referrers/v1").status == 400


def test_more_referrers_than_an_index_holds_come_in_pages(registry: Client, name: str) -> None:
    subject = registry.push_image(name, "v1")
    fill = {"fill": "x" * (1500 << 10)}
    made = {
        referring(registry, name, subject, f"application/vnd.example.{n}", annotations=fill).digest
        for n in range(4)
    }
    target, shown = f"/v2/{name}/referrers/{subject.digest}", []
    while target:
        answer = registry.ask("GET", target, headers={"Accept": f"{INDEX}, {MANIFEST}"})
        assert len(answer.body) <= 4 << 20
        shown += [one["digest"] for one in answer.json["manifests"]]
        target = next_page(answer)
    assert sorted(shown) == sorted(made)
