"""Questions to a registry without moving an image: login, what a name stands for, search."""

from __future__ import annotations

from typing import Any

from sagong.contracts.image import (
    Distribution,
    DistributionRequest,
    LoginRequest,
    SearchRequest,
)
from sagong.errors import InvalidArgument
from sagong.http import Response
from sagong.model import references
from sagong_docker.ask import Ask
from sagong_docker.body import LoginBody
from sagong_docker.credentials import credentials, of_document
from sagong_docker.engine import Engine
from sagong_docker.refusal import answer

__all__ = ["distribution", "login", "search"]

_FILTERS = ("is-automated", "is-official", "stars")
_MOST = 100


async def login(engine: Engine, ask: Ask) -> Response:
    """`docker login`: are these credentials good?"""
    given = of_document(await ask.checked(LoginBody, typed=False))
    done = await engine.images.login(LoginRequest(credentials=given))
    return answer({"Status": "Login Succeeded", "IdentityToken": done.identity})


async def distribution(engine: Engine, ask: Ask) -> Response:
    """What a reference stands for at its registry: descriptor and platforms."""
    reference = references.parse(ask["name"])
    given = credentials(ask.request.header("x-registry-auth"))
    request = DistributionRequest(reference=reference.familiar, credentials=given)
    return answer(_distribution_view(await engine.images.distribution(request)))


def _distribution_view(found: Distribution) -> dict[str, Any]:
    return {
        "Descriptor": {
            "mediaType": found.media_type,
            "digest": found.digest,
            "size": found.size,
        },
        "Platforms": [
            {
                "architecture": platform.architecture,
                "os": platform.os,
                **({"variant": platform.variant} if platform.variant else {}),
                **({"os.version": platform.os_version} if platform.os_version else {}),
                **({"os.features": platform.os_features} if platform.os_features else {}),
            }
            for platform in found.platforms
        ],
    }


async def search(engine: Engine, ask: Ask) -> Response:
    """`docker search`: Docker Hub's, or that of `HOST/TERM`'s registry."""
    filters = ask.filters()
    filters.check(_FILTERS)
    filters.numbers("stars")
    limit = ask.number("limit") or 25
    if not 1 <= limit <= _MOST:
        raise InvalidArgument(f"Limit {limit} is outside the range of [1, {_MOST}]")
    term = ask.text("term")
    if not term:
        raise InvalidArgument("nothing to search for: term is empty")
    found = await engine.images.search(
        SearchRequest(
            term=term,
            limit=limit,
            credentials=credentials(ask.request.header("x-registry-auth")),
            official=filters.boolean("is-official"),
            automated=filters.boolean("is-automated"),
            stars=max(map(int, filters["stars"]), default=0),
        )
    )
    return answer(
        [
            {
                "name": result.name,
                "description": result.description,
                "is_official": result.official,
                "is_automated": result.automated,
                "star_count": result.stars,
            }
            for result in found.results
        ]
    )
