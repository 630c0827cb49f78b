"""A repository of a registry (OCI distribution specification 1.1): manifests and blobs."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from sagong.errors import InvalidArgument, SagongError, Unauthenticated, Unavailable
from sagong.model import oci
from sagong.model.oci import MediaType
from sagong.model.references import Reference
from sagong_image_overlay.authorization import NO_BASIC
from sagong_image_overlay.client import SILENT, Client
from sagong_image_overlay.endpoint import Endpoint, endpoints_of
from sagong_image_overlay.errand import Login
from sagong_image_overlay.exchange import SPOKE_TLS, Answer
from sagong_image_overlay.hosts import Ways

__all__ = ["ManifestAnswer", "Repository", "open_repository"]

_WARNING = re.compile(r'299 - "((?:[^"\\]|\\.)*)"')
_WARNING_LIMIT = 1000
ACCEPT = ", ".join(
    (
        MediaType.OCI_INDEX,
        MediaType.OCI_MANIFEST,
        MediaType.DOCKER_INDEX,
        MediaType.DOCKER_MANIFEST,
    )
)


@dataclass(frozen=True)
class ManifestAnswer:
    """A manifest or index as the registry has it."""

    raw: bytes
    media_type: str
    digest: str
    warnings: tuple[str, ...] = ()


class Repository(Client):
    """One repository at one endpoint; used by several threads."""

    def __init__(
        self, endpoint: Endpoint, path: str, login: Login, ways: Ways, *, push: bool
    ) -> None:
        actions = "pull,push" if push else "pull"
        super().__init__(endpoint, login, ways, [f"repository:{path}:{actions}"])
        self.path = path

    def allow_mounts(self, paths: list[str]) -> None:
        """Ask for tokens that can also read these repositories of the registry."""
        self.authorization.allow(f"repository:{path}:pull" for path in paths)

    def url(self, kind: str, reference: str) -> str:
        """The URL of a manifest or blob; a mirror is told whose it is."""
        space = self.endpoint.space
        query = f"?{urllib.parse.urlencode({'ns': space})}" if space else ""
        return f"/v2/{self.path}/{kind}/{reference}{query}"

    def manifest(self, reference: str) -> ManifestAnswer:
        """A manifest by tag or digest, verified if by digest."""

        def get() -> ManifestAnswer:
            url = self.url("manifests", reference)
            answer = self.check(self.request("GET", url, headers={"Accept": ACCEPT}), 200)
            raw = answer.body()
            media_type = answer.header("Content-Type").partition(";")[0].strip()
            wanted = reference if ":" in reference else ""
            digest = oci.digest_of(raw, (wanted or "sha256:").partition(":")[0])
            if wanted and digest != wanted:
                raise InvalidArgument(f"manifest verification failed for digest {wanted}")
            _check_kind(raw, media_type, digest)
            return ManifestAnswer(raw, media_type, digest, tuple(_warnings(answer)))

        try:
            return self.tried(get)
        except Unauthenticated as error:
            if error.message != NO_BASIC:
                raise
            method = "Get" if ":" in reference else "Head"
            url = self.endpoint.url(f"/v2/{self.path}/manifests/{reference}")
            raise Unauthenticated(f'{method} "{url}": {NO_BASIC}') from None

    def document(self, descriptor: oci.Descriptor, limit: int) -> bytes:
        """A small blob, verified."""

        def get() -> bytes:
            answer = self.check(self.request("GET", self.url("blobs", descriptor.digest)), 200)
            raw = answer.body()
            algorithm = oci.check_digest(descriptor.digest).partition(":")[0]
            if len(raw) > limit or oci.digest_of(raw, algorithm) != descriptor.digest:
                raise InvalidArgument(f"blob verification failed for digest {descriptor.digest}")
            return raw

        return self.tried(get)

    def put_manifest(self, reference: str, media_type: str, raw: bytes) -> str:
        """Store a manifest; its digest."""

        def put() -> str:
            path = f"/v2/{self.path}/manifests/{reference}"
            headers = {"Content-Type": media_type}
            answer = self.request("PUT", path, headers=headers, body=raw)
            self.check(answer, 200, 201, 202).body()
            return oci.digest_of(raw)

        return self.tried(put)

    def has_blob(self, digest: str) -> bool:
        """Whether the repository has a blob."""

        def head() -> bool:
            answer = self.request("HEAD", f"/v2/{self.path}/blobs/{digest}")
            answer.body()
            if answer.status in SILENT:
                raise self.failure(answer, b"")
            return answer.status == 200

        return self.tried(head)


class _Kinds(msgspec.Struct, rename="camel"):
    media_type: str = ""
    config: object = None
    layers: object = None
    manifests: object = None


def _warnings(answer: Answer) -> Iterator[str]:
    """What the registry wants its user to read (distribution specification, "Warnings")."""
    for line in answer.headers.get_all("Warning") or ():
        found = _WARNING.fullmatch(line.strip())
        if found is not None:
            text = found[1].replace('\\"', '"').replace("\\\\", "\\")
            yield "".join(c if c.isprintable() else " " for c in text[:_WARNING_LIMIT])


def _check_kind(raw: bytes, media_type: str, digest: str) -> None:
    """Refuse a document that is one thing to us and another to the next reader (CVE-2021-41190)."""
    index = oci.is_index(media_type)
    if not (index or oci.is_manifest(media_type)):
        return
    found = oci.decode(raw, _Kinds, f"manifest {digest}")
    if found.media_type not in ("", media_type):
        raise InvalidArgument(
            f"manifest {digest} came as {media_type}, and says of itself {found.media_type[:200]}"
        )
    of_the_other = (found.config, found.layers) if index else (found.manifests,)
    if any(part is not None for part in of_the_other):
        raise InvalidArgument(f"manifest {digest} is both an image and an index")


def open_repository(
    reference: Reference, login: Login, ways: Ways, *, push: bool, mirrors: bool = True
) -> list[Repository]:
    """The repository at each endpoint that answers: mirrors first, https before http."""
    found: list[Repository] = []
    problems: list[SagongError] = []
    for endpoint in endpoints_of(
        reference.domain, ways, push=push or not mirrors, by_digest=bool(reference.digest)
    ):
        # What a mirror is told must not be what the registry was meant to be told.
        used = endpoint.login if endpoint.mirror else login
        repository = Repository(endpoint, reference.path, used, ways, push=push)
        try:
            # Nobody waits for a mirror that does not answer at once.
            repository.ping() if endpoint.mirror else repository.tried(repository.ping)
        except Unavailable as error:
            problems.append(error)
            if error.detail == SPOKE_TLS and not endpoint.mirror:
                break
            continue
        found.append(repository)
        if not endpoint.mirror:
            break
    if not found:
        # Of https and http at the same address the second speaks for what is really there.
        raise problems[-1]
    return found
