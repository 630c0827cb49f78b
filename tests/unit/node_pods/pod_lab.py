"""A node with small fakes of the slots below it and of the API server above it, for pods' tests."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from sagong.contracts.auth import Auth, Token, TokenRequest
from sagong.contracts.image import (
    Image,
    ImageConfig,
    ImageRef,
    Images,
    Prepared,
    PrepareRequest,
    Progress,
    PullRequest,
    RootRef,
)
from sagong.contracts.metrics import Metrics
from sagong.contracts.network import (
    ConnectRequest,
    DisconnectRequest,
    Endpoint,
    JoinRequest,
    Network,
    NetworkList,
    Networks,
    Rules,
    Sandbox,
    SandboxList,
    SandboxRef,
)
from sagong.contracts.objects import (
    Commit,
    CommitResult,
    GetRequest,
    Object,
    ObjectBatch,
    ObjectChange,
    Objects,
    ObjectWatch,
    Outcome,
    Verb,
    Write,
)
from sagong.contracts.runtime import (
    Container,
    ContainerList,
    ContainerRef,
    ContainerState,
    ExecRequest,
    ExecStatus,
    Exited,
    Mount,
    RunSpec,
    Runtime,
    SignalRequest,
    UpdateRequest,
)
from sagong.contracts.state import (
    Entry,
    OperationKind,
    RangeRequest,
    RangeResult,
    State,
    Transaction,
    TransactionResult,
)
from sagong.contracts.volume import (
    Published,
    PublishRequest,
    UnpublishRequest,
    Volume,
    VolumeRef,
    Volumes,
)
from sagong.errors import Gone, NotFound
from sagong.testing import LocalHost
from sagong_node.execution import Execution
from sagong_node.ground import Ground
from sagong_node.health import Health
from sagong_node.journal import Journal
from sagong_node.lifecycle import Lifecycle
from sagong_node.pods.kubelet import Kubelet, Remains
from sagong_node.pods.settings import PodSettings
from sagong_node.registry import Registry
from sagong_node.service import NodeService
from sagong_node.streams import StreamServer

Document = dict[str, Any]


class Slot:
    """Methods of the slot that no test needs do nothing."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "implementation":
            raise AttributeError(name)

        async def nothing(*_: Any) -> None:
            return None

        return nothing


class FakeState(Slot):
    """Ranges and unconditional transactions."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}

    async def range(self, request: RangeRequest) -> RangeResult:
        found = sorted(k for k in self.values if request.start <= k < request.end)
        entries = tuple(
            Entry(key=k, value=self.values[k], create_revision=1, revision=1, version=1)
            for k in found
        )
        return RangeResult(entries=entries, count=len(entries), revision=1)

    async def commit(self, transaction: Transaction) -> TransactionResult:
        for operation in transaction.success:
            if operation.kind is OperationKind.DELETE:
                self.values.pop(operation.key, None)
            else:
                self.values[operation.key] = operation.value
        return TransactionResult(succeeded=True, revision=2)


class FakeImages(Slot):
    """Images that are here, and those that can be pulled."""

    def __init__(self, directory: Path) -> None:
        self.here = {"busybox:1": ImageConfig(cmd=("sh",))}
        self.lent: set[str] = set()
        self.remote: dict[str, ImageConfig] = {}
        self.pulls: list[PullRequest] = []
        self._directory = directory

    def _image(self, name: str) -> Image:
        return Image(id=f"sha256:{name}", tags=(name,), config=self.here[name], size=5)

    async def inspect(self, ref: ImageRef) -> Image:
        name = ref.reference.removeprefix("sha256:")
        if name not in self.here:
            raise NotFound(f"No such image: {ref.reference}")
        return self._image(name)

    async def pull(self, request: PullRequest) -> AsyncIterator[Progress]:
        self.pulls.append(request)
        if request.reference not in self.remote:
            raise NotFound(f"manifest for {request.reference} not found")
        self.here[request.reference] = self.remote[request.reference]
        yield Progress(status="done")

    async def prepare(self, request: PrepareRequest) -> Prepared:
        image = await self.inspect(ImageRef(reference=request.image))
        self.lent.add(request.id)
        root = Mount(target="/", kind="tmpfs", source="tmpfs")
        return Prepared(root=root, image=image, passwd=b"root:x:0:0::/root:/bin/sh\n")

    async def release(self, root: RootRef) -> None:
        self.lent.discard(root.id)


class FakeRuntime(Slot):
    """Containers that run until they are signalled, or told to end by `end`."""

    def __init__(self) -> None:
        self.frozen_with_a_signal: set[str] = set()
        self.containers: dict[str, Container] = {}
        self.specs: dict[str, RunSpec] = {}
        self.started: list[str] = []
        self.prepared: dict[str, RunSpec] = {}
        self.signals: list[tuple[str, int]] = []
        self.stubborn: set[str] = set()
        self.exec_codes: dict[tuple[str, ...], int] = {}
        self.execs: list[tuple[str, ...]] = []
        self.exec_delay = 0.0
        self.updates: list[UpdateRequest] = []
        self.refuse: dict[str, Exception] = {}
        self.deliver: Callable[[Exited], None] = lambda event: None

    def name_of(self, id_: str) -> str:
        return dict(self.specs[id_].labels)["name"].split("_")[1]

    async def prepare(self, spec: RunSpec) -> None:
        self.prepared[spec.id] = spec

    async def discard(self, container: ContainerRef) -> None:
        self.prepared.pop(container.id, None)

    async def run(self, spec: RunSpec) -> Container:
        self.specs[spec.id] = spec
        name = self.name_of(spec.id)
        if name in self.refuse:
            raise self.refuse[name]
        known = self.containers.get(spec.id)
        if known is not None and known.run == spec.run:
            return known  # as the contract has it: who died before he noted it down asks again
        self.started.append(name)
        container = Container(
            id=spec.id, run=spec.run, state=ContainerState.RUNNING, pid=7, started_at=time.time()
        )
        self.containers[spec.id] = container
        return container

    def end(self, name: str, code: int = 0, *, message: str = "", oom: bool = False) -> None:
        """The running container of that name ends by itself."""
        for id_, container in list(self.containers.items()):
            if container.state is ContainerState.RUNNING and self.name_of(id_) == name:
                if message:
                    mounts = {m.target: m.source for m in self.specs[id_].mounts}
                    Path(mounts["/dev/termination-log"]).write_text(message)
                self._end(id_, code, oom=oom)

    def _end(self, id_: str, code: int, *, oom: bool = False) -> None:
        now = time.time()
        known = self.containers[id_]
        self.containers[id_] = msgspec.structs.replace(
            known, state=ContainerState.EXITED, code=code, finished_at=now
        )
        self.deliver(Exited(id=id_, run=known.run, code=code, finished_at=now, oom_killed=oom))

    def running(self) -> list[str]:
        """Names of what runs."""
        return sorted(
            self.name_of(c.id)
            for c in self.containers.values()
            if c.state is ContainerState.RUNNING
        )

    async def signal(self, request: SignalRequest) -> None:
        container = self.containers.get(request.id)
        if container is None or container.state is not ContainerState.RUNNING:
            raise NotFound(f"no container {request.id}")
        name = self.name_of(request.id)
        self.signals.append((name, request.signal))
        if request.signal == 9 or name not in self.stubborn:
            self._end(request.id, 128 + request.signal)

    async def pause(self, container: ContainerRef) -> None:
        return

    async def resume(self, container: ContainerRef) -> None:
        """One that got a signal while it was frozen ends as soon as it is thawed."""
        name = self.name_of(container.id)
        if name in self.frozen_with_a_signal:
            self._end(container.id, 143)
            await asyncio.sleep(0.05)

    async def exec(self, request: ExecRequest) -> ExecStatus:
        self.execs.append(request.process.args)
        await asyncio.sleep(self.exec_delay)
        code = self.exec_codes.get(request.process.args, 0)
        return ExecStatus(exec_id=request.exec_id, running=False, code=code)

    async def exec_status(self, request: ExecRequest) -> ExecStatus:
        return ExecStatus(exec_id=request.exec_id, running=False)

    async def update(self, request: UpdateRequest) -> None:
        self.updates.append(request)

    async def list(self) -> ContainerList:
        return ContainerList(containers=tuple(self.containers.values()))

    async def remove(self, container: ContainerRef) -> None:
        self.containers.pop(container.id, None)


class FakeNetworks(Slot):
    """Addresses in a row."""

    def __init__(self) -> None:
        self.known: dict[str, Network] = {}
        self.joined: dict[str, Sandbox] = {}
        self.requests: dict[str, JoinRequest] = {}
        self.rules: list[Rules] = []
        self._numbers = itertools.count(2)

    async def networks(self) -> NetworkList:
        return NetworkList(networks=tuple(self.known.values()))

    async def create(self, network: Network) -> Network:
        self.known[network.id] = network
        return network

    async def join(self, request: JoinRequest) -> Sandbox:
        self.requests[request.id] = request
        if request.id not in self.joined:
            endpoints = tuple(
                Endpoint(
                    network=a.network,
                    interface="eth0",
                    mac="",
                    ipv4=f"10.244.0.{next(self._numbers)}",
                    ipv4_prefix=24,
                )
                for a in request.attachments
            )
            self.joined[request.id] = Sandbox(
                id=request.id,
                path="" if request.mode == "host" else f"/run/netns/{request.id}",
                mode=request.mode,
                endpoints=endpoints,
            )
        return self.joined[request.id]

    async def leave(self, sandbox: SandboxRef) -> None:
        self.joined.pop(sandbox.id, None)

    async def sandboxes(self) -> SandboxList:
        return SandboxList(sandboxes=tuple(self.joined.values()))

    async def disconnect(self, request: DisconnectRequest) -> Sandbox:
        known = self.joined[request.id]
        left = tuple(e for e in known.endpoints if e.network != request.network)
        self.joined[request.id] = msgspec.structs.replace(known, endpoints=left)
        return self.joined[request.id]

    async def connect(self, request: ConnectRequest) -> Sandbox:
        return self.joined[request.id]

    async def apply(self, rules: Rules) -> None:
        self.rules.append(rules)


class FakeVolumes(Slot):
    """Directories."""

    def __init__(self, directory: Path) -> None:
        self.volumes: dict[str, Volume] = {}
        self.published: set[tuple[str, str]] = set()
        self._directory = directory

    async def create(self, volume: Volume) -> Volume:
        self.volumes[volume.name] = volume
        return volume

    async def publish(self, request: PublishRequest) -> Published:
        self.published.add((request.owner, request.name))
        path = self._directory / request.name / request.subpath
        path.mkdir(parents=True, exist_ok=True)
        return Published(path=str(path))

    async def unpublish(self, request: UnpublishRequest) -> None:
        self.published = {
            (owner, name)
            for owner, name in self.published
            if owner != request.owner or request.name not in ("", name)
        }

    async def delete(self, volume: VolumeRef) -> None:
        self.volumes.pop(volume.name, None)

    async def inspect(self, volume: VolumeRef) -> Volume:
        if volume.name not in self.volumes:
            raise NotFound(f"no volume {volume.name}")
        return self.volumes[volume.name]

    async def list(self) -> None: ...


class FakeMetrics(Slot):
    """Listens to nobody."""


class FakeAuth(Slot):
    """Numbered tokens."""

    def __init__(self) -> None:
        self.requests: list[TokenRequest] = []

    async def issue_token(self, request: TokenRequest) -> Token:
        self.requests.append(request)
        return Token(token=f"token-{len(self.requests)}", expires=time.time() + request.seconds)


_RESOURCES = {
    "Pod": "v1/pods",
    "Node": "v1/nodes",
    "ConfigMap": "v1/configmaps",
    "Secret": "v1/secrets",
    "ServiceAccount": "v1/serviceaccounts",
    "Service": "v1/services",
    "Namespace": "v1/namespaces",
    "PersistentVolume": "v1/persistentvolumes",
    "PersistentVolumeClaim": "v1/persistentvolumeclaims",
    "EndpointSlice": "discovery.k8s.io/v1/endpointslices",
    "NetworkPolicy": "networking.k8s.io/v1/networkpolicies",
}
Key = tuple[str, str, str]


class FakeObjects(Slot):
    """Objects in memory with revisions, watches by field, and the commits that the node makes."""

    def __init__(self) -> None:
        self.objects: dict[Key, Document] = {}
        self.revision = 1
        self.status_writes: list[Document] = []
        self.events: list[Document] = []
        self.refuse: Exception | None = None
        self._watchers: list[tuple[ObjectWatch, asyncio.Queue[Any]]] = []

    # What tests do

    def put(self, document: Document) -> Document:
        """Create or change an object from outside."""
        metadata = document.setdefault("metadata", {})
        resource = _RESOURCES[document["kind"]]
        key = (resource, metadata.get("namespace", ""), metadata["name"])
        known = self.objects.get(key)
        metadata.setdefault("uid", known["metadata"]["uid"] if known else f"uid-{metadata['name']}")
        self._store(key, document)
        return document

    def pod(self, name: str, namespace: str = "default") -> Document | None:
        """The pod as it is."""
        return self.objects.get(("v1/pods", namespace, name))

    def delete(self, kind: str, name: str, *, namespace: str = "default", grace: int = 0) -> None:
        """Mark for deletion, or remove at once."""
        key = (_RESOURCES[kind], namespace, name)
        document = msgspec.json.decode(msgspec.json.encode(self.objects[key]))
        if not grace:
            self._remove(key)
            return
        document["metadata"]["deletionTimestamp"] = "2024-01-01T00:00:00Z"
        document["metadata"]["deletionGracePeriodSeconds"] = grace
        self._store(key, document)

    def break_watches(self) -> None:
        """Every watch ends as after a compaction."""
        for _, queue in self._watchers:
            queue.put_nowait(None)

    # The contract

    async def get(self, request: GetRequest) -> Object:
        found = self.objects.get((request.resource, request.namespace, request.name))
        if found is None:
            raise NotFound(f'"{request.name}" not found')
        return Object(body=msgspec.json.encode(found), revision=self.revision)

    async def watch(self, request: ObjectWatch) -> AsyncIterator[ObjectBatch]:
        if self.refuse is not None:
            raise self.refuse
        queue: asyncio.Queue[Any] = asyncio.Queue()
        entry = (request, queue)
        self._watchers.append(entry)
        try:
            first = [
                ObjectChange(kind="ADDED", body=msgspec.json.encode(o))
                for key, o in self.objects.items()
                if _fits(request, key, o)
            ]
            if not request.revision:
                yield ObjectBatch(revision=self.revision, changes=tuple(first), synced=True)
            while (change := await queue.get()) is not None:
                yield ObjectBatch(revision=self.revision, changes=(change,))
            raise Gone("compacted")
        finally:
            self._watchers.remove(entry)

    async def commit(self, commit: Commit) -> CommitResult:
        outcomes = tuple(self._write(write) for write in commit.writes)
        return CommitResult(outcomes=outcomes, revision=self.revision)

    def _write(self, write: Write) -> Outcome:
        key = (write.resource, write.namespace, write.name)
        known = self.objects.get(key)
        if write.resource == "v1/events":
            if write.verb is Verb.CREATE:
                self.events.append(msgspec.json.decode(write.body))
            return Outcome(revision=self.revision)
        if write.verb is Verb.CREATE:
            if known is not None:
                return Outcome(error="already_exists", message="exists")
            document = msgspec.json.decode(write.body)
            document["metadata"].setdefault("uid", f"uid-{write.name}")
            return self._store(key, document)
        if known is None:
            return Outcome(error="not_found", message=f'"{write.name}" not found')
        if write.uid and known["metadata"]["uid"] != write.uid:
            return Outcome(error="conflict", message="uid")
        if write.verb is Verb.DELETE:
            self._remove(key)
            return Outcome(body=msgspec.json.encode(known), revision=self.revision)
        change = msgspec.json.decode(write.body)
        said = change.get("metadata", {}).pop("resourceVersion", None)
        if said and said != known["metadata"]["resourceVersion"]:
            return Outcome(error="conflict", message="modified")
        if write.verb is Verb.UPDATE:
            return self._store(key, change)
        if write.subresource == "status":
            if write.resource == "v1/pods":
                self.status_writes.append(change["status"])
            change = {"status": change["status"]}
        return self._store(key, _merged(known, change))

    def _store(self, key: Key, document: Document) -> Outcome:
        self.revision += 1
        known = self.objects.get(key)
        document["metadata"]["resourceVersion"] = str(self.revision)
        self.objects[key] = document
        self._tell("MODIFIED" if known else "ADDED", key, document)
        return Outcome(body=msgspec.json.encode(document), revision=self.revision)

    def _remove(self, key: Key) -> None:
        self.revision += 1
        document = self.objects.pop(key)
        document["metadata"]["resourceVersion"] = str(self.revision)
        self._tell("DELETED", key, document)

    def _tell(self, kind: str, key: Key, document: Document) -> None:
        for watch, queue in self._watchers:
            if _fits(watch, key, document):
                queue.put_nowait(ObjectChange(kind=kind, body=msgspec.json.encode(document)))


def _fits(watch: ObjectWatch, key: Key, document: Document) -> bool:
    if watch.resource != key[0] or (watch.namespace and watch.namespace != key[1]):
        return False
    field, _, value = watch.fields.partition("=")
    if field == "metadata.name":
        return key[2] == value
    if field == "spec.nodeName":
        return bool(document.get("spec", {}).get("nodeName") == value)
    return True


def _merged(known: Any, change: Any) -> Any:
    if not isinstance(change, dict):
        return change
    result = dict(known) if isinstance(known, dict) else {}
    for key, value in change.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merged(result.get(key), value)
    return result


def _settings() -> PodSettings:
    return PodSettings(name="node-1", address="192.168.7.1", renew_seconds=30.0)


@dataclass
class Lab:
    """The node's process, restartable; what the machine has stays."""

    directory: Path
    settings: PodSettings = field(default_factory=_settings)
    state: FakeState = field(default_factory=FakeState)
    runtime: FakeRuntime = field(default_factory=FakeRuntime)
    networks: FakeNetworks = field(default_factory=FakeNetworks)
    objects: FakeObjects = field(default_factory=FakeObjects)
    auth: FakeAuth = field(default_factory=FakeAuth)

    def __post_init__(self) -> None:
        self.images = FakeImages(self.directory)
        self.volumes = FakeVolumes(self.directory / "volumes")
        for name in ("data", "run"):
            (self.directory / name).mkdir(parents=True, exist_ok=True)

    async def start(self, remains: Remains | None = None) -> None:
        """As `sagong_node.plugin` does it, with what a predecessor has left."""
        uses: dict[type, Any] = {
            State: {"local": self.state},
            Images: self.images,
            Runtime: self.runtime,
            Networks: self.networks,
            Volumes: self.volumes,
            Metrics: FakeMetrics(),
            Objects: self.objects,
            Auth: self.auth,
        }
        host = LocalHost(
            "node", data=self.directory / "data", run=self.directory / "run", uses=uses
        )
        self.host = host
        self.registry = Registry(host.use(State, "local"))
        ground = Ground(host, self.registry)
        self.life = Lifecycle(host, self.registry, ground, Journal(host))
        Health(host, self.registry, self.life, Execution(self.life, self.registry, ground))
        streams = StreamServer(host.run)
        self.service = NodeService(host, self.registry, ground, self.life, streams)
        await self.registry.load()
        await ground.reclaim()
        host.spawn(self.registry.write_behind(), "write records")
        host.spawn(ground.sweep(), "remove old logs")

        def hear(event: Exited) -> None:
            self.life.finish(event)

        self.runtime.deliver = hear
        await self.life.reconcile("")
        self.kubelet = Kubelet(host, self.service, self.life, self.registry, self.settings)
        if remains is not None:
            self.kubelet.restore(remains)
        await self.kubelet.start()

    async def swap(self) -> None:
        """Drain, hand over, and go on as a successor."""
        self.life.stops.leave()
        await self.kubelet.drain()
        remains = self.kubelet.export()
        await self.stop()
        await self.start(remains)

    async def stop(self) -> None:
        """An ordered end of the process."""
        await self.kubelet.stop()
        await self.registry.close()
        await self.host.close()

    async def kill(self) -> None:
        """As kill -9: nothing more is written, containers go on."""
        self.runtime.deliver = lambda event: None
        await self.kubelet.stop()
        await self.host.close()

    async def until(self, condition: Callable[[], Any], what: str = "") -> Any:
        """Wait until the condition holds; what it gave."""
        try:
            async with asyncio.timeout(60):
                while not (found := condition()):
                    await asyncio.sleep(0.005)
        except TimeoutError:
            raise AssertionError(f"never happened: {what or condition}") from None
        return found

    def phase(self, name: str) -> str:
        """A pod's phase."""
        pod = self.objects.pod(name)
        return pod.get("status", {}).get("phase", "") if pod else ""

    def status(self, pod: str) -> Document:
        """A pod's status."""
        found: Document = (self.objects.pod(pod) or {}).get("status", {})
        return found

    def container(self, pod: str, name: str) -> Document:
        """A container's status."""
        parts = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")
        status = self.status(pod)
        entries: list[Document] = [one for part in parts for one in status.get(part) or ()]
        return next((entry for entry in entries if entry["name"] == name), {})

    def condition(self, pod: str, kind: str) -> Document:
        """A condition of a pod."""
        status = (self.objects.pod(pod) or {}).get("status", {})
        return next((c for c in status.get("conditions", ()) if c["type"] == kind), {})

    def reasons(self) -> list[str]:
        """Reasons of the events so far."""
        return [event["reason"] for event in self.objects.events]


@contextlib.asynccontextmanager
async def lab(directory: Path, **settings: Any) -> AsyncIterator[Lab]:
    """A started lab."""
    found = Lab(directory)
    if settings:
        found.settings = msgspec.structs.replace(found.settings, **settings)
    await found.start()
    try:
        yield found
    finally:
        await found.stop()


def pod(name: str = "web", *containers: Document, **spec: Any) -> Document:
    """A pod on node-1; without containers it has one named main."""
    metadata = spec.pop("metadata", {})
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", **metadata},
        "spec": {
            "nodeName": "node-1",
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 30,
            "containers": list(containers) or [container()],
            **spec,
        },
        "status": {"phase": "Pending"},
    }


def container(name: str = "main", **fields: Any) -> Document:
    """A container of the image that is here."""
    return {"name": name, "image": "busybox:1", "imagePullPolicy": "IfNotPresent", **fields}
