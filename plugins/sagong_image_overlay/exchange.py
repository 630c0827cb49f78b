"""HTTP to registries: pooled connections, redirects, proxies, retries; errors in Docker's words.

Blocking, on the standard library: it runs in a process of its own with a thread for each layer.
"""

from __future__ import annotations

import base64
import email.utils
import http.client
import random
import socket
import ssl
import threading
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO

from sagong.errors import InvalidArgument, SagongError, Unavailable
from sagong.model.numbers import natural
from sagong_image_overlay.endpoint import Endpoint, proxy_for, split_host, tls_context
from sagong_image_overlay.hosts import Trust, Ways

__all__ = ["SPOKE_TLS", "Answer", "Http", "Lost", "backoff", "retry_after"]

_AGENT = "sagong/0.1.0"
_CHUNK = 1 << 18
_BODY_LIMIT = 8 << 20
_DOCUMENT_SECONDS = 120.0
# Until a host that answers nothing at all is given up.
_DIAL_SECONDS = 15.0
_HOPS = 8
_REDIRECTS = (301, 302, 303, 307, 308)


# Detail of errors of who speaks TLS but will not with us: plain HTTP is not for them.
SPOKE_TLS = {"code": "TLS"}


class Lost(Unavailable):
    """The connection or the registry failed in a way that may pass: worth another try.

    `after` are the seconds that the registry wants to be left alone.
    """

    def __init__(self, message: str, *, after: float = 0.0) -> None:
        super().__init__(message)
        self.after = after


def backoff(attempt: int, after: float = 0.0) -> None:
    """Wait before the next attempt: longer each time, by chance, at least as long as was asked."""
    time.sleep(max(after, min(8.0, 0.25 * 2**attempt) * random.uniform(0.5, 1.0)))


def retry_after(answer: Answer) -> float:
    """Seconds of a Retry-After header (RFC 9110, 10.2.3), 0 if there is none."""
    text = answer.header("Retry-After").strip()
    seconds = natural(text[:9])
    if seconds is not None and text.isdecimal():
        return float(seconds)
    try:
        moment = email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return 0.0
    return max(0.0, moment - time.time())


@dataclass
class Answer:
    """A response; read its body or close it, then its connection serves again."""

    status: int
    headers: http.client.HTTPMessage
    url: str
    _response: http.client.HTTPResponse = field(repr=False)
    _connection: http.client.HTTPConnection = field(repr=False)
    _pool: Pool = field(repr=False)

    def body(self) -> bytes:
        """The whole body, which must be a document and not a layer."""
        data = bytearray()
        limit = time.monotonic() + _DOCUMENT_SECONDS
        try:
            while piece := self._response.read1(_CHUNK):
                data += piece
                if len(data) > _BODY_LIMIT:
                    raise InvalidArgument(f"{self.url} answers with more than {_BODY_LIMIT} bytes")
                if time.monotonic() > limit:
                    raise Lost(f"reading {self.url}: too slow")
            if self._response.length:
                raise Lost(f"reading {self.url}: unexpected EOF")
        except (OSError, http.client.HTTPException) as error:
            self.abandon()
            raise Lost(f"reading {self.url}: {_reason(error)}") from error
        except SagongError:
            self.abandon()
            raise
        self.close()
        return bytes(data)

    def pieces(self) -> Iterator[memoryview]:
        """The body in pieces; each is valid until the next. `Lost` if the connection breaks."""
        view = memoryview(bytearray(_CHUNK))
        try:
            while count := self._response.readinto(view):
                yield view[:count]
            if self._response.length:
                raise Lost(f"reading {self.url}: unexpected EOF")
        except (OSError, http.client.HTTPException) as error:
            raise Lost(f"reading {self.url}: {_reason(error)}") from error
        finally:
            self.close()

    def header(self, name: str) -> str:
        """A header, "" if missing."""
        return self.headers.get(name) or ""

    def close(self) -> None:
        """Give the connection back if it can be used again."""
        if self._response.isclosed() and not self._response.will_close:
            self._pool.give(self._connection)
        else:
            self.abandon()

    def abandon(self) -> None:
        """Close the connection with whatever is still coming."""
        self._response.close()
        self._connection.close()


class Pool:
    """Idle connections to one address."""

    def __init__(self) -> None:
        self._idle: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()

    def take(self) -> http.client.HTTPConnection | None:
        """An idle connection, if there is one."""
        with self._lock:
            return self._idle.pop() if self._idle else None

    def give(self, connection: http.client.HTTPConnection) -> None:
        """Keep a connection for the next request."""
        with self._lock:
            self._idle.append(connection)


class Http:
    """Sends requests to a registry and where it sends us; used by several threads."""

    def __init__(self, ways: Ways, endpoint: Endpoint) -> None:
        self._ways = ways
        self._settings = ways.settings
        self._endpoint = endpoint
        self._pools: dict[tuple[str, str], Pool] = {}
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._lock = threading.Lock()

    def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        secrets: Mapping[str, str] | None = None,
        body: bytes | BinaryIO | None = None,
        seconds: float = 0.0,
    ) -> Answer:
        """One request; redirects are followed, to other hosts without the headers in `secrets`.

        `seconds` is how long nothing may come, if not as long as the settings say.
        """
        sent = {**headers, **(secrets or {})}
        for _ in range(_HOPS):
            answer = self._once(method, url, sent, body, seconds)
            target = answer.header("Location")
            if answer.status not in _REDIRECTS or not target:
                return answer
            answer.body()
            if body is not None and not isinstance(body, bytes):
                body.seek(0)
            after = urllib.parse.urljoin(url, target)
            if _origin(after) != _origin(url):
                sent = dict(headers)
            if url.startswith("https:") and after.startswith("http:") and not self._insecure:
                raise InvalidArgument(f"{url} redirects to plain http, which is refused")
            url = after
        raise InvalidArgument(f'{method} "{url}": stopped after {_HOPS} redirects')

    @property
    def _insecure(self) -> bool:
        return self._endpoint.insecure

    def _once(
        self,
        method: str,
        url: str,
        headers: dict[str, str],
        body: bytes | BinaryIO | None,
        seconds: float,
    ) -> Answer:
        parsed = urllib.parse.urlsplit(url)
        if parsed.scheme not in ("http", "https") or not parsed.hostname:
            raise InvalidArgument(f"{url!r} is not a URL of http or https")
        with self._lock:
            pool = self._pools.setdefault(_origin(url), Pool())
        path = urllib.parse.urlunsplit(("", "", parsed.path or "/", parsed.query, ""))
        old = pool.take()
        if old is not None:
            # An idle connection may have been closed by the other end: then once more, anew.
            try:
                return self._exchange(old, pool, method, url, path, headers, body, seconds)
            except Lost:
                if body is not None and not isinstance(body, bytes):
                    raise
        connection = self._connect(parsed.scheme, parsed.netloc)
        target = url if isinstance(connection, _Plain) and connection.proxied else path
        return self._exchange(connection, pool, method, url, target, headers, body, seconds)

    def _exchange(
        self,
        connection: http.client.HTTPConnection,
        pool: Pool,
        method: str,
        url: str,
        target: str,
        headers: dict[str, str],
        body: bytes | BinaryIO | None,
        seconds: float,
    ) -> Answer:
        sent = {"User-Agent": _AGENT, "Accept-Encoding": "identity", **headers}
        if isinstance(connection, _Plain) and connection.proxied:
            target, sent = url, {**sent, **connection.extra}
        try:
            if connection.sock is None:
                connection.timeout = seconds or connection.timeout
                connection.connect()
                assert connection.sock is not None
            connection.sock.settimeout(seconds or self._settings.seconds)
            connection.request(method, target, body=body, headers=sent)
            response = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise _explained(method, url, error) from error
        except BaseException:
            # The body's: the other end must not wait for the rest of it.
            connection.close()
            raise
        return Answer(response.status, response.headers, url, response, connection, pool)

    def _connect(self, scheme: str, netloc: str) -> http.client.HTTPConnection:
        host, port = split_host(netloc)
        proxy = proxy_for(scheme, netloc, self._settings)
        if scheme == "http":
            return self._plain(host, port or 80, proxy)
        if not proxy:
            return self._tls(host, port or 443, netloc)
        parsed = _proxy_url(proxy)
        through = self._tls(parsed.hostname or "", parsed.port or 80, netloc)
        through.set_tunnel(host, port or 443, headers=_proxy_headers(parsed))
        return through

    def _tls(self, host: str, port: int, netloc: str) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(
            host, port, timeout=self._dial, blocksize=_CHUNK, context=self._context(netloc)
        )

    @property
    def _dial(self) -> float:
        return min(_DIAL_SECONDS, self._settings.seconds)

    def _context(self, netloc: str) -> ssl.SSLContext:
        """Made once for a host: reading the machine's authorities takes tens of milliseconds."""
        with self._lock:
            if netloc not in self._contexts:
                made = tls_context(netloc, self._trust(netloc), insecure=self._insecure)
                self._contexts[netloc] = made
            return self._contexts[netloc]

    def _trust(self, netloc: str) -> Trust:
        """A registry's authorities are its token server's, too; our certificate is for it alone."""
        endpoint = self._endpoint
        if netloc == endpoint.host:
            return endpoint.trust
        return self._ways.of(netloc).trust.joined(Trust(endpoint.trust.authorities))

    def _plain(self, host: str, port: int, proxy: str) -> http.client.HTTPConnection:
        if not proxy:
            return _Plain(host, port, timeout=self._dial, blocksize=_CHUNK)
        parsed = _proxy_url(proxy)
        connection = _Plain(
            parsed.hostname or "", parsed.port or 80, timeout=self._dial, blocksize=_CHUNK
        )
        connection.proxied, connection.extra = True, _proxy_headers(parsed)
        return connection


class _Plain(http.client.HTTPConnection):
    """A connection without TLS, perhaps to a proxy."""

    proxied = False
    extra: Mapping[str, str] = {}


def _origin(url: str) -> tuple[str, str]:
    parsed = urllib.parse.urlsplit(url)
    return parsed.scheme, parsed.netloc


def _proxy_url(text: str) -> urllib.parse.SplitResult:
    parsed = urllib.parse.urlsplit(text if "://" in text else f"http://{text}")
    if parsed.scheme != "http" or not parsed.hostname:
        raise InvalidArgument(f"proxy {parsed.hostname or text!r} is not an http URL")
    return parsed


def _proxy_headers(parsed: urllib.parse.SplitResult) -> dict[str, str]:
    if not parsed.username:
        return {}
    name = urllib.parse.unquote(parsed.username)
    password = urllib.parse.unquote(parsed.password or "")
    word = base64.b64encode(f"{name}:{password}".encode()).decode()
    return {"Proxy-Authorization": f"Basic {word}"}


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "i/o timeout"
    if isinstance(error, http.client.IncompleteRead | http.client.RemoteDisconnected):
        return "unexpected EOF"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__


def _explained(method: str, url: str, error: Exception) -> Unavailable:
    """What went wrong, in the words that Docker's users know."""
    host = split_host(urllib.parse.urlsplit(url).netloc)
    port = host[1] or (443 if url.startswith("https:") else 80)
    name = f"[{host[0]}]" if ":" in host[0] else host[0]
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = f"tls: failed to verify certificate: x509: {_certificate_reason(error)}"
        return Unavailable(f'{method.title()} "{url}": {reason}')
    if isinstance(error, ssl.SSLError):
        if "WRONG_VERSION_NUMBER" in str(error) or "HTTP_REQUEST" in str(error):
            reason = "http: server gave HTTP response to HTTPS client"
        else:
            # Like `tlsv13 alert certificate required`.
            words = str(error.reason or error).replace("_", " ").lower()
            reason = f"remote error: tls: {words.rpartition('alert ')[2]}"
            return Unavailable(f'{method.title()} "{url}": {reason}', detail=SPOKE_TLS)
        return Unavailable(f'{method.title()} "{url}": {reason}')
    if isinstance(error, socket.gaierror):
        return Lost(f'{method.title()} "{url}": dial tcp: lookup {host[0]}: no such host')
    if isinstance(error, ConnectionRefusedError | TimeoutError) or _is_unreachable(error):
        reason = f"dial tcp {name}:{port}: connect: {_reason(error)}"
        return Lost(f'{method.title()} "{url}": {reason}')
    return Lost(f'{method.title()} "{url}": {_reason(error)}')


def _is_unreachable(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in (101, 113)


def _certificate_reason(error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code in (18, 19, 20, 21):
        return "certificate signed by unknown authority"
    if error.verify_code == 10:
        return "certificate has expired or is not yet valid"
    return error.verify_message or "certificate is not valid for this host"
