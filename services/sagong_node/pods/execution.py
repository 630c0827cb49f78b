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
from sagong.frames import Frame
from sagong.streams import framed
from sagong_node.outcome import outcome

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
    async with framed(address) as frames:
        try:
            code, output = await outcome(frames, most=_OUTPUT)
        except asyncio.CancelledError:
            await frames.write(Frame.SIGNAL, bytes([_KILL]))
            raise
    if code is None:
        code = -1
        # The stream ended without a code: the monitor knows it.
        with contextlib.suppress(SagongError):
            code = (await node.exec_state(ref)).code
    return code, output
