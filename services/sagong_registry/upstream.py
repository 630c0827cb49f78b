"""A client of another registry: manifests and blobs, with its tokens.

aiohttp is imported with the first question: who copies from nowhere does not pay for it (ADR 203).
"""

from __future__ import annotations

import base64
import contextlib
import logging
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from sagong.errors import InvalidArgument, NotFound, Unauthenticated, Unavailable
from sagong.model.oci import MediaType, digest_of
from sagong_registry.documents import LIMIT, bare_type
from sagong_registry.settings import Upstream

if TYPE_CHECKING:
    import ssl

    from aiohttp import ClientResponse, ClientSession

__all__ = ["Client", "Fetched", "check_realm"]

_CONNECT_SECONDS, _SILENT_SECONDS = 10.0, 60.0
_CHUNK = 1 << 18
_ACCEPT = ", ".join(
    (
        MediaType.OCI_INDEX,
        MediaType.DOCKER_INDEX,
        MediaType.OCI_MANIFEST,
        MediaType.DOCKER_MANIFEST,
    )
)
_PARAMETER = re.compile(r'(\w+)="([^"]*)"')


class Fetched(msgspec.Struct, frozen=True):
    """A manifest of an upstream."""

    raw: bytes
    media_type: str
    digest: str


class _Token(msgspec.Struct):
    token: str = ""
    access_token: str = ""
    expires_in: float = 60.0


class Client:
    """Speaks to one upstream; connections are kept.

    Where none can be made, it is not tried again for as long as that took to be known: clients ask
    again and again, and each would wait as long.
    """

    def __init__(self, settings: Upstream, log: logging.Logger) -> None:
        if urlsplit(settings.url).scheme not in ("http", "https"):
            raise InvalidArgument(f"upstream {settings.url!r}: give http://HOST or https://HOST")
        self._settings = settings
        self._log = log
        self._session: ClientSession | None = None
        self._tokens: dict[str, tuple[str, float]] = {}
        self._rests, self._why = 0.0, ""

    async def close(self) -> None:
        """Close connections."""
        if self._session is not None:
            await self._session.close()

    async def digest(self, name: str, tag: str) -> str:
        """What a tag means there now, "" if it does not tell without its manifest."""
        async with self._asked("HEAD", name, f"manifests/{tag}") as answer:
            return answer.headers.get("Docker-Content-Digest", "")

    async def manifest(self, name: str, reference: str) -> Fetched:
        """A manifest; Unavailable if it is not what its digest says."""
        async with self._asked("GET", name, f"manifests/{reference}") as answer:
            raw = await answer.content.read(LIMIT + 1)
            while len(raw) <= LIMIT and (more := await answer.content.read(LIMIT + 1 - len(raw))):
                raw += more
            if len(raw) > LIMIT:
                raise Unavailable(f"{self._settings.url}: the manifest of {name} is too large")
            media_type = bare_type(answer.headers.get("Content-Type", ""))
        algorithm = reference.partition(":")[0] if ":" in reference else "sha256"
        found = Fetched(raw, media_type, digest_of(raw, algorithm))
        if ":" in reference and found.digest != reference:
            raise Unavailable(f"{self._settings.url}: gives {found.digest} for {reference}")
        return found

    async def size(self, name: str, digest: str) -> int:
        """How large a blob is; it is there."""
        async with self._asked("HEAD", name, f"blobs/{digest}") as answer:
            return int(answer.headers.get("Content-Length", "-1"))

    @contextlib.asynccontextmanager
    async def blob(
        self, name: str, digest: str, offset: int
    ) -> AsyncIterator[tuple[int, AsyncIterator[bytes]]]:
        """Bytes of a blob, and where they begin: at `offset`, or at 0 if that can't be had."""
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        async with self._asked("GET", name, f"blobs/{digest}", headers) as answer:
            yield (offset if answer.status == 206 else 0), _chunks(answer)

    @contextlib.asynccontextmanager
    async def _asked(
        self, method: str, name: str, what: str, headers: dict[str, str] | None = None
    ) -> AsyncIterator[ClientResponse]:
        """An answer that is a success; a token is fetched when one is wanted."""
        import aiohttp

        session = self._opened()
        url = f"{self._settings.url.rstrip('/')}/v2/{name}/{what}"
        begun = time.monotonic()
        if begun < self._rests:
            raise Unavailable(self._why)
        try:
            for attempt in (0, 1):
                given = {"Accept": _ACCEPT, **(headers or {}), **self._authorization(name)}
                async with session.request(method, url, headers=given) as answer:
                    if answer.status == 401 and attempt == 0:
                        await self._log_in(name, answer.headers.get("WWW-Authenticate", ""))
                        continue
                    _check(answer, url)
                    yield answer
                    return
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            why = f"{url}: {error or 'no answer in time'}"
            if isinstance(error, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)):
                now = time.monotonic()
                self._rests, self._why = now + (now - begun), why
            raise Unavailable(why) from None

    def _authorization(self, name: str) -> dict[str, str]:
        token, until = self._tokens.get(name, ("", 0.0))
        return {"Authorization": token} if token and time.monotonic() < until else {}

    async def _log_in(self, name: str, challenge: str) -> None:
        """Get what the upstream wants to see: a token, or name and password."""
        import aiohttp

        scheme, _, rest = challenge.partition(" ")
        basic = self._basic()
        if scheme.lower() == "basic" and basic:
            self._tokens[name] = (basic, time.monotonic() + 3600.0)
            return
        parts = dict(_PARAMETER.findall(rest))
        if scheme.lower() != "bearer" or "realm" not in parts:
            raise Unauthenticated(f"{self._settings.url} wants a login that it does not explain")
        check_realm(self._settings.url, parts["realm"])
        query = {"service": parts.get("service", ""), "scope": f"repository:{name}:pull"}
        headers = {"Authorization": basic} if basic else {}
        async with self._opened().get(parts["realm"], params=query, headers=headers) as answer:
            _check(answer, parts["realm"])
            try:
                found = msgspec.json.decode(await answer.read(), type=_Token)
            except msgspec.DecodeError:
                raise aiohttp.ClientError(f"{parts['realm']} gives no token") from None
        token = found.token or found.access_token
        self._tokens[name] = (f"Bearer {token}", time.monotonic() + found.expires_in * 0.9)

    def _basic(self) -> str:
        """Name and password as a header's value (RFC 7617), "" without a name."""
        settings = self._settings
        if not settings.username:
            return ""
        password = settings.password
        if settings.password_file:
            password = Path(settings.password_file).read_text().strip()
        pair = f"{settings.username}:{password}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"

    def _opened(self) -> ClientSession:
        if self._session is None:
            import aiohttp

            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=self._tls(), limit_per_host=16),
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=_CONNECT_SECONDS, sock_read=_SILENT_SECONDS
                ),
                headers={"User-Agent": "sagong-registry"},
                auto_decompress=False,
                trust_env=True,
            )
        return self._session

    def _tls(self) -> ssl.SSLContext:
        import ssl

        context = ssl.create_default_context()
        if self._settings.authority:
            context.load_verify_locations(self._settings.authority)
        if self._settings.certificate:
            context.load_cert_chain(self._settings.certificate, self._settings.key or None)
        if not self._settings.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def check_realm(url: str, realm: str) -> None:
    """A password that goes to a registry by TLS goes to no token server without. Pure."""
    if url.startswith("https:") and not realm.startswith("https:"):
        raise Unauthenticated(f"{url} wants a token from {realm[:200]}, which is not https")


def _check(answer: ClientResponse, url: str) -> None:
    if answer.status in (200, 206):
        return
    if answer.status in (401, 403):
        raise Unauthenticated(f"{url}: {answer.status}: the upstream refuses our credentials")
    if answer.status == 404:
        raise NotFound(f"{url}: not found")
    raise Unavailable(f"{url}: status {answer.status}")


async def _chunks(answer: ClientResponse) -> AsyncIterator[bytes]:
    while data := await answer.content.read(_CHUNK):
        yield data
