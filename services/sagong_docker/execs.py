"""Further processes in containers: made, started, resized, inspected."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from sagong.contracts.node import (
    AccountQuery,
    ExecRef,
    ExecSpec,
    ExecState,
    ResizeSpec,
    StatusState,
)
from sagong.contracts.streams import Address
from sagong.errors import (
    Conflict,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    SagongError,
    Unavailable,
)
from sagong.frames import Frame, pack
from sagong.http import RawStream, Response
from sagong.streams import Link, connected
from sagong_docker.ask import Ask
from sagong_docker.attach import hijacked
from sagong_docker.body import ExecBody, ExecStartBody
from sagong_docker.bridge import Ending, carry
from sagong_docker.detach import parse_keys
from sagong_docker.engine import Engine
from sagong_docker.life import start_error
from sagong_docker.naming import new_id
from sagong_docker.record import ExecRecord
from sagong_docker.refusal import answer, empty

__all__ = ["create", "inspect", "resize", "start"]

_KEPT = 256
_LOOK_SECONDS, _LOOK_SECONDS_MOST = 0.02, 1.0
# What keeps any process from being started; all else is told in the stream, as in Docker.
_OF_THE_CONTAINER = ("is not running", "is paused", "No such container")


async def create(engine: Engine, ask: Ask) -> Response:
    """`docker exec`, first half."""
    body = await ask.checked(ExecBody)
    record = await engine.container(ask["id"])
    command = body.get("Cmd")
    if not command or not isinstance(command, list | str):
        raise InvalidArgument("No exec command specified")
    status = await engine.status(record)
    if status.state is StatusState.PAUSED:
        raise Conflict(f"Container {ask['id']} is paused, unpause the container before exec")
    if status.state is not StatusState.RUNNING:
        raise Conflict(f"container {record.id} is not running")
    if user := body.get("User"):
        # Refused before there is an exec; the start looks again.
        await engine.node.account(AccountQuery(id=record.id, user=user))
    parse_keys(str(body.get("DetachKeys") or ""), "escape")
    made = ExecRecord(id=new_id(), container=record.id, body=body)
    await engine.catalog.keep(made)
    engine.fresh.add(made.id)
    await _trim(engine, record.id)
    return answer({"Id": made.id}, 201)


async def _trim(engine: Engine, container: str) -> None:
    """A container keeps its newest execs; health checks by exec would pile up else."""
    own = engine.catalog.execs_of(container)
    if len(own) > _KEPT:
        engine.fresh.difference_update(e.id for e in own[: _KEPT // 2])
        await engine.catalog.forget(*own[: _KEPT // 2])


async def start(engine: Engine, ask: Ask) -> Response | None:
    """Second half: attached (the connection is taken over) or detached."""
    options = await ask.checked(ExecStartBody)
    made = await engine.catalog.exec(ask["id"])
    known = await _begun(engine, made)
    if known is not None or made.id in engine.failed_execs:
        ended = known is None or not known.running
        shown = "has already run" if ended else "is already running"
        raise Conflict(f"exec command {made.id} {shown}")
    tty, raw = bool(made.body.get("Tty")), bool(options.get("Tty"))
    size = options.get("ConsoleSize") or made.body.get("ConsoleSize") or (0, 0)
    spec = _spec(made, tty, size)
    if options.get("Detach"):
        state = await _started(engine, made, spec)
        if state.stream is not None:
            # Output is held back for the first client: let it go.
            rest = connected(state.stream)
            engine.spawn(_drained(engine, made, rest), f"follow exec {made.id}")
        return empty(200)
    try:
        state = await _started(engine, made, spec)
    except SagongError as error:
        if made.id not in engine.failed_execs:
            raise
        client = hijacked(ask, raw=raw)
        await client.wait_taken()
        _tell(client, f"{error.message}\r\n", raw=raw)
        return None
    # As the start says: the terminal's output may be framed, too.
    client = hijacked(ask, raw=raw)
    if state.stream is not None:
        await _session(engine, made, client, state.stream, raw=raw)
    return None


async def _session(
    engine: Engine, made: ExecRecord, client: RawStream, stream: Address, *, raw: bool
) -> None:
    """Carry bytes until the end; a process that outlives its client is followed to its own."""
    tty = bool(made.body.get("Tty"))
    async with contextlib.AsyncExitStack() as held:
        link = await held.enter_async_context(connected(stream))
        await client.wait_taken()
        ending = await carry(
            client,
            link,
            wanted=_wanted(made.body),
            raw=raw,
            stdin=bool(made.body.get("AttachStdin")),
            closes=not tty,
            keys=parse_keys(str(made.body.get("DetachKeys") or "")) if tty else b"",
        )
        if ending is not Ending.OUTPUT:
            rest = _held(link, held.pop_all())
            engine.spawn(_drained(engine, made, rest), f"follow exec {made.id}")
            return
    if not await _note_end(engine, made):
        await _outlive_monitor(engine, made, client)


async def _outlive_monitor(engine: Engine, made: ExecRecord, client: RawStream) -> None:
    """A client whose output was cut asks for the code next: he waits until there is one."""
    ending = asyncio.ensure_future(_await_end(engine, made))
    gone = asyncio.ensure_future(client.wait_lost())
    try:
        await asyncio.wait((ending, gone), return_when=asyncio.FIRST_COMPLETED)
        if not ending.done():
            engine.spawn(_await_end(engine, made), f"follow exec {made.id}")
    finally:
        for task in (ending, gone):
            task.cancel()
        await asyncio.gather(ending, gone, return_exceptions=True)


@contextlib.asynccontextmanager
async def _held(link: Link, held: contextlib.AsyncExitStack) -> AsyncIterator[Link]:
    """A connection that is there already, until it is closed."""
    async with held:
        yield link


async def _drained(
    engine: Engine, made: ExecRecord, connection: contextlib.AbstractAsyncContextManager[Link]
) -> None:
    """Read what a process writes that nobody is attached to, until it has ended."""
    # Nobody waits for it: a monitor or node that goes away ends the following, not the engine.
    with contextlib.suppress(SagongError, OSError):
        async with connection as link:
            while await link.read():
                continue
        await _await_end(engine, made)


async def _note_end(engine: Engine, made: ExecRecord) -> bool:
    """The event of an exec that has ended; whether it has."""
    state = await _known(engine, made)
    if state is None:
        return True
    if state.running:
        return False
    engine.ended_execs[made.id] = state.code
    while len(engine.ended_execs) > _KEPT:
        engine.ended_execs.pop(next(iter(engine.ended_execs)))
    if (record := engine.catalog.containers.get(made.container)) is not None:
        engine.note(record, "exec_die", execID=made.id, exitCode=str(state.code))
    return True


async def _await_end(engine: Engine, made: ExecRecord) -> None:
    """Output ends with the program. Where that runs on, its monitor was killed, which cut the output;
    the monitor's successor will know how it ends."""
    pause = _LOOK_SECONDS
    while not await _note_end(engine, made):
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LOOK_SECONDS_MOST)


def _spec(made: ExecRecord, tty: bool, size: Any) -> ExecSpec:
    body = made.body
    command = body["Cmd"]
    rows, columns = size if len(size) == 2 else (0, 0)
    return ExecSpec(
        id=made.container,
        exec_id=made.id,
        args=(command,) if isinstance(command, str) else tuple(command),
        env=tuple(body.get("Env") or ()),
        cwd=body.get("WorkingDir") or "",
        user=body.get("User") or "",
        tty=tty,
        rows=int(rows),
        columns=int(columns),
        stdin=bool(body.get("AttachStdin")),
        privileged=bool(body.get("Privileged")),
    )


async def _started(engine: Engine, made: ExecRecord, spec: ExecSpec) -> ExecState:
    """Run it; a program that can't be executed leaves its code behind, as in a shell."""
    try:
        return await engine.node.exec(spec)
    except (NotFound, FailedPrecondition, InvalidArgument, Unavailable) as error:
        shown = start_error(error, spec.args, "exec")
        of_the_container = any(words in error.message for words in _OF_THE_CONTAINER)
        if shown is error and of_the_container and not isinstance(error, Unavailable):
            raise
        lowered = error.message.lower()
        missing = "not found" in lowered or "no such file" in lowered
        engine.failed_execs[made.id] = 127 if missing else 126
        while len(engine.failed_execs) > _KEPT:
            engine.failed_execs.pop(next(iter(engine.failed_execs)))
        raise shown from None


def _tell(client: RawStream, text: str, *, raw: bool) -> None:
    data = text.encode()
    client.write(data if raw else pack(Frame.STDOUT, data))


def _wanted(body: dict[str, Any]) -> tuple[int, ...]:
    pairs = (("AttachStdout", Frame.STDOUT), ("AttachStderr", Frame.STDERR))
    return tuple(int(kind) for name, kind in pairs if body.get(name))


async def _begun(engine: Engine, made: ExecRecord) -> ExecState | None:
    """How it fares, if it was started before; of one just made here nobody need be asked."""
    if made.id in engine.fresh:
        engine.fresh.discard(made.id)
        return None
    return await _known(engine, made)


async def _known(engine: Engine, made: ExecRecord) -> ExecState | None:
    try:
        return await engine.node.exec_state(ExecRef(id=made.container, exec_id=made.id))
    except NotFound:
        return None


async def inspect(engine: Engine, ask: Ask) -> Response:
    """How an exec fares."""
    made = await engine.catalog.exec(ask["id"])
    body = made.body
    state = await _known(engine, made)
    code = state.code if state is not None and not state.running else None
    if state is None:
        code = engine.failed_execs.get(made.id)
    command = body["Cmd"]
    words = [command] if isinstance(command, str) else list(command)
    process: dict[str, Any] = {
        "tty": bool(body.get("Tty")),
        "entrypoint": words[0],
        "arguments": words[1:],
        "privileged": bool(body.get("Privileged")),
    }
    if user := _user(engine, made):
        process["user"] = user
    view = {
        "ID": made.id,
        "Running": bool(state and state.running),
        "ExitCode": code,
        "ProcessConfig": process,
        "OpenStdin": bool(body.get("AttachStdin")),
        "OpenStderr": bool(body.get("AttachStderr")),
        "OpenStdout": bool(body.get("AttachStdout")),
        "CanRemove": False,
        "ContainerID": made.container,
        "DetachKeys": _keys_text(str(body.get("DetachKeys") or "")),
        "Pid": state.pid if state else 0,
    }
    return answer(msgspec.to_builtins(view))


def _keys_text(keys: str) -> str:
    """The keys as bytes of a terminal; Docker shows them in base64."""
    return base64.b64encode(parse_keys(keys)).decode() if keys else ""


def _user(engine: Engine, made: ExecRecord) -> str:
    """Whose it is: the container's unless it was made for another one."""
    record = engine.catalog.containers.get(made.container)
    own = record.config.get("User") if record is not None else ""
    return str(made.body.get("User") or own or "")


async def resize(engine: Engine, ask: Ask) -> Response:
    """The size of an exec's terminal."""
    rows, columns = ask.extent("h", "height"), ask.extent("w", "width")
    made = await engine.catalog.exec(ask["id"])
    await engine.node.resize(
        ResizeSpec(id=made.container, exec_id=made.id, rows=rows, columns=columns)
    )
    return empty(200)
