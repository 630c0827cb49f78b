"""The catalog: names, create bodies, execs and networks as Docker's users gave them.

It is read from memory and durable in the state (`sagong.keyspace`).
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import logging
import uuid
from typing import Any, TypeVar

import msgspec

from sagong.call import detached
from sagong.contracts.state import (
    Compare,
    Operation,
    OperationKind,
    State,
)
from sagong.errors import (
    AlreadyExists,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Unavailable,
)
from sagong.keyspace import Keyspace
from sagong_docker.record import ContainerRecord, ExecRecord, NetworkRecord

__all__ = ["Catalog"]

_ROOT, _END = "/docker/", "/docker0"
_KINDS: dict[str, type[Any]] = {
    "containers": ContainerRecord,
    "execs": ExecRecord,
    "networks": NetworkRecord,
}
_SHORTEST_PREFIX = 1
_GATHER, _MOST = 0.1, 100
# How often it is looked whether a name is free: on a full disk, and on one that is slow.
_TRIES, _TRIES_MOST = 20, 200
# The node writes its record of a container a moment after ours: both can share the disk's time.
_BESIDE = 0.005
R = TypeVar("R", ContainerRecord, ExecRecord, NetworkRecord)


class Catalog:
    """All records; `load` first, then `follow` in the background."""

    def __init__(self, state: State) -> None:
        self.containers: dict[str, ContainerRecord] = {}
        self.names: dict[str, str] = {}
        self.execs: dict[str, ExecRecord] = {}
        self.networks: dict[str, NetworkRecord] = {}
        self._keyspace = Keyspace(state, start=_ROOT, end=_END, records=self)
        self._ids: list[str] = []
        self._gone: dict[str, None] = {}
        self._hurry = asyncio.Event()
        self._forgetting: asyncio.Future[None] | None = None
        # Whether there was no room for the last deletion.
        self._refused = False

    async def load(self) -> None:
        """Read everything."""
        await self._keyspace.load()

    async def follow(self, log: logging.Logger) -> None:
        """Show what others write, for ever."""
        await self._keyspace.follow(log)

    async def identity(self) -> str:
        """The engine's own id, made once."""
        key = f"{_ROOT}id"
        made = str(uuid.uuid4())
        await self._keyspace.commit([_put(key, made.encode())], [Compare(key=key, revision=0)])
        found = await self._keyspace.read(key)
        return found.value.decode() if found else made

    def find(self, reference: str) -> ContainerRecord | None:
        """By id, name, or unique beginning of an id."""
        reference = reference.removeprefix("/")
        found = self.containers.get(reference) or self.containers.get(self.names.get(reference, ""))
        if found is not None or len(reference) < _SHORTEST_PREFIX:
            return found
        at = bisect.bisect_left(self._ids, reference)
        matches = [id_ for id_ in self._ids[at : at + 2] if id_.startswith(reference)]
        if len(matches) > 1:
            raise InvalidArgument(f"multiple IDs found with provided prefix: {reference}")
        return self.containers[matches[0]] if matches else None

    async def has_container(self, id_: str) -> bool:
        """Whether there is a record of exactly this container, though we may not have heard of it."""
        if id_ in self.containers:
            return True
        return await self._keyspace.read(f"{_ROOT}containers/{id_}") is not None

    async def exec(self, id_: str) -> ExecRecord:
        """An exec by its id, also one that another generation of the service has just made."""
        if id_ not in self.execs:
            await self._keyspace.read(f"{_ROOT}execs/{id_}")
        try:
            return self.execs[id_]
        except KeyError:
            raise NotFound(f"No such exec instance: {id_}") from None

    def execs_of(self, container: str) -> list[ExecRecord]:
        """A container's, the oldest first."""
        return [e for e in self.execs.values() if e.container == container]

    async def add_container(self, record: ContainerRecord) -> None:
        """Keep a new container; AlreadyExists, in Docker's words, when its name is taken."""
        await self._free(record.name)
        key = f"{_ROOT}names/{record.name}"
        done = await self._keyspace.commit(
            [_put(key, record.id.encode()), _put(_key(record), _encoded(record))],
            [Compare(key=key, revision=0)],
            patience=_BESIDE,
        )
        if not done:
            raise await self._taken(record.name)

    async def change_container(self, record: ContainerRecord) -> None:
        """Replace a container's record; its name stays."""
        await self._keyspace.commit([_put(_key(record), _encoded(record))], [])

    async def rename_container(self, record: ContainerRecord, name: str) -> ContainerRecord:
        """Give it another name."""
        await self._free(name)
        key = f"{_ROOT}names/{name}"
        renamed = msgspec.structs.replace(record, name=name)
        done = await self._keyspace.commit(
            [
                _put(key, record.id.encode()),
                _delete(f"{_ROOT}names/{record.name}"),
                _put(_key(record), _encoded(renamed)),
            ],
            [Compare(key=key, revision=0)],
        )
        if not done:
            raise await self._taken(name)
        return renamed

    def forget_container(self, id_: str) -> None:
        """Drop a container, its name and its execs from memory now, from the state soon.

        A crash before that leaves a record whose container is gone; such records are swept.
        """
        record = self.containers.get(id_)
        if record is None:
            return
        keys = [_key(record)]
        if self.names.get(record.name) == id_:
            keys.append(f"{_ROOT}names/{record.name}")
        keys += [_key(e) for e in self.execs_of(id_)]
        for key in keys:
            self.drop(key)
        self._gone.update(dict.fromkeys(keys))
        if self._forgetting is None or self._forgetting.done():
            self._forgetting = asyncio.ensure_future(self._forget_gone())
            self._forgetting.add_done_callback(self._forgotten)

    async def _forget_gone(self) -> None:
        """Delete what is dropped, with all that is dropped within the next moment."""
        with detached():
            while self._gone:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._hurry.wait(), _GATHER)
                self._hurry.clear()
                keys = [*self._gone][:_MOST]
                await self._delete([_delete(key) for key in keys])
                for key in keys:
                    del self._gone[key]

    async def _delete(self, operations: list[Operation]) -> None:
        while True:
            try:
                await self._keyspace.commit(operations, [])
                self._refused = False
                return
            except (Unavailable, ResourceExhausted) as error:
                # A full disk is not full for ever, and the names have to be free then.
                self._refused = isinstance(error, ResourceExhausted)
                await asyncio.sleep(_GATHER)

    def _forgotten(self, done: asyncio.Future[None]) -> None:
        if self._forgetting is done:
            self._forgetting = None
        if not done.cancelled() and done.exception() is not None:
            self._gone.clear()
            logging.getLogger("sagong.docker").warning(
                "records stay until the next sweep", extra={"error": str(done.exception())}
            )

    async def close(self) -> None:
        """Wait until what was dropped is dropped for good; at most a second."""
        if self._forgetting is not None:
            self._hurry.set()
            await asyncio.wait([self._forgetting], timeout=1.0)

    async def _free(self, name: str) -> None:
        """A name that is being given up can be taken then; Unavailable if that takes long."""
        tries = 0
        while self._forgetting is not None and f"{_ROOT}names/{name}" in self._gone:
            if tries == (_TRIES if self._refused else _TRIES_MOST):
                raise Unavailable(f"the name {name} is only just given up; try again")
            tries += 1
            self._hurry.set()
            await asyncio.wait([self._forgetting], timeout=_GATHER)

    async def keep(self, record: ExecRecord | NetworkRecord) -> None:
        """Keep an exec or a network."""
        await self._keyspace.commit([_put(_key(record), _encoded(record))], [])

    async def forget(self, *records: ExecRecord | NetworkRecord) -> None:
        """Drop execs or networks."""
        if records:
            await self._keyspace.commit([_delete(_key(r)) for r in records], [])

    async def _taken(self, name: str) -> AlreadyExists:
        owner = self.names.get(name, "")
        if not owner:
            found = await self._keyspace.read(f"{_ROOT}names/{name}")
            owner = found.value.decode() if found else ""
        return AlreadyExists(
            f'Conflict. The container name "/{name}" is already in use by container "{owner}". '
            "You have to remove (or rename) that container to be able to reuse that name.",
            detail={"owner": owner},
        )

    def clear(self) -> None:
        """See `Records`."""
        for table in (self.containers, self.names, self.execs, self.networks):
            table.clear()
        self._ids.clear()

    def place(self, key: str, value: bytes, revision: int) -> None:
        """See `Records`. What was dropped and is not yet deleted does not come back meanwhile."""
        if key in self._gone:
            return
        kind, _, name = key.removeprefix(_ROOT).partition("/")
        if kind == "names":
            self.names[name] = value.decode()
            return
        decoded = _KINDS.get(kind)
        if decoded is None:
            return
        table = getattr(self, kind)
        if kind == "containers" and name not in table:
            bisect.insort(self._ids, name)
        table[name] = msgspec.json.decode(value, type=decoded)

    def drop(self, key: str) -> None:
        """See `Records`."""
        kind, _, name = key.removeprefix(_ROOT).partition("/")
        if kind == "names":
            self.names.pop(name, None)
            return
        known = kind in _KINDS and getattr(self, kind).pop(name, None) is not None
        if known and kind == "containers":
            self._ids.remove(name)


def _key(record: ContainerRecord | ExecRecord | NetworkRecord) -> str:
    kind = next(k for k, v in _KINDS.items() if isinstance(record, v))
    return f"{_ROOT}{kind}/{record.id}"


def _encoded(record: msgspec.Struct) -> bytes:
    return msgspec.json.encode(record)


def _put(key: str, value: bytes) -> Operation:
    return Operation(kind=OperationKind.PUT, key=key, value=value)


def _delete(key: str) -> Operation:
    return Operation(kind=OperationKind.DELETE, key=key, quiet=True)
