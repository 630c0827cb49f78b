"""All providers of a slot as one: drivers named by users, and events of every provider."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.conformance.fake_network import FakeNetworks, Memory
from tests.conformance.fake_state import Disk, FakeState
from tests.conformance.fake_volume import FakeVolumes, Shelf

from sagong.contracts.network import (
    Attachment,
    ConnectRequest,
    JoinRequest,
    Network,
    NetworkRef,
    Networks,
    SandboxRef,
)
from sagong.contracts.runtime import Exited, Runtime
from sagong.contracts.state import State
from sagong.contracts.volume import PublishRequest, UnpublishRequest, Volume, VolumeRef, Volumes
from sagong.drivers import EveryNetwork, EveryVolume
from sagong.errors import AlreadyExists, FailedPrecondition, NotFound
from sagong.hearing import hear_every
from sagong.testing import LocalHost


def host(tmp_path: Path, slot: type, store: Disk | None = None, **given: object) -> LocalHost:
    """A host with the given providers; `default` has no name."""
    named = {"" if name == "default" else name: one for name, one in given.items()}
    uses = {slot: named, State: FakeState(store or Disk())}
    return LocalHost("tested", data=tmp_path, run=tmp_path, uses=uses)


class NamedVolumes(FakeVolumes):
    """An instance, whose driver is called as it is."""

    def check(self, volume: Volume) -> None:
        super().check(replace(volume, driver="local"))


class NamedNetworks(FakeNetworks):
    """An instance, whose driver is called as it is."""

    def check_network(self, network: Network) -> None:
        super().check_network(replace(network, driver="bridge"))


async def test_a_volume_is_with_the_instance_that_its_driver_names(tmp_path: Path) -> None:
    default, shelf = FakeVolumes(Shelf(tmp_path / "a")), NamedVolumes(Shelf(tmp_path / "b"))
    every = EveryVolume(host(tmp_path, Volumes, default=default, shelf=shelf))
    assert every.drivers == ("local", "shelf")
    await every.create(Volume(name="plain"))
    await every.create(Volume(name="books", driver="shelf"))
    assert [v.name for v in (await every.list()).volumes] == ["books", "plain"]
    assert (await shelf.inspect(VolumeRef(name="books"))).driver == "shelf"
    with pytest.raises(NotFound):
        await default.inspect(VolumeRef(name="books"))
    with pytest.raises(AlreadyExists, match="another driver"):
        await every.create(Volume(name="books"))
    with pytest.raises(NotFound, match='error looking up volume plugin x: plugin "x" not found'):
        await every.create(Volume(name="more", driver="x"))
    for name in ("plain", "books"):
        assert (await every.publish(PublishRequest(name=name, owner="c"))).path
    with pytest.raises(FailedPrecondition):
        await every.delete(VolumeRef(name="books"))
    await every.unpublish(UnpublishRequest(owner="c"))
    await every.delete(VolumeRef(name="books"))
    assert [v.name for v in (await every.list()).volumes] == ["plain"]


async def test_a_volume_whose_driver_is_away_is_not_taken_for_missing(tmp_path: Path) -> None:
    """A local one of its name was made, empty, and hid it when its driver came back."""
    default, shelf = FakeVolumes(Shelf(tmp_path / "a")), NamedVolumes(Shelf(tmp_path / "b"))
    await shelf.create(Volume(name="older", driver="shelf"))
    store = Disk()
    both = EveryVolume(host(tmp_path, Volumes, store, default=default, shelf=shelf))
    await both.create(Volume(name="books", driver="shelf"))
    await both.create(Volume(name="gone", driver="shelf"))
    await both.inspect(VolumeRef(name="older"))
    await both.delete(VolumeRef(name="gone"))
    alone = EveryVolume(host(tmp_path, Volumes, store, default=default))
    for name in ("books", "older"):
        for call in (alone.inspect(VolumeRef(name=name)), alone.create(Volume(name=name))):
            with pytest.raises(FailedPrecondition, match=f'{name}.*plugin "shelf" not found'):
                await call
    for name in ("gone", "new"):
        await alone.create(Volume(name=name))
        assert (await alone.inspect(VolumeRef(name=name))).driver == "local"
    again = EveryVolume(host(tmp_path, Volumes, store, default=default, shelf=shelf))
    assert (await again.inspect(VolumeRef(name="books"))).driver == "shelf"


async def test_a_sandbox_is_of_the_instance_that_has_its_networks(tmp_path: Path) -> None:
    default, other = FakeNetworks(Memory()), NamedNetworks(Memory())
    every = EveryNetwork(host(tmp_path, Networks, default=default, other=other))
    await every.create(Network(id="a" * 64, name="a"))
    await every.create(Network(id="b" * 64, name="b", driver="other"))
    with pytest.raises(NotFound, match='plugin "x" not found'):
        await every.create(Network(id="c" * 64, name="c", driver="x"))
    names = [n.name for n in (await every.networks()).networks]
    assert names.count("a") == names.count("b") == 1
    for network, provider in (("a", default), ("b", other)):
        request = JoinRequest(id=f"in-{network}", attachments=(Attachment(network=network * 64),))
        await every.join(request)
        assert {s.id for s in (await provider.sandboxes()).sandboxes} == {f"in-{network}"}
    assert {s.id for s in (await every.sandboxes()).sandboxes} == {"in-a", "in-b"}
    mixed = tuple(Attachment(network=letter * 64) for letter in "ab")
    with pytest.raises(FailedPrecondition, match="the default one and other"):
        await every.join(JoinRequest(id="both", attachments=mixed))
    with pytest.raises(FailedPrecondition, match="of one driver"):
        await every.connect(ConnectRequest(id="in-b", attachment=mixed[0]))
    await every.leave(SandboxRef(id="in-b"))
    await every.delete(NetworkRef(id="b" * 64))
    assert "b" not in [n.name for n in (await other.networks()).networks]


async def test_providers_that_come_later_are_heard_too(tmp_path: Path) -> None:
    found = host(tmp_path, Runtime, default=object())
    async with aclosing(hear_every(found, Runtime, Exited)) as heard:  # type: ignore[type-var]
        assert await anext(heard) == ("", None)
        found.provide(Runtime, {"": object(), "second": object()})
        assert await anext(heard) == ("second", None)
        found.deliver(Exited(id="c", run=1, code=0, finished_at=1.0))
        both = {(await anext(heard))[0], (await anext(heard))[0]}
        assert both == {"", "second"}
    await asyncio.wait_for(found.close(), 60)
