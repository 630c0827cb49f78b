"""Watches: events of objects as a stream of JSON, encoded once for all who watch in the same form."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import msgspec

from sagong.errors import DeadlineExceeded, Gone, SagongError, Unavailable
from sagong_kube import refusal
from sagong_kube.handlers.exchange import Streamed
from sagong_kube.handlers.negotiation import Form
from sagong_kube.handlers.parameters import ListOptions
from sagong_kube.handlers.rendering import Renderer
from sagong_kube.registry import versions
from sagong_kube.registry.resource import Resource
from sagong_kube.status import failure
from sagong_kube.storage.change import Event
from sagong_kube.storage.collection import Selection
from sagong_kube.storage.store import Store
from sagong_kube.storage.watcher import Notice, Watcher

__all__ = ["Watching"]

_BOOKMARK_SECONDS = 60.0
_LEAST_SECONDS = 1800.0
_INITIAL_END = "k8s.io/initial-events-end"


class Watching:
    """Serves watches of one store."""

    def __init__(self, store: Store, renderer: Renderer, chance: random.Random) -> None:
        self._store = store
        self._renderer = renderer
        self._chance = chance

    def open(
        self,
        resource: Resource,
        selection: Selection,
        options: ListOptions,
        form: Form,
        include: str = "",
    ) -> Streamed:
        """A watch as an answer; it ends when the process drains, and resumes at the successor."""
        watcher = Watcher(self._store.collection(resource.storage), selection)
        view = _View(self._renderer, resource, form, include or "Metadata")
        return Streamed(
            self._parts(watcher, view, options),
            media=form.content_type,
            stop=lambda: watcher.end("this server is being replaced"),
        )

    async def _parts(
        self, watcher: Watcher, view: _View, options: ListOptions
    ) -> AsyncGenerator[bytes, None]:
        try:
            problem = await self._begin(watcher, options)
            if problem is not None:
                yield error_event(problem)
                return
            async for part in self._flow(watcher, view, options):
                yield part
        finally:
            self._store.watchers.remove(watcher)

    async def _begin(self, watcher: Watcher, options: ListOptions) -> SagongError | None:
        revision = int(options.version or 0)
        try:
            if revision and not options.initial:
                await self._store.watch(watcher, revision)
            elif options.initial is False:
                await self._store.settle()
                await self._store.watch(watcher, self._store.revision)
            else:
                if revision:
                    await self._store.wait_revision(revision, 3.0)
                await self._store.watch(watcher, None)
        except Gone:
            return refusal.expired(f"too old resource version: {revision} ({self._store.revision})")
        except DeadlineExceeded:
            return refusal.too_large_revision(revision, self._store.revision)
        except Unavailable as error:
            return error  # in the stream: its head may have gone out
        return None

    async def _flow(
        self, watcher: Watcher, view: _View, options: ListOptions
    ) -> AsyncIterator[bytes]:
        seconds = options.seconds or _LEAST_SECONDS * (1 + self._chance.random())
        end = time.monotonic() + seconds
        bookmark = time.monotonic() + _BOOKMARK_SECONDS * self._chance.uniform(0.9, 1.1)
        first = view.encode(await watcher.wait_pending(0))
        if options.initial and options.bookmarks:
            first += view.bookmark(watcher.revision, initial=True)
        # An empty first part makes the headers go out at once.
        yield first
        while not watcher.ended:
            now = time.monotonic()
            if now >= end:
                return
            notices = await watcher.wait_pending(min(end, bookmark) - now)
            if notices:
                yield view.encode(notices)
            elif options.bookmarks and time.monotonic() >= min(bookmark, end):
                yield view.bookmark(self._store.revision)
                bookmark = time.monotonic() + _BOOKMARK_SECONDS


class _View:
    """How one watcher's events are encoded; events keep the bytes under the view's name."""

    def __init__(self, renderer: Renderer, resource: Resource, form: Form, include: str) -> None:
        self._renderer = renderer
        self._resource = resource
        self._form = form
        self._include = include
        self._name = f"{resource.kind.api_version}:{form.kind}:{form.version}:{include}"
        self._columns_sent = False

    def encode(self, notices: list[Notice]) -> bytes:
        """All notices as one piece."""
        return b"".join([self._event(kind, event) for kind, event in notices])

    def _event(self, kind: str, event: Event) -> bytes:
        if self._form.kind == "Table" and not self._columns_sent:
            self._columns_sent = True
            return self._wrapped(kind, self._table(event.body(kind), columns=True))
        known = event.encodings.get((kind, self._name))
        if known is None:
            known = self._wrapped(kind, self._object(event.body(kind)))
            event.encodings[kind, self._name] = known
        return known

    def _object(self, body: bytes) -> bytes:
        if self._form.kind == "Table":
            return self._table(body, columns=False)
        shown = versions.shown(self._resource, body)
        return self._renderer.partial(shown, self._form.version) if self._form.kind else shown

    def _table(self, body: bytes, *, columns: bool) -> bytes:
        shown = versions.shown(self._resource, body)
        table = self._renderer.tables.event(
            self._resource, shown, self._form.version, self._include, columns=columns
        )
        return msgspec.json.encode(table)

    @staticmethod
    def _wrapped(kind: str, body: bytes) -> bytes:
        return b'{"type":"%b","object":%b}\n' % (kind.encode(), body)

    def bookmark(self, revision: int, *, initial: bool = False) -> bytes:
        """An event that tells the revision alone."""
        metadata: dict[str, Any] = {"resourceVersion": str(revision), "creationTimestamp": None}
        if initial:
            metadata["annotations"] = {_INITIAL_END: "true"}
        kind, api_version = self._resource.kind.kind, self._resource.kind.api_version
        if self._form.kind == "Table":
            object_: dict[str, Any] = {
                "kind": "Table",
                "apiVersion": f"meta.k8s.io/{self._form.version}",
                "metadata": {"resourceVersion": str(revision)},
                "columnDefinitions": None,
                "rows": _bookmark_rows(metadata, self._form.version),
            }
        else:
            if self._form.kind:
                kind, api_version = "PartialObjectMetadata", f"meta.k8s.io/{self._form.version}"
            object_ = {"kind": kind, "apiVersion": api_version, "metadata": metadata}
        return self._wrapped("BOOKMARK", msgspec.json.encode(object_))


def _bookmark_rows(metadata: dict[str, Any], version: str) -> list[dict[str, Any]]:
    shown = {
        "kind": "PartialObjectMetadata",
        "apiVersion": f"meta.k8s.io/{version}",
        "metadata": metadata,
    }
    return [{"cells": [], "object": shown}]


def error_event(error: SagongError) -> bytes:
    """The event that ends a watch with a Status."""
    return b'{"type":"ERROR","object":%b}\n' % msgspec.json.encode(failure(error))
