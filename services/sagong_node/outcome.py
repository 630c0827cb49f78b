"""What became of a process that was run for its code and output: probes, hooks, health checks."""

from __future__ import annotations

from sagong.frames import Frame
from sagong.streams import FrameLink

__all__ = ["outcome"]


async def outcome(
    frames: FrameLink, *, most: int, said: bytearray | None = None
) -> tuple[int | None, str]:
    """Its code, None if the stream ended without one, and the first `most` bytes of its output.

    Who may give it up before its end finds in `said` what came until then.
    """
    output = bytearray() if said is None else said
    async for kind, payload in frames:
        if kind == Frame.EXIT:
            return int.from_bytes(payload[:4], "big", signed=True), _text(output)
        if kind in (Frame.STDOUT, Frame.STDERR) and len(output) < most:
            output += payload[: most - len(output)]
    return None, _text(output)


def _text(output: bytearray) -> str:
    return output.decode(errors="replace")
