"""`POST /build`, the classic builder: not served yet, and said so."""

from __future__ import annotations

from sagong.http import Response
from sagong_docker.ask import Ask
from sagong_docker.engine import Engine
from sagong_docker.refusal import refuse

__all__ = ["build"]


async def build(engine: Engine, ask: Ask) -> Response:
    """Refuse with what to do instead; the context is not read."""
    return refuse(
        501,
        "this engine does not build from Dockerfiles yet: build elsewhere and `docker load` or "
        "`docker pull` the image, or make one with `docker commit`",
    )
