"""Lists: tags, repositories, referrers, and the search of Docker's index."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from sagong.errors import NotFound
from sagong.http import Response
from sagong.model.oci import MediaType
from sagong_registry.ask import Ask
from sagong_registry.depot import Depot
from sagong_registry.documents import LIMIT
from sagong_registry.grammar import is_digest, page_limit
from sagong_registry.record import ManifestRecord
from sagong_registry.refusal import answer, refused

__all__ = ["catalog", "page", "ping", "referrers", "search", "tags"]

_MOST_FOUND, _USUALLY_FOUND = 100, 25


def page(names: Sequence[str], last: str, limit: int) -> tuple[list[str], bool]:
    """Sorted names behind `last`, at most `limit` (-1: all), and whether there are more. Pure."""
    start = bisect.bisect_right(names, last) if last else 0
    end = len(names) if limit < 0 else min(start + limit, len(names))
    return list(names[start:end]), limit != 0 and end < len(names)


def _next(ask: Ask, last: str, **others: str) -> list[tuple[str, str]]:
    """The Link header to the page behind `last`."""
    query = urlencode({**{k: v for k, v in others.items() if v}, "last": last}, quote_via=quote)
    return [("Link", f'<{ask.request.path}?{query}>; rel="next"')]


async def tags(depot: Depot, ask: Ask) -> Response:
    """`GET /v2/NAME/tags/list`."""
    name = ask.name
    limit = page_limit(ask.query("n"))
    repository = await depot.repository(name)
    shown, more = page(sorted(repository.tags), ask.query("last"), limit)
    headers = _next(ask, shown[-1], n=str(limit)) if more else []
    return answer({"name": name, "tags": shown}, 200, headers)


async def catalog(depot: Depot, ask: Ask) -> Response:
    """`GET /v2/_catalog`: repositories that the visitor may pull."""
    limit = page_limit(ask.query("n"))
    shown, more = page(_visible(depot, ask), ask.query("last"), limit)
    headers = _next(ask, shown[-1], n=str(limit)) if more else []
    return answer({"repositories": shown}, 200, headers)


def _visible(depot: Depot, ask: Ask) -> list[str]:
    return sorted(
        repository.name
        for repository in depot.catalog.repositories.values()
        if repository.known and depot.gate.sees(ask.visitor, repository.name)
    )


async def referrers(depot: Depot, ask: Ask) -> Response:
    """`GET /v2/NAME/referrers/DIGEST`: manifests that speak of another, also of one not here."""
    subject, wanted = ask.parts["digest"], ask.query("artifactType")
    if not is_digest(subject):
        raise refused("DIGEST_INVALID", f"{subject[:160]!r} is no digest")
    repository = await depot.catalog.find_repository(ask.name)
    listed = sorted(repository.referrers.get(subject, ())) if repository else []
    shown, more = await _described(depot, ask, listed, wanted)
    headers = [("Content-Type", str(MediaType.OCI_INDEX))]
    if wanted:
        headers.append(("OCI-Filters-Applied", "artifactType"))
    if more:
        headers += _next(ask, more, artifactType=wanted)
    index = {"schemaVersion": 2, "mediaType": str(MediaType.OCI_INDEX), "manifests": shown}
    return Response(200, msgspec.json.encode(index), headers)


async def _described(
    depot: Depot, ask: Ask, listed: list[str], wanted: str
) -> tuple[list[dict[str, Any]], str]:
    """Descriptors of a page, which an index can hold, and its last digest if there are more."""
    repository = depot.catalog.repositories.get(ask.name)
    shown: list[dict[str, Any]] = []
    size, last = 0, ""
    for digest in page(listed, ask.query("last"), -1)[0]:
        record = repository.manifests.get(digest) if repository else None
        if record is None or (wanted and record.artifact_type != wanted):
            continue
        described = await _descriptor(depot, digest, record)
        size += len(msgspec.json.encode(described)) + 1
        if shown and size > LIMIT - 1024:
            return shown, last
        shown.append(described)
        last = digest
    return shown, ""


async def _descriptor(depot: Depot, digest: str, record: ManifestRecord) -> dict[str, Any]:
    found: dict[str, Any] = {
        "mediaType": record.media_type,
        "size": record.size,
        "digest": digest,
    }
    if record.artifact_type:
        found["artifactType"] = record.artifact_type
    try:
        raw = await depot.vault.document(digest)
    except NotFound:
        return found
    annotations = msgspec.json.decode(raw, type=_Annotated).annotations
    if annotations:
        found["annotations"] = annotations
    return found


class _Annotated(msgspec.Struct):
    annotations: dict[str, str] | None = None


async def ping(depot: Depot, ask: Ask) -> Response:
    """`GET /v1/_ping`: what Docker asks before it searches."""
    return Response(200, b"true", [("X-Docker-Registry-Standalone", "true")])


async def search(depot: Depot, ask: Ask) -> Response:
    """`GET /v1/search`: names and descriptions that have all the words, best first."""
    words = ask.query("q").lower().split()
    limit = page_limit(ask.query("n"))
    found = sorted(_ranked(depot, _visible(depot, ask), words))
    shown = found[: min(_MOST_FOUND, limit if limit > 0 else _USUALLY_FOUND)]
    results = [
        {
            "name": name,
            "description": description,
            "is_official": False,
            "is_automated": False,
            "is_trusted": False,
            "star_count": 0,
        }
        for _, name, description in shown
    ]
    numbers = {"num_results": len(results), "page": 1, "num_pages": 1, "page_size": len(results)}
    return answer({**numbers, "query": ask.query("q"), "results": results})


def _ranked(depot: Depot, names: Iterable[str], words: list[str]) -> Iterable[tuple[int, str, str]]:
    """(rank, name, description) of what has all words: an exact name first, then beginnings."""
    for name in names:
        record = depot.catalog.repositories[name].record
        description = record.description if record else ""
        text = f"{name} {description}".lower()
        if all(word in text for word in words):
            short = name.rpartition("/")[2]
            whole = any(word in (name, short) for word in words)
            begins = any(name.startswith(word) or short.startswith(word) for word in words)
            yield (0 if whole else 1 if begins else 2), name, description
