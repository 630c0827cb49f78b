"""`docker logs`."""

from __future__ import annotations

from sagong.contracts.node import LogsRequest
from sagong.errors import FailedPrecondition, InvalidArgument, Unimplemented
from sagong.log_frames import log_frames
from sagong.model.numbers import natural
from sagong_docker.ask import Ask
from sagong_docker.attach import content_type, wanted_streams
from sagong_docker.bridge import shown
from sagong_docker.engine import Engine
from sagong_docker.moment import parse_instant

__all__ = ["logs"]


async def logs(engine: Engine, ask: Ask) -> None:
    """The log, and with `follow` what comes."""
    record = await engine.container(ask["id"])
    wanted = wanted_streams(ask)
    if not wanted:
        raise InvalidArgument("Bad parameters: you must choose at least one stream")
    request = LogsRequest(
        id=record.id,
        stdout=ask.flag("stdout"),
        stderr=ask.flag("stderr"),
        since_nanos=parse_instant(ask.text("since")),
        until_nanos=parse_instant(ask.text("until")),
        tail=_tail(ask.text("tail")),
        follow=ask.flag("follow"),
        timestamps=ask.flag("timestamps"),
        details=ask.flag("details"),
    )
    try:
        address = await engine.node.logs(request)
    except FailedPrecondition as error:
        raise Unimplemented(error.message) from None
    out = ask.request.stream(200, {"Content-Type": content_type(ask, raw=record.tty)})
    async for frames in log_frames(engine.node, request, address):
        await out.write(shown(frames, wanted, raw=record.tty))


def _tail(text: str) -> int:
    """A number of lines; anything else is all, as in Docker."""
    lines = natural(text)
    return -1 if lines is None else lines
