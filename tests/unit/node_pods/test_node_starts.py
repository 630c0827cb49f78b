"""Starts that are expected, and creations that a crash cut short."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
from tests.unit.node_pods.pod_lab import FakeImages, FakeState, FakeVolumes, Lab, lab

from sagong.contracts.image import Prepared, PrepareRequest
from sagong.contracts.network import Attachment, JoinRequest
from sagong.contracts.node import (
    ConnectSpec,
    ContainerSpec,
    FileMount,
    HealthSpec,
    KillRequest,
    Ref,
    RemoveRequest,
    RestartPolicy,
    SandboxSpec,
    StartRequest,
    StatusState,
    StopRequest,
    UpdateSpec,
)
from sagong.contracts.runtime import Limits
from sagong.contracts.state import Transaction, TransactionResult
from sagong.contracts.volume import Volume
from sagong.errors import FailedPrecondition, NotFound, ResourceExhausted
from sagong_node.health import check_of

ID = "c" * 64
_TEST = ("CMD", "a")
REF = Ref(id=ID)


def wished() -> ContainerSpec:
    """A container with a sandbox of its own on a network."""
    network = JoinRequest(id=ID, attachments=(Attachment(network="n"),))
    sandbox = SandboxSpec(id=ID, owner="docker", network=network)
    return ContainerSpec(id=ID, sandbox=ID, name="c_one", image="busybox:1", own=sandbox)


def expected() -> ContainerSpec:
    """The same, which is started next."""
    return msgspec.structs.replace(wished(), expected=True)


async def test_an_expected_start_finds_its_network(tmp_path: Path) -> None:
    async with lab(tmp_path) as at:
        await at.service.create(wished())
        await at.service.expect(REF)
        joined = at.networks.joined[ID]
        await at.service.start(StartRequest(id=ID))
        assert at.runtime.specs[ID].namespaces.network == f"path:{joined.path}"
        at.runtime.end("one")
        await at.until(lambda: ID not in at.networks.joined)
        await at.service.expect(REF)
        assert ID in at.networks.joined
        await at.service.remove(RemoveRequest(id=ID))
        assert ID not in at.networks.joined


async def test_a_network_that_a_record_alone_knows_is_joined_again(tmp_path: Path) -> None:
    """It had been given back when the node was killed: its namespace was not there any more."""
    async with lab(tmp_path) as at:
        own = wished().own
        assert own is not None
        await at.service.create_sandbox(msgspec.structs.replace(own, explicit=True))
        await at.registry.flushed()
        await at.kill()
        before = at.networks.joined.pop(ID)
        await at.start()
        await at.service.create(msgspec.structs.replace(wished(), own=None))
        await at.service.start(StartRequest(id=ID))
        assert at.networks.joined[ID] != before
        assert at.service.sandbox(REF).network == at.networks.joined[ID]


async def test_what_was_expected_is_given_back(tmp_path: Path) -> None:
    """When the start would need something else, and by who comes after a crash."""
    async with lab(tmp_path) as at:
        await at.service.create(wished())
        await at.service.expect(REF)
        await at.service.connect(ConnectSpec(id=ID, attachment=Attachment(network="other")))
        assert ID not in at.networks.joined
        await at.service.expect(REF)
        await at.registry.flushed()
        await at.kill()
        assert ID in at.networks.joined
        await at.start()
        assert ID not in at.networks.joined
        await at.service.start(StartRequest(id=ID))
        assert [e.network for e in at.networks.joined[ID].endpoints] == ["n", "other"]


async def test_an_expected_start_is_prepared_as_it_will_be_asked_for(tmp_path: Path) -> None:
    """But for who attaches; what would be another start by then is given up, or asked for as it is."""
    async with lab(tmp_path) as at:
        await at.service.create(wished())
        await at.service.expect(REF)
        prepared = at.runtime.prepared[ID]
        await at.service.start(StartRequest(id=ID, run=1, expect_attach=True, attach_stdin=True))
        asked = at.runtime.specs[ID]
        assert (asked.expect_attach, asked.attach_stdin) == (True, True)
        assert msgspec.structs.replace(asked, expect_attach=False, attach_stdin=False) == prepared
        at.runtime.end("one")
        await at.until(lambda: ID not in at.networks.joined)
        await at.service.expect(REF)
        await at.service.update(UpdateSpec(id=ID, limits=Limits(pids=7)))
        await at.service.start(StartRequest(id=ID))
        assert at.runtime.prepared[ID].limits.pids is None
        assert at.runtime.specs[ID].limits.pids == 7


async def test_what_was_prepared_is_discarded_before_its_ground_is_given_back(
    tmp_path: Path,
) -> None:
    """When files of it were changed, at a removal, and by who comes after a crash."""
    async with lab(tmp_path) as at:
        await at.service.create(wished())
        ways: tuple[Callable[[], Awaitable[object]], ...] = (
            lambda: at.service.refresh(REF),
            lambda: at.service.remove(RemoveRequest(id=ID)),
        )
        for give_back in ways:
            await at.service.expect(REF)
            assert ID in at.runtime.prepared
            await give_back()
            assert ID not in at.runtime.prepared
            assert ID not in at.networks.joined
        await at.service.create(wished())
        await at.service.expect(REF)
        await at.registry.flushed()
        await at.kill()
        await at.start()
        assert ID not in at.runtime.prepared


@pytest.mark.parametrize("remove", [False, True])
async def test_a_start_without_room_for_its_files_is_refused_and_gives_all_back(
    tmp_path: Path, *, remove: bool
) -> None:
    """It was a defect to whoever is in the same process, and its network stayed joined."""
    async with lab(tmp_path) as at:
        await at.service.create(msgspec.structs.replace(wished(), remove=remove))
        files = tmp_path / "run/containers" / ID
        files.mkdir(parents=True)
        (files / "hosts").symlink_to("/dev/full")
        with pytest.raises(ResourceExhausted, match=f"hosts of container {ID[:12]}.*make room"):
            await at.service.start(StartRequest(id=ID))
        assert ID not in at.networks.joined
        assert (ID in at.registry.containers) is not remove
        if not remove:
            assert "make room" in at.service.inspect(REF).error
            await at.service.start(StartRequest(id=ID))
            assert at.runtime.running() == ["one"]


class SlowImages(FakeImages):
    """Never done with a root."""

    async def prepare(self, request: PrepareRequest) -> Prepared:
        await asyncio.Event().wait()
        return await super().prepare(request)


class HeldImages(FakeImages):
    """Roots are lent when they are let."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.let = asyncio.Event()
        self.one = asyncio.Semaphore(0)
        self.asked = 0

    async def prepare(self, request: PrepareRequest) -> Prepared:
        self.asked += 1
        turns = [asyncio.ensure_future(turn) for turn in (self.let.wait(), self.one.acquire())]
        await asyncio.wait(turns, return_when=asyncio.FIRST_COMPLETED)
        for turn in turns:
            turn.cancel()
        return await super().prepare(request)


async def test_who_is_started_next_joins_its_network_while_it_is_made(tmp_path: Path) -> None:
    async with lab(tmp_path) as at:
        at.images = images = HeldImages(tmp_path)
        await at.stop()
        await at.start()
        creating = asyncio.create_task(at.service.create(expected()))
        await at.until(lambda: ID in at.networks.joined)
        assert not creating.done()
        images.let.set()
        assert (await creating).spec == msgspec.structs.replace(wished(), own=None)
        await at.until(lambda: ID in at.runtime.prepared)
        assert (await at.service.create(expected())).state is StatusState.CREATED
        prepared = at.runtime.prepared[ID]
        await at.service.start(StartRequest(id=ID))
        assert at.runtime.specs[ID] == prepared


async def test_who_could_not_be_made_has_joined_nothing(tmp_path: Path) -> None:
    """Refused, or given up by its caller."""
    async with lab(tmp_path) as at:
        at.images = images = HeldImages(tmp_path)
        images.here.clear()
        await at.stop()
        await at.start()
        for refused in (False, True):
            creating = asyncio.create_task(at.service.create(expected()))
            await at.until(lambda: ID in at.networks.joined)
            if refused:
                images.let.set()
                with pytest.raises(NotFound):
                    await creating
            else:
                creating.cancel()
                await asyncio.wait([creating])
            assert ID not in at.networks.joined
            assert ID not in at.runtime.prepared


async def test_what_a_creation_that_was_cut_short_had_joined_is_given_back(tmp_path: Path) -> None:
    async with lab(tmp_path) as at:
        await cut_short(at, expected())
        assert ID in at.networks.joined
        await at.start()
        assert at.service.inspect(REF).image is not None
        assert ID not in at.networks.joined


async def cut_short(at: Lab, spec: ContainerSpec | None = None) -> None:
    """A creation during which the node is killed; one after it goes on."""
    images, at.images = at.images, SlowImages(at.directory)
    await at.stop()
    await at.start()
    creating = asyncio.create_task(at.service.create(spec or wished()))
    await at.until(lambda: any(ID in key for key in at.state.values if "containers" in key))
    await at.registry.flushed()
    with pytest.raises(NotFound):
        at.service.inspect(REF)
    await at.kill()
    creating.cancel()
    at.images = images


async def test_a_creation_that_was_cut_short_is_finished(tmp_path: Path) -> None:
    async with lab(tmp_path) as at:
        await cut_short(at)
        await at.start()
        assert at.service.inspect(REF).image is not None
        await at.service.start(StartRequest(id=ID))
        assert at.runtime.started == ["one"]


class SlowVolumes(FakeVolumes):
    """Never done with a volume that is there."""

    async def create(self, volume: Volume) -> Volume:
        await super().create(volume)
        await asyncio.Event().wait()
        return volume


async def test_a_volume_that_was_being_made_goes_with_its_container(tmp_path: Path) -> None:
    """The record did not say yet that it is the container's."""
    async with lab(tmp_path) as at:
        known, at.volumes = at.volumes, SlowVolumes(at.directory / "volumes")
        known.volumes = at.volumes.volumes
        await at.stop()
        await at.start()
        mount = FileMount(kind="volume", target="/data")
        creating = asyncio.create_task(
            at.service.create(msgspec.structs.replace(wished(), mounts=(mount,)))
        )
        await at.until(lambda: known.volumes)
        await at.kill()
        creating.cancel()
        at.volumes = known
        await at.start()
        await at.service.remove(RemoveRequest(id=ID, volumes=True))
        assert not known.volumes


class MuteState(FakeState):
    """Writes nothing, and says nothing."""

    mute = False

    async def commit(self, transaction: Transaction) -> TransactionResult:
        if self.mute:
            await asyncio.Event().wait()
        return await super().commit(transaction)


async def test_the_root_of_a_creation_that_was_never_written_is_given_back(tmp_path: Path) -> None:
    """Both are made at once; the root stayed lent for ever."""
    state = MuteState()
    at = Lab(tmp_path, state=state)
    await at.start()
    state.mute = True
    creating = asyncio.create_task(at.service.create(wished()))
    await at.until(lambda: ID in at.images.lent)
    await at.kill()
    creating.cancel()
    state.mute = False
    await at.start()
    try:
        assert not at.images.lent and ID not in at.registry.containers
        await at.service.create(wished())
        await at.registry.flushed()
        await at.kill()
        await at.start()
        assert at.images.lent == {ID}
        await at.service.remove(RemoveRequest(id=ID))
        assert not at.images.lent and not list((tmp_path / "run/making").iterdir())
    finally:
        await at.stop()


async def test_who_is_started_next_is_prepared_while_it_is_written_down(tmp_path: Path) -> None:
    """Who asked did not wait for its record alone; of one that is given up nothing is left."""
    state = MuteState()
    at = Lab(tmp_path, state=state)
    await at.start()
    try:
        state.mute = True
        creating = asyncio.create_task(at.service.create(expected()))
        await at.until(lambda: ID in at.runtime.prepared)
        assert ID not in at.registry.containers and not creating.done()
        creating.cancel()
        await asyncio.wait([creating])
        assert ID not in at.runtime.prepared
        assert ID not in at.networks.joined
        assert not (tmp_path / "run/containers" / ID).exists()
    finally:
        state.mute = False
        await at.stop()


async def test_of_who_was_prepared_and_never_written_nothing_is_left(tmp_path: Path) -> None:
    """After a crash: its network stayed joined for ever."""
    state = MuteState()
    at = Lab(tmp_path, state=state)
    await at.start()
    state.mute = True
    creating = asyncio.create_task(at.service.create(expected()))
    await at.until(lambda: ID in at.runtime.prepared)
    await at.kill()
    creating.cancel()
    state.mute = False
    await at.start()
    try:
        assert not at.networks.joined
        assert not (tmp_path / "run/containers" / ID).exists()
    finally:
        await at.stop()


async def test_one_without_an_image_is_removed(tmp_path: Path) -> None:
    async with lab(tmp_path) as at:
        await cut_short(at)
        at.images.here.clear()
        await at.start()
        with pytest.raises(NotFound):
            at.service.inspect(REF)
        await at.registry.flushed()
        assert not [key for key in at.state.values if "/containers/" in key]


async def test_one_that_ends_while_it_is_thawed_has_ended(tmp_path: Path) -> None:
    """It was taken for one that runs, for ever: a stop waited for its end."""
    async with lab(tmp_path) as at:
        await at.service.create(wished())
        await at.service.start(StartRequest(id=ID))
        await at.service.pause(REF)
        at.runtime.frozen_with_a_signal.add("one")
        await at.service.resume(REF)
        assert at.service.inspect(REF).state is StatusState.EXITED


async def test_a_restart_keeps_what_goes_with_its_end(tmp_path: Path) -> None:
    async with lab(tmp_path) as at:
        await at.service.create(msgspec.structs.replace(wished(), remove=True))
        await at.service.start(StartRequest(id=ID))
        await at.service.restart(StopRequest(id=ID, seconds=0.0))
        assert at.service.inspect(REF).state is StatusState.RUNNING
        await at.service.kill(KillRequest(id=ID, signal="KILL"))
        await at.until(lambda: ID not in at.registry.containers)


async def test_the_own_stop_signal_is_a_stop(tmp_path: Path) -> None:
    always = RestartPolicy(name="always")
    async with lab(tmp_path) as at:
        await at.service.create(
            msgspec.structs.replace(wished(), restart=always, stop_signal="USR1")
        )
        await at.service.start(StartRequest(id=ID))
        await at.service.kill(KillRequest(id=ID, signal="HUP"))
        await at.until(lambda: at.registry.containers[ID].run == 2)
        await at.service.kill(KillRequest(id=ID, signal="USR1"))
        await at.until(lambda: at.service.inspect(REF).state is StatusState.EXITED)


async def test_a_name_and_hosts_may_change(tmp_path: Path) -> None:
    async with lab(tmp_path) as at:
        spec = wished()
        assert spec.own is not None
        network = msgspec.structs.replace(spec.own.network, names=("c_one",))
        own = msgspec.structs.replace(spec.own, network=network)
        await at.service.create(msgspec.structs.replace(spec, own=own))
        hosts = (("192.0.2.1", "db data"),)
        await at.service.update(UpdateSpec(id=ID, name="c_new", hosts=hosts, env=("A=b",)))
        sandbox = at.service.sandbox(REF).spec
        assert (sandbox.network.names, sandbox.hosts) == (("c_new",), hosts)
        await at.service.start(StartRequest(id=ID))
        assert "A=b" in at.runtime.specs[ID].process.env


@pytest.mark.parametrize(
    ("own", "image", "wanted"),
    [
        (None, "", None),
        (
            None,
            '{"Test":["CMD","a"],"Interval":2000000000}',
            HealthSpec(test=_TEST, interval=2.0),
        ),
        (
            HealthSpec(timeout=5.0),
            '{"Test":["CMD","a"]}',
            HealthSpec(test=_TEST, timeout=5.0),
        ),
        (HealthSpec(test=("NONE",)), '{"Test":["CMD","a"]}', None),
        (HealthSpec(interval=1.0), "", None),
    ],
)
def test_what_a_check_leaves_out_is_the_image_s(
    own: HealthSpec | None, image: str, wanted: HealthSpec | None
) -> None:
    assert check_of(own, image) == wanted


async def test_a_check_s_time_begins_when_its_command_runs(tmp_path: Path) -> None:
    """On a busy machine the start alone took longer: containers that were well became unhealthy."""
    check = HealthSpec(test=_TEST, interval=0.01, timeout=1.0)
    async with lab(tmp_path) as at:
        at.runtime.exec_delay = 1.5
        await at.service.create(msgspec.structs.replace(wished(), health=check))
        await at.service.start(StartRequest(id=ID))
        record = at.registry.containers[ID]
        await at.until(lambda: record.health is not None and bool(record.health.probes))
        assert record.health is not None and record.health.status == "healthy", record.health


async def test_networks_that_are_shared_in_a_circle_are_refused_at_the_start(
    tmp_path: Path,
) -> None:
    """Nobody of them has a network; to look for it went round for ever."""
    own, names = "d" * 64, ("one", "two")
    async with lab(tmp_path) as at:
        for id_, name, other in ((ID, *names), ("e" * 64, *reversed(names)), (own, "self", "self")):
            network = JoinRequest(id=id_, mode="none")
            sandbox = SandboxSpec(id=id_, owner="docker", network=network, share_with=other)
            await at.service.create(
                ContainerSpec(id=id_, sandbox=id_, name=name, image="busybox:1", own=sandbox)
            )
        with pytest.raises(FailedPrecondition, match="non running container: two"):
            await at.service.start(StartRequest(id=ID))
        with pytest.raises(FailedPrecondition, match="cannot join own network"):
            await at.service.start(StartRequest(id=own))
        await at.service.remove(RemoveRequest(id=own))


async def test_one_that_is_removed_while_it_is_made_stays_away(tmp_path: Path) -> None:
    """A record without its sandbox was written, and no node could start with that any more."""
    images = HeldImages(tmp_path)
    async with lab(tmp_path) as at:
        own = wished().own
        assert own is not None
        at.images = images
        await at.stop()
        await at.start()
        await at.service.create_sandbox(own)
        creating = asyncio.create_task(
            at.service.create(msgspec.structs.replace(wished(), own=None))
        )
        await at.until(lambda: images.asked == 1)
        await at.service.remove_sandbox(REF)
        images.let.set()
        with pytest.raises(NotFound):
            await creating
        await at.registry.flushed()
        assert not [key for key in at.state.values if ID in key] and not images.lent


async def test_one_that_is_removed_while_it_is_made_again_stays_away(tmp_path: Path) -> None:
    """The same of one that a crash had cut short, and whose client asks for it again."""
    async with lab(tmp_path) as at:
        await cut_short(at)
        images = at.images = HeldImages(tmp_path)
        starting = asyncio.create_task(at.start())
        await at.until(lambda: images.asked == 1)
        creating = asyncio.create_task(at.service.create(wished()))
        await at.until(lambda: images.asked == 2)
        images.one.release()
        await starting
        await at.service.remove(RemoveRequest(id=ID, force=True))
        images.let.set()
        with pytest.raises(NotFound):
            await creating
        await at.registry.flushed()
        assert ID not in at.registry.containers
        assert not [key for key in at.state.values if "/containers/" + ID in key]


async def test_one_that_is_removed_before_it_is_finished_stays_away(tmp_path: Path) -> None:
    """Two looks at what the runtime knows come to one that a crash had cut short, and a removal."""
    async with lab(tmp_path) as at:
        await cut_short(at)
        images = at.images = HeldImages(tmp_path)
        first = asyncio.create_task(at.start())
        await at.until(lambda: images.asked == 1)
        removing = asyncio.create_task(at.service.remove(RemoveRequest(id=ID)))
        await asyncio.sleep(0.01)
        second = asyncio.create_task(at.life.reconcile(""))
        await asyncio.sleep(0.01)
        images.let.set()
        await asyncio.gather(first, removing, second)
        await at.registry.flushed()
        assert ID not in at.registry.containers and not images.lent
        assert not [key for key in at.state.values if "/containers/" + ID in key]


async def test_a_record_without_its_sandbox_keeps_no_node_from_starting(tmp_path: Path) -> None:
    async with lab(tmp_path) as at:
        await at.service.create(wished())
        await at.registry.flushed()
        await at.kill()
        del at.state.values[f"/node/sandboxes/{ID}"]
        await at.start()
        await at.until(lambda: ID not in at.registry.containers)
        assert ID not in at.images.lent
