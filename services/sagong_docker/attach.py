"""Attaching to containers: hijacked streams, WebSocket, and attachments before the start."""

from __future__ import annotations

import asyncio
import contextlib

from sagong.contracts.node import (
    AttachSpec,
    ContainerStatus,
    LogsRequest,
    StatusState,
)
from sagong.contracts.streams import Address
from sagong.errors import Conflict, FailedPrecondition, InvalidArgument, NotFound, SagongError
from sagong.frames import Frame
from sagong.http import RawStream, Response
from sagong.log_frames import log_frames
from sagong.streams import connected
from sagong_docker.ask import Ask
from sagong_docker.bridge import Ending, carry, output, shown
from sagong_docker.detach import parse_keys
from sagong_docker.engine import Engine
from sagong_docker.pending import Waiting
from sagong_docker.record import ContainerRecord
from sagong_docker.refusal import refused_as_text

__all__ = ["attach", "attach_socket", "hijacked", "wanted_streams"]

_ALIVE = (StatusState.RUNNING, StatusState.PAUSED)
_TOLD = 1.0


def wanted_streams(ask: Ask) -> tuple[int, ...]:
    """Which outputs the client asked for."""
    pairs = (("stdout", Frame.STDOUT), ("stderr", Frame.STDERR))
    return tuple(int(kind) for name, kind in pairs if ask.flag(name))


def content_type(ask: Ask, *, raw: bool) -> str:
    """The type of a stream of output; before 1.42 always that of a terminal."""
    multiplexed = not raw and ask.version >= (1, 42)
    return f"application/vnd.docker.{'multiplexed' if multiplexed else 'raw'}-stream"


def hijacked(ask: Ask, *, raw: bool) -> RawStream:
    """Take the connection over: 101 for those who ask to upgrade, else a bare 200."""
    # The header alone is enough for Docker, and for Go programs that write it by hand.
    wanted = ask.request.header("upgrade")
    kind = ("Content-Type", content_type(ask, raw=raw or not wanted))
    if wanted:
        headers = [kind, ("Connection", "Upgrade"), ("Upgrade", wanted)]
        return ask.request.hijack(101, headers, "UPGRADED")
    return ask.request.hijack(200, [kind])


async def attach(engine: Engine, ask: Ask) -> Response | None:
    """`docker attach`, and the attachment of `docker run` before the start."""
    try:
        record = await engine.container(ask["id"])
        keys = parse_keys(ask.text("detachKeys"))
    except SagongError as error:
        return refused_as_text(error)
    waiting = engine.pending.enter(record.id, stdin=ask.flag("stdin"))
    try:
        return await _attach(engine, ask, record, keys, waiting)
    finally:
        engine.pending.part(record.id, waiting)


async def _attach(
    engine: Engine, ask: Ask, record: ContainerRecord, keys: bytes, waiting: Waiting
) -> Response | None:
    try:
        state, _ = await engine.state(record)
        if state is StatusState.PAUSED:
            paused = f"container {ask['id']} is paused, unpause the container before attach"
            return refused_as_text(Conflict(paused))
        client = hijacked(ask, raw=record.tty)
        if ask.flag("logs") and not ask.flag("stream"):
            await client.wait_taken()
            await _replay_log(engine, record, client, wanted_streams(ask))
        engine.note(record, "attach")
        if not ask.flag("stream"):
            return None
        if state not in _ALIVE and not record.links:
            engine.expect_start(record)
        if state not in _ALIVE and not await _started(client, waiting.woken):
            return None
        early = (waiting.started or state not in _ALIVE) and not waiting.held
        if waiting.woken.is_set() and not waiting.started:
            return None
    finally:
        engine.pending.leave(record.id, waiting)
    address = waiting.stream
    if address is None or ask.flag("logs"):
        address = await _address(engine, ask, record, replay=early or ask.flag("logs"))
    if address is not None and not await _run(engine, ask, record, client, address, keys):
        await _wait_told(waiting)
    return None


async def _started(client: RawStream, woken: asyncio.Event) -> bool:
    """Wait for the container's start; False when the client went away before."""
    tasks = [asyncio.ensure_future(woken.wait()), asyncio.ensure_future(client.wait_lost())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
    return woken.is_set()


async def _address(
    engine: Engine, ask: Ask, record: ContainerRecord, *, replay: bool
) -> Address | None:
    """The container's streams; None when it has ended and left nothing to show."""
    spec = AttachSpec(id=record.id, stdin=ask.flag("stdin"), replay=replay)
    try:
        return await engine.node.attach(spec)
    except (NotFound, FailedPrecondition):
        if not replay:
            return None
    with contextlib.suppress(SagongError):
        return await engine.node.logs(LogsRequest(id=record.id))
    return None


async def _run(
    engine: Engine,
    ask: Ask,
    record: ContainerRecord,
    client: RawStream,
    address: Address,
    keys: bytes,
) -> bool:
    """Carry bytes until the output's end; whether the session ended before."""
    async with connected(address) as link:
        await client.wait_taken()
        ending = await carry(
            client,
            link,
            wanted=wanted_streams(ask),
            raw=record.tty,
            stdin=ask.flag("stdin"),
            closes=bool(record.config.get("StdinOnce")) and not record.tty,
            keys=keys if record.tty else b"",
        )
    if ending is Ending.DETACHED:
        engine.note(record, "detach")
    return ending is not Ending.OUTPUT


async def _wait_told(waiting: Waiting) -> None:
    """Until the end of a container is known whose output has ended: clients ask for its code then.

    For a moment: one may close its output and go on.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_TOLD):
            await waiting.over.wait()


async def _replay_log(
    engine: Engine, record: ContainerRecord, client: RawStream, wanted: tuple[int, ...]
) -> None:
    request = LogsRequest(id=record.id)
    async for frames in log_frames(engine.node, request, await engine.node.logs(request)):
        client.write(shown(frames, wanted, raw=record.tty))
        await client.drain()


def _offered(ask: Ask) -> tuple[str, ...]:
    """The client's subprotocol, whatever it is: Docker repeats the one that it is offered."""
    offered = ask.request.header("sec-websocket-protocol")
    if "," in offered:
        raise InvalidArgument("bad websocket protocol")
    return (offered.strip(),)


async def attach_socket(engine: Engine, ask: Ask) -> None:
    """Attach over a WebSocket: raw bytes, as Docker's."""
    record = await engine.container(ask["id"])
    status: ContainerStatus = await engine.status(record)
    if status.state not in _ALIVE:
        raise Conflict(f"container {record.id} is not running")
    spec = AttachSpec(id=record.id, stdin=True, replay=ask.flag("logs"))
    address = await engine.node.attach(spec)
    engine.note(record, "attach")
    socket = ask.request.websocket(_offered(ask))
    async with connected(address) as link:

        async def send() -> None:
            from sagong.frames import pack

            while (message := await socket.receive()) is not None:
                data = message.encode() if isinstance(message, str) else message
                await link.write(pack(Frame.STDIN, data))
            link.close()

        sending = asyncio.ensure_future(send())
        try:
            async for piece in output(link, (Frame.STDOUT, Frame.STDERR), raw=True):
                socket.send(piece)
                await socket.drain()
        except ConnectionError:
            return
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
        await socket.close()
