"""A repository of a registry (OCI distribution specification 1.1): tokens, manifests, blobs."""

from __future__ import annotations

import base64
import threading
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import BinaryIO, TypeVar

import msgspec

from sagong.errors import (
    InvalidArgument,
    NotFound,
    PermissionDenied,
    SagongError,
    Unauthenticated,
    Unavailable,
)
from sagong.model import oci
from sagong.model.oci import MediaType
from sagong_image_overlay.challenge import Challenge, parse_challenges
from sagong_image_overlay.endpoint import Endpoint, endpoints_of
from sagong_image_overlay.errand import Login
from sagong_image_overlay.exchange import Answer, Http, Lost, backoff
from sagong_image_overlay.settings import Registries

__all__ = ["ManifestAnswer", "Repository", "open_repository"]

T = TypeVar("T")
_SILENT: dict[int, tuple[type[SagongError], str, str]] = {
    401: (Unauthenticated, "UNAUTHORIZED", "unauthorized: authentication required"),
    403: (PermissionDenied, "DENIED", "denied: requested access to the resource is denied"),
}
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


class _Failure(msgspec.Struct):
    code: str = ""
    message: str = ""
    detail: object = None


class _Failures(msgspec.Struct):
    errors: list[_Failure] | None = None


class _Token(msgspec.Struct):
    token: str | None = None
    access_token: str | None = None


class Repository:
    """One repository at one endpoint; used by several threads."""

    def __init__(
        self, endpoint: Endpoint, path: str, login: Login, settings: Registries, *, push: bool
    ) -> None:
        self.endpoint = endpoint
        self.path = path
        self._login = login
        self._settings = settings
        self._http = Http(settings)
        self._actions = "pull,push" if push else "pull"
        self._scopes = [f"repository:{path}:{self._actions}"]
        self._authorization = ""
        self._lock = threading.Lock()

    def allow_mounts(self, paths: list[str]) -> None:
        """Ask for tokens that can also read these repositories of the registry."""
        self._scopes += [f"repository:{path}:pull" for path in paths]

    # Requests.

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | BinaryIO | None = None,
        follow: bool = True,
    ) -> Answer:
        """A request with authorization, which is got when the registry asks for it."""
        if not url.startswith(("http:", "https:")):
            url = self.endpoint.url(url)
        used = self._authorization
        answer = self._send(method, url, headers, body, used, follow=follow)
        if answer.status == 401:
            challenges = parse_challenges(answer.headers.get_all("WWW-Authenticate") or ())
            failure = self._failure(answer, answer.body())
            with self._lock:
                if self._authorization == used:
                    self._authorization = self._authorize(challenges, failure)
            if body is not None and not isinstance(body, bytes):
                body.seek(0)
            answer = self._send(method, url, headers, body, self._authorization, follow=follow)
        if answer.status == 429 or answer.status >= 500:
            raise Lost(self._failure(answer, answer.body()).message)
        return answer

    def _send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None,
        body: bytes | BinaryIO | None,
        authorization: str,
        *,
        follow: bool,
    ) -> Answer:
        own = urllib.parse.urlsplit(url).netloc == self.endpoint.host
        full = dict(headers or {})
        if authorization and own:
            full["Authorization"] = authorization
        return self._http.send(
            method,
            url,
            headers=full,
            body=body,
            insecure=self.endpoint.insecure,
            follow=follow,
        )

    def tried(self, work: Callable[[], T]) -> T:
        """Do something again while it fails in a way that may pass."""
        for attempt in range(self._settings.attempts - 1):
            try:
                return work()
            except Lost as error:
                if "connection refused" in error.message or "no such host" in error.message:
                    raise
                backoff(attempt)
        return work()

    def _failure(self, answer: Answer, raw: bytes) -> SagongError:
        """The registry's own error, in Docker's form `code words: message`."""
        try:
            failures = msgspec.json.decode(raw, type=_Failures).errors or []
        except (msgspec.DecodeError, UnicodeDecodeError):
            failures = []
        kinds = {
            "MANIFEST_UNKNOWN": NotFound,
            "NAME_UNKNOWN": NotFound,
            "BLOB_UNKNOWN": NotFound,
            "UNAUTHORIZED": Unauthenticated,
            "DENIED": PermissionDenied,
        }
        statuses = {401: Unauthenticated, 403: PermissionDenied, 404: NotFound}
        kind: type[SagongError] = statuses.get(answer.status, InvalidArgument)
        if not failures and answer.status in _SILENT:
            # Answers to HEAD have no body.
            kind, code, silent = _SILENT[answer.status]
            return kind(silent, detail={"code": code})
        if not failures:
            shown = raw[:200].decode("utf-8", "replace").strip()
            text = f"received unexpected HTTP status: {answer.status} {shown}".strip()
            return kind(text)
        first = failures[0]
        words = first.code.replace("_", " ").lower()
        return kinds.get(first.code, kind)(f"{words}: {first.message}", detail={"code": first.code})

    def check(self, answer: Answer, *good: int) -> Answer:
        """The answer, or the error that it is."""
        if answer.status in good:
            return answer
        raise self._failure(answer, answer.body())

    # Authorization.

    def _authorize(self, challenges: list[Challenge], failure: SagongError) -> str:
        login = self._login
        for challenge in challenges:
            if challenge.scheme == "bearer" and "realm" in challenge.values:
                return "Bearer " + self._token(challenge)
        for challenge in challenges:
            if challenge.scheme == "basic" and login.username and not self._authorization:
                return "Basic " + _basic(login)
        if login.token and not self._authorization:
            return "Bearer " + login.token
        if any(c.scheme == "basic" for c in challenges) and not login.username:
            url = self.endpoint.url("/v2/")
            raise Unauthenticated(f'Get "{url}": no basic auth credentials')
        raise Unauthenticated(failure.message)

    def _token(self, challenge: Challenge) -> str:
        realm = challenge.values["realm"]
        insecure = self.endpoint.insecure
        if not realm.startswith("https:") and not insecure:
            raise InvalidArgument(
                f"registry {self.endpoint.host} wants a token from {realm}, which is not https"
            )
        login = self._login
        if login.token and not login.username:
            answer = self._refresh(realm, challenge)
        else:
            answer = self._ask(realm, challenge)
        raw = answer.body()
        if answer.status != 200:
            if answer.status >= 500 or answer.status == 429:
                raise Lost(self._failure(answer, raw).message)
            message = self._failure(answer, raw).message
            raise Unauthenticated(message if "authentic" in message else f"unauthorized: {message}")
        found = msgspec.json.decode(raw, type=_Token)
        token = found.token or found.access_token
        if not token or "\r" in token or "\n" in token:
            raise Unauthenticated(f"the token server {realm} sent no usable token")
        return token

    def _ask(self, realm: str, challenge: Challenge) -> Answer:
        query = [("scope", scope) for scope in self._scopes]
        if service := challenge.values.get("service"):
            query.append(("service", service))
        headers = {}
        if self._login.username:
            query.append(("account", self._login.username))
            headers["Authorization"] = "Basic " + _basic(self._login)
        joint = "&" if "?" in realm else "?"
        url = f"{realm}{joint}{urllib.parse.urlencode(query)}"
        return self._http.send("GET", url, headers=headers, insecure=self.endpoint.insecure)

    def _refresh(self, realm: str, challenge: Challenge) -> Answer:
        form = {
            "grant_type": "refresh_token",
            "refresh_token": self._login.token,
            "service": challenge.values.get("service", ""),
            "scope": " ".join(self._scopes),
            "client_id": "sagong",
        }
        return self._http.send(
            "POST",
            realm,
            headers={"Content-Type": "application/x-www-form-urlencoded"},
            body=urllib.parse.urlencode(form).encode(),
            insecure=self.endpoint.insecure,
        )

    # Manifests and blobs.

    def ping(self) -> None:
        """See whether a registry speaks here; authorization is got on the way."""
        answer = self._http.send(
            "GET", self.endpoint.url("/v2/"), headers={}, insecure=self.endpoint.insecure
        )
        answer.body()
        if answer.status == 404 or (answer.status >= 500 and answer.status != 503):
            raise Unavailable(
                f'Get "{self.endpoint.url("/v2/")}": received unexpected HTTP status: '
                f"{answer.status}"
            )

    def manifest(self, reference: str) -> ManifestAnswer:
        """A manifest by tag or digest, verified if by digest."""

        def get() -> ManifestAnswer:
            path = f"/v2/{self.path}/manifests/{reference}"
            answer = self.check(self.request("GET", path, headers={"Accept": ACCEPT}), 200)
            raw = answer.body()
            media_type = answer.header("Content-Type").partition(";")[0].strip()
            wanted = reference if ":" in reference else ""
            digest = oci.digest_of(raw, (wanted or "sha256:").partition(":")[0])
            if wanted and digest != wanted:
                raise InvalidArgument(f"manifest verification failed for digest {wanted}")
            return ManifestAnswer(raw, media_type, digest)

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
            if answer.status in _SILENT:
                raise self._failure(answer, b"")
            return answer.status == 200

        return self.tried(head)


def _basic(login: Login) -> str:
    return base64.b64encode(f"{login.username}:{login.password}".encode()).decode()


def open_repository(
    domain: str, path: str, login: Login, settings: Registries, *, push: bool
) -> list[Repository]:
    """The repository at each endpoint that answers: mirrors first, https before http."""
    found: list[Repository] = []
    problems: list[SagongError] = []
    for endpoint in endpoints_of(domain, settings, push=push):
        # What a mirror is told must not be what the registry was meant to be told.
        used = Login() if endpoint.mirror else login
        repository = Repository(endpoint, path, used, settings, push=push)
        try:
            repository.tried(repository.ping)
        except Unavailable as error:
            problems.append(error)
            continue
        found.append(repository)
        if not endpoint.mirror:
            break
    if not found:
        # Of https and http at the same address the second speaks for what is really there.
        raise problems[-1]
    return found
