"""What node writes down of a container, when, and what it makes of records that a crash has cost."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.unit.node_pods.pod_lab import FakeMetrics, FakeRuntime, FakeState, Lab

from sagong.call import leaving
from sagong.contracts.image import Images
from sagong.contracts.metrics import Metrics
from sagong.contracts.network import JoinRequest, Networks
from sagong.contracts.node import (
    ContainerSpec,
    Ref,
    RemoveRequest,
    RestartPolicy,
    SandboxSpec,
    StartRequest,
    StatusState,
    StopRequest,
    WaitRequest,
)
from sagong.contracts.runtime import ContainerList, ContainerRef, Runtime
from sagong.contracts.state import State, Transaction, TransactionResult
from sagong.contracts.volume import Volumes
from sagong.errors import FailedPrecondition, ResourceExhausted
from sagong.testing import LocalHost
from sagong_node import boot, registry
from sagong_node.partings import Partings
from sagong_node.plugin import Node
from sagong_node.records import ContainerRecord
from sagong_node.shelves import Shelves

ID = "c" * 64


class CountingState(FakeState):
    """Remembers the keys of each commit."""

    def __init__(self) -> None:
        super().__init__()
        self.commits: list[list[str]] = []

    async def commit(self, transaction: Transaction) -> TransactionResult:
        self.commits.append([operation.key for operation in transaction.success])
        return await super().commit(transaction)


async def begin(node: Lab, **changes: Any) -> None:
    """Make and start a container as the Docker API does."""
    join = JoinRequest(id=ID, mode="none")
    await node.service.create_sandbox(SandboxSpec(id=ID, owner="docker", network=join))
    spec = ContainerSpec(id=ID, sandbox=ID, name="x_main_x", image="busybox:1", **changes)
    await node.service.create(spec)
    await node.service.start(StartRequest(id=ID))


@pytest.mark.parametrize("remove", [True, False])
async def test_a_start_whose_record_fell_to_a_crash_is_found(tmp_path: Path, remove: bool) -> None:
    node = Lab(tmp_path)
    await node.start()
    await begin(node, remove=remove)
    await node.kill()  # in the same turn: nothing of the start is written
    await node.start()
    try:
        await node.until(lambda: node.registry.containers[ID].alive, "it is found running")
        assert node.runtime.started == ["main"] and node.registry.containers[ID].run == 1
        node.runtime.end("main", 7)
        if remove:
            await node.until(lambda: ID in node.registry.ended, "removed")
            assert node.registry.ended[ID].code == 7
        else:
            status = node.service.inspect(Ref(id=ID))
            await node.until(lambda: node.service.inspect(Ref(id=ID)).state == StatusState.EXITED)
            assert node.service.inspect(Ref(id=ID)).code == 7 and status.run == 1
    finally:
        await node.stop()


async def test_a_run_whose_start_fell_to_a_crash_is_known_before_anybody_asks(
    tmp_path: Path,
) -> None:
    """It was removed without force while it ran, and a wait told that it had ended with 0."""
    node = Lab(tmp_path)
    await node.start()
    await begin(node)
    await node.kill()
    await node.start()
    try:
        with pytest.raises(FailedPrecondition, match="container is running"):
            await node.service.remove(RemoveRequest(id=ID))
        assert node.runtime.running() == ["main"]
        results = node.service.wait(WaitRequest(id=ID))
        assert (await anext(results)).run == 1
        node.runtime.end("main", 7)
        assert (await anext(results)).code == 7
    finally:
        await node.stop()


class SlowRuntime(FakeRuntime):
    """Says nothing before it may."""

    def __init__(self, known: FakeRuntime) -> None:
        super().__init__()
        self.containers, self.specs = known.containers, known.specs
        self.may = asyncio.Event()

    async def list(self) -> ContainerList:
        await self.may.wait()
        return await super().list()


@pytest.mark.parametrize("silent", [False, True])
async def test_a_node_serves_when_it_knows_what_runs(tmp_path: Path, *, silent: bool) -> None:
    """But a runtime that does not answer keeps it for a moment alone."""
    before = Lab(tmp_path)
    await before.start()
    await begin(before)
    await before.kill()
    runtime = SlowRuntime(before.runtime)
    uses: dict[type, Any] = {
        State: {"local": before.state},
        Images: before.images,
        Runtime: runtime,
        Networks: before.networks,
        Volumes: before.volumes,
        Metrics: FakeMetrics(),
    }
    config = {"enabled": False}
    host = LocalHost("node", data=tmp_path / "data", run=tmp_path / "run", uses=uses, config=config)
    node = Node(host)
    starting = asyncio.create_task(node.start())
    try:
        await asyncio.sleep(0.2)
        assert not starting.done()
        if not silent:
            runtime.may.set()
        await asyncio.wait_for(starting, 60)
        wanted = StatusState.CREATED if silent else StatusState.RUNNING
        assert node.implementation.inspect(Ref(id=ID)).state is wanted
    finally:
        await node.stop()
        await host.close()


async def test_a_newer_run_than_the_record_knows_is_found(tmp_path: Path) -> None:
    node = Lab(tmp_path)
    await node.start()
    await begin(node)
    await node.registry.flushed()
    node.runtime.end("main", 3)
    await node.until(lambda: node.service.inspect(Ref(id=ID)).state == StatusState.EXITED)
    await node.registry.flushed()
    await node.service.start(StartRequest(id=ID))
    await node.kill()
    await node.start()
    try:
        await node.until(lambda: node.registry.containers[ID].alive, "it is found running")
        assert node.runtime.started == ["main", "main"]
        assert node.registry.containers[ID].run == 2
    finally:
        await node.stop()


async def test_a_run_that_has_been_does_not_begin_again(tmp_path: Path) -> None:
    """Its caller asks again when the answer was lost with a process that was killed."""
    node = Lab(tmp_path)
    await node.start()
    try:
        await begin(node)
        node.runtime.end("main", 3)
        await node.until(lambda: node.service.inspect(Ref(id=ID)).state == StatusState.EXITED)
        status = await node.service.start(StartRequest(id=ID, run=1))
        assert (status.state, status.run, status.code) == (StatusState.EXITED, 1, 3)
        assert node.runtime.started == ["main"]
        assert (await node.service.start(StartRequest(id=ID, run=2))).run == 2
    finally:
        await node.stop()


async def test_a_short_life_is_written_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_GATHER", 1.0)  # short is shorter than that, on any machine
    state = CountingState()
    node = Lab(tmp_path, state=state)
    await node.start()
    try:
        state.commits.clear()
        await begin(node, remove=True)
        async with leaving(node.service.wait(WaitRequest(id=ID, condition="removed"))) as waits:
            await anext(waits)
            node.runtime.end("main", 7)
            assert (await anext(waits)).code == 7
        await node.until(lambda: ID in node.registry.ended, "removed")
        await node.registry.flushed()
        keys = {f"/node/{kind}/{ID}" for kind in ("sandboxes", "containers")}
        assert [set(commit) for commit in state.commits] == [keys, keys | {f"/node/ended/{ID}"}]
        assert state.values.keys() & keys == set()
    finally:
        await node.stop()


@pytest.mark.parametrize("remove", [True, False])
async def test_the_runtime_forgets_an_exit_code_when_it_is_durable(
    tmp_path: Path, remove: bool
) -> None:
    node = Lab(tmp_path)
    forgotten: list[bool] = []
    original = node.runtime.remove

    def told() -> bool:
        """By its record, or what is left of that after a removal."""
        written = node.state.values.get(f"/node/containers/{ID}", b"")
        known = msgspec.msgpack.decode(written, type=ContainerRecord) if written else None
        ended = known is not None and (known.state, known.code) == (StatusState.EXITED, 7)
        return ended or f"/node/ended/{ID}" in node.state.values

    async def remove_run(container: ContainerRef) -> None:
        forgotten.append(told())
        await original(container)

    node.runtime.remove = remove_run  # type: ignore[method-assign]
    await node.start()
    try:
        await begin(node, remove=remove)
        node.runtime.end("main", 7)
        if not remove:
            await node.until(lambda: not node.registry.containers[ID].alive)
            await node.service.remove(RemoveRequest(id=ID))
            assert ID not in node.runtime.containers
        await node.until(lambda: forgotten)
        assert forgotten == [True]
    finally:
        await node.stop()


async def test_a_stop_by_hand_is_durable_when_it_is_answered(tmp_path: Path) -> None:
    node = Lab(tmp_path)
    await node.start()
    await begin(node, restart=RestartPolicy(name="always"))
    await node.service.stop(StopRequest(id=ID))
    await node.kill()
    await node.start()
    try:
        await node.until(lambda: not node.registry.containers[ID].alive)
        assert node.registry.containers[ID].state is StatusState.EXITED
        assert node.runtime.started == ["main"]
    finally:
        await node.stop()


class FullState(FakeState):
    """Has no room, until it is told that there is some."""

    full = False

    async def commit(self, transaction: Transaction) -> TransactionResult:
        if self.full:
            raise ResourceExhausted("the disk is full; free space there")
        return await super().commit(transaction)


async def test_without_room_for_its_record_a_container_is_refused_at_once(tmp_path: Path) -> None:
    """It was tried again until the call's deadline, and then nobody knew whether it was made."""
    state = FullState()
    node = Lab(tmp_path, state=state)
    await node.start()
    await begin(node)
    state.full = True
    join = JoinRequest(id="d" * 64, mode="none")
    await node.service.create_sandbox(SandboxSpec(id="d" * 64, owner="docker", network=join))
    spec = ContainerSpec(id="d" * 64, sandbox="d" * 64, name="late", image="busybox:1")
    with pytest.raises(ResourceExhausted, match="the disk is full"):
        await node.service.create(spec)
    assert set(node.registry.containers) == {ID}
    await node.service.remove(RemoveRequest(id=ID, force=True))  # needs no room to be done
    state.full = False
    try:
        await node.service.create(spec)
        await node.kill()
        await node.start()
        assert set(node.registry.containers) == {"d" * 64}
    finally:
        await node.stop()


class SlowState(FakeState):
    """One whose disk stands still while it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.moves = asyncio.Event()
        self.moves.set()

    async def commit(self, transaction: Transaction) -> TransactionResult:
        await self.moves.wait()
        return await super().commit(transaction)


async def test_what_is_removed_while_the_disk_stands_still_is_removed_when_that_is_said(
    tmp_path: Path,
) -> None:
    """After two seconds it was said anyway, and was back if the power went."""
    state = SlowState()
    node = Lab(tmp_path, state=state)
    await node.start()
    await begin(node)
    await node.registry.flushed()
    state.moves.clear()
    removing = asyncio.create_task(node.service.remove(RemoveRequest(id=ID, force=True)))
    try:
        assert not (await asyncio.wait([removing], timeout=2.5))[0]
        state.moves.set()
        await removing
        await node.kill()
        await node.start()
        assert ID not in node.registry.containers
    finally:
        await node.stop()


def logs(node: Lab) -> list[Path]:
    """Files of logs that node chose the places of."""
    return sorted((node.directory / "data/logs").glob("*/*"))


def write_log(node: Lab) -> None:
    """As the container's monitor does."""
    Path(node.runtime.specs[ID].log.path).write_text("{}\n")


async def test_the_log_of_a_start_that_fell_to_a_crash_goes_with_its_container(
    tmp_path: Path,
) -> None:
    """It stayed for ever: the record that a next node read knew no log yet."""
    node = Lab(tmp_path)
    await node.start()
    await begin(node)
    write_log(node)
    await node.kill()  # in the same turn: nothing of the start is written
    node.runtime.containers.clear()  # the runtime was swept, as by a reboot
    await node.start()
    try:
        assert node.service.inspect(Ref(id=ID)).log_path == ""
        await node.service.remove(RemoveRequest(id=ID))
        assert logs(node) == []
    finally:
        await node.stop()


@pytest.mark.parametrize("policy", ["no", "always"])
async def test_who_spoke_before_the_power_went_is_known_to_have_run(
    tmp_path: Path, policy: str
) -> None:
    """`docker run -d` had answered; it was "created", and its log was not shown."""
    node = Lab(tmp_path)
    await node.start()
    await begin(node, restart=RestartPolicy(name=policy))
    write_log(node)
    await node.kill()  # in the same turn: nothing of the start is written
    node.runtime.containers.clear()
    await node.start()
    try:
        record = node.registry.containers[ID]
        assert record.state is StatusState.CREATED
        boot.begin(node.registry, Shelves(node.host.data / "logs").written)
        await node.life.reconcile("")
        status = node.service.inspect(Ref(id=ID))
        assert (status.code, status.run, status.log_path) == (255, 1, str(logs(node)[0]))
        wanted = StatusState.EXITED if policy == "no" else StatusState.RESTARTING
        assert status.state is wanted
    finally:
        await node.stop()


async def test_the_log_of_a_start_that_was_expected_goes_with_its_container(tmp_path: Path) -> None:
    node = Lab(tmp_path)
    await node.start()
    await node.service.create_sandbox(
        SandboxSpec(id=ID, owner="docker", network=JoinRequest(id=ID, mode="none"))
    )
    await node.service.create(ContainerSpec(id=ID, sandbox=ID, name="x_main_x", image="busybox:1"))
    await node.service.expect(Ref(id=ID))
    Path(node.runtime.prepared[ID].log.path).write_text("{}\n")
    await node.kill()
    await node.start()
    try:
        await node.service.remove(RemoveRequest(id=ID))
        assert logs(node) == []
    finally:
        await node.stop()


async def test_a_node_sweeps_logs_without_a_container_alone(tmp_path: Path) -> None:
    """A node was killed between a removal that was written down and that of the log."""
    node = Lab(tmp_path)
    await node.start()
    await begin(node)
    await node.registry.flushed()
    write_log(node)
    (mine,) = logs(node)
    gone = "d" * 64
    for name in (f"{gone}-json.log", f"{gone}-json.log.1.gz"):
        (mine.parent / name).write_text("{}\n")
    pods = node.directory / "data/logs/default_web_uid-1"
    pods.mkdir()
    (pods / "a-file").touch()
    await node.kill()
    await node.start()
    try:
        await node.until(lambda: logs(node) == [mine, pods / "a-file"], "the others are swept")
    finally:
        await node.stop()


async def test_who_ends_by_himself_is_there_for_a_moment_before_he_is_removed(
    tmp_path: Path,
) -> None:
    """Clients ask for the logs and the end after they have heard of the start."""
    node = Lab(tmp_path)
    await node.start()
    try:
        await begin(node, remove=True)
        node.runtime.end("main", 7)
        await node.until(lambda: not node.registry.containers[ID].alive, "it has ended")
        waits = node.service.wait(WaitRequest(id=ID, condition="not-running"))
        assert [result.code async for result in waits if not result.waiting] == [7]
        assert node.service.inspect(Ref(id=ID)).code == 7
        await node.until(lambda: ID in node.registry.ended, "removed")
    finally:
        await node.stop()


async def test_who_is_stopped_or_whose_removal_is_awaited_is_removed_at_once(
    tmp_path: Path,
) -> None:
    node, partings = Lab(tmp_path), Partings()
    await node.start()
    try:
        await begin(node, remove=True)
        record = node.registry.containers[ID]
        assert partings.lingers(record)
        with partings.awaited(ID, "removed"):
            with partings.awaited(ID, "removed"):
                assert not partings.lingers(record)
            assert not partings.lingers(record)
        with partings.awaited(ID, "not-running"):
            assert partings.lingers(record)
        await node.service.stop(StopRequest(id=ID))
        assert not partings.lingers(record)
    finally:
        await node.stop()
