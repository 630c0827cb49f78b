"""What all handlers share: the slots below, the catalog, the history."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from typing import Any

import msgspec

from sagong.call import Call, current, outliving
from sagong.contracts.builder import Builder
from sagong.contracts.image import ImageChanged, ImageQuery, Images
from sagong.contracts.metrics import Metrics
from sagong.contracts.network import Network
from sagong.contracts.node import (
    ContainerEvent,
    ContainerStatus,
    Node,
    NodeQuery,
    Ref,
    RemoveRequest,
    StatusState,
)
from sagong.contracts.state import State
from sagong.drivers import EveryNetwork, EveryVolume
from sagong.errors import InvalidArgument, NotFound, SagongError, Unavailable
from sagong.host import Host
from sagong_docker.catalog import Catalog
from sagong_docker.chronicle import attempted, told
from sagong_docker.history import Event, History, of_container
from sagong_docker.naming import new_id
from sagong_docker.network_body import configurations
from sagong_docker.network_view import special_networks
from sagong_docker.pending import Pending
from sagong_docker.record import ContainerRecord, foreign
from sagong_docker.settings import Settings

__all__ = ["OWNER", "Engine"]

OWNER = "docker"
# Events of images that name them by their ids.
_BY_ID = ("untag", "delete", "import", "create")
# Less than the node expects a start for.
_EXPECTED_SECONDS = 2.0
# Attributes of one event alone; the others are the container's.
_OWN_FACTS = ("execDuration", "exitCode", "signal", "execID", "height", "width", "oldName")


class Memory(msgspec.Struct, frozen=True):
    """What is nowhere but in this process, for the next one; see `Engine` for what each is."""

    events: tuple[Event, ...] = ()
    failed_execs: dict[str, int] = {}
    ended_execs: dict[str, int] = {}
    told: dict[str, dict[str, str]] = {}


class Engine:
    """Made once; `start` before the first request."""

    def __init__(self, host: Host, settings: Settings) -> None:
        self.log: logging.Logger = host.log
        self.settings = settings
        self.node: Node = host.use(Node)
        self.images: Images = host.use(Images)
        self.network = EveryNetwork(host)
        self.volumes = EveryVolume(host)
        self.metrics: Metrics = host.use(Metrics)
        self.catalog = Catalog(host.use(State, "local"))
        self.history = History(settings.history)
        self.pending = Pending()
        # Containers and execs made here and not started since: nobody need be asked for their state.
        self.fresh: set[str] = set()
        # Those whose start the node expects, and has not run since.
        self._expected: set[str] = set()
        self._starts: dict[str, asyncio.Event] = {}
        # Starts that go on, each with the removal that has been heard of meanwhile.
        self._attempts: dict[str, ContainerEvent | None] = {}
        self.failed_execs: dict[str, int] = {}
        self.ended_execs: dict[str, int] = {}
        self.renamed: dict[str, str] = {}
        self.id = ""
        # Networks by id and name as last seen, and each container's attributes as last told.
        self.seen_networks: dict[str, Network] = {}
        self._told: dict[str, dict[str, str]] = {}
        # What was done with containers whose creation has not been told yet.
        self._early: dict[str, list[tuple[str, dict[str, str]]]] = {}
        self._image_names: dict[str, str] | None = None
        self._work = 0
        self._host = host

    def export(self) -> Memory:
        """What the next process has to know."""
        return Memory(
            self.history.export(), dict(self.failed_execs), dict(self.ended_execs), dict(self._told)
        )

    def restore(self, memory: Memory) -> None:
        """Go on with that."""
        for event in memory.events:
            self.history.add(event)
        self.failed_execs.update(memory.failed_execs)
        self.ended_execs.update(memory.ended_execs)
        self._told.update(memory.told)

    @property
    def busy(self) -> bool:
        """Whether work goes on after its request."""
        return self._work > 0

    async def leave_word(self) -> None:
        """Have this woken by the next event of containers or images."""
        await self._host.leave_word(Node)
        await self._host.leave_word(Images)

    @functools.cached_property
    def builder(self) -> Builder:
        """The builder; an engine may be without one."""
        return self._host.use(Builder)

    async def start(self) -> None:
        """Read the catalog, follow it and the events of the slots below, make what is missing."""
        await self.catalog.load()
        self.id = await self.catalog.identity()
        self._host.spawn(self.catalog.follow(self.log), "follow the catalog")
        self._host.spawn(self._hear_node(), "hear containers")
        self._host.spawn(self._hear_images(), "hear images")
        self._host.spawn(self._retrying(self._default_network), "make the default network")
        self._host.spawn(self._take_back(time.time()), "take back unfinished creations")

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Work that goes on after its request, and belongs to it when calls are traced."""
        self._work += 1
        self._host.spawn(_outliving(current(), work), name).add_done_callback(self._work_ended)

    def _work_ended(self, task: asyncio.Task[None]) -> None:
        self._work -= 1

    def expect_start(self, record: ContainerRecord) -> None:
        """It is about to be asked for: what it needs is made ready meanwhile.

        Who attaches to what was expected from its creation on need not say so again.
        """
        if record.id not in self._expected:
            self.note_expected(record.id)
            self.spawn(self._expect(record.id), f"expect {record.id[:12]}")

    def note_expected(self, id_: str) -> None:
        """The node knows that the start of this container comes next."""
        self._expected.add(id_)
        asyncio.get_running_loop().call_later(_EXPECTED_SECONDS, self._expected.discard, id_)

    async def _expect(self, id_: str) -> None:
        with contextlib.suppress(SagongError):
            await self.node.expect(Ref(id=id_))

    async def container(self, reference: str) -> ContainerRecord:
        """By name, id or unique prefix; pods' containers by id too. NotFound in Docker's words."""
        if not reference:
            raise InvalidArgument('invalid name or ID supplied: ""')
        record = self.catalog.find(reference) or self._linked(reference)
        if record is None:
            record = await self._foreign(reference)
        if record is None:
            raise NotFound(f"No such container: {reference}")
        return record

    def _linked(self, reference: str) -> ContainerRecord | None:
        """By the name that it has for one that links to it: `who/alias`."""
        who, slash, alias = reference.removeprefix("/").partition("/")
        parent = self.catalog.find(who) if slash else None
        return self.catalog.containers.get(parent.links.get(alias, "")) if parent else None

    async def stop(self) -> None:
        """Write the rest."""
        await self.catalog.close()

    async def status(self, record: ContainerRecord) -> ContainerStatus:
        """How the node sees it; NotFound in Docker's words when it is gone."""
        try:
            return await self.node.inspect(Ref(id=record.id))
        except NotFound:
            raise NotFound(f"No such container: {record.name}") from None

    async def state(self, record: ContainerRecord) -> tuple[StatusState, int]:
        """Whether it runs, and its last run; one just made does not, which is asked twice a run."""
        if record.id in self.fresh:
            return StatusState.CREATED, 0
        status = await self.status(record)
        return status.state, status.run

    async def statuses(
        self, *, foreign_too: bool = False, begun: bool = False
    ) -> list[ContainerStatus]:
        """All containers of Docker's, or of everybody; only those that have begun."""
        query = NodeQuery(owner="" if foreign_too else OWNER, begun=begun)
        found = await self.node.list(query)
        return list(found.containers)

    def record_of(self, status: ContainerStatus) -> ContainerRecord:
        """The record of a status; a made-up one for pods' containers."""
        return self.catalog.containers.get(status.spec.id) or foreign(status, "kube")

    async def _foreign(self, reference: str) -> ContainerRecord | None:
        matches = [
            status
            for status in await self.statuses(foreign_too=True)
            if status.spec.id.startswith(reference) or status.spec.name == reference
        ]
        if len(matches) > 1:
            exact = [m for m in matches if reference in (m.spec.id, m.spec.name)]
            if len(exact) != 1:
                raise InvalidArgument(f"multiple IDs found with provided prefix: {reference}")
            matches = exact
        return foreign(matches[0], "kube") if matches else None

    async def image_names(self) -> dict[str, str]:
        """Ids of images by their names, read anew when one of them has changed."""
        if self._image_names is not None:
            return self._image_names
        found: dict[str, str] = {}
        self._image_names = found
        for image in (await self.images.list(ImageQuery(all=True, brief=True))).images:
            found.update(dict.fromkeys(image.tags, image.id))
        return found

    async def networks(self) -> list[Network]:
        """All networks: the plugin's, host and none if it has none of its own, configurations."""
        found = (await self.network.networks()).networks
        names = {network.name for network in found}
        networks = [*found, *(n for n in special_networks() if n.name not in names)]
        networks += configurations(self.catalog.networks.values())
        self.seen_networks = {n.id: n for n in networks} | {n.name: n for n in networks}
        return networks

    async def network_names(self) -> dict[str, str]:
        """Names by id."""
        return {network.id: network.name for network in await self.networks()}

    async def find_network(self, reference: str) -> Network:
        """By id, name or unique prefix; NotFound in Docker's words."""
        networks = await self.networks()
        for match in (
            [n for n in networks if n.id == reference],
            [n for n in networks if n.name == reference],
            [n for n in networks if n.id.startswith(reference)],
        ):
            if len(match) > 1:
                raise InvalidArgument(
                    f"network {reference} is ambiguous ({len(match)} matches found)"
                )
            if match:
                return match[0]
        raise NotFound(f"network {reference} not found")

    def note(self, record: ContainerRecord, action: str, **facts: str) -> None:
        """Something was done with a container here, with the attributes that the node tells too."""
        if record.id in self.fresh and record.id not in self._told:
            self._early.setdefault(record.id, []).append((action, facts))
            return
        told = self._told.get(record.id, {**record.labels, "image": record.image})
        self.history.note("container", action, record.id, {**told, "name": record.name, **facts})

    @contextlib.asynccontextmanager
    async def starting(self, id_: str) -> AsyncIterator[None]:
        """One start of a container after another: who comes second finds it running."""
        while (before := self._starts.get(id_)) is not None:
            await before.wait()
        over = self._starts[id_] = asyncio.Event()
        try:
            yield
        finally:
            del self._starts[id_]
            over.set()

    @contextlib.contextmanager
    def attempting(self, id_: str) -> Iterator[None]:
        """A start: should it fail, the removal that follows is told after what it attempted."""
        self._attempts[id_] = None
        try:
            yield
        finally:
            if (removal := self._attempts.pop(id_, None)) is not None:
                self._tell(removal)

    def note_attempt(self, record: ContainerRecord) -> None:
        """A start failed at its program: its networks were joined and left."""
        for event in attempted(record, self.seen_networks, time.time_ns()):
            self.history.add(event)

    def note_prune(self, kind: str, reclaimed: int) -> None:
        """Things of a kind that nobody uses were removed."""
        self.history.note(kind, "prune", "", {"reclaimed": str(reclaimed)})

    def forget(self, id_: str) -> None:
        """A container is gone for good."""
        self._told.pop(id_, None)
        self._early.pop(id_, None)
        self.fresh.discard(id_)
        self.fresh.difference_update(e.id for e in self.catalog.execs_of(id_))
        self.pending.ended(id_)
        self.catalog.forget_container(id_)

    async def _hear_node(self) -> None:
        async for event in self._host.hear(Node, ContainerEvent):
            if event is None:
                self.pending.unsure()
                await self._sweep()
                continue
            if event.action == "die":
                self.pending.over(event.id)
            try:
                await self._take(event)
            except SagongError as error:
                self.log.warning("event not applied", extra={"error": error.message})

    async def _take(self, event: ContainerEvent) -> None:
        if event.action == "start":
            self.fresh.discard(event.id)
            self._expected.discard(event.id)
            self.pending.told(event.id)
            if any(event.id in r.links.values() for r in self.catalog.containers.values()):
                self.spawn(self._renew_links(event.id), f"renew links to {event.id[:12]}")
        if event.action == "die":
            # What was to be executed in that run is not executed in another.
            unborn = [e for e in self.catalog.execs_of(event.id) if e.id in self.fresh]
            self.fresh.difference_update(e.id for e in unborn)
            await self.catalog.forget(*unborn)
        if event.action == "volume_create":
            name = dict(event.attributes)["volume"]
            self.history.note("volume", "create", name, {"driver": "local"})
            return
        if event.action == "destroy" and event.id in self._attempts:
            self._attempts[event.id] = event
        else:
            self._tell(event)

    def _tell(self, event: ContainerEvent) -> None:
        """Keep it in Docker's form, with what belongs to it, for those who listen."""
        shown = of_container(event)
        if event.action == "rename":
            old = self.renamed.pop(event.id, "")
            attributes = {**shown.attributes, "oldName": f"/{old}"}
            shown = Event("container", "rename", event.id, attributes, event.time, shown.owner)
        self._told[event.id] = {k: v for k, v in event.attributes if k not in _OWN_FACTS}
        record = self.catalog.containers.get(event.id)
        if record is None:
            self.history.add(shown)
        else:
            for each in told(shown, event.volumes, record, self.seen_networks):
                self.history.add(each)
            for action, facts in self._early.pop(event.id, ()):
                self.note(record, action, **facts)
        if event.action == "destroy":
            self.forget(event.id)

    async def _renew_links(self, id_: str) -> None:
        from sagong_docker.linking import renew

        await renew(self, id_)

    async def _sweep(self) -> None:
        """Events may have been missed: drop what the node doesn't know any more."""
        with contextlib.suppress(SagongError):
            before = {r.id for r in self.catalog.containers.values()}
            known = {s.spec.id for s in await self.statuses(foreign_too=True)}
            for id_ in before - known:
                await self._drop_unless_made(id_)

    async def _drop_unless_made(self, id_: str) -> None:
        """A record is written beside the node's: give a creation that goes on now its time."""
        await asyncio.sleep(1.0)
        try:
            await self.node.inspect(Ref(id=id_))
        except NotFound:
            self.forget(id_)

    async def _take_back(self, began: float) -> None:
        """Remove what was to be a container when a process of ours before died: nobody knows its id.

        Not at once: beside us a generation before may be about to write its record.
        """
        await asyncio.sleep(self.settings.unfinished_seconds)
        await self._retrying(lambda: self._remove_unrecorded(began))

    async def _remove_unrecorded(self, began: float) -> None:
        for status in await self.statuses():
            id_ = status.spec.id
            if status.run or status.created_at >= began or await self.catalog.has_container(id_):
                continue
            with contextlib.suppress(NotFound):
                sandbox = Ref(id=status.spec.sandbox)
                # The builder's are its own to remove.
                if (await self.node.sandbox(sandbox)).spec.owner == OWNER:
                    await self.node.remove(RemoveRequest(id=id_, volumes=True))
                    await self.node.remove_sandbox(sandbox)
                    self.log.warning("unfinished container removed", extra={"container": id_})

    async def _hear_images(self) -> None:
        async for event in self._host.hear(Images, ImageChanged):
            self._image_names = None
            if event is not None:
                action = "create" if event.action == "commit" else event.action
                named = action not in _BY_ID and event.reference
                attributes = {**dict(event.labels), "name": named or event.id}
                self.history.note("image", action, event.id, attributes)

    async def _default_network(self) -> None:
        """Docker's default network, once."""
        name = self.settings.default_network
        found = await self.network.networks()
        if not name or any(n.name == name for n in found.networks):
            return
        from sagong_docker.networks import default_network

        await self.network.create(default_network(new_id(), self.settings))

    async def _retrying(self, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await work()
                return
            except Unavailable:
                await asyncio.sleep(0.2)
            except SagongError as error:
                self.log.error("failed", extra={"error": error.message})
                await asyncio.sleep(5.0)


async def _outliving(call: Call, work: Coroutine[Any, Any, None]) -> None:
    with outliving(call):
        await work
