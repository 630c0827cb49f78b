"""A registry at one address: requests with authorization, retries, its errors in Docker's words."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping
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
from sagong_image_overlay.authorization import Authorization
from sagong_image_overlay.challenge import Challenge, parse_challenges
from sagong_image_overlay.endpoint import Endpoint
from sagong_image_overlay.errand import Login
from sagong_image_overlay.exchange import Answer, Http, Lost, backoff, retry_after
from sagong_image_overlay.hosts import Ways

__all__ = ["SILENT", "Client"]

T = TypeVar("T")
_AGAIN = (429, 500, 502, 503, 504)
_NEXT = re.compile(r"<([^>]*)>\s*;[^,]*\brel=\"?next\"?")
SILENT: dict[int, tuple[type[SagongError], str, str]] = {
    401: (Unauthenticated, "UNAUTHORIZED", "unauthorized: authentication required"),
    403: (PermissionDenied, "DENIED", "denied: requested access to the resource is denied"),
}
_KINDS: dict[str, type[SagongError]] = {
    "MANIFEST_UNKNOWN": NotFound,
    "NAME_UNKNOWN": NotFound,
    "BLOB_UNKNOWN": NotFound,
    "UNAUTHORIZED": Unauthenticated,
    "DENIED": PermissionDenied,
}
_STATUSES: dict[int, type[SagongError]] = {
    401: Unauthenticated,
    403: PermissionDenied,
    404: NotFound,
}


class _Failure(msgspec.Struct):
    code: str = ""
    message: str = ""
    detail: object = None


def _failures(raw: bytes) -> list[_Failure] | None:
    """What an answer says is wrong, [] if nothing, None if it is not JSON.

    Case of keys means nothing: clients in Go read them so, and some servers write `Code`.
    """
    try:
        document = msgspec.json.decode(raw)
        errors = _lowered(document).get("errors") if isinstance(document, dict) else None
        listed = errors if isinstance(errors, list) else []
        return [msgspec.convert(_lowered(e), _Failure) for e in listed if isinstance(e, dict)]
    except msgspec.ValidationError:
        return []
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _lowered(document: dict[str, object]) -> dict[str, object]:
    return {str(key).lower(): value for key, value in document.items()}


def _challenges(answer: Answer) -> list[Challenge]:
    return parse_challenges(answer.headers.get_all("WWW-Authenticate") or ())


def _shown(raw: bytes) -> str:
    text = raw[:200].decode("utf-8", "replace")
    return "".join(c if c.isprintable() else " " for c in text).strip()


class Client:
    """Used by several threads."""

    def __init__(self, endpoint: Endpoint, login: Login, ways: Ways, scopes: Iterable[str]) -> None:
        self.endpoint = endpoint
        self.settings = ways.settings
        self._http = Http(ways, endpoint)
        self.authorization = Authorization(endpoint, login, self._http, scopes, self.failure)

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | BinaryIO | None = None,
    ) -> Answer:
        """A request with authorization, which is got when the registry asks for it."""
        if not url.startswith(("http:", "https:")):
            url = self.endpoint.url(url)
        used = self.authorization.header
        answer = self._send(method, url, headers, body, used)
        # A token may be too old, and the one after it too narrow.
        for _ in range(2):
            if answer.status != 401 or not self.authorization.renew(used, _challenges(answer)):
                break
            answer.body()
            if body is not None and not isinstance(body, bytes):
                body.seek(0)
            used = self.authorization.header
            answer = self._send(method, url, headers, body, used)
        if answer.status in _AGAIN:
            after = retry_after(answer)
            message = self.failure(answer, answer.body()).message
            busy = after > self.settings.busy_seconds
            raise Unavailable(message) if busy else Lost(message, after=after)
        return answer

    def _send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None,
        body: bytes | BinaryIO | None,
        authorization: str,
    ) -> Answer:
        if (
            self.endpoint.scheme == "https"
            and url.startswith("http:")
            and not self.endpoint.insecure
        ):
            raise InvalidArgument(f"{self.endpoint.host} goes on at {url}, which is not https")
        secrets = {}
        if urllib.parse.urlsplit(url).netloc == self.endpoint.host:
            secrets = {**self.endpoint.headers}
            if authorization:
                secrets["Authorization"] = authorization
        return self._http.send(method, url, headers=headers or {}, secrets=secrets, body=body)

    def get(self, url: str) -> Answer:
        """An answer to GET, whatever it says."""
        return self.tried(lambda: self.request("GET", url))

    def introduce(self, login: Login) -> None:
        """Say who asks before it is wanted: some answer anybody, and more to those they know."""
        if not self.authorization.show_password() and login.identity:
            self.get("/v2/").body()

    def elsewhere(self, url: str, headers: Mapping[str, str]) -> Answer:
        """A URL that a document names, without any credentials."""
        return self._http.send("GET", url, headers=headers)

    def tried(self, work: Callable[[], T]) -> T:
        """Do something again while it fails in a way that may pass."""
        for attempt in range(self.settings.attempts - 1):
            try:
                return work()
            except Lost as error:
                if "connection refused" in error.message or "no such host" in error.message:
                    raise
                backoff(attempt, error.after)
        return work()

    def failure(self, answer: Answer, raw: bytes) -> SagongError:
        """The registry's own error, in Docker's form `code words: message`."""
        failures = _failures(raw)
        kind = _STATUSES.get(answer.status, InvalidArgument)
        if answer.status == 401 and any(
            one.values.get("error") == "insufficient_scope" for one in _challenges(answer)
        ):
            # Who we are is known, and not good enough: as Docker has it, whatever the body says.
            kind, code, told = SILENT[403]
            return kind(told, detail={"code": code})
        if answer.status == 403 and raw.strip() and failures is None:
            # Most often of a proxy or firewall that stands before the registry.
            return kind(f'error parsing HTTP 403 response body: no JSON: "{_shown(raw)}"')
        if not failures and answer.status in SILENT:
            # Answers to HEAD have no body.
            kind, code, silent = SILENT[answer.status]
            return kind(silent, detail={"code": code})
        if not failures:
            text = f"received unexpected HTTP status: {answer.status} {_shown(raw)}".strip()
            return kind(text)
        first = failures[0]
        words = first.code.replace("_", " ").lower()
        kind = _KINDS.get(first.code, kind)
        return kind(f"{words}: {first.message[:1000]}", detail={"code": first.code})

    def check(self, answer: Answer, *good: int) -> Answer:
        """The answer, or the error that it is."""
        if answer.status in good:
            return answer
        raise self.failure(answer, answer.body())

    def ping(self) -> None:
        """See whether a registry speaks here."""
        url = self.endpoint.url("/v2/")
        seconds = self.settings.mirror_seconds if self.endpoint.mirror else 0.0
        answer = self._http.send(
            "GET", url, headers={}, secrets=self.endpoint.headers, seconds=seconds
        )
        answer.body()
        if answer.status == 404 or (answer.status >= 500 and answer.status != 503):
            raise Unavailable(f'Get "{url}": received unexpected HTTP status: {answer.status}')

    def pages(self, path: str) -> Iterator[bytes]:
        """Documents of a list, following the links to the next page on the same registry."""
        url = self.endpoint.url(path)
        seen = set()
        while url and url not in seen:
            seen.add(url)
            answer = self.check(self.get(url), 200)
            found = _NEXT.search(answer.header("Link"))
            yield answer.body()
            url = urllib.parse.urljoin(url, found[1]) if found else ""
            if urllib.parse.urlsplit(url).netloc != self.endpoint.host:
                return
