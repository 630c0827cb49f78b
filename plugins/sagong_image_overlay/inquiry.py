"""Questions to a registry, in the courier's process: search, tags, what a name stands for, login."""

from __future__ import annotations

import contextlib
import http
import urllib.parse
from collections.abc import Iterator
from typing import Any

import msgspec

from sagong.errors import InvalidArgument, NotFound, SagongError, Unauthenticated, Unavailable
from sagong.model import oci, references
from sagong.model.oci import MediaType
from sagong_image_overlay.client import Client
from sagong_image_overlay.download import explained
from sagong_image_overlay.endpoint import endpoints_of, search_host
from sagong_image_overlay.errand import Errand
from sagong_image_overlay.exchange import SPOKE_TLS
from sagong_image_overlay.hosts import Ways
from sagong_image_overlay.registry import Repository, open_repository

__all__ = ["QUESTIONS"]

_PAGE = 1000
_NAMES = 100_000
_TAGS = 10_000
_CONFIG = 4 << 20


class _Found(msgspec.Struct):
    name: str
    description: str | None = None
    is_official: bool = False
    is_automated: bool = False
    star_count: int = 0


class _Results(msgspec.Struct):
    results: list[_Found]


class _Catalog(msgspec.Struct):
    repositories: list[str] | None = None


class _Tags(msgspec.Struct):
    tags: list[str] | None = None


def _clients(errand: Errand, ways: Ways, domain: str, scopes: list[str]) -> Iterator[Client]:
    """The registry at each of its addresses."""
    for endpoint in endpoints_of(domain, ways, push=True):
        yield Client(endpoint, errand.login, ways, scopes)


# Search.


def search(errand: Errand, ways: Ways) -> dict[str, Any]:
    """Repositories that fit `term`, of the index that `reference` names."""
    domain = errand.reference
    hub = domain == "docker.io"
    problem: SagongError = Unavailable(f"registry {domain} has no address")
    for client in _clients(errand, ways, search_host(domain), ["registry:catalog:*"]):
        try:
            found = _by_search(client, errand)
            if found is None and not hub:
                found = list(_by_catalog(client, errand))
        except Unavailable as error:
            problem = error
            if error.detail == SPOKE_TLS:
                break
            continue
        if found is None:
            raise NotFound(f"registry {domain} has no search")
        results = [_result(one, "" if hub else domain) for one in found[: errand.limit]]
        return {"results": results}
    raise problem


def _by_search(client: Client, errand: Errand) -> list[_Found] | None:
    """What the search API says; None if there is none."""
    query = urllib.parse.urlencode({"q": errand.term, "n": errand.limit})
    client.introduce(errand.login)
    answer = client.get(f"/v1/search?{query}")
    raw = answer.body()
    if answer.status in (401, 403):
        raise client.failure(answer, raw)
    if answer.status != 200:
        return None
    with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return msgspec.json.decode(raw, type=_Results).results
    return None


def _by_catalog(client: Client, errand: Errand) -> Iterator[_Found]:
    """Names of the catalog that have the term in them."""
    seen = found = 0
    for raw in client.pages(f"/v2/_catalog?n={_PAGE}"):
        names = _decoded(raw, _Catalog, "catalog").repositories or ()
        seen += len(names)
        for name in names:
            if errand.term.lower() in name.lower():
                found += 1
                yield _Found(name=name)
        if found >= errand.limit or seen > _NAMES or not names:
            return


def _result(one: _Found, domain: str) -> dict[str, Any]:
    name = one.name[:512]
    if domain and not name.startswith(f"{domain}/"):
        name = f"{domain}/{name}"
    return {
        "name": name,
        "description": (one.description or "")[:4096],
        "official": one.is_official,
        "automated": one.is_automated,
        "stars": one.star_count,
    }


def _decoded(raw: bytes, kind: type[Any], what: str) -> Any:
    return oci.decode(raw, kind, f"the registry's {what}")


# Repositories.


def tags(errand: Errand, ways: Ways) -> dict[str, Any]:
    """All tags of a repository."""
    reference = references.parse(errand.reference)
    repository = open_repository(reference, errand.login, ways, push=False)[0]
    found: list[str] = []
    try:
        for raw in repository.pages(f"/v2/{repository.path}/tags/list?n={_PAGE}"):
            more = _decoded(raw, _Tags, "list of tags").tags or ()
            found += more
            if not more or len(found) > _TAGS:
                break
    except SagongError as error:
        raise explained(error, reference) from error
    return {"tags": [reference.with_tag(tag).tag for tag in found[:_TAGS]]}


def describe(errand: Errand, ways: Ways) -> dict[str, Any]:
    """The descriptor that a name stands for, and the platforms behind it."""
    reference = references.parse(errand.reference).tagged
    repository = open_repository(reference, errand.login, ways, push=False, mirrors=False)[0]
    top = repository.manifest(reference.target)
    if oci.is_index(top.media_type):
        index = oci.decode(top.raw, oci.Index, f"index {top.digest}")
        platforms = [d.platform for d in index.manifests if d.platform is not None]
        images = [d for d in index.manifests if not oci.is_attestation(d)]
        parts = [d.digest for d in images]
        kinds = [d.media_type for d in images]
    else:
        parts = []
        kinds = [oci.decode(top.raw, oci.Manifest, "manifest").config.media_type]
        platforms = list(_own_platform(repository, top.raw))
    return {
        "media_type": top.media_type,
        "digest": top.digest,
        "size": len(top.raw),
        "platforms": platforms,
        "parts": parts,
        "kinds": kinds,
    }


def _own_platform(repository: Repository, raw: bytes) -> Iterator[oci.Platform]:
    """What the config of a single manifest says; artifacts have no platform."""
    manifest = oci.decode(raw, oci.Manifest, "manifest")
    if manifest.config.media_type not in (MediaType.OCI_CONFIG, MediaType.DOCKER_CONFIG):
        return
    config = oci.decode(repository.document(manifest.config, _CONFIG), oci.Config, "image config")
    yield oci.Platform(
        architecture=config.architecture,
        os=config.os,
        variant=config.variant,
        os_version=config.os_version,
    )


def login(errand: Errand, ways: Ways) -> dict[str, Any]:
    """Whether the registry takes the credentials; the token server's token for later, if any."""
    problem: SagongError = InvalidArgument(f"registry {errand.reference} has no address")
    for client in _clients(errand, ways, errand.reference, []):
        client.authorization.offline = True
        url = client.endpoint.url("/v2/")
        try:
            answer = client.get("/v2/")
        except Unauthenticated as error:
            raise Unauthenticated(f'Get "{url}": {error.message}') from error
        except Unavailable as error:
            problem = error
            if error.detail == SPOKE_TLS:
                break
            continue
        raw = answer.body()
        if answer.status == 200:
            return {"identity": client.authorization.identity}
        if answer.status in (401, 403):
            told = f"{answer.status} {http.HTTPStatus(answer.status).phrase}"
            raise Unauthenticated(f"login attempt to {url} failed with status: {told}")
        text = client.failure(answer, raw).message
        problem = Unavailable(f"login attempt to {url} failed with status: {answer.status} {text}")
    raise problem


QUESTIONS = {"search": search, "tags": tags, "describe": describe, "login": login}
