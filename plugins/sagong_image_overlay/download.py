"""Pulling, in the courier's process: index, manifest, config, and layers in parallel."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

from sagong.errors import InvalidArgument, NotFound, PermissionDenied, SagongError
from sagong.model import oci
from sagong.model.oci import MediaType
from sagong.model.references import Reference
from sagong_image_overlay.content import Content, sync_directory
from sagong_image_overlay.errand import Login
from sagong_image_overlay.exchange import Lost, backoff
from sagong_image_overlay.registry import ManifestAnswer, Repository, open_repository
from sagong_image_overlay.settings import Registries

__all__ = ["Download", "choose_manifest"]

Tell = Callable[[dict[str, Any]], None]
_TELL_EVERY = 0.1


def choose_manifest(index: oci.Index, wanted: oci.Platform, name: str) -> oci.Descriptor:
    """The manifest of an index for a platform; of several variants the closest."""
    fitting = []
    for descriptor in index.manifests:
        if descriptor.platform is None or not _is_image(descriptor):
            continue
        has = oci.normal_platform(descriptor.platform)
        if (has.os, has.architecture) == (wanted.os, wanted.architecture):
            fitting.append((_distance(has.variant, wanted.variant), descriptor))
    usable = [pair for pair in fitting if pair[0] is not None]
    if not usable:
        raise NotFound(
            f"no matching manifest for {oci.platform_text(wanted)} in the manifest list entries: "
            f"no match for platform in manifest: {name} not found"
        )
    return min(usable, key=lambda pair: pair[0] or 0)[1]


def _is_image(descriptor: oci.Descriptor) -> bool:
    known = oci.is_manifest(descriptor.media_type) or oci.is_index(descriptor.media_type)
    return known and "vnd.docker.reference.type" not in (descriptor.annotations or {})


def _distance(has: str, wanted: str) -> int | None:
    """How far below the wanted variant one is; None if it can't run here."""
    if has == wanted or not has:
        return 0 if has == wanted else 50
    levels = (has.removeprefix("v"), (wanted or "v1").removeprefix("v"))
    if not all(level.isdigit() for level in levels):
        return None
    gap = int(levels[1]) - int(levels[0])
    return gap if gap >= 0 else None


@dataclass(frozen=True)
class Download:
    """A pull: what, from where, into which content store."""

    reference: Reference
    platform: oci.Platform
    login: Login
    settings: Registries
    parallel: int
    content: Content
    tell: Tell

    def run(self) -> None:
        """Tell of the manifest, of each blob when it is there, and of the end."""
        name = self.reference.familiar
        problems: list[SagongError] = []
        repositories = open_repository(
            self.reference.domain, self.reference.path, self.login, self.settings, push=False
        )
        for repository in repositories:
            try:
                self._pull(repository)
                return
            except SagongError as error:
                if not repository.endpoint.mirror:
                    raise self._explained(error, name) from error
                problems.append(error)
        raise self._explained(problems[-1], name)

    def _explained(self, error: SagongError, name: str) -> SagongError:
        """Docker's words in front of the registry's."""
        code = error.detail.get("code", "")
        repository = self.reference.familiar_name
        if code == "MANIFEST_UNKNOWN":
            return NotFound(f"manifest for {name} not found: {error.message}")
        if code == "NAME_UNKNOWN":
            return NotFound(f"repository {repository} not found: {error.message}")
        if code == "DENIED" or isinstance(error, PermissionDenied):
            return NotFound(
                f"pull access denied for {repository}, repository does not exist or may require "
                f"'docker login': {error.message}"
            )
        return error

    def _pull(self, repository: Repository) -> None:
        wanted = self.reference.digest or self.reference.tag
        top = repository.manifest(wanted)
        answer = self._of_platform(repository, top)
        manifest = oci.decode(answer.raw, oci.Manifest, f"manifest {answer.digest}")
        config = self._config(repository, manifest)
        self.tell(
            {
                "event": "manifest",
                "digest": top.digest,
                "raw": answer.raw.decode(),
                "media_type": answer.media_type,
                "config": config.decode(),
            }
        )
        self._layers(repository, manifest)
        self.tell({"event": "done", "digest": top.digest})

    def _of_platform(self, repository: Repository, top: ManifestAnswer) -> ManifestAnswer:
        answer = top
        for _ in range(4):
            if not oci.is_index(answer.media_type):
                break
            index = oci.decode(answer.raw, oci.Index, f"index {answer.digest}")
            chosen = choose_manifest(index, self.platform, self.reference.familiar)
            answer = repository.manifest(chosen.digest)
        if not oci.is_manifest(answer.media_type):
            kind = answer.media_type or "no media type"
            raise InvalidArgument(
                f"unsupported manifest of {self.reference.familiar}: {kind}; "
                "push the image anew with a current tool"
            )
        return answer

    def _config(self, repository: Repository, manifest: oci.Manifest) -> bytes:
        wanted = (MediaType.OCI_CONFIG, MediaType.DOCKER_CONFIG, "application/octet-stream")
        if manifest.config.media_type not in wanted or manifest.config.size > 4 << 20:
            raise InvalidArgument(
                f"{self.reference.familiar} is no container image: its config is "
                f"{manifest.config.media_type} of {manifest.config.size} bytes"
            )
        if not self.content.has(manifest.config.digest):
            Blob(self, repository, manifest.config).fetch()
        raw = self.content.read(manifest.config.digest)
        config = oci.decode(raw, oci.Config, "image config")
        if config.os not in ("", "linux"):
            raise InvalidArgument(
                f'image operating system "{config.os}" cannot be used on this platform'
            )
        return raw

    def _layers(self, repository: Repository, manifest: oci.Manifest) -> None:
        layers = {layer.digest: layer for layer in manifest.layers}
        for layer in layers.values():
            if not oci.is_layer(layer.media_type) and layer.media_type != MediaType.DOCKER_FOREIGN:
                raise InvalidArgument(f"layer of unknown type {layer.media_type}")
            self.status(layer, "Pulling fs layer")
        missing = []
        for layer in layers.values():
            if self.content.has(layer.digest):
                self.tell({"event": "blob", "digest": layer.digest, "known": True})
            else:
                missing.append(layer)
        for layer in missing[self.parallel :]:
            self.status(layer, "Waiting")
        with ThreadPoolExecutor(self.parallel) as pool:
            work = [pool.submit(Blob(self, repository, layer).fetch_told) for layer in missing]
            done, rest = wait(work, return_when=FIRST_EXCEPTION)
            for future in rest:
                future.cancel()
            for future in done:
                future.result()

    def status(self, layer: oci.Descriptor, text: str, current: int = 0) -> None:
        """A line about a layer."""
        self.tell(
            {
                "event": "status",
                "digest": layer.digest,
                "status": text,
                "current": current,
                "total": layer.size if current else 0,
            }
        )


class Blob:
    """One blob on its way here; what came already is kept over failures and restarts."""

    def __init__(self, pull: Download, repository: Repository, layer: oci.Descriptor) -> None:
        self._pull = pull
        self._repository = repository
        self._layer = layer
        self._target = pull.content.path(layer.digest)
        self._partial = pull.content.partial / layer.digest.replace(":", "-")
        self._told = 0.0

    def fetch_told(self) -> None:
        """Fetch with lines of progress."""
        self.fetch(told=True)
        self._pull.tell({"event": "blob", "digest": self._layer.digest})

    def fetch(self, *, told: bool = False) -> None:
        """Bring the blob into the content store."""
        with self._locked() as file:
            if self._target.exists():
                return
            self._download(file, told=told)
            if told:
                self._pull.status(self._layer, "Download complete")
                # Unpacking can begin; the name in the store comes when the bytes are on disk.
                path = str(self._partial)
                self._pull.tell({"event": "fetched", "digest": self._layer.digest, "path": path})
            os.fsync(file)
            os.rename(self._partial, self._target)
            sync_directory(self._target.parent)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        """The partial file, which only one pull at a time may write."""
        while True:
            file = os.open(self._partial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
                if self._target.exists() or self._is_current(file):
                    yield file
                    return
            finally:
                os.close(file)

    def _is_current(self, file: int) -> bool:
        """Whoever held the lock before may have renamed or removed the file."""
        with contextlib.suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(file), os.stat(self._partial))
        return False

    def _download(self, file: int, *, told: bool) -> None:
        algorithm = self._layer.digest.partition(":")[0]
        for attempt in range(self._pull.settings.attempts):
            hashed = self._hash_of_known(file, algorithm)
            try:
                self._receive(file, hashed, told=told)
                break
            except Lost:
                if attempt + 1 == self._pull.settings.attempts:
                    raise
                if told:
                    self._pull.status(self._layer, "Retrying in 1 second")
                backoff(attempt)
        if told:
            self._pull.status(self._layer, "Verifying Checksum")
        if f"{algorithm}:{hashed.hexdigest()}" != self._layer.digest:
            self._partial.unlink(missing_ok=True)
            raise InvalidArgument(
                f"filesystem layer verification failed for digest {self._layer.digest}"
            )

    def _hash_of_known(self, file: int, algorithm: str) -> Any:
        """The digest's state after what is in the file already, which then stands at its end."""
        hashed = hashlib.new(algorithm)
        size = os.fstat(file).st_size
        if size > self._layer.size:
            os.ftruncate(file, 0)
        os.lseek(file, 0, os.SEEK_SET)
        while data := os.read(file, 1 << 20):
            hashed.update(data)
        return hashed

    def _receive(self, file: int, hashed: Any, *, told: bool) -> None:
        have = os.fstat(file).st_size
        if have == self._layer.size:
            return
        path = f"/v2/{self._repository.path}/blobs/{self._layer.digest}"
        headers = {"Range": f"bytes={have}-"} if have else {}
        repository = self._repository
        answer = repository.check(repository.request("GET", path, headers=headers), 200, 206, 416)
        if answer.status == 416 or (have and answer.status == 200):
            # It can't go on where we were: from the beginning, then.
            answer.abandon()
            os.ftruncate(file, 0)
            raise Lost("the registry does not resume downloads")
        if answer.status == 206 and not answer.header("Content-Range").startswith(f"bytes {have}-"):
            answer.abandon()
            os.ftruncate(file, 0)
            raise Lost("the registry resumed the download at another place")
        for piece in answer.pieces():
            have += len(piece)
            if have > self._layer.size:
                os.ftruncate(file, 0)
                raise InvalidArgument(
                    f"blob {self._layer.digest} is longer than the {self._layer.size} bytes that "
                    "its manifest says"
                )
            hashed.update(piece)
            while piece:
                piece = piece[os.write(file, piece) :]
            if told:
                self._progress(have)
        if have < self._layer.size:
            raise Lost(f"blob {self._layer.digest} ended after {have} bytes")

    def _progress(self, have: int) -> None:
        now = time.monotonic()
        if now - self._told > _TELL_EVERY:
            self._told = now
            self._pull.status(self._layer, "Downloading", have)
