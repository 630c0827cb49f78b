"""The catalog of names over a store whose disk is full for a while."""

from __future__ import annotations

import asyncio

import pytest
from tests.conformance.fake_state import Disk, FakeState

from sagong.contracts.state import OperationKind, State, Transaction, TransactionResult
from sagong.errors import NotFound, ResourceExhausted, Unavailable
from sagong.testing import awaited
from sagong_docker.catalog import Catalog
from sagong_docker.record import ContainerRecord, ExecRecord


class Full(FakeState):
    """What is to be deleted can not be, while the disk is full."""

    full = False

    async def commit(self, transaction: Transaction) -> TransactionResult:
        kinds = {operation.kind for operation in transaction.success}
        if self.full and OperationKind.DELETE in kinds:
            raise ResourceExhausted("the disk is full")
        return await super().commit(transaction)


class Late(FakeState):
    """Answers to who puts something come when they are let go."""

    def __init__(self, disk: Disk) -> None:
        super().__init__(disk)
        self.done = asyncio.Event()
        self.answer = asyncio.Event()
        self.answer.set()

    async def commit(self, transaction: Transaction) -> TransactionResult:
        result = await super().commit(transaction)
        if any(operation.kind is OperationKind.PUT for operation in transaction.success):
            self.done.set()
            await self.answer.wait()
        return result


def record(number: int) -> ContainerRecord:
    """A container of that name."""
    return ContainerRecord(id=f"{number:064x}", name="box", created=0, config={}, host={})


async def test_a_name_that_was_given_up_on_a_full_disk_is_free_afterwards() -> None:
    state = Full(Disk())
    catalog = Catalog(awaited(State, state))
    await catalog.load()
    await catalog.add_container(record(1))
    state.full = True
    catalog.forget_container(record(1).id)
    with pytest.raises(Unavailable, match="only just given up"):
        await catalog.add_container(record(2))
    state.full = False
    async with asyncio.timeout(60):
        await catalog.add_container(record(2))
    assert catalog.names == {"box": record(2).id}
    await catalog.close()


async def test_a_container_that_was_dropped_does_not_come_back_by_a_late_answer() -> None:
    state = Late(Disk())
    catalog = Catalog(awaited(State, state))
    await catalog.load()
    await catalog.add_container(record(1))
    state.done.clear()
    state.answer.clear()
    changing = asyncio.create_task(catalog.change_container(record(1)))
    await state.done.wait()
    catalog.forget_container(record(1).id)
    state.answer.set()
    await changing
    assert catalog.find(record(1).id) is None
    await catalog.close()
    await catalog.load()
    assert catalog.find(record(1).id) is None and not catalog.names


def an_exec(number: int) -> ExecRecord:
    """Of the first container."""
    return ExecRecord(id=f"{number:064x}", container=record(1).id, body={"Cmd": ["true"]})


async def test_an_exec_is_found_by_a_generation_that_has_not_heard_of_it() -> None:
    state = FakeState(Disk())
    catalog, other = (Catalog(awaited(State, state)) for _ in range(2))
    await other.load()
    await catalog.keep(an_exec(1))
    assert await other.exec(an_exec(1).id) == an_exec(1)
    with pytest.raises(NotFound, match="No such exec instance"):
        await other.exec(an_exec(2).id)


async def test_an_exec_of_a_container_that_was_dropped_is_gone_at_once() -> None:
    catalog = Catalog(awaited(State, FakeState(Disk())))
    await catalog.load()
    await catalog.add_container(record(1))
    await catalog.keep(an_exec(1))
    catalog.forget_container(record(1).id)
    with pytest.raises(NotFound, match="No such exec instance"):
        await catalog.exec(an_exec(1).id)
    await catalog.close()
