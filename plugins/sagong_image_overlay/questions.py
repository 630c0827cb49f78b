"""What registries are asked without moving an image; a courier asks them."""

from __future__ import annotations

import contextlib
import urllib.parse
from typing import Any

import msgspec

from sagong.contracts.image import (
    Credentials,
    Distribution,
    DistributionRequest,
    Login,
    LoginRequest,
    Platform,
    SearchRequest,
    SearchResult,
    SearchResults,
)
from sagong.errors import InvalidArgument, Unavailable
from sagong.model import references
from sagong_image_overlay.endpoint import split_host
from sagong_image_overlay.errand import Errand
from sagong_image_overlay.settings import Settings
from sagong_image_overlay.transfers import login_of, send_courier

__all__ = ["Questions"]

_MOST = 100
_TERM = 512
# Somebody waits for an answer, and would sooner hear that there is none now.
_BUSY_SECONDS = 3.0


class Questions:
    """Search, distribution and login."""

    def __init__(self, settings: Settings) -> None:
        busy = min(settings.registries.busy_seconds, _BUSY_SECONDS)
        self._settings = msgspec.structs.replace(settings.registries, busy_seconds=busy)

    async def _ask(self, task: str, credentials: Credentials, **facts: Any) -> dict[str, Any]:
        errand = Errand(task=task, login=login_of(credentials), settings=self._settings, **facts)
        async with contextlib.aclosing(send_courier(errand)) as events:
            async for event in events:
                return event
        raise Unavailable("the image courier ended early; is memory short?")

    async def search(self, request: SearchRequest) -> SearchResults:
        """Repositories that fit."""
        if not 1 <= request.limit <= _MOST:
            raise InvalidArgument(f"limit {request.limit} is outside the range of [1, {_MOST}]")
        domain, term = _term_of(request.term, self._settings.index)
        found = await self._ask(
            "search", request.credentials, reference=domain, term=term, limit=request.limit
        )
        results = msgspec.convert(found["results"], tuple[SearchResult, ...])
        return SearchResults(results=tuple(one for one in results if _fits(one, request)))

    async def distribution(self, request: DistributionRequest) -> Distribution:
        """What a name stands for."""
        reference = references.parse(request.reference).tagged
        found = await self._ask("describe", request.credentials, reference=reference.canonical)
        return Distribution(
            media_type=found["media_type"],
            digest=found["digest"],
            size=found["size"],
            platforms=tuple(map(_platform, found["platforms"])),
            parts=tuple(found["parts"]),
            kinds=tuple(found["kinds"]),
        )

    async def login(self, request: LoginRequest) -> Login:
        """Whether credentials are good."""
        host = _registry_of(request.credentials.server)
        found = await self._ask("login", request.credentials, reference=host)
        return Login(identity=found["identity"])


def _term_of(text: str, index: str) -> tuple[str, str]:
    """The registry and the term of `HOST/TERM` or `TERM`."""
    if "://" in text:
        raise InvalidArgument(f"invalid repository name: {text[:200]} has a scheme; leave it out")
    head, slash, rest = text.partition("/")
    named = slash and (set(".:") & set(head) or head == "localhost")
    domain, term = (head, rest) if named else (index, text)
    if not term.strip() or len(term) > _TERM or not term.isprintable():
        raise InvalidArgument(f"{text[:80]!r} is no term to search for")
    split_host(domain)
    return ("docker.io" if domain == "index.docker.io" else domain), term.strip()


def _fits(one: SearchResult, request: SearchRequest) -> bool:
    return (
        request.official in (None, one.official)
        and request.automated in (None, one.automated)
        and one.stars >= request.stars
    )


def _platform(found: dict[str, Any]) -> Platform:
    return Platform(
        architecture=found.get("architecture", ""),
        os=found.get("os", ""),
        variant=found.get("variant", ""),
        os_version=found.get("os.version", ""),
        os_features=tuple(found.get("os.features", ())),
    )


def _registry_of(server: str) -> str:
    """The host of a registry, as `docker login` names it; InvalidArgument if it can't be one."""
    host = urllib.parse.urlsplit(server if "://" in server else f"//{server}").netloc
    split_host(host)
    return "docker.io" if host in ("", "index.docker.io", "registry-1.docker.io") else host
