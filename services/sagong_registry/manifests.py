"""Manifests: by tag and by digest, pushed, pulled and removed."""

from __future__ import annotations

from sagong.errors import NotFound, ResourceExhausted
from sagong.http import Response
from sagong.model.oci import digest_of
from sagong_registry.ask import Ask
from sagong_registry.depot import Depot, Push
from sagong_registry.documents import LIMIT, accepts, read
from sagong_registry.grammar import is_tag, known_digest, tag_name
from sagong_registry.record import ManifestRecord
from sagong_registry.refusal import refused

__all__ = ["delete", "get", "put"]

_MOST_TAGS = 100
_LISTED = 10


async def get(depot: Depot, ask: Ask) -> Response:
    """`GET` and `HEAD` of a manifest."""
    name, reference = ask.name, ask.parts["reference"]
    digest = await resolved(depot, name, reference)
    record = await depot.manifest(name, digest)
    if digest != reference:
        _check_accepted(ask, record)
    headers = [
        ("Content-Type", record.media_type),
        ("Docker-Content-Digest", digest),
        ("ETag", f'"{digest}"'),
        ("Content-Length", str(record.size)),
    ]
    if ask.warning:
        headers.append(("Warning", f'299 - "{ask.warning}"'))
    if ask.header("if-none-match").strip() == f'"{digest}"':
        return Response(304, b"", [pair for pair in headers if pair[0] != "Content-Length"])
    if ask.request.method == "HEAD":
        return Response(200, b"", headers)
    try:
        return Response(200, await depot.vault.document(digest), headers)
    except NotFound:
        raise await depot.manifest_unknown(name, reference) from None


async def resolved(depot: Depot, name: str, reference: str) -> str:
    """The digest that a reference stands for."""
    if ":" in reference:
        return known_digest(reference)
    if is_tag(reference):
        found = await depot.catalog.find_tag(name, reference)
        if found is not None:
            return found.digest
    raise await depot.manifest_unknown(name, reference)


def _check_accepted(ask: Ask, record: ManifestRecord) -> None:
    """A tag is not given to a client that says it can't read what it stands for."""
    if not accepts(ask.header("accept"), record.media_type):
        raise refused(
            "MANIFEST_UNKNOWN",
            f"the tag is of type {record.media_type}, which the request's Accept does not list",
        )


async def put(depot: Depot, ask: Ask) -> Response:
    """`PUT` of a manifest."""
    name, reference = ask.name, ask.parts["reference"]
    digest, tags = _target(ask, reference)
    try:
        raw = await ask.request.read(LIMIT)
    except ResourceExhausted as error:
        raise refused("MANIFEST_INVALID", error.message, status=413) from None
    made = digest_of(raw, digest.partition(":")[0] or "sha256")
    if digest and made != digest:
        raise refused("DIGEST_INVALID", f"the manifest's digest is {made}, not {digest}")
    facts = read(raw, ask.header("content-type"))
    await depot.push(Push(name, made, raw, facts, tags))
    ask.note(depot.log, "pushed", digest=made, tags=list(tags))
    headers = [("Location", f"/v2/{name}/manifests/{made}"), ("Docker-Content-Digest", made)]
    if facts.subject:
        headers.append(("OCI-Subject", facts.subject))
    if digest:
        # Clients take a hundred headers, and lines of some kilobytes.
        parts = [tags[at : at + _LISTED] for at in range(0, len(tags), _LISTED)]
        headers += [("OCI-Tag", ", ".join(part)) for part in parts]
    return Response(201, b"", headers)


def _target(ask: Ask, reference: str) -> tuple[str, tuple[str, ...]]:
    """Digest ("" for whatever it has) and tags that a push is for."""
    if ":" not in reference:
        return "", (tag_name(reference),)
    tags = tuple(dict.fromkeys(tag_name(tag) for tag in ask.request.query.all("tag")))
    if len(tags) > _MOST_TAGS:
        raise refused(
            "UNSUPPORTED", f"{len(tags)} tags at once, the most are {_MOST_TAGS}", status=414
        )
    return known_digest(reference), tags


async def delete(depot: Depot, ask: Ask) -> Response:
    """`DELETE` of a tag, or of a manifest with all its tags."""
    name, reference = ask.name, ask.parts["reference"]
    if ":" in reference:
        await depot.remove_manifest(name, known_digest(reference))
    else:
        await depot.remove_tag(name, tag_name(reference))
    ask.note(depot.log, "deleted", reference=reference)
    return Response(202, b"", ())
