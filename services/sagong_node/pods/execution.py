"""Runs a command in a container and collects its output and code: for probes and hooks."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Sequence
from typing import Protocol

from sagong.contracts.node import ExecRef, ExecSpec, ExecState
from sagong.contracts.streams import Address
from sagong.errors import SagongError
from sagong.frames import Frame, FrameReader, pack

__all__ = ["Executor", "execute"]

_OUTPUT = 10 << 10
_KILL = 9


class Executor(Protocol):
    """What of the node is needed."""

    async def exec(self, spec: ExecSpec) -> ExecState:
        """Start a process."""
        ...

    async def exec_state(self, ref: ExecRef) -> ExecState:
        """How it fares."""
        ...


async def execute(
    node: Executor, id_: str, command: Sequence[str], *, seconds: float
) -> tuple[int, str]:
    """(code, output); TimeoutError after killing what took too long, SagongError if it can't start."""
    exec_id = uuid.uuid4().hex * 2
    spec = ExecSpec(id=id_, exec_id=exec_id, args=tuple(command))
    async with asyncio.timeout(seconds):
        state = await node.exec(spec)
        if state.stream is None:
            return state.code, ""
        return await _collect(node, ExecRef(id=id_, exec_id=exec_id), state.stream)


async def _collect(node: Executor, ref: ExecRef, address: Address) -> tuple[int, str]:
    reader, writer = await asyncio.open_unix_connection(address.path)
    output, frames = b"", FrameReader()
    try:
        writer.write(address.token.encode() + b"\n")
        while data := await reader.read(1 << 16):
            for kind, payload in frames.feed(data):
                if kind == Frame.EXIT:
                    code = int.from_bytes(payload[:4], "big", signed=True)
                    return code, output.decode(errors="replace")
                if kind in (Frame.STDOUT, Frame.STDERR) and len(output) < _OUTPUT:
                    output += payload[: _OUTPUT - len(output)]
        # The stream ended without a code: the monitor knows it.
        with contextlib.suppress(SagongError):
            return (await node.exec_state(ref)).code, output.decode(errors="replace")
        return -1, output.decode(errors="replace")
    except asyncio.CancelledError:
        writer.write(pack(Frame.SIGNAL, bytes([_KILL])))
        raise
    finally:
        writer.close()
