"""Questions to a registry without moving an image: login check, and what a name stands for.

Source: OCI distribution specification 1.1, and the token authentication that registries share
(https://distribution.github.io/distribution/spec/auth/token/).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import socket
import ssl
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from sagong.contracts.image import Credentials
from sagong.errors import InvalidArgument, NotFound, Unauthenticated, Unavailable
from sagong.http import Response
from sagong.model import references
from sagong_docker.ask import Ask
from sagong_docker.credentials import credentials, of_document
from sagong_docker.engine import Engine
from sagong_docker.refusal import answer

__all__ = ["challenge_parts", "distribution", "login"]

_HUB = "registry-1.docker.io"
_SECONDS = 20.0
_BODY_LIMIT = 4 << 20
_MANIFESTS = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)
_PART = re.compile(r'(\w+)="([^"]*)"')


@dataclass
class Answer:
    """A registry's answer."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


def challenge_parts(header: str) -> tuple[str, dict[str, str]]:
    """Scheme and parameters of a WWW-Authenticate header. Pure."""
    scheme, _, rest = header.strip().partition(" ")
    return scheme.lower(), dict(_PART.findall(rest))


async def login(engine: Engine, ask: Ask) -> Response:
    """`docker login`: ask the registry whether the credentials are good."""
    given = of_document(await ask.document())
    server = given.server or "https://index.docker.io/v1/"
    host = _registry_host(server)
    url = f"{_scheme(engine, host)}://{host}/v2/"
    found = await _authorized(url, "", given)
    if found.status in (401, 403):
        raise Unauthenticated(f"Get {url!r}: unauthorized: incorrect username or password")
    if found.status != 200:
        raise Unavailable(f"login attempt to {url} failed with status: {found.status}")
    return answer({"Status": "Login Succeeded", "IdentityToken": ""})


def _registry_host(server: str) -> str:
    host = urlsplit(server if "//" in server else f"//{server}").netloc
    return _HUB if host in ("index.docker.io", "docker.io", "") else host


def _scheme(engine: Engine, host: str) -> str:
    """Plain HTTP only for this machine and for registries that are configured as insecure."""
    name = host.rpartition(":")[0] if ":" in host else host
    local = name in ("localhost", "[::1]") or name.startswith("127.")
    return "http" if local or host in engine.settings.insecure_registries else "https"


async def distribution(engine: Engine, ask: Ask) -> Response:
    """What a name stands for at its registry: the descriptor and the platforms."""
    reference = references.parse_exact(ask["name"])
    given = credentials(ask.request.header("x-registry-auth"))
    host = _HUB if reference.domain == references.DEFAULT_DOMAIN else reference.domain
    url = f"{_scheme(engine, host)}://{host}/v2/{reference.path}/manifests/{reference.target}"
    found = await _authorized(url, f"repository:{reference.path}:pull", given)
    if found.status in (401, 403):
        raise Unauthenticated(
            f"errors: denied: requested access to the resource is denied: {reference.familiar}"
        )
    if found.status == 404:
        raise NotFound(f"errors: manifest unknown: {reference.familiar}")
    if found.status != 200:
        raise Unavailable(f"Get {url!r}: status {found.status}")
    digest = "sha256:" + hashlib.sha256(found.body).hexdigest()
    descriptor = {
        "mediaType": found.headers.get("content-type", ""),
        "digest": found.headers.get("docker-content-digest", digest),
        "size": len(found.body),
    }
    platforms = await _platforms(url, reference, given, found)
    return answer({"Descriptor": descriptor, "Platforms": platforms})


async def _platforms(
    url: str, reference: references.Reference, given: Credentials, found: Answer
) -> list[dict[str, Any]]:
    """Those of an index; those of a single manifest stand in its config."""
    document = _document(found.body)
    if "manifests" in document:
        return [m["platform"] for m in document["manifests"] if m.get("platform")]
    digest = (document.get("config") or {}).get("digest")
    if not digest:
        return []
    base = url.partition("/manifests/")[0]
    scope = f"repository:{reference.path}:pull"
    config = _document((await _authorized(f"{base}/blobs/{digest}", scope, given)).body)
    return [{k: config[k] for k in ("architecture", "os", "variant") if config.get(k)}]


def _document(body: bytes) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(body)
    except msgspec.DecodeError:
        raise Unavailable("the registry's answer is not JSON") from None
    return found if isinstance(found, dict) else {}


async def _authorized(url: str, scope: str, given: Credentials) -> Answer:
    """Ask; when told to, ask for a token first, or show name and password."""
    found = await _get(url, {"Accept": _MANIFESTS})
    if found.status != 401:
        if given.username and not scope and found.status == 200:
            return await _get(url, {"Authorization": _basic(given)})
        return found
    scheme, parts = challenge_parts(found.headers.get("www-authenticate", ""))
    if scheme == "bearer":
        token = await _token(parts, scope, given)
        return await _get(url, {"Accept": _MANIFESTS, "Authorization": f"Bearer {token}"})
    if scheme == "basic" and given.username:
        return await _get(url, {"Accept": _MANIFESTS, "Authorization": _basic(given)})
    return found


def _basic(given: Credentials) -> str:
    pair = f"{given.username}:{given.password}".encode()
    return f"Basic {base64.b64encode(pair).decode()}"


async def _token(parts: dict[str, str], scope: str, given: Credentials) -> str:
    if given.token:
        return given.token
    realm = parts.get("realm", "")
    if not realm.startswith(("https://", "http://")):
        raise Unavailable("the registry names no place to get tokens from")
    query = {"service": parts.get("service", ""), "scope": scope or parts.get("scope", "")}
    if given.username:
        query["account"] = given.username
    headers = {"Authorization": _basic(given)} if given.username else {}
    wanted = urlencode({k: v for k, v in query.items() if v}, quote_via=quote)
    found = await _get(f"{realm}{'&' if '?' in realm else '?'}{wanted}", headers)
    if found.status in (401, 403):
        raise Unauthenticated(f"Get {realm!r}: unauthorized: incorrect username or password")
    document = _document(found.body)
    token = document.get("token") or document.get("access_token")
    if found.status != 200 or not token:
        raise Unavailable(f"Get {realm!r}: status {found.status} and no token")
    return str(token)


async def _get(url: str, headers: dict[str, str], hops: int = 3) -> Answer:
    try:
        async with asyncio.timeout(_SECONDS):
            found = await _exchange(url, headers)
    except (OSError, TimeoutError, ssl.SSLError, EOFError, ValueError) as error:
        raise Unavailable(f'Get "{url}": {_network_text(url, error)}') from None
    location = found.headers.get("location", "")
    if found.status in (301, 302, 303, 307, 308) and hops and "://" in location:
        # Another host must not see the credentials.
        return await _get(location, {}, hops - 1)
    return found


def _network_text(url: str, error: Exception) -> str:
    """A failure to reach a registry in the words that Docker's users know."""
    place = urlsplit(url)
    if isinstance(error, ConnectionRefusedError):
        port = place.port or (443 if place.scheme == "https" else 80)
        return f"dial tcp {place.hostname}:{port}: connect: connection refused"
    if isinstance(error, socket.gaierror):
        return f"dial tcp: lookup {place.hostname}: no such host"
    return str(error) or "timed out"


async def _exchange(url: str, headers: dict[str, str]) -> Answer:
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    if parts.hostname is None:
        raise InvalidArgument(f"malformed registry address {url!r}")
    context = ssl.create_default_context() if secure else None
    reader, writer = await asyncio.open_connection(parts.hostname, port, ssl=context)
    try:
        lines = [f"GET {parts.path}{'?' + parts.query if parts.query else ''} HTTP/1.1"]
        lines += [f"Host: {parts.netloc}", "Connection: close", "User-Agent: sagong"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        return await _read_answer(reader)
    finally:
        writer.close()


async def _read_answer(reader: asyncio.StreamReader) -> Answer:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    status = int(head[0].split(" ")[1])
    headers = {
        k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:] if line)
    }
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return Answer(status, headers, await _read_chunks(reader))
    length = int(headers.get("content-length", "-1"))
    if length > _BODY_LIMIT:
        raise ValueError(f"the answer has {length} bytes")
    body = await (reader.readexactly(length) if length >= 0 else reader.read(_BODY_LIMIT))
    return Answer(status, headers, body)


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int((await reader.readline()).split(b";")[0], 16):
        if len(body) + size > _BODY_LIMIT:
            raise ValueError("the answer is too long")
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    return body
