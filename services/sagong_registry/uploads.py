"""Uploads of blobs: begun, sent in one or many pieces, asked about, finished or given up.

An upload lives in the content store and survives restarts of everything; what a broken connection
has brought is kept, and `GET` tells how far it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator

from sagong.errors import FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted
from sagong.http import Request, Response
from sagong_registry.ask import Ask
from sagong_registry.depot import Depot
from sagong_registry.grammar import Span, is_digest, is_name, known_digest, sent_span
from sagong_registry.refusal import Refused, refused

__all__ = ["append", "begin", "cancel", "finish", "status"]

_SILENT_SECONDS = 300.0
_ALGORITHMS = ("sha256", "sha512")


async def begin(depot: Depot, ask: Ask) -> Response:
    """`POST`: mount a blob of another repository, take a whole blob, or begin an upload."""
    name = ask.name
    algorithm = ask.query("digest-algorithm")
    if algorithm and algorithm not in _ALGORITHMS:
        raise refused("DIGEST_INVALID", f"algorithm {algorithm[:40]!r}: sha256 or sha512")
    if ask.query("mount"):
        mounted = await _mount(depot, ask, name, ask.query("mount"))
        if mounted is not None:
            return mounted
    id_ = str(uuid.uuid4())
    if ask.query("digest"):
        return await _whole(depot, ask, name, id_)
    await depot.begin(id_, name)
    return _progress(name, id_, 0, status=202)


async def _mount(depot: Depot, ask: Ask, name: str, digest: str) -> Response | None:
    """A blob that the client may pull somewhere becomes one of this repository, without its bytes."""
    if not is_digest(digest):
        raise refused("DIGEST_INVALID", f"mount={digest[:160]!r} is no digest")
    for other in await _sources(depot, ask.query("from"), digest):
        if "pull" not in depot.gate.allowed(ask.visitor, other):
            continue
        if await depot.mount(name, digest):
            return created(name, digest)
    return None


async def _sources(depot: Depot, source: str, digest: str) -> list[str]:
    """Repositories that have the blob: the named one, or any."""
    if source:
        found = is_name(source) and await depot.catalog.find_blob(source, digest)
        return [source] if found else []
    return [r.name for r in list(depot.catalog.repositories.values()) if digest in r.blobs]


async def _whole(depot: Depot, ask: Ask, name: str, id_: str) -> Response:
    """A blob in one request."""
    digest = known_digest(ask.query("digest"))
    try:
        offset = await depot.vault.offset(id_)
        await _take(depot, ask.request, id_, offset, None)
        return await _finished(depot, name, id_, digest)
    except BaseException:
        await depot.cancel(id_)
        raise


async def append(depot: Depot, ask: Ask) -> Response:
    """`PATCH`: more bytes."""
    name, id_ = ask.name, await _known(depot, ask)
    return _progress(name, id_, await _go_on(depot, ask, name, id_), status=202)


async def status(depot: Depot, ask: Ask) -> Response:
    """`GET`: how far it is."""
    name, id_ = ask.name, await _known(depot, ask)
    return _progress(name, id_, await depot.vault.offset(id_), status=204)


async def finish(depot: Depot, ask: Ask) -> Response:
    """`PUT`: the last bytes, if any, and the digest of all."""
    name, id_ = ask.name, await _known(depot, ask)
    digest = known_digest(ask.query("digest"))
    if ask.request.length:
        await _go_on(depot, ask, name, id_)
    return await _finished(depot, name, id_, digest)


async def cancel(depot: Depot, ask: Ask) -> Response:
    """`DELETE`: give it up."""
    await depot.cancel(await _known(depot, ask))
    return Response(204, b"", ())


async def _known(depot: Depot, ask: Ask) -> str:
    """The upload's id, if there is such an upload to this repository."""
    id_ = ask.parts["id"]
    found = await depot.catalog.find_upload(id_) if _is_uuid(id_) else None
    if found is None or found.repository != ask.name:
        raise refused("BLOB_UPLOAD_UNKNOWN")
    return id_


async def _go_on(depot: Depot, ask: Ask, name: str, id_: str) -> int:
    """The request's body, onto the upload; the new offset.

    Where the upload is, is remembered of what came in here. If another process has taken bytes of it
    meanwhile, the store says so before a byte of the body is read, and is asked.
    """
    span = sent_span(ask.header("content-range"))
    remembered = depot.reached.pop(id_, None)
    if remembered is not None and (span is None or span.start == remembered):
        with contextlib.suppress(FailedPrecondition):
            return await _take(depot, ask.request, id_, remembered, span)
    offset = await depot.vault.offset(id_)
    if span is not None and span.start != offset:
        text = f"the next byte is {offset}, the chunk begins with {span.start}"
        raise _misplaced(name, id_, offset, text)
    try:
        return await _take(depot, ask.request, id_, offset, span)
    except FailedPrecondition:
        text = "another request is sending bytes of this upload"
        raise _misplaced(name, id_, offset, text) from None


def _misplaced(name: str, id_: str, offset: int, text: str) -> Refused:
    place = _place(name, id_, offset)
    return refused("BLOB_UPLOAD_INVALID", text, status=416, headers=place)


async def _take(depot: Depot, request: Request, id_: str, offset: int, span: Span | None) -> int:
    """Take a body from `offset` on."""
    if span is not None and request.length not in (-1, span.length):
        raise refused(
            "SIZE_INVALID", f"Content-Range is of {span.length} bytes, the body of {request.length}"
        )
    depot.writing.add(id_)
    try:
        reached = await depot.vault.append(id_, offset, _body(request, span))
    except NotFound:
        raise refused("BLOB_UPLOAD_UNKNOWN") from None
    finally:
        depot.writing.discard(id_)
        depot.touched[id_] = time.time()
    if span is not None and reached - offset != span.length:
        text = f"Content-Range is of {span.length} bytes, the body of {reached - offset}"
        raise refused("SIZE_INVALID", text)
    depot.reached[id_] = reached
    return reached


async def _body(request: Request, span: Span | None) -> AsyncIterator[bytes]:
    """The body; a sender that falls silent is given up, and may go on in another request."""
    chunks = request.chunks(span.length if span else 0)
    try:
        while True:
            async with asyncio.timeout(_SILENT_SECONDS):
                chunk = await anext(chunks, b"")
            if not chunk:
                return
            yield chunk
    except ResourceExhausted as error:
        raise refused("SIZE_INVALID", error.message) from None
    except TimeoutError:
        text = f"nothing came for {_SILENT_SECONDS:.0f} seconds"
        raise refused("BLOB_UPLOAD_INVALID", text, status=408) from None


async def _finished(depot: Depot, name: str, id_: str, digest: str) -> Response:
    try:
        await depot.finish(id_, name, digest)
    except InvalidArgument as error:
        await depot.cancel(id_)
        raise refused("DIGEST_INVALID", error.message) from None
    return created(name, digest)


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def _place(name: str, id_: str, offset: int) -> list[tuple[str, str]]:
    return [
        ("Location", f"/v2/{name}/blobs/uploads/{id_}"),
        ("Range", f"0-{max(0, offset - 1)}"),
        ("Docker-Upload-UUID", id_),
    ]


def _progress(name: str, id_: str, offset: int, *, status: int) -> Response:
    return Response(status, b"", _place(name, id_, offset))


def created(name: str, digest: str) -> Response:
    """A blob that is there now."""
    place = ("Location", f"/v2/{name}/blobs/{digest}")
    return Response(201, b"", [place, ("Docker-Content-Digest", digest)])
