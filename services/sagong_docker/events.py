"""`docker events`: what was kept, then what comes."""

from __future__ import annotations

import asyncio
import time

import msgspec

from sagong.errors import InvalidArgument
from sagong.http import Stream
from sagong_docker.ask import Ask
from sagong_docker.engine import Engine
from sagong_docker.filters import Filters
from sagong_docker.history import Event, event_matches, event_view
from sagong_docker.moment import parse_instant

__all__ = ["events"]


async def events(engine: Engine, ask: Ask) -> None:
    """A stream that ends at `until`, or with the client."""
    filters = ask.filters()
    since, until = parse_instant(ask.text("since")), parse_instant(ask.text("until"))
    if since and until and until < since:
        raise InvalidArgument(
            f"`since` time ({ask.text('since')}) cannot be after `until` time ({ask.text('until')})"
        )
    queue = engine.history.listen()
    told = ask.request.on_drain(lambda: queue.put_nowait(None))
    out = ask.request.stream(200, {"Content-Type": "application/json"})
    try:
        # With an end alone, or since 0, all is asked for that is kept, as with Docker.
        bounded = ask.text("since") or ask.text("until")
        for event in engine.history.between(since, until) if bounded else ():
            _show(out, event, filters, ask.version)
        await out.drain()
        if until and until <= time.time_ns():
            return
        await _follow(out, queue, filters, ask.version, until)
    finally:
        told()
        engine.history.leave(queue)


async def _follow(
    out: Stream,
    queue: asyncio.Queue[Event | None],
    filters: Filters,
    version: tuple[int, int],
    until: int,
) -> None:
    try:
        async with asyncio.timeout((until - time.time_ns()) / 1e9 if until else None):
            while (event := await queue.get()) is not None:
                _show(out, event, filters, version)
                await out.drain()
    except TimeoutError:
        return


def _show(out: Stream, event: Event, filters: Filters, version: tuple[int, int]) -> None:
    if event_matches(event, filters):
        out.send(msgspec.json.encode(event_view(event, version)) + b"\n")
