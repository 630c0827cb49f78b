"""Blobs: whether one is there, its bytes or a part of them, and its removal."""

from __future__ import annotations

import os

from sagong.errors import NotFound
from sagong.http import Response
from sagong_registry.ask import Ask
from sagong_registry.depot import Depot
from sagong_registry.grammar import Span, known_digest, requested_span
from sagong_registry.refusal import refused
from sagong_registry.relay import Coming
from sagong_registry.vault import SMALL

__all__ = ["delete", "get"]

_FOREVER = "max-age=31536000"


async def get(depot: Depot, ask: Ask) -> Response | None:
    """`GET` and `HEAD` of a blob."""
    name, digest = ask.name, known_digest(ask.parts["digest"])
    size = ask.coming.size if ask.coming else ask.size
    if size < 0:
        size = (await depot.blob(name, digest)).size
    headers = [
        ("Content-Type", "application/octet-stream"),
        ("Docker-Content-Digest", digest),
        ("ETag", f'"{digest}"'),
        ("Cache-Control", _FOREVER),
        ("Accept-Ranges", "bytes"),
    ]
    if ask.header("if-none-match").strip() in (f'"{digest}"', "*"):
        return Response(304, b"", headers)
    span = _span(ask, digest, size)
    status = 200 if span is None else 206
    if span is not None:
        headers.append(("Content-Range", f"bytes {span.start}-{span.end - 1}/{size}"))
    else:
        span = Span(0, size)
    headers.append(("Content-Length", str(span.length)))
    if ask.request.method == "HEAD":
        depot.told(name, digest)
        return Response(status, b"", headers)
    if ask.coming is not None:
        await _pass_on(ask, ask.coming, headers)
        return None
    return await _send(depot, ask, digest, Response(status, b"", headers), span)


def _span(ask: Ask, digest: str, size: int) -> Span | None:
    """The wanted part; the whole if the client has begun on something else (If-Range)."""
    if ask.header("if-range") not in ("", f'"{digest}"'):
        return None
    return requested_span(ask.header("range"), size)


async def _send(depot: Depot, ask: Ask, digest: str, head: Response, span: Span) -> Response | None:
    try:
        if span.length == 0:
            return head
        if span.length <= SMALL and head.status == 200:
            return Response(200, await depot.vault.document(digest), head.headers)
        source = await depot.vault.source(digest)
    except NotFound:
        raise refused("BLOB_UNKNOWN", detail={"digest": digest}) from None
    try:
        out = ask.request.stream(head.status, head.headers)
        await depot.vault.carry(digest, span, source, out)
    finally:
        os.close(source)
    return None


async def _pass_on(ask: Ask, coming: Coming, headers: list[tuple[str, str]]) -> None:
    """A blob as it comes from an upstream; broken off unless all of it came and was right."""
    out, left = ask.request.stream(200, headers), coming.size
    try:
        async for chunk in coming.tap.chunks():
            left -= len(chunk)
            if left < 0:
                break
            await out.write(chunk)
    finally:
        coming.tap.leave()
    if left:
        raise ConnectionResetError("the upstream broke off within the blob")


async def delete(depot: Depot, ask: Ask) -> Response:
    """`DELETE` of a blob: of this repository; others keep it."""
    digest = known_digest(ask.parts["digest"])
    await depot.remove_blob(ask.name, digest)
    ask.note(depot.log, "deleted", blob=digest)
    return Response(202, b"", ())
