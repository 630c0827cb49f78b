"""How a container's start is asked of its monitor: at once, or prepared and let go when wanted."""

from __future__ import annotations

import contextlib
from typing import Any, Protocol

import msgspec

from sagong.contracts.runtime import Container, RunSpec
from sagong.errors import AlreadyExists, InvalidArgument, SagongError, Unavailable
from sagong.shim.books import Books
from sagong.shim.facts import HostFacts
from sagong.shim.records import Made, Record
from sagong.shim.requests import cgroup_path, hold_seconds, layer_limit
from sagong.shim.rooms import Rooms

__all__ = ["Plans", "Starts"]


class Plans(Protocol):
    """From what is asked to the messages that the runtime's engine understands; pure.

    `maker` names the engine that they are for (`Engine.maker`). An exec is planned by the maker of
    its container (`execs`), which may be another one after a swap.
    """

    maker: str

    def run(self, spec: RunSpec, facts: HostFacts) -> dict[str, Any]:
        """The message that makes a monitor start this container."""
        ...

    @property
    def engine(self) -> dict[str, Any]:
        """What the engine is told with each run, and of its containers with each exec and job, by their
        key "engine"."""
        ...


class Starts:
    """Begins runs. Its callers see to it that one container's are not begun at once."""

    def __init__(self, books: Books, plans: Plans, rooms: Rooms, cgroup_parent: str) -> None:
        self._books = books
        self._plans = plans
        self._rooms = rooms
        self._cgroup_parent = cgroup_parent

    def new_record(self, spec: RunSpec) -> Record:
        """Of a run that begins; its monitor is chosen."""
        cgroup = cgroup_path(spec, self._cgroup_parent)
        key = self._rooms.choose(spec, self._books.records.values())
        return Record(spec, key, cgroup, Made(self._plans.maker, self._plans.engine))

    async def run(self, spec: RunSpec) -> Container:
        """Start a container; what was prepared for this run is let go, for another it is discarded."""
        former = self._books.records.get(spec.id)
        if former is not None and former.prepared:
            begun = await self._let_go(former, spec)
            if begun is not None:
                return begun
            former = None
        if former is not None and former.spec.run == spec.run:
            return former.container()
        record, answer = await self._place("run", spec, former)
        return self._begun(record, answer)

    async def prepare(self, spec: RunSpec) -> None:
        """Do all of a start but its program's execution."""
        former = self._books.records.get(spec.id)
        if former is not None and former.prepared:
            if _alike(former.spec, spec):
                return
            await self.discard(former)
            former = None
        if former is None or former.spec.run != spec.run:
            await self._place("prepare", spec, former)

    async def discard(self, record: Record) -> None:
        """Take back what was prepared."""
        message = {"op": "discard", "id": record.spec.id, "run": record.spec.run}
        try:
            await self._books.links.ask(record.key, message, again=_never)
        except SagongError:
            # Its monitor is another one, and does not know of it.
            with contextlib.suppress(SagongError):
                await self._books.job(record, "sweep")
        self.forget(record)

    def forget(self, record: Record) -> None:
        """Nothing is left of what was prepared."""
        if self._books.records.get(record.spec.id) is record:
            del self._books.records[record.spec.id]
            self._books.files.remove(record.spec.id)

    async def _let_go(self, record: Record, spec: RunSpec) -> Container | None:
        """The prepared program runs; None if that is not to be, and nothing is left of it."""
        if not _alike(record.spec, spec):
            await self.discard(record)
            return None
        message = {"op": "go", "id": spec.id, "run": spec.run, "hold": hold_seconds(spec)}
        try:
            answer = await self._books.links.ask(
                record.key, message | _attached(spec), again=_never
            )
        except SagongError as error:
            executed = self._books.files.state(spec.id) is not None
            await self._undo(record, Unavailable(error.message))
            if executed:
                raise
            return None
        record.spec = spec
        return self._begun(record, answer)

    async def _place(
        self, operation: str, spec: RunSpec, former: Record | None
    ) -> tuple[Record, dict[str, Any]]:
        """A new record, and the monitor's answer."""
        if former is not None and former.exit is None:
            raise AlreadyExists(f"run {former.spec.run} of container {spec.id} is running")
        books = self._books
        resolved, limit = layer_limit(self._resolve(spec))
        whole = {"op": operation, "maker": self._plans.maker, "group": spec.group or spec.id}
        request = self._plans.run(resolved, books.facts) | whole | _attached(spec)
        if former is not None:
            await books.clear(former)
        record = self.new_record(spec)
        record.prepared = operation == "prepare"
        books.files.create(spec)
        books.records[spec.id] = record
        try:
            if limit is not None:
                await books.job(record, "bound", **limit)
            return record, await self._ask(record, request)
        except SagongError as error:
            await self._undo(record, error)
            raise

    async def _ask(self, record: Record, request: dict[str, Any]) -> dict[str, Any]:
        """The monitor may end or die just now: its successor starts the container."""

        async def again() -> bool:
            if self._books.files.state(record.spec.id) is not None:
                return False
            await self._books.job(record, "sweep")
            self._books.files.create(record.spec)
            return True

        return await self._books.links.ask(record.key, request, again=again)

    def _begun(self, record: Record, answer: dict[str, Any]) -> Container:
        record.pid, record.started_at = answer["pid"], answer["started_at"]
        record.started = answer["started"]
        record.starting = record.prepared = False
        token = answer.get("token")  # monitors of before give none
        stream = None if token is None else self._books.address(record, token)
        return msgspec.structs.replace(record.container(), stream=stream)

    async def _undo(self, record: Record, error: SagongError) -> None:
        """Nothing stays of a failed start, even when its monitor died in the middle."""
        if isinstance(error, Unavailable):
            with contextlib.suppress(SagongError):
                await self._books.job(record, "sweep")
        self._books.records.pop(record.spec.id, None)
        self._books.files.remove(record.spec.id)

    def _resolve(self, spec: RunSpec) -> RunSpec:
        """Namespaces of other containers become paths."""
        changed = {}
        for field in ("network", "pid", "ipc", "uts", "cgroup", "user"):
            value = getattr(spec.namespaces, field)
            kind, _, name = value.partition(":")
            if kind == "container":
                other = self._books.running(name)
                file = {"network": "net"}.get(field, field)
                changed[field] = f"path:/proc/{other.pid}/ns/{file}"
            elif value == "group" and not spec.group:
                raise InvalidArgument(f"namespace {field} of {spec.id}: the spec names no group")
            elif value not in ("new", "host", "group") and not value.startswith("path:/"):
                raise InvalidArgument(f"namespace {field}={value!r} is not understood")
        if not changed:
            return spec
        spaces = msgspec.structs.replace(spec.namespaces, **changed)
        return msgspec.structs.replace(spec, namespaces=spaces)


def _attached(spec: RunSpec) -> dict[str, Any]:
    """What a start's request says of the attach that it expects."""
    return {"attach": {"stdin": spec.attach_stdin}} if spec.expect_attach else {}


def _alike(one: RunSpec, other: RunSpec) -> bool:
    """Whether they differ in nothing but who attaches."""
    changes = {"expect_attach": other.expect_attach, "attach_stdin": other.attach_stdin}
    return msgspec.structs.replace(one, **changes) == other


async def _never() -> bool:
    return False
