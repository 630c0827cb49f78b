"""A client of registries that hides nothing: requests as they are, answers as they come."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

__all__ = [
    "CONFIG",
    "EMPTY",
    "INDEX",
    "LAYER",
    "MANIFEST",
    "Answer",
    "Client",
    "Content",
    "described",
    "digest_of",
    "image",
    "index",
]

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
EMPTY = "application/vnd.oci.empty.v1+json"


def digest_of(data: bytes, algorithm: str = "sha256") -> str:
    """The digest of bytes."""
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


@dataclass(frozen=True)
class Content:
    """Bytes with a type."""

    data: bytes
    media_type: str = "application/octet-stream"
    algorithm: str = "sha256"

    @property
    def digest(self) -> str:
        """Their digest."""
        return digest_of(self.data, self.algorithm)

    @classmethod
    def random(cls, size: int = 100, media_type: str = LAYER, algorithm: str = "sha256") -> Content:
        """Bytes that nobody has seen before."""
        return cls(secrets.token_bytes(size), media_type, algorithm)


def described(content: Content, **more: Any) -> dict[str, Any]:
    """A descriptor."""
    found = {"mediaType": content.media_type, "digest": content.digest, "size": len(content.data)}
    return {**found, **more}


def image(config: Content, layers: Iterable[Content] = (), **more: Any) -> Content:
    """An image manifest; `more` are further fields (camelCase)."""
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": described(config),
        "layers": [described(layer) for layer in layers],
        **more,
    }
    return Content(json.dumps(document).encode(), MANIFEST)


def index(manifests: Iterable[Content], **more: Any) -> Content:
    """An index."""
    listed = [described(one) for one in manifests]
    document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": listed, **more}
    return Content(json.dumps(document).encode(), INDEX)


@dataclass
class Answer:
    """What the registry said."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def json(self) -> Any:
        """The body as a document."""
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code of the first error; its form is checked on the way."""
        errors = self.json["errors"]
        assert isinstance(errors, list) and errors, self.body
        code = errors[0]["code"]
        assert code and code.replace("_", "").isalpha() and code.isupper(), code
        return str(code)


class Client:
    """Speaks to one registry; connections are kept."""

    def __init__(
        self, host: str, headers: Mapping[str, str] | None = None, *, patient: bool = True
    ) -> None:
        self.host = host
        # A connection that was idle may be closed by the other side just now.
        self.patient = patient
        self.headers = dict(headers or {})
        self._connection: http.client.HTTPConnection | None = None

    def ask(
        self,
        method: str,
        target: str,
        body: bytes | Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request; a body that is no bytes goes in chunks."""
        if "://" in target:
            parts = urlsplit(target)
            target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        given = {**self.headers, **(headers or {})}
        chunked = body is not None and not isinstance(body, bytes)
        for attempt in (0, 1):
            if self._connection is None:
                self._connection = http.client.HTTPConnection(self.host, timeout=60)
            try:
                self._connection.request(method, target, body, given, encode_chunked=chunked)
                answer = self._connection.getresponse()
                found = Answer(answer.status, _headers(answer), answer.read())
            except (http.client.HTTPException, ConnectionError):
                self.close()
                if attempt or chunked or not self.patient:
                    raise
                continue
            if answer.will_close:
                self.close()
            return found
        raise AssertionError("not reached")

    def close(self) -> None:
        """Forget the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # -- what most stories begin with -------------------------------------------------------

    def begin(self, name: str, query: str = "") -> str:
        """Begin an upload; where it goes on."""
        answer = self.ask("POST", f"/v2/{name}/blobs/uploads/{query}", b"")
        assert answer.status == 202, (answer.status, answer.body)
        return answer.headers["location"]

    def push_blob(self, name: str, content: Content) -> None:
        """POST, then PUT."""
        place = self.begin(name)
        headers = {"Content-Type": "application/octet-stream"}
        answer = self.ask("PUT", with_query(place, digest=content.digest), content.data, headers)
        assert answer.status == 201, (answer.status, answer.body)

    def push_manifest(self, name: str, manifest: Content, reference: str = "") -> Answer:
        """PUT a manifest."""
        target = f"/v2/{name}/manifests/{reference or manifest.digest}"
        return self.ask("PUT", target, manifest.data, {"Content-Type": manifest.media_type})

    def push_image(self, name: str, reference: str = "", **more: Any) -> Content:
        """An image of a config and a layer, all new; its manifest."""
        config = Content(b'{"made": "' + secrets.token_hex(8).encode() + b'"}', CONFIG)
        layer = Content.random()
        for one in (config, layer):
            self.push_blob(name, one)
        manifest = image(config, [layer], **more)
        answer = self.push_manifest(name, manifest, reference)
        assert answer.status == 201, (answer.status, answer.body)
        return manifest


def with_query(place: str, **parameters: str) -> str:
    """A location with further parameters."""
    added = "&".join(f"{key}={value.replace(':', '%3A')}" for key, value in parameters.items())
    return f"{place}{'&' if '?' in place else '?'}{added}"


def _headers(answer: http.client.HTTPResponse) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in answer.getheaders():
        key = key.lower()
        found[key] = f"{found[key]}, {value}" if key in found else value
    return found


@contextlib.contextmanager
def client(host: str, headers: Mapping[str, str] | None = None) -> Iterator[Client]:
    """A client that is closed afterwards."""
    made = Client(host, headers)
    try:
        yield made
    finally:
        made.close()
