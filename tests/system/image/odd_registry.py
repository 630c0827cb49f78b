"""A registry in the test's own process that can be made to lie, stall, refuse and redirect.

It serves what `put` gave it; `odd` maps a path's beginning to a function that answers instead (and
returns True), which may do so only for a while. It notes every request.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sagong.conformance.image_lab import layer

__all__ = ["OddRegistry", "Seen", "odd_registry"]

OCI = "application/vnd.oci.image."
MANIFEST = OCI + "manifest.v1+json"
INDEX = OCI + "index.v1+json"
CONFIG = OCI + "config.v1+json"
LAYER = OCI + "layer.v1.tar+gzip"


def digest(raw: bytes) -> str:
    """sha256."""
    return "sha256:" + hashlib.sha256(raw).hexdigest()


@dataclass(frozen=True)
class Seen:
    """A request."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass
class OddRegistry:
    """What it has, what it does oddly, and what it has seen."""

    host: str = ""
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    odd: dict[str, Callable[[Handler], bool]] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    # Bodies of requests to paths that begin so are read at some MB a second.
    slow: str = " "

    def blob(self, raw: bytes, media_type: str = LAYER, **facts: Any) -> dict[str, Any]:
        """Keep a blob; its descriptor."""
        self.blobs[digest(raw)] = raw
        return {"mediaType": media_type, "digest": digest(raw), "size": len(raw), **facts}

    def image(
        self, name: str, tag: str = "v1", *, architecture: str = "amd64", **facts: Any
    ) -> dict[str, Any]:
        """An image of one small layer; its descriptor. `facts` change the manifest."""
        tar = layer(("name", f"{name} {architecture}"), ("padding", "." * 3000))
        config = {
            "architecture": architecture,
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [digest(tar)]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.blob(json.dumps(config).encode(), CONFIG),
            "layers": [self.blob(gzip.compress(tar, mtime=0))],
            **facts,
        }
        return self.manifest(name, tag, manifest)

    def manifest(self, name: str, tag: str, document: Any, kind: str = "") -> dict[str, Any]:
        """Keep a manifest or index; its descriptor."""
        raw = document if isinstance(document, bytes) else json.dumps(document).encode()
        kind = kind or document["mediaType"]
        for key in (tag, digest(raw)):
            self.manifests[f"/v2/{name}/manifests/{key}"] = (kind, raw)
        return {"mediaType": kind, "digest": digest(raw), "size": len(raw)}

    def paths(self, method: str = "GET") -> list[str]:
        """The paths that were asked for."""
        return [one.path for one in self.seen if one.method == method]


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers requests."""

    protocol_version = "HTTP/1.1"

    @property
    def registry(self) -> OddRegistry:
        """Whose handler it is."""
        return self.server.registry  # type: ignore[attr-defined, no-any-return]

    def give(self, status: int, body: bytes = b"", **headers: str) -> bool:
        """An answer; header names with "_" for "-"."""
        self.send_response(status)
        headers.setdefault("Content_Length", str(len(body)))
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        return True

    def give_json(self, document: Any, status: int = 200, **headers: str) -> bool:
        """An answer of JSON."""
        return self.give(status, json.dumps(document).encode(), **headers)

    def _handle(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        slow = self.path.startswith(self.registry.slow)
        body = self._slowly(size) if slow else self.rfile.read(size) if size else b""
        seen = Seen(self.command, self.path, dict(self.headers), body)
        self.registry.seen.append(seen)
        for prefix, odd in self.registry.odd.items():
            if self.path.startswith(prefix) and odd(self):
                return
        self._answer(self.path.partition("?")[0])

    def _slowly(self, size: int) -> bytes:
        """As much of the body as comes."""
        body = b""
        while len(body) < size and (piece := self.rfile.read(min(1 << 16, size - len(body)))):
            body += piece
            time.sleep(0.02)
        return body

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _handle

    def _answer(self, path: str) -> None:
        if path == "/v2/":
            self.give_json({})
        elif path in self.registry.manifests:
            kind, raw = self.registry.manifests[path]
            self.give(200, raw, Content_Type=kind)
        elif "/blobs/" in path and path.rpartition("/")[2] in self.registry.blobs:
            self._blob(self.registry.blobs[path.rpartition("/")[2]])
        else:
            code = "MANIFEST_UNKNOWN" if "/manifests/" in path else "BLOB_UNKNOWN"
            self.give_json({"errors": [{"code": code, "message": "not here"}]}, 404)

    def _blob(self, raw: bytes) -> None:
        wanted = self.headers.get("Range", "")
        if not wanted:
            self.give(200, raw)
            return
        start = int(wanted.removeprefix("bytes=").partition("-")[0])
        if start >= len(raw):
            self.give(416, Content_Range=f"bytes */{len(raw)}")
            return
        self.give(206, raw[start:], Content_Range=f"bytes {start}-{len(raw) - 1}/{len(raw)}")

    def log_message(self, format: str, *arguments: object) -> None:
        """Be quiet."""


class _Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Clients may go away."""


@contextmanager
def odd_registry() -> Iterator[OddRegistry]:
    """The registry, running."""
    server = _Server(("127.0.0.1", 0), Handler)
    registry = OddRegistry(f"127.0.0.1:{server.server_address[1]}")
    server.registry = registry  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield registry
    finally:
        with contextlib.suppress(OSError):
            server.shutdown()
        server.server_close()
        thread.join()
