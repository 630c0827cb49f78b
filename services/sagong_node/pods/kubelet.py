"""The kubelet of this machine: follows the node's pods and gives each a worker."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Collection
from pathlib import Path

import msgspec

from sagong.contracts.auth import Auth
from sagong.contracts.image import Images
from sagong.contracts.network import Network, Subnet
from sagong.contracts.node import StopRequest
from sagong.contracts.objects import Objects, ObjectWatch, Write
from sagong.drivers import EveryNetwork, EveryVolume
from sagong.errors import AlreadyExists, SagongError
from sagong.failures import tell
from sagong.following import follow
from sagong.host import Host
from sagong.model import quantity
from sagong.model.k8s.meta_v1 import ObjectMeta
from sagong_node.lifecycle import Lifecycle
from sagong_node.pods.claims import shared_name
from sagong_node.pods.heartbeat import Heartbeat
from sagong_node.pods.ledger import Ledger
from sagong_node.pods.machine import Facts, read_facts
from sagong_node.pods.manifests import is_static
from sagong_node.pods.naming import OWNER, Origin, origin
from sagong_node.pods.occurrences import Occurrences
from sagong_node.pods.pulling import Puller
from sagong_node.pods.reclaiming import Reclaimer
from sagong_node.pods.registration import allocatable
from sagong_node.pods.removal import UID_LABEL, box_of, remove_pod
from sagong_node.pods.roster import Roster
from sagong_node.pods.router import Router
from sagong_node.pods.settings import PodSettings
from sagong_node.pods.sources import Sources
from sagong_node.pods.static import StaticFiles
from sagong_node.pods.surroundings import ServiceView, Surroundings
from sagong_node.pods.tokens import Tokens
from sagong_node.pods.volumes import PodVolumes
from sagong_node.pods.worker import PodWorker
from sagong_node.records import SandboxRecord
from sagong_node.registry import Registry
from sagong_node.service import NodeService

__all__ = ["Kubelet", "Remains"]

_NETWORK = "pods"
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
_FIRST_RETRY, _LONGEST_RETRY = 1.0, 300.0
_DRAIN, _LAST_WRITE = 0.25, 2.0


class _Head(msgspec.Struct):
    """What of a pod tells which worker it is for."""

    metadata: ObjectMeta


class Remains(msgspec.Struct, frozen=True):
    """What is handed over at a swap: events that nobody has written."""

    events: tuple[Write, ...] = ()


class Kubelet:
    """Made by the service's plugin class with its own parts; `start` returns at once."""

    def __init__(
        self,
        host: Host,
        service: NodeService,
        life: Lifecycle,
        registry: Registry,
        settings: PodSettings,
    ) -> None:
        self._host = host
        self._registry = registry
        self._networks = EveryNetwork(host)
        self._volumes = EveryVolume(host)
        self._workers: dict[str, PodWorker] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._done: set[str] = set()
        pods = host.data / "pods"
        pods.mkdir(parents=True, exist_ok=True, mode=0o711)
        self._facts = read_facts(pods, address=settings.address)
        settings = msgspec.structs.replace(settings, name=settings.name or self._facts.hostname)
        self._facts = msgspec.structs.replace(self._facts, hostname=settings.name)
        self._prepared = asyncio.Lock()
        self._succeeded = False
        self._around = self._surround(service, life, settings)
        self._roster = Roster(host.log)
        self._static = self._surround_static(self._around)
        self._heartbeat = Heartbeat(self._around, self._facts)

    def _surround(
        self, service: NodeService, life: Lifecycle, settings: PodSettings
    ) -> Surroundings:
        host = self._host
        pods, objects = host.data / "pods", host.use(Objects)
        ledger = Ledger(objects, host.log, manager="kubelet")
        sources = Sources(objects, host.spawn, self._sources_changed, host.log)
        self._reclaimer = Reclaimer(objects, self._volumes, host.log, node=settings.name)
        tokens = Tokens(host.use(Auth))
        memory = host.run / "pods"
        memory.mkdir(parents=True, exist_ok=True, mode=0o700)
        volumes = PodVolumes(pods, memory, self._volumes, sources, tokens, self._reclaimer)
        self._router = Router(objects, self._networks, settings, host.spawn, host.log)
        facts: Facts = self._facts
        own = {k: quantity.nano(v) for k, v in allocatable(facts, settings).items()}
        return Surroundings(
            node=service,
            life=life,
            registry=self._registry,
            objects=objects,
            ledger=ledger,
            occurrences=Occurrences(ledger, settings.name),
            volumes=volumes,
            sources=sources,
            puller=Puller(host.use(Images), parallel=settings.pulls),
            services=ServiceView(self._router.of_namespace, self._router.services.synced.wait),
            settings=settings,
            log=host.log,
            pods=pods,
            logs=Path(settings.log_directory) if settings.log_directory else host.data / "logs",
            host=facts.address,
            memory=facts.memory,
            capacity=own,
            ended=self._worker_ended,
        )

    def _surround_static(self, around: Surroundings) -> Surroundings:
        """The same for static pods, of which no API server knows."""
        host, settings = self._host, around.settings
        ledger = Ledger(self._roster, host.log, manager="kubelet")
        sources = Sources(self._roster, host.spawn, self._sources_changed, host.log)

        async def known() -> None:
            return None  # there are no services to wait for

        return msgspec.structs.replace(
            around,
            objects=self._roster,
            ledger=ledger,
            occurrences=Occurrences(ledger, settings.name),
            sources=sources,
            volumes=PodVolumes(around.pods, host.run / "pods", self._volumes, sources, None),
            services=ServiceView(lambda namespace: [], known),
        )

    async def start(self) -> None:
        """Begin; where nobody serves `objects` (a container engine alone) it waits quietly."""
        settings = self._around.settings
        if not settings.enabled:
            return
        files = StaticFiles(settings, self._host.use(Images), self._roster, self._host.log)
        if files.configured or any(map(is_static, self._uids())):
            self._host.spawn(self._static.ledger.run(), "write statuses of static pods")
            self._host.spawn(self._follow_static(files), "follow static pods")
        if not settings.api:
            return
        self._host.spawn(self._heartbeat.run(), "follow own node")
        self._host.spawn(self._begin(), "wait for the API server")

    async def _begin(self) -> None:
        """One watch waits for the API server; all the rest begins when it is there."""
        await self._heartbeat.reached.wait()
        self._host.spawn(self._heartbeat.beat(), "heartbeat")
        self._host.spawn(self._around.ledger.run(), "write statuses")
        self._host.spawn(self._follow_pods(), "follow pods")
        self._host.spawn(self._reclaimer.run(), "reclaim volumes")
        self._router.start()

    async def drain(self) -> None:
        """Write the statuses that wait; nobody is served meanwhile, so not for long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN):
                await self._around.ledger.hurry()

    def export(self) -> Remains:
        """What a successor can't find out by itself."""
        self._succeeded = True
        return Remains(events=self._around.ledger.hand_over())

    def restore(self, remains: Remains) -> None:
        """Take that over."""
        self._around.ledger.inherit(remains.events)

    async def stop(self) -> None:
        """Give up the workers; pods go on."""
        if not self._succeeded:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LAST_WRITE):
                    await self._around.ledger.write_out()
        tasks, self._tasks = list(self._tasks.values()), {}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for worker in self._workers.values():
            await worker.close()

    def _sources_changed(self, uid: str) -> None:
        worker = self._workers.get(uid)
        if worker is not None:
            worker.sources_changed()

    def _worker_ended(self, uid: str) -> None:
        self._workers.pop(uid, None)
        self._tasks.pop(uid, None)
        # The object may stay for its finalizers; nothing is started for it again.
        self._done.add(uid)

    async def _follow_pods(self) -> None:
        name = self._around.settings.name
        watch = ObjectWatch(resource="v1/pods", fields=f"spec.nodeName={name}")
        seen: set[str] = set()
        ready = False
        async for batch in follow(self._around.objects, watch, log=self._host.log):
            if not ready:
                await self._wait_ready()
                ready = True
            if batch.fresh:
                seen = set()
            for change in batch.changes:
                seen |= self._take(change.kind, change.body, self._around)
            if batch.synced:
                self._gone_but(seen)
                self._host.spawn(self._remove_orphans(self._around), "remove orphans")

    async def _follow_static(self, files: StaticFiles) -> None:
        """Pods from files; what former files have left goes first, as its names may come again."""
        await self._wait_ready()
        wanted = {pod.uid for pod in files.read().values()}
        await self._remove_orphans(self._static, wanted)
        self._host.spawn(files.run(), "follow static files")
        async for change in self._roster.changes():
            self._take(change.kind, change.body, self._static)

    async def _wait_ready(self) -> None:
        """The network for pods must be there before the first of them."""
        async with self._prepared:
            if not self._around.network:
                await self._prepare_network()

    async def _prepare_network(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            try:
                network = await self._network()
                lost = await self._lost_boxes()
                break
            except SagongError as error:
                self._host.log.warning("the network for pods: %s", error.message)
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
        for record in lost:
            await self._drop_box(record)
        self._around.network = self._static.network = network

    async def _network(self) -> str:
        settings = self._around.settings
        if settings.network:
            return settings.network
        known = {n.name: n.id for n in (await self._networks.networks()).networks}
        if _NETWORK in known:
            return known[_NETWORK]
        id_ = hashlib.sha256(f"sagong network {_NETWORK}".encode()).hexdigest()
        network = Network(
            id=id_,
            name=_NETWORK,
            subnets=(Subnet(subnet=settings.pod_cidr),),
            labels=(("io.sagong.owner", OWNER),),
        )
        try:
            return (await self._networks.create(network)).id
        except AlreadyExists:
            return id_

    async def _lost_boxes(self) -> list[SandboxRecord]:
        """Sandboxes whose network namespace went with a reboot."""
        there = {s.id for s in (await self._networks.sandboxes()).sandboxes}
        return [
            record
            for record in list(self._registry.sandboxes.values())
            if record.spec.owner == OWNER
            and record.network is not None
            and record.network.mode != "host"
            and record.spec.id not in there
        ]

    async def _drop_box(self, record: SandboxRecord) -> None:
        """End what is left in a lost sandbox; it is joined anew when its pod is prepared."""
        for container in list(self._registry.containers.values()):
            if container.alive and container.spec.sandbox == record.spec.id:
                with contextlib.suppress(SagongError):
                    await self._around.node.stop(
                        StopRequest(id=container.spec.id, seconds=0.0, signal="SIGKILL")
                    )
        record.network = None
        self._registry.keep(record)

    def _take(self, kind: str, body: bytes, around: Surroundings) -> set[str]:
        """One change; the uid that is there after it."""
        uid = msgspec.json.decode(body, type=_Head).metadata.uid
        worker = self._workers.get(uid)
        if kind == "DELETED":
            self._done.discard(uid)
            if worker is not None:
                worker.gone()
            return set()
        try:
            if worker is not None:
                worker.update(body)
            elif uid not in self._done:
                self._employ(uid, body, around)
        except msgspec.DecodeError as error:
            self._host.log.warning("pod %s can't be read and is left as it is: %s", uid, error)
        return {uid}

    def _employ(
        self, uid: str, body: bytes, around: Surroundings, pause: float = _FIRST_RETRY
    ) -> PodWorker:
        worker = PodWorker(around, body)
        self._workers[uid] = worker
        worker.adopt(self._origins(uid), box_of(around, uid))
        task = self._host.spawn(self._guarded(uid, worker, around, pause), f"pod {uid}")
        self._tasks[uid] = task
        return worker

    async def _guarded(
        self, uid: str, worker: PodWorker, around: Surroundings, pause: float
    ) -> None:
        """A defect with one pod leaves the others alone; that pod is tried again by a new worker."""
        try:
            await worker.run()
        except Exception as error:
            tell(self._host.log, f"worker of pod {uid}", uid, error)
            await worker.close()
            await asyncio.sleep(pause)
            if self._workers.get(uid) is worker:
                pause = min(pause * 2, _LONGEST_RETRY)
                successor = self._employ(uid, worker.body, around, pause)
                if worker.is_gone:
                    successor.gone()

    def _origins(self, uid: str) -> list[Origin]:
        found = (origin(record.spec) for record in self._registry.containers.values())
        return [entry for entry in found if entry is not None and entry.uid == uid]

    def _gone_but(self, seen: set[str]) -> None:
        """The whole is known: what is not in it is gone."""
        for uid, worker in self._workers.items():
            if uid not in seen and not is_static(uid):
                worker.gone()
        self._done = {uid for uid in self._done if uid in seen or is_static(uid)}

    async def _remove_orphans(
        self, around: Surroundings, wanted: Collection[str] = frozenset()
    ) -> None:
        """Containers, sandboxes and files of pods that there are no more, where these came from."""
        known = {*self._workers, *wanted, ""}
        static = around is self._static
        for uid in sorted(uid for uid in self._uids() - known if is_static(uid) == static):
            try:
                self._host.log.info("removing what is left of pod %s, which is gone", uid)
                await remove_pod(around, uid, [shared_name(uid)])
            except SagongError as error:
                self._host.log.warning("orphaned pod %s: %s", uid, error.message)

    def _uids(self) -> set[str]:
        """Of all pods that have anything on this machine."""
        uids = {
            entry.uid
            for record in self._registry.containers.values()
            if (entry := origin(record.spec)) is not None and self._owned(record.spec.sandbox)
        }
        uids |= {
            dict(record.spec.labels).get(UID_LABEL, "")
            for record in self._registry.sandboxes.values()
            if record.spec.owner == OWNER
        }
        return uids | self._around.volumes.leftovers()

    def _owned(self, sandbox: str) -> bool:
        record = self._registry.sandboxes.get(sandbox)
        return record is None or record.spec.owner == OWNER
