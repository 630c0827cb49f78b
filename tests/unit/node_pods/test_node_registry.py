"""The records of `node`: what is written when, and in how many transactions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.unit.node_pods.pod_lab import FakeState

from sagong.contracts.network import JoinRequest
from sagong.contracts.node import ContainerSpec, SandboxSpec
from sagong.contracts.state import Transaction, TransactionResult
from sagong_node.records import ContainerRecord, SandboxRecord
from sagong_node.registry import Registry


class Recorded(FakeState):
    """Notes the keys of each transaction; `gate` holds them up."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[list[str]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def commit(self, transaction: Transaction) -> TransactionResult:
        await self.gate.wait()
        self.written.append([o.key.rpartition("/")[2] for o in transaction.success])
        return await super().commit(transaction)


@asynccontextmanager
async def opened() -> AsyncIterator[tuple[Registry, Recorded]]:
    state = Recorded()
    registry = Registry(state)
    writing = asyncio.create_task(registry.write_behind())
    try:
        yield registry, state
    finally:
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)


def container(name: str) -> ContainerRecord:
    return ContainerRecord(spec=ContainerSpec(id=name, sandbox=f"{name}-box", name=name, image=""))


def sandbox(name: str) -> SandboxRecord:
    return SandboxRecord(
        spec=SandboxSpec(id=f"{name}-box", owner="docker", network=JoinRequest(id=f"{name}-box"))
    )


async def make(registry: Registry, name: str) -> ContainerRecord:
    """As a creation does, whose start comes next."""
    record = container(name)
    registry.keep(sandbox(name), later=True)
    registry.intend(record)
    await registry.stored(record)
    registry.keep(record, later=True)
    return record


async def test_a_container_is_written_with_its_sandbox() -> None:
    async with opened() as (registry, state):
        await make(registry, "a")
        assert state.written == [["a-box", "a"]]


async def test_what_ripens_is_written_once_for_all() -> None:
    async with opened() as (registry, state):
        for record in [await make(registry, name) for name in "ab"]:
            record.run = 1
            registry.keep(record, later=True)
        assert state.written == [["a-box", "a"], ["b-box", "b"]]
        await registry.written()
        assert state.written[2:] == [["a", "b"]]


async def test_who_is_made_does_not_hurry_others() -> None:
    async with opened() as (registry, state):
        first = await make(registry, "a")
        await make(registry, "b")
        assert "a" not in state.written[1]
        assert not registry.is_durable(first)
        await registry.flushed()
        assert registry.is_durable(first)


async def test_who_is_gone_goes_along_with_who_comes() -> None:
    async with opened() as (registry, state):
        gone = await make(registry, "a")
        registry.bury(gone)
        registry.forget(registry.sandboxes["a-box"])
        await make(registry, "b")
        assert sorted(state.written[1]) == ["a", "a", "a-box", "b", "b-box"]
        assert registry.is_durable(gone)


async def test_what_runs_is_written_with_its_network() -> None:
    """Else a crash between both left a running container without an address."""
    async with opened() as (registry, state):
        record = await make(registry, "a")
        registry.keep(registry.sandboxes["a-box"], later=True)
        registry.keep(record)
        await registry.stored(record)
        assert sorted(state.written[1]) == ["a", "a-box"]


async def test_a_change_waits_for_those_before_it() -> None:
    """Also for one that ripened first and was hastened after a later change."""
    async with opened() as (registry, state):
        state.gate.clear()
        early, late = container("early"), container("late")
        number = registry.keep(early, later=True)
        registry.keep(late)
        waiting = asyncio.create_task(registry.written(number))
        registry.keep(early)
        await asyncio.sleep(0)
        assert not waiting.done()
        state.gate.set()
        await asyncio.wait_for(waiting, 60)
        assert registry.is_durable(early)


async def test_who_stores_a_record_does_not_wait_for_its_next_change() -> None:
    async with opened() as (registry, state):
        record = container("a")
        registry.keep(record)
        state.gate.clear()
        storing = asyncio.create_task(registry.stored(record))
        await asyncio.sleep(0.01)  # it is on its way
        registry.keep(record, later=True)
        state.gate.set()
        await asyncio.wait_for(storing, 60)
        assert not registry.is_durable(record)


async def test_the_rest_is_written_at_the_end() -> None:
    state = Recorded()
    registry = Registry(state)
    registry.keep(container("a"), later=True)
    registry.keep(container("b"))
    await registry.close()
    assert sorted(state.written[0]) == ["a", "b"]
