"""The life of containers: start, stop, restart, kill, pause, wait, resize."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import msgspec

from sagong.call import carried, deadline
from sagong.contracts.node import (
    ContainerStatus,
    KillRequest,
    Ref,
    RemoveRequest,
    ResizeSpec,
    StartRequest,
    StatusState,
    StopRequest,
    WaitRequest,
    WaitResult,
)
from sagong.errors import (
    Conflict,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    SagongError,
    Unavailable,
)
from sagong.http import Response
from sagong_docker.ask import Ask, convert
from sagong_docker.body import HostConfig
from sagong_docker.connectivity import network_error
from sagong_docker.engine import Engine
from sagong_docker.lenders import check_lenders
from sagong_docker.linking import bring
from sagong_docker.log_options import check_driver
from sagong_docker.network_body import NO_ENDPOINT, is_configuration
from sagong_docker.network_view import endpoint_id
from sagong_docker.record import ContainerRecord
from sagong_docker.refusal import empty
from sagong_docker.signals import number
from sagong_docker.wiring import main_network

__all__ = ["kill", "pause", "resize", "restart", "start", "start_error", "stop", "unpause", "wait"]

_UNKNOWN = 125
_CONDITIONS = frozenset(("", "not-running", "next-exit", "removed"))
_PROGRAM_WORDS = (
    "executable file not found",
    "no such file or directory",
    "permission denied",
    "is a directory",
    "not a directory",
    "exec format error",
)
# Of a mount's source, a device, a limit's device: they are no programs.
_OTHER_WORDS = ("cannot access path", "error gathering device information", "setting cgroup limits")


async def start(engine: Engine, ask: Ask) -> Response:
    """`docker start`: 304 when it runs already, or will by itself."""
    record = await engine.container(ask["id"])
    async with engine.starting(record.id):
        return await _start(engine, record)


async def _start(engine: Engine, record: ContainerRecord) -> Response:
    state, run = await engine.state(record)
    if state is StatusState.PAUSED:
        raise Conflict("cannot start a paused container, try unpause instead")
    if state in (StatusState.RUNNING, StatusState.RESTARTING):
        return empty(304)
    engine.fresh.discard(record.id)
    await _check(engine, record)
    held = engine.pending.hold(record.id)
    request = StartRequest(
        id=record.id,
        run=run + 1,
        expect_attach=held is not None,
        attach_stdin=held is not None and held.stdin,
    )
    try:
        with engine.attempting(record.id), deadline(120.0):
            status = await _started(engine, record, request)
    except asyncio.CancelledError:
        engine.pending.unanswered(record.id)
        raise
    except SagongError as error:
        engine.pending.ended(record.id)
        if record.host.get("AutoRemove") and not isinstance(error, Unavailable):
            await _remove_failed(engine, record)
        raise
    engine.pending.started(record.id, status.stream)
    return empty()


async def _started(
    engine: Engine, record: ContainerRecord, request: StartRequest
) -> ContainerStatus:
    """Run it; a program that could not be executed has joined its networks, and left them."""
    try:
        return await engine.node.start(request)
    except SagongError as error:
        refused = _of_network(engine, record, error)
        if refused is not error:
            raise refused from None
        shown = start_error(error, await _args(engine, record))
        if shown is not error:
            engine.note_attempt(record)
        raise shown from None


async def _check(engine: Engine, record: ContainerRecord) -> None:
    """Whether there is what it needs of others; one of `--rm` goes if not."""
    try:
        check_driver(record.host)
        await check_lenders(engine, record)
        await bring(engine, record)
    except SagongError as error:
        engine.pending.ended(record.id)
        if record.host.get("AutoRemove") and not isinstance(error, Unavailable):
            await _remove_failed(engine, record)
        raise


def _of_network(engine: Engine, record: ContainerRecord, error: SagongError) -> SagongError:
    """Nobody but us knows configuration networks: to all others there is none."""
    configurations = filter(is_configuration, engine.catalog.networks.values())
    if isinstance(error, NotFound) and any(c.id in error.message for c in configurations):
        return PermissionDenied(NO_ENDPOINT)
    name = main_network(convert(record.host, HostConfig), engine.settings.default_network)
    network = engine.seen_networks.get(name)
    endpoint = endpoint_id(record.id, network.id if network else name)
    return network_error(error, record.name, endpoint)


async def _args(engine: Engine, record: ContainerRecord) -> tuple[str, ...]:
    """The command that was to be executed, if it got so far."""
    with contextlib.suppress(SagongError):
        return (await engine.node.inspect(Ref(id=record.id))).args
    return ()


async def _remove_failed(engine: Engine, record: ContainerRecord) -> None:
    """A container of `--rm` that could not start is removed: its client waits for that."""
    with contextlib.suppress(SagongError):
        await engine.node.remove(RemoveRequest(id=record.id, force=True, volumes=True))
    engine.forget(record.id)


def start_error(
    error: SagongError, args: tuple[str, ...] = (), what: str = "create"
) -> SagongError:
    """A program that can't be executed, in the words from which clients take the exit code."""
    lowered = error.message.lower()
    if not isinstance(error, NotFound | FailedPrecondition | InvalidArgument):
        return error
    if any(words in lowered for words in _OTHER_WORDS):
        return error
    if not any(words in lowered for words in _PROGRAM_WORDS):
        return error
    if lowered.startswith("oci runtime"):
        return InvalidArgument(error.message)
    told = any(words in lowered for words in ("exec:", "stat ", "chdir to cwd"))
    text = error.message if told else _exec_text(error, args)
    # The words of clients that look for an exec that failed are those of runc.
    failed = "exec failed: exec failed" if what == "exec" else f"{what} failed"
    return InvalidArgument(
        f"OCI runtime {failed}: unable to start container process: {text}: unknown"
    )


def _exec_text(error: SagongError, args: tuple[str, ...]) -> str:
    program = f'"{args[0]}": ' if args and args[0] not in error.message else ""
    return f"exec: {program}{error.message}"


def _stop_request(record: ContainerRecord, ask: Ask) -> StopRequest:
    seconds = float(ask.number("t")) if ask.text("t") else None
    signal = ask.text("signal") if ask.version >= (1, 42) else ""
    try:
        wanted = str(number(signal)) if signal else ""
    except InvalidArgument as error:
        raise InvalidArgument(f"cannot stop container: {ask['id']}: {error.message}") from None
    return StopRequest(id=record.id, seconds=seconds, signal=wanted)


async def stop(engine: Engine, ask: Ask) -> Response:
    """`docker stop`: 304 when it doesn't run."""
    record = await engine.container(ask["id"])
    request = _stop_request(record, ask)
    status = await engine.status(record)
    if status.state not in (StatusState.RUNNING, StatusState.PAUSED, StatusState.RESTARTING):
        return empty(304)
    # A client that goes away does not leave the container half stopped.
    await carried(asyncio.ensure_future(engine.node.stop(request)))
    return empty()


async def restart(engine: Engine, ask: Ask) -> Response:
    """`docker restart`."""
    record = await engine.container(ask["id"])
    check_driver(record.host)
    await bring(engine, record)
    try:
        await carried(asyncio.ensure_future(engine.node.restart(_stop_request(record, ask))))
    except SagongError as error:
        raise start_error(_of_network(engine, record, error)) from None
    return empty()


async def kill(engine: Engine, ask: Ask) -> Response:
    """`docker kill`."""
    try:
        wanted = str(number(ask.text("signal") or "SIGKILL"))
        record = await engine.container(ask["id"])
    except (InvalidArgument, NotFound) as error:
        raise type(error)(f"cannot kill container: {ask['id']}: {error.message}") from None
    try:
        await engine.node.kill(KillRequest(id=record.id, signal=wanted))
    except FailedPrecondition:
        raise Conflict(
            f"cannot kill container: {ask['id']}: container {record.id} is not running"
        ) from None
    return empty()


async def pause(engine: Engine, ask: Ask) -> Response:
    """`docker pause`."""
    record = await engine.container(ask["id"])
    await engine.node.pause(Ref(id=record.id))
    return empty()


async def unpause(engine: Engine, ask: Ask) -> Response:
    """`docker unpause`."""
    record = await engine.container(ask["id"])
    await engine.node.resume(Ref(id=record.id))
    return empty()


async def resize(engine: Engine, ask: Ask) -> Response:
    """The size of the container's terminal."""
    rows, columns = ask.extent("h", "height"), ask.extent("w", "width")
    record = await engine.container(ask["id"])
    await engine.node.resize(ResizeSpec(id=record.id, rows=rows, columns=columns))
    return empty(200)


async def wait(engine: Engine, ask: Ask) -> Response | None:
    """`docker wait`: the head is sent as soon as the wait stands, the code when it ends."""
    record = await engine.container(ask["id"])
    condition = ask.text("condition")
    if condition not in _CONDITIONS:
        raise InvalidArgument(f'invalid condition: "{condition}"')
    request = WaitRequest(id=record.id, condition=condition or "not-running")
    results = _results(engine, request)
    # One just made is there, and the node hears of this wait before it hears of a start.
    if record.id not in engine.fresh:
        try:
            await anext(results)
        except NotFound:
            raise NotFound(f"No such container: {ask['id']}") from None
    out = ask.request.stream(200, {"Content-Type": "application/json"})
    view = await _end(results, condition)
    if condition == "removed":
        engine.forget(record.id)
    await out.write(msgspec.json.encode(view) + b"\n")
    return None


async def _end(results: AsyncIterator[WaitResult], condition: str) -> dict[str, object]:
    """How it ended, in Docker's form; an end that nobody knows is told as an error, never as 0."""
    try:
        async for result in results:
            if not result.waiting:
                shown = result.error if condition != "removed" else ""
                return _wait_view(result.code, shown)
    except NotFound as error:
        return _wait_view(_UNKNOWN, f"{error.message}: it is removed, and its exit code not known")
    return _wait_view(_UNKNOWN, "the wait ended before the container")


def _wait_view(code: int, error: str) -> dict[str, object]:
    return {"StatusCode": code} | ({"Error": {"Message": error}} if error else {})


async def _results(engine: Engine, request: WaitRequest) -> AsyncIterator[WaitResult]:
    """The results of a wait, over restarts and swaps of the node."""
    while True:
        try:
            async for result in engine.node.wait(request):
                if result.waiting:
                    request = msgspec.structs.replace(request, run=result.run)
                yield result
            return
        except Unavailable:
            await asyncio.sleep(0.1)
