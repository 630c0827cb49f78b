"""Containers whose namespaces another one joins: what they must be when that one starts."""

from __future__ import annotations

from sagong.contracts.node import Ref, StatusState
from sagong.errors import Conflict, InvalidArgument, NotFound, SagongError
from sagong_docker.engine import Engine
from sagong_docker.record import ContainerRecord

__all__ = ["check_lenders"]

_CLOSED_IPC = (None, "", "private", "none")
_JOINED = (("IpcMode", "IPC"), ("PidMode", "PID"))


async def check_lenders(engine: Engine, record: ContainerRecord) -> None:
    """Refuse the start, in Docker's words, if one does not run, or keeps its IPC for itself."""
    for key, kind in _JOINED:
        other = _lender(record, key)
        if not other:
            continue
        try:
            await _check_running(engine, other)
            _check_shared(engine, other, key)
        except (Conflict, InvalidArgument) as error:
            # What is wrong is the other one: an error of the engine, not of the request.
            raise SagongError(f"failed to join {kind} namespace: {error.message}") from None
    if other := _lender(record, "NetworkMode"):
        await _check_lends_network(engine, other)


async def _check_lends_network(engine: Engine, other: str) -> None:
    try:
        lender = await engine.container(other)
        await _check_running(engine, lender.id)
    except NotFound as error:
        raise SagongError(f"joining network namespace of container: {error.message}") from None
    except Conflict:
        state = (await engine.state(lender))[0]
        raise SagongError(
            "cannot join network namespace of a non running container: "
            f"container {lender.name} is {state}"
        ) from None


def _lender(record: ContainerRecord, key: str) -> str:
    kind, _, other = str(record.host.get(key) or "").partition(":")
    return other if kind == "container" else ""


async def _check_running(engine: Engine, id_: str) -> None:
    try:
        state = (await engine.node.inspect(Ref(id=id_))).state
    except NotFound as error:
        raise InvalidArgument(error.message) from None
    if state is StatusState.RESTARTING:
        raise Conflict(f"container {id_} is restarting, wait until the container is running")
    if state not in (StatusState.RUNNING, StatusState.PAUSED):
        raise Conflict(f"container {id_} is not running")


def _check_shared(engine: Engine, id_: str, key: str) -> None:
    lender = engine.catalog.containers.get(id_)
    if key == "IpcMode" and lender is not None and lender.host.get("IpcMode") in _CLOSED_IPC:
        raise InvalidArgument(
            f"container {id_}: non-shareable IPC "
            "(hint: use IpcMode:shareable for the donor container)"
        )
