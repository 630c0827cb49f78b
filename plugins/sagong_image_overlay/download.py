"""Pulling, in the courier's process: index, manifest, config, and layers in parallel."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import msgspec

from sagong.errors import (
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    SagongError,
)
from sagong.model import oci
from sagong.model.numbers import natural
from sagong.model.oci import MediaType
from sagong.model.references import Reference
from sagong_image_overlay.content import Content, sync_directory
from sagong_image_overlay.errand import Login
from sagong_image_overlay.exchange import Answer, Lost, backoff
from sagong_image_overlay.hosts import Ways
from sagong_image_overlay.registry import ManifestAnswer, Repository, open_repository
from sagong_image_overlay.room import room

__all__ = ["HEADWAY", "Download", "choose_manifest", "explained"]

Tell = Callable[[dict[str, Any]], None]
_TELL_EVERY = 0.1
# What a connection has to bring before it breaks so that another one is worth it.
HEADWAY = 1 << 16
_CONFIG_LIMIT = 4 << 20
_CONFIGS = (MediaType.OCI_CONFIG, MediaType.DOCKER_CONFIG, "application/octet-stream")
_SCHEMA_1 = (
    MediaType.DOCKER_MANIFEST_V1,
    MediaType.DOCKER_MANIFEST_V1_SIGNED,
)


def choose_manifest(index: oci.Index, wanted: oci.Platform, name: str) -> oci.Descriptor:
    """The manifest of an index for a platform; of several that run there the closest."""
    order = list(_running_on(wanted))
    fitting = []
    for descriptor in filter(_is_image, index.manifests):
        if descriptor.platform is None:
            # Nobody knows what for: after all of which it is known.
            fitting.append((len(order), descriptor))
            continue
        has = oci.normal_platform(descriptor.platform)
        if has in order:
            fitting.append((order.index(has), descriptor))
    if not fitting:
        raise NotFound(
            f"no matching manifest for {oci.platform_text(wanted)} in the manifest list entries: "
            f"no match for platform in manifest: {name} not found"
        )
    return min(fitting, key=lambda pair: pair[0])[1]


def _running_on(wanted: oci.Platform) -> Iterator[oci.Platform]:
    """Platforms whose images run on one, the best first, as containerd has them: itself, lower levels
    of its architecture, then what its processors also do."""

    def levels(architecture: str, highest: int, lowest: int) -> Iterator[oci.Platform]:
        for level in range(highest, lowest - 1, -1):
            yield oci.normal_platform(
                oci.Platform(architecture=architecture, os=wanted.os, variant=f"v{level}")
            )

    yield wanted
    level = wanted.variant.removeprefix("v")
    number = natural(level[:3]) or 0
    match wanted.architecture:
        case "amd64":
            yield from levels("amd64", number - 1, 1)
            yield oci.Platform(architecture="386", os=wanted.os)
        case "arm":
            yield from levels("arm", number - 1, 5)
        case "arm64":
            yield from levels("arm64", number - 1, 8)
            yield from levels("arm", 8, 5)
    yield msgspec.structs.replace(wanted, variant="")


def _is_image(descriptor: oci.Descriptor) -> bool:
    known = oci.is_manifest(descriptor.media_type) or oci.is_index(descriptor.media_type)
    return known and "vnd.docker.reference.type" not in (descriptor.annotations or {})


def explained(error: SagongError, reference: Reference) -> SagongError:
    """Docker's words in front of the registry's."""
    code = error.detail.get("code", "")
    repository = reference.familiar_name
    if code == "MANIFEST_UNKNOWN":
        return NotFound(f"manifest for {reference.familiar} not found: {error.message}")
    if code == "NAME_UNKNOWN":
        return NotFound(f"repository {repository} not found: {error.message}")
    if code == "DENIED" or isinstance(error, PermissionDenied):
        return NotFound(
            f"pull access denied for {repository}, repository does not exist or may require "
            f"'docker login': {error.message}"
        )
    return error


@dataclass(frozen=True)
class Download:
    """A pull: what, from where, into which content store."""

    reference: Reference
    platform: oci.Platform
    login: Login
    ways: Ways
    parallel: int
    content: Content
    reserve: int
    tell: Tell
    wait_answered: Callable[[], None]

    def run(self) -> None:
        """Tell of the manifest, of each blob when it is there, and of the end."""
        problems: list[SagongError] = []
        repositories = open_repository(self.reference, self.login, self.ways, push=False)
        for repository in repositories:
            try:
                self._pull(repository)
                return
            except SagongError as error:
                if not repository.endpoint.mirror:
                    raise explained(error, self.reference) from error
                problems.append(error)
        raise explained(problems[-1], self.reference)

    def _pull(self, repository: Repository) -> None:
        wanted = self.reference.digest or self.reference.tag
        top = repository.manifest(wanted)
        answer = self._of_platform(repository, top)
        for text in dict.fromkeys(top.warnings + answer.warnings):
            self.tell({"event": "warning", "text": text})
        manifest = oci.decode(answer.raw, oci.Manifest, f"manifest {answer.digest}")
        digests = [manifest.config.digest, *(layer.digest for layer in manifest.layers)]
        self.tell({"event": "pin", "digests": [oci.check_digest(digest) for digest in digests]})
        self.wait_answered()
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
        if answer.media_type in _SCHEMA_1 or _is_schema_1(answer):
            raise InvalidArgument(
                "Docker Image Format v1 and Docker Image manifest version 2, schema 1 support has been "
                f"removed. Suggest the author of {self.reference.canonical} to upgrade the image to "
                "the OCI Format or Docker Image manifest v2, schema 2. More information at "
                "https://docs.docker.com/go/deprecated-image-specs/"
            )
        if not oci.is_manifest(answer.media_type):
            kind = answer.media_type or "no media type"
            raise InvalidArgument(
                f"unsupported manifest of {self.reference.familiar}: {kind[:200]}; "
                "is a registry answering there?"
            )
        return answer

    def _config(self, repository: Repository, manifest: oci.Manifest) -> bytes:
        kind = manifest.config.media_type
        if kind not in _CONFIGS or manifest.config.size > _CONFIG_LIMIT:
            told = manifest.artifact_type or kind
            raise InvalidArgument(
                f"{self.reference.familiar} is no container image but an artifact of type "
                f"{told[:200]}"
                if kind not in _CONFIGS
                else f"{self.reference.familiar}: its config of {manifest.config.size} bytes is too "
                "large"
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
        self._check_room(layers.values())
        for layer in layers.values():
            if not oci.is_layer(layer.media_type):
                raise InvalidArgument(f"layer of unknown type {layer.media_type}")
        missing = []
        for layer in layers.values():
            if self.content.has(layer.digest):
                self.tell({"event": "blob", "digest": layer.digest, "known": True})
            else:
                self.status(layer, "Pulling fs layer")
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

    def _check_room(self, layers: Iterable[oci.Descriptor]) -> None:
        """What can't be right or has no room is told before anything is fetched."""
        wanted = 0
        for layer in layers:
            if layer.size < 0:
                raise InvalidArgument(f"layer {layer.digest} has {layer.size} bytes")
            wanted += 0 if self.content.has(layer.digest) else layer.size
        left = room(self.content.root, self.reserve)
        if wanted and left < wanted:
            raise ResourceExhausted(
                f"no space left on device for {self.reference.familiar}: its layers have {wanted} "
                f"bytes, and {max(left, 0)} may be written"
            )

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


def _is_schema_1(answer: ManifestAnswer) -> bool:
    """Old registries call it JSON."""
    if answer.media_type not in ("application/json", ""):
        return False
    with contextlib.suppress(InvalidArgument):
        return "fsLayers" in oci.decode(answer.raw, dict[str, Any], "manifest")
    return False


class Blob:
    """One blob on its way here; what came already is kept over failures and restarts."""

    def __init__(self, pull: Download, repository: Repository, layer: oci.Descriptor) -> None:
        self._pull = pull
        self._repository = repository
        self._layer = layer
        self._target = pull.content.path(layer.digest)
        self._partial = pull.content.partial / layer.digest.replace(":", "-")
        self._told = 0.0
        self._have, self._hashed = 0, hashlib.new(layer.digest.partition(":")[0])

    def fetch_told(self) -> None:
        """Fetch with lines of progress."""
        self.fetch(told=True)
        self._pull.tell({"event": "blob", "digest": self._layer.digest})

    def fetch(self, *, told: bool = False) -> None:
        """Bring the blob into the content store."""
        with self._locked() as file:
            if self._target.exists():
                return
            try:
                self._download(file, told=told)
            except InvalidArgument:
                self._partial.unlink(missing_ok=True)
                raise
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
        self._take_known(file)
        attempt = 0
        while True:
            before = self._have
            try:
                self._receive(file, told=told)
                break
            except Lost as error:
                # A connection that brought something has not failed: the next one goes on.
                attempt = 0 if self._have - before >= HEADWAY else attempt + 1
                if attempt == self._pull.ways.settings.attempts:
                    raise
                if told:
                    self._pull.status(self._layer, "Retrying in 1 second")
                backoff(attempt, error.after)
        if told:
            self._pull.status(self._layer, "Verifying Checksum")
        if self._hashed.hexdigest() != self._layer.digest.partition(":")[2]:
            raise InvalidArgument(
                f"filesystem layer verification failed for digest {self._layer.digest}"
            )

    def _begin_anew(self, file: int) -> None:
        os.ftruncate(file, 0)
        os.lseek(file, 0, os.SEEK_SET)
        self._have, self._hashed = 0, hashlib.new(self._layer.digest.partition(":")[0])

    def _take_known(self, file: int) -> None:
        """Go on behind what an earlier process has left in the file."""
        if os.fstat(file).st_size > self._layer.size:
            self._begin_anew(file)
        while data := os.read(file, 1 << 20):
            self._have += len(data)
            self._hashed.update(data)

    def _receive(self, file: int, *, told: bool) -> None:
        have = self._have
        if have == self._layer.size:
            return
        answer = self._ask(have)
        if answer.status == 416 and answer.header("Content-Range") == f"bytes */{have}":
            answer.abandon()
            raise InvalidArgument(
                f"blob {self._layer.digest} has {have} bytes, its manifest says {self._layer.size}"
            )
        if answer.status == 416 or (have and answer.status == 200):
            # It can't go on where we were: from the beginning, then.
            answer.abandon()
            self._begin_anew(file)
            raise Lost("the registry does not resume downloads")
        if answer.status == 206 and not answer.header("Content-Range").startswith(f"bytes {have}-"):
            answer.abandon()
            self._begin_anew(file)
            raise Lost("the registry resumed the download at another place")
        for piece in answer.pieces():
            if self._have + len(piece) > self._layer.size:
                raise InvalidArgument(
                    f"blob {self._layer.digest} is longer than the {self._layer.size} bytes that "
                    "its manifest says"
                )
            self._hashed.update(piece)
            self._have += len(piece)
            while piece:
                piece = piece[os.write(file, piece) :]
            if told:
                self._progress(self._have)
        if self._have < self._layer.size:
            raise Lost(f"blob {self._layer.digest} ended after {self._have} bytes")

    def _ask(self, have: int) -> Answer:
        """The blob from where we are; foreign layers may be elsewhere."""
        repository = self._repository
        headers = {"Range": f"bytes={have}-"} if have else {}
        url = repository.url("blobs", self._layer.digest)
        answer = repository.request("GET", url, headers=headers)
        for place in self._layer.urls or () if answer.status == 404 else ():
            if place.startswith(("https://", "http://")):
                answer.body()
                answer = repository.elsewhere(place, headers)
            if answer.status in (200, 206, 416):
                break
        return repository.check(answer, 200, 206, 416)

    def _progress(self, have: int) -> None:
        now = time.monotonic()
        if now - self._told > _TELL_EVERY:
            self._told = now
            self._pull.status(self._layer, "Downloading", have)
