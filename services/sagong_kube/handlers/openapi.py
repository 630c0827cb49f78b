"""OpenAPI documents: an index of group-versions (v3), a document for each, and one for all (v2)."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable

import msgspec

from sagong_kube import refusal
from sagong_kube.handlers.exchange import JSON, Answer, Ask, json_answer
from sagong_kube.handlers.health import KUBERNETES_VERSION
from sagong_kube.handlers.negotiation import ranges
from sagong_kube.registry.resource import Catalogue

__all__ = ["OpenApi", "Source", "builtin_documents"]

# Clients ask for it with an @, which no media type may have: the answer's is spelled with a dot.
_V2_PROTOBUF = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"


class Source(msgspec.Struct, frozen=True):
    """Where documents come from: of a group-version, and of all; both as JSON."""

    v3: Callable[[str, str], bytes]
    v2: Callable[[], bytes]


def builtin_documents() -> Source:
    """Documents of the built-in kinds."""
    from sagong_kube.convert import openapi

    return Source(v3=openapi.v3, v2=openapi.v2)


class OpenApi:
    """Handlers; documents are made when first asked for and kept while the catalogue stays."""

    def __init__(self, catalogue: Catalogue, source: Source) -> None:
        self._catalogue = catalogue
        self._source = source
        self._made: dict[tuple[str, str], bytes] = {}
        self._generation = -1

    async def _document(self, group: str, version: str) -> bytes:
        if self._generation != self._catalogue.generation:
            self._made.clear()
            self._generation = self._catalogue.generation
        made = self._made.get((group, version))
        if made is None:
            # Making one takes tenths of a second; others are served meanwhile.
            make = self._source.v2 if not version else lambda: self._source.v3(group, version)
            made = await asyncio.to_thread(make)
            self._made[group, version] = made
        return made

    async def v2(self, ask: Ask) -> Answer:
        """GET /openapi/v2."""
        body = await self._document("", "")
        return _answer(ask, body, _V2_PROTOBUF)

    async def index(self, ask: Ask) -> Answer:
        """GET /openapi/v3."""
        paths = {}
        for group, versions in self._catalogue.groups().items():
            for version in versions:
                path = f"apis/{group}/{version}" if group else f"api/{version}"
                tag = self._stamp(group, version)
                paths[path] = {"serverRelativeURL": f"/openapi/v3/{path}?hash={tag}"}
        return json_answer({"paths": paths})

    def _stamp(self, group: str, version: str) -> str:
        """Changes with what the group-version serves, not with restarts: clients keep documents."""
        found = [r for r in self._catalogue if (r.group, r.kind.version) == (group, version)]
        parts = [KUBERNETES_VERSION, *(f"{r.plural}:{r.kind.kind}:{r.schema_tag}" for r in found)]
        return _tag("\n".join(parts).encode())

    async def v3(self, ask: Ask) -> Answer:
        """GET /openapi/v3/api/v1 and /openapi/v3/apis/GROUP/VERSION."""
        parts = ask.target.path.strip("/").split("/")[2:]
        match parts:
            case ["api", version]:
                group = ""
            case ["apis", group, version]:
                pass
            case _:
                raise refusal.no_such_path()
        if version not in self._catalogue.groups().get(group, ()):
            raise refusal.no_such_path()
        answer = _answer(ask, await self._document(group, version), "")
        if ask.first("hash") == self._stamp(group, version):
            answer.headers["Cache-Control"] = "public, immutable"
        return answer


def _tag(body: bytes) -> str:
    return hashlib.sha512(body).hexdigest()[:64].upper()


def _answer(ask: Ask, body: bytes, protobuf: str) -> Answer:
    """JSON, unless the client takes nothing but protobuf (v2 only)."""
    found = ranges(ask.headers.get("accept", ""))
    accepted = [range_.media for range_ in found]
    takes_json = not found or any(m in (JSON, "*/*", "application/*") for m in accepted)
    spelled = (protobuf, protobuf.replace(".v2.v1.0", ".v2@v1.0"))
    if not takes_json and not any(form in accepted for form in spelled if form):
        raise refusal.not_acceptable((JSON, protobuf) if protobuf else (JSON,))
    if not takes_json:
        from sagong_kube.handlers.gnostic import encode

        body = encode(body)
    tag = f'"{_tag(body)}"'
    headers = {"ETag": tag, "Vary": "Accept", "Cache-Control": "no-cache, private"}
    media = JSON if takes_json else protobuf
    if ask.headers.get("if-none-match") == tag:
        return Answer(b"", 304, media, headers)
    return Answer(body, 200, media, headers)
