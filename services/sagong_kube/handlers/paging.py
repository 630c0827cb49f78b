"""Pages of lists: which objects, as of which revision, and the token that goes on."""

from __future__ import annotations

import base64
import binascii

import msgspec

from sagong.errors import DeadlineExceeded, Gone
from sagong_kube import refusal
from sagong_kube.handlers.parameters import ListOptions
from sagong_kube.storage.collection import Collection, Selection
from sagong_kube.storage.record import Record
from sagong_kube.storage.store import Store

__all__ = ["Page", "read_page"]

_VERSION = "meta.k8s.io/v1"
_WAIT_SECONDS = 3.0
_TOO_OLD = (
    "The provided continue parameter is too old to display a consistent list result. You can start "
    "a new list without the continue parameter, or use the continue token in this response to "
    "retrieve the remainder of the results. Continuing with the provided token results in an "
    "inconsistent list - objects that were created, modified, or deleted between the time the "
    "first chunk was returned and now may show up in the list."
)


class _Token(msgspec.Struct):
    v: str
    rv: int
    start: str


class Page(msgspec.Struct):
    """Objects, the revision they are of, the token of the next page, and how many come after."""

    records: list[Record]
    revision: int
    resume: str = ""
    remaining: int | None = None


def _token(revision: int, after: str) -> str:
    raw = msgspec.json.encode(_Token(_VERSION, revision, after + "\0"))
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _read_token(text: str) -> _Token:
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        token = msgspec.json.decode(raw, type=_Token)
    except (binascii.Error, ValueError, msgspec.MsgspecError):
        raise refusal.bad_request("continue key is not valid: invalid base64 or JSON") from None
    if token.v != _VERSION or not token.start or ".." in token.start.split("/"):
        raise refusal.bad_request(
            "continue key is not valid: incorrect encoded start resourceVersion"
        )
    return token


async def read_page(
    store: Store, collection: Collection, selection: Selection, options: ListOptions
) -> Page:
    """Read a page as upstream's rules for resourceVersion and continue want it."""
    if options.resume:
        return await _next_page(store, collection, selection, options)
    revision = int(options.version or 0)
    if not options.version:
        await store.settle()
    elif revision:
        await _reach(store, revision)
    if options.match == "Exact" and collection.changed > revision:
        return await _old_page(store, collection, selection, revision, "", options.limit)
    shown = revision if options.match == "Exact" else store.revision
    return _present_page(collection, selection, shown, "", options.limit)


async def _reach(store: Store, revision: int) -> None:
    try:
        await store.wait_revision(revision, _WAIT_SECONDS)
    except DeadlineExceeded:
        raise refusal.too_large_revision(revision, store.revision) from None


async def _next_page(
    store: Store, collection: Collection, selection: Selection, options: ListOptions
) -> Page:
    if options.version not in ("", "0"):
        raise refusal.bad_request("specifying resource version is not allowed when using continue")
    token = _read_token(options.resume)
    await store.settle()
    if token.rv < 0:
        return _present_page(collection, selection, store.revision, token.start, options.limit)
    if collection.changed <= token.rv:
        return _present_page(collection, selection, token.rv, token.start, options.limit)
    try:
        return await _old_page(store, collection, selection, token.rv, token.start, options.limit)
    except Gone:
        error = refusal.expired(_TOO_OLD)
        error.detail["continue"] = _token(-1, token.start.rstrip("\0"))
        raise error from None


def _present_page(
    collection: Collection, selection: Selection, revision: int, after: str, limit: int
) -> Page:
    if not limit:
        return Page(list(collection.select(selection, after)), revision)
    records: list[Record] = []
    for record in collection.select(selection, after):
        if len(records) == limit:
            return _cut(collection, selection, records, revision)
        records.append(record)
    return Page(records, revision)


def _cut(
    collection: Collection, selection: Selection, records: list[Record], revision: int
) -> Page:
    last = records[-1].key
    remaining = None
    if not selection.selective:
        remaining = collection.remaining(selection.namespace, last + "\0")
    return Page(records, revision, _token(revision, last), remaining)


async def _old_page(
    store: Store,
    collection: Collection,
    selection: Selection,
    revision: int,
    after: str,
    limit: int,
) -> Page:
    try:
        records, more = await store.page(collection.storage, selection, revision, after, limit)
    except Gone:
        if after:
            raise
        raise refusal.expired(
            f"The provided resource version is too old: {revision} is no longer available"
        ) from None
    return Page(records, revision, _token(revision, records[-1].key) if more else "")
