"""Pushing, in the courier's process: what the registry lacks, then the manifest."""

from __future__ import annotations

import os
import threading
import time
import urllib.parse
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from sagong.errors import Cancelled, InvalidArgument, SagongError
from sagong.model import oci
from sagong.model.references import Reference
from sagong_image_overlay.content import Content
from sagong_image_overlay.download import HEADWAY
from sagong_image_overlay.errand import Login
from sagong_image_overlay.exchange import Answer, Lost, backoff
from sagong_image_overlay.hosts import Ways
from sagong_image_overlay.registry import Repository, open_repository

__all__ = ["Push"]

_MONOLITHIC = 4 << 20
_TELL_EVERY = 0.1


class Window:
    """A part of a file as http.client reads it, with progress, which may raise to end it."""

    def __init__(self, file: BinaryIO, size: int, progress: Callable[[int], None]) -> None:
        self._file = file
        self._left = size
        self._start = file.tell()
        self._size = size
        self._progress = progress

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        wanted = self._left if size < 0 else min(size, self._left)
        data = self._file.read(min(wanted, 1 << 18))
        self._left -= len(data)
        self._progress(self._file.tell())
        return data

    def seek(self, offset: int) -> None:
        """Begin anew, when the request is sent again."""
        self._file.seek(self._start + offset)
        self._left = self._size - offset


@dataclass(frozen=True)
class Push:
    """A push: a manifest whose blobs are in the content store, or an index of manifests sent before.

    Once it is `given_up`, its uploads are withdrawn: registries keep what was sent of them for days.
    """

    reference: Reference
    manifest: bytes
    media_type: str
    login: Login
    ways: Ways
    parallel: int
    content: Content
    sources: Mapping[str, list[str]]
    tell: Callable[[dict[str, Any]], None]
    given_up: threading.Event

    def run(self) -> None:
        """Send what is missing; tell of each layer and of the end."""
        (repository,) = open_repository(self.reference, self.login, self.ways, push=True)
        self._push(repository)

    def _push(self, repository: Repository) -> None:
        if not oci.is_index(self.media_type):
            self._send_blobs(repository)
        wanted = self.reference.tag or self.reference.digest
        digest = repository.put_manifest(wanted, self.media_type, self.manifest)
        self.tell({"event": "done", "digest": digest, "size": len(self.manifest)})

    def _send_blobs(self, repository: Repository) -> None:
        manifest = oci.decode(self.manifest, oci.Manifest, "manifest")
        repository.allow_mounts(sorted({path for paths in self.sources.values() for path in paths}))
        layers = {layer.digest: layer for layer in manifest.layers if not self._is_foreign(layer)}
        for layer in layers.values():
            self._status(layer, "Preparing")
        for layer in list(layers.values())[self.parallel :]:
            self._status(layer, "Waiting")
        with ThreadPoolExecutor(self.parallel) as pool:
            work = [pool.submit(self._send_told, repository, layer) for layer in layers.values()]
            done, rest = wait(work, return_when=FIRST_EXCEPTION)
            for future in rest:
                future.cancel()
            for future in done:
                future.result()
        self._send(repository, manifest.config, lambda _: None)

    def _is_foreign(self, layer: oci.Descriptor) -> bool:
        """Layers that must not be distributed stay where their URLs say, as with Docker."""
        if not layer.urls or not oci.is_foreign(layer.media_type):
            return False
        self._status(layer, "Skipped foreign layer")
        return True

    def _status(self, layer: oci.Descriptor, text: str, current: int = 0) -> None:
        self.tell(
            {
                "event": "status",
                "digest": layer.digest,
                "status": text,
                "current": current,
                "total": layer.size if current else 0,
            }
        )

    def _send_told(self, repository: Repository, layer: oci.Descriptor) -> None:
        last = 0.0

        def progress(sent: int) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last > _TELL_EVERY:
                last = now
                self._status(layer, "Pushing", sent)

        self._status(layer, self._send(repository, layer, progress))

    def _send(
        self, repository: Repository, blob: oci.Descriptor, progress: Callable[[int], None]
    ) -> str:
        """Send a blob if the registry lacks it; what to say of it."""
        self._check_wanted()
        if repository.has_blob(blob.digest):
            return "Layer already exists"
        for source in self.sources.get(blob.digest, ()):
            if source != repository.path and self._mount(repository, blob, source):
                return f"Mounted from {source}"
        for attempt in range(self.ways.settings.attempts):
            try:
                self._upload(repository, blob, progress)
                break
            except Lost as error:
                if attempt + 1 == self.ways.settings.attempts:
                    raise
                backoff(attempt, error.after)
        return "Pushed"

    def _mount(self, repository: Repository, blob: oci.Descriptor, source: str) -> bool:
        """Let the registry take the blob from another repository that has it."""
        query = urllib.parse.urlencode({"mount": blob.digest, "from": source})
        path = f"/v2/{repository.path}/blobs/uploads/?{query}"
        try:
            answer = repository.request("POST", path, body=b"")
        except SagongError:
            return False
        answer.body()
        if answer.status == 202:
            # It began an upload instead: withdraw it.
            self._cancel(repository, self._location(answer))
        return answer.status == 201

    def _cancel(self, repository: Repository, where: str) -> None:
        try:
            repository.request("DELETE", where).body()
        except SagongError:
            return

    def _check_wanted(self) -> None:
        if self.given_up.is_set():
            raise Cancelled("the push was given up")

    def _location(self, answer: Answer) -> str:
        target = answer.header("Location")
        if not target:
            raise InvalidArgument(f"{answer.url} began an upload without saying where")
        return urllib.parse.urljoin(answer.url, target)

    def _upload(
        self, repository: Repository, blob: oci.Descriptor, progress: Callable[[int], None]
    ) -> None:
        self._check_wanted()
        path = f"/v2/{repository.path}/blobs/uploads/"
        answer = repository.check(repository.request("POST", path, body=b""), 202)
        answer.body()
        where = self._location(answer)
        with self.content.path(blob.digest).open("rb") as file:
            if os.fstat(file.fileno()).st_size > _MONOLITHIC:
                where = self._patch(repository, where, file, progress)
                body: BinaryIO | bytes = b""
            else:
                body = file.read()
            joint = "&" if "?" in where else "?"
            target = f"{where}{joint}{urllib.parse.urlencode({'digest': blob.digest})}"
            headers = {"Content-Type": "application/octet-stream"}
            answer = repository.request("PUT", target, headers=headers, body=body)
            repository.check(answer, 201, 204).body()

    def _patch(
        self,
        repository: Repository,
        where: str,
        file: BinaryIO,
        progress: Callable[[int], None],
    ) -> str:
        """Send a large blob; after a failure go on where the registry has got to."""

        def wanted(sent: int) -> None:
            self._check_wanted()
            progress(sent)

        size = os.fstat(file.fileno()).st_size
        offset = attempt = 0
        while True:
            file.seek(offset)
            headers = {
                "Content-Type": "application/octet-stream",
                "Content-Length": str(size - offset),
                "Content-Range": f"{offset}-{size - 1}",
            }
            body = cast(BinaryIO, Window(file, size - offset, wanted))
            try:
                answer = repository.request("PATCH", where, headers=headers, body=body)
                repository.check(answer, 202, 204).body()
                return self._location(answer)
            except Cancelled:
                self._cancel(repository, where)
                raise
            except Lost as error:
                backoff(attempt, error.after)
                before, (offset, where) = offset, self._reached(repository, where, size)
                attempt = 0 if offset - before >= HEADWAY else attempt + 1
                if attempt == self.ways.settings.attempts:
                    raise

    def _reached(self, repository: Repository, where: str, size: int) -> tuple[int, str]:
        """How far the registry has got, and where it goes on."""
        answer = repository.get(where)
        if answer.status == 404:
            answer.body()
            raise Lost(f"{where} is not known any more")
        repository.check(answer, 200, 202, 204).body()
        end = answer.header("Range").rpartition("-")[2]
        offset = int(end[:18]) + 1 if end.isdecimal() and end != "0" else 0
        if offset > size:
            raise InvalidArgument(f"{where} has got {offset} bytes of a blob of {size}")
        return offset, self._location(answer) if answer.header("Location") else where
