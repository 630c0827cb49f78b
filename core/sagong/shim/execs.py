"""Further processes in containers: planned for the engine that made each, and how they fare."""

from __future__ import annotations

from typing import Any, Protocol, cast

import msgspec

from sagong.contracts.runtime import ExecRequest, ExecStatus, RunSpec
from sagong.errors import FailedPrecondition, NotFound, SagongError, Unavailable
from sagong.shim.books import Books
from sagong.shim.engines import load
from sagong.shim.facts import HostFacts
from sagong.shim.failure import StartError
from sagong.shim.records import ExecRecord, Record

__all__ = ["ExecPlan", "Execs"]

_REMEMBERED = 32


class ExecPlan(Protocol):
    """From what is asked to the message for a monitor, whose engine understands it; pure."""

    def __call__(
        self, spec: RunSpec, request: ExecRequest, facts: HostFacts, *, cgroup: str
    ) -> dict[str, Any]:
        """All of it but who made the container, and what that engine was told."""
        ...


class Execs:
    """Of all containers, whoever made them."""

    def __init__(self, books: Books) -> None:
        self._books = books

    def known(self, record: Record, exec_id: str) -> ExecRecord | None:
        """One that was started, perhaps by a predecessor after its records were read."""
        found = record.execs.get(exec_id)
        if found is None:
            found = self._books.files.execution(record.spec.id, exec_id)
            if found is not None:
                record.execs[exec_id] = found
        return found

    async def start(self, record: Record, request: ExecRequest) -> ExecStatus:
        """Start one that is not known yet."""
        message = _message(record, request, self._books.facts)
        new = record.execs[request.exec_id] = ExecRecord()

        async def again() -> bool:
            return self._books.files.withdraw_exec(record.spec.id, request.exec_id)

        try:
            answer = await self._books.links.ask(record.key, message, again=again)
        except SagongError:
            record.execs.pop(request.exec_id, None)
            # What a monitor started before it died is found by who asks again.
            record.execs = self._books.files.execs(record.spec.id) | record.execs
            raise
        new.pid = answer["pid"]
        stream = self._books.address(record, answer["token"])
        return msgspec.structs.replace(new.status(request.exec_id), stream=stream)

    async def again(self, record: Record, request: ExecRequest, known: ExecRecord) -> ExecStatus:
        """Its status, with its streams if they are still there."""
        message = {
            "op": "attach",
            "id": request.id,
            "exec_id": request.exec_id,
            "stdin": request.process.stdin,
            "replay": True,
        }
        status = known.status(request.exec_id)
        try:
            answer = await self._books.links.ask(record.key, message)
        except (NotFound, FailedPrecondition, Unavailable):
            return status
        return msgspec.structs.replace(status, stream=self._books.address(record, answer["token"]))

    def status(self, record: Record, request: ExecRequest) -> ExecStatus:
        """How it fares."""
        known = record.execs.get(request.exec_id)
        if known is None:
            raise NotFound(f"No such exec instance: {request.exec_id}")
        if known.code is None:
            # It is written before the streams end, and told after: who has seen their end asks at once.
            written = self._books.files.execution(request.id, request.exec_id)
            known.code = written.code if written is not None else None
        return known.status(request.exec_id)

    def ended(self, record: Record, exec_id: str, code: int) -> None:
        """Of those that ended only the youngest are remembered; each has files."""
        record.execs.setdefault(exec_id, ExecRecord()).code = code
        over = [name for name, known in record.execs.items() if known.code is not None]
        for name in over[:-_REMEMBERED]:
            del record.execs[name]
            self._books.files.remove_exec(record.spec.id, name)

    def learn_codes(self, record: Record) -> None:
        """A monitor may die between writing a code and telling it."""
        for exec_id, found in self._books.files.execs(record.spec.id).items():
            record.execs.setdefault(exec_id, found).code = found.code


def _message(record: Record, request: ExecRequest, facts: HostFacts) -> dict[str, Any]:
    """By the plan of the container's maker: what one engine makes, another could not enter."""
    maker, engine = record.made
    try:
        plan = cast(ExecPlan, load(load(maker).exec_plan))
    except (StartError, AttributeError) as error:
        raise FailedPrecondition(
            f"container {record.spec.id[:12]} was started by {maker.partition('.')[0]}, which can "
            f"execute nothing from here ({error}): restart the container or swap back"
        ) from None
    message = plan(record.spec, request, facts, cgroup=record.cgroup)
    return {**message, "maker": maker, "engine": engine}
