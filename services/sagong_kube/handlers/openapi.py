"""OpenAPI documents: an index of group-versions (v3), a document for each, and one for all (v2)."""

from __future__ import annotations

import asyncio
import hashlib
import zlib
from collections.abc import Awaitable, Callable

from sagong_kube import refusal
from sagong_kube.convert.document import Packed
from sagong_kube.handlers.exchange import JSON, Answer, Ask, json_answer
from sagong_kube.handlers.health import KUBERNETES_VERSION
from sagong_kube.handlers.negotiation import ranges
from sagong_kube.registry.resource import Catalogue

__all__ = ["Make", "OpenApi"]

# Clients ask for it with an @, which no media type may have: the answer's is spelled with a dot.
_V2_PROTOBUF = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
# The window bits by which zlib reads what gzip wrote.
_GZIP = 31
# Form ("v2", "protobuf" or "v3"), group and version.
Make = Callable[[str, str, str], Awaitable[Packed]]


class OpenApi:
    """Handlers; documents are made when first asked for, and kept packed while the catalogue stays."""

    def __init__(self, catalogue: Catalogue, make: Make) -> None:
        self._catalogue = catalogue
        self._make = make
        self._made: dict[tuple[str, str, str], Packed] = {}
        self._generation = -1
        self._turn = asyncio.Lock()

    async def _document(self, form: str, group: str = "", version: str = "") -> Packed:
        # One at a time: each is made by a process that takes a while.
        async with self._turn:
            if self._generation != self._catalogue.generation:
                self._made.clear()
                self._generation = self._catalogue.generation
            made = self._made.get((form, group, version))
            if made is None:
                made = self._made[form, group, version] = await self._make(form, group, version)
            return made

    async def v2(self, ask: Ask) -> Answer:
        """GET /openapi/v2: JSON, unless the client takes nothing but protobuf."""
        form = "v2" if _takes_json(ask, _V2_PROTOBUF) else "protobuf"
        return _answer(ask, await self._document(form), _V2_PROTOBUF if form != "v2" else JSON)

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
        return hashlib.sha512("\n".join(parts).encode()).hexdigest()[:64].upper()

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
        _takes_json(ask)
        answer = _answer(ask, await self._document("v3", group, version), JSON)
        if ask.first("hash") == self._stamp(group, version):
            answer.headers["Cache-Control"] = "public, immutable"
        return answer


def _takes_json(ask: Ask, protobuf: str = "") -> bool:
    """Whether the client takes JSON; if not, it takes protobuf where there is a form of it."""
    found = ranges(ask.headers.get("accept", ""))
    accepted = [range_.media for range_ in found]
    if not found or any(m in (JSON, "*/*", "application/*") for m in accepted):
        return True
    spelled = (protobuf, protobuf.replace(".v2.v1.0", ".v2@v1.0"))
    if not any(form in accepted for form in spelled if form):
        raise refusal.not_acceptable((JSON, protobuf) if protobuf else (JSON,))
    return False


def _answer(ask: Ask, document: Packed, media: str) -> Answer:
    tag = f'"{document.tag}"'
    headers = {
        "ETag": tag,
        "Vary": "Accept, Accept-Encoding",
        "Cache-Control": "no-cache, private",
    }
    if ask.headers.get("if-none-match") == tag:
        return Answer(b"", 304, media, headers)
    if not ask.accepts_gzip:
        return Answer(zlib.decompress(document.content, _GZIP), 200, media, headers)
    return Answer(document.content, 200, media, {**headers, "Content-Encoding": "gzip"})
