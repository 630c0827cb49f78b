"""Contract `node`: sandboxes and containers of this machine, the same for Docker and for pods.

`node` composes the slots below it: it merges a spec with its image's config, prepares the root,
publishes volumes, joins networks, runs, restarts, probes, cleans up. States of a container::

    created ──► running ◄──► paused
       ▲           │ ▲
       │           ▼ │ restart policy
       └──────── exited / restarting ──► (removed)
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from enum import StrEnum
from typing import Protocol

from sagong.contract import Message, method, slot
from sagong.contracts.execs import AttachSpec, ExecRef, ExecSpec, ExecState, ResizeSpec
from sagong.contracts.health import HealthSpec, HealthState
from sagong.contracts.image import Image
from sagong.contracts.network import Attachment, JoinRequest
from sagong.contracts.network import Sandbox as NetworkSandbox
from sagong.contracts.runtime import Device, Limits, LogSpec, Rlimit, RuntimeList
from sagong.contracts.streams import Address
from sagong.errors import (
    AlreadyExists,
    Conflict,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
)

__all__ = [
    "AttachSpec",
    "Command",
    "ConnectSpec",
    "ContainerEvent",
    "ContainerSpec",
    "ContainerStatus",
    "DialRequest",
    "ExecRef",
    "ExecSpec",
    "ExecState",
    "FileMount",
    "HealthSpec",
    "HealthState",
    "HostFile",
    "KillRequest",
    "LogsRequest",
    "Node",
    "NodeQuery",
    "Ref",
    "RemoveRequest",
    "ResizeSpec",
    "RestartPolicy",
    "SandboxSpec",
    "SandboxStatus",
    "ShownMounts",
    "StartRequest",
    "StatusList",
    "StatusState",
    "StopRequest",
    "TopResult",
    "UpdateSpec",
    "WaitRequest",
    "WaitResult",
]


class SandboxSpec(Message):
    """What containers share: network, names, resolver.

    `owner` is who had it made: "docker", "kube", "builder"; behind a slash, for what somebody else
    makes in an owner's name ("docker/build").
    `network` asks for networks (its `id` is the sandbox's). `share_with` "sandbox id" shares the
    network of another sandbox (`--network container:X`). `explicit` sandboxes (pods) keep their
    network from creation to removal; others join when a container starts and leave when it ends.
    `dns`, `search`, `dns_options`: resolv.conf; empty takes the network's or the machine's.
    `hosts` are further lines (address, names) of /etc/hosts. `group` names the runtime group.
    `runtime` is the one that a pod's containers run in.
    `users` "private" gives its containers, and who shares their network, a user namespace with ids of
    the host that no other sandbox has; "host" is the machine's, "" as the node is configured. Private
    is not for the host's network, pids and ipc, nor for privileged containers.
    """

    id: str
    owner: str
    hostname: str = ""
    domainname: str = ""
    network: JoinRequest
    share_with: str = ""
    explicit: bool = False
    group: str = ""
    runtime: str = ""
    share_pid: bool = False
    users: str = ""
    cgroup_parent: str = ""
    dns: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    hosts: tuple[tuple[str, str], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()


class SandboxStatus(Message):
    """A sandbox as it is; `network` is None while it has none."""

    spec: SandboxSpec
    network: NetworkSandbox | None = None


class FileMount(Message):
    """A mount as users ask for it. `kind`: bind, volume, tmpfs, image.

    bind: `source` a path of the host (`create` makes a missing directory, Docker's -v form); with
    `bind` among the options without what is mounted below it.
    volume: `source` a volume's name, made when missing (`anonymous` ones are removed with -v / --rm);
    `copy` fills a new one with the image's content. `options` as of runtime's Mount.
    """

    kind: str
    target: str
    source: str = ""
    readonly: bool = False
    propagation: str = ""
    subpath: str = ""
    create: bool = False
    copy: bool = True
    anonymous: bool = False
    driver: str = ""
    driver_options: tuple[tuple[str, str], ...] = ()
    options: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()


class HostFile(Message):
    """A file that node writes and binds into the container (config maps, secrets, service tokens)."""

    target: str
    content: bytes
    mode: int = 0o644
    uid: int = 0
    gid: int = 0


class RestartPolicy(Message):
    """`name`: no, always, unless-stopped, on-failure; `maximum` retries of on-failure (0: any)."""

    name: str = "no"
    maximum: int = 0


class Command(Message):
    """What to execute; None fields are the image's. `user` is name or id, optionally `:group`."""

    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    env: tuple[str, ...] = ()
    cwd: str = ""
    user: str = ""
    groups: tuple[str, ...] = ()
    tty: bool = False
    rows: int = 0
    columns: int = 0
    stdin: bool = False
    stdin_once: bool = False


class ContainerSpec(Message):
    """A container to be. `id` (64 hex digits) is made by the caller; `sandbox` must exist, or is made
    as `own` says (with the container; it is no part of what the container's status tells).

    `name` is for people and logs. `add_capabilities`/`drop_capabilities` change Docker's default
    set ("ALL" is known). Namespace modes are "new", "host", "group" or "container:ID".
    `runtime` names an instance of slot runtime ("" or runc: the default one).
    With a `shm_size` of 0 there is no /dev/shm. `masked_paths`/`readonly_paths` None mean Docker's
    defaults. `remove` deletes it when it ends.
    """

    id: str
    sandbox: str
    name: str = ""
    image: str
    platform: str = ""
    command: Command = Command()
    files: tuple[HostFile, ...] = ()
    mounts: tuple[FileMount, ...] = ()
    image_volumes: bool = True
    devices: tuple[Device, ...] = ()
    device_rules: tuple[str, ...] = ()
    limits: Limits = Limits()
    shm_size: int = 64 << 20
    rlimits: tuple[Rlimit, ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()
    add_capabilities: tuple[str, ...] = ()
    drop_capabilities: tuple[str, ...] = ()
    privileged: bool = False
    no_new_privileges: bool = False
    readonly_root: bool = False
    storage_size: int = 0
    masked_paths: tuple[str, ...] | None = None
    readonly_paths: tuple[str, ...] | None = None
    seccomp: str = "default"
    apparmor: str = ""
    selinux: str = ""
    pid_mode: str = "new"
    ipc_mode: str = "new"
    uts_mode: str = "new"
    cgroup_mode: str = "new"
    init: bool = False
    oom_score_adjust: int | None = None
    stop_signal: str = ""
    stop_timeout: float = 10.0
    restart: RestartPolicy = RestartPolicy()
    remove: bool = False
    health: HealthSpec | None = None
    log: LogSpec = LogSpec()
    runtime: str = ""
    expect_attach: bool = False
    labels: tuple[tuple[str, str], ...] = ()
    own: SandboxSpec | None = None


class StatusState(StrEnum):
    """States of a container."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"
    EXITED = "exited"
    REMOVING = "removing"
    DEAD = "dead"


class ContainerStatus(Message):
    """A container as it is. Times in seconds since the epoch, 0 for never.

    `args` and `env` are as merged with the image. `mounts` as published: (kind, name, source,
    target, mode, writable, propagation). `error` is why the last start failed. `stream` is in the
    answer of a start that expected an attach; without it `attach` gives one.
    """

    spec: ContainerSpec
    state: StatusState
    pid: int = 0
    run: int = 0
    code: int = 0
    oom_killed: bool = False
    error: str = ""
    created_at: float = 0.0
    started_at: float = 0.0
    finished_at: float = 0.0
    restart_count: int = 0
    image: Image | None = None
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    cwd: str = "/"
    mounts: tuple[tuple[str, str, str, str, str, bool, str], ...] = ()
    log_path: str = ""
    resolv_path: str = ""
    hosts_path: str = ""
    hostname_path: str = ""
    upper: str = ""
    lower: tuple[str, ...] = ()
    cgroup: str = ""
    exec_ids: tuple[str, ...] = ()
    health: HealthState | None = None
    network: NetworkSandbox | None = None
    stream: Address | None = None


class Ref(Message):
    """Names a container or sandbox by its full id."""

    id: str


class NodeQuery(Message):
    """`owner` "" lists all, "docker" those of "docker/build", too; `begun` only those that run, are
    paused or between two tries.
    """

    owner: str = ""
    begun: bool = False


class StatusList(Message):
    """Containers in order of creation."""

    containers: tuple[ContainerStatus, ...] = ()


class StartRequest(Message):
    """Start a container; `expect_attach` holds output back until somebody attached.

    Then the answer may have the `stream` of that attach, with the program's input if `attach_stdin`.

    `run` is the run that shall begin (one more than its status tells): one that has begun, though
    it may have ended since, does not begin again, however often it is asked for. 0 is the next.
    """

    id: str
    run: int = 0
    expect_attach: bool = False
    rows: int = 0
    columns: int = 0
    attach_stdin: bool = False


class StopRequest(Message):
    """Stop: the stop signal, then after `seconds` (None: the spec's; -1: never) SIGKILL."""

    id: str
    seconds: float | None = None
    signal: str = ""


class KillRequest(Message):
    """Send a signal by name or number."""

    id: str
    signal: str = "SIGKILL"


class RemoveRequest(Message):
    """Remove; `force` kills first, `volumes` deletes its anonymous volumes."""

    id: str
    force: bool = False
    volumes: bool = False


class UpdateSpec(Message):
    """Change limits and restart policy; None leaves."""

    id: str
    limits: Limits | None = None
    restart: RestartPolicy | None = None
    name: str = ""


class LogsRequest(Message):
    """Read logs: `since`/`until` in seconds since the epoch (0: none), `tail` lines (-1: all).

    The answer's stream has frames STDOUT and STDERR, after some of them a PLACE, and at the end EOF:
    where the log ends, or with `follow` where the container has ended. Without EOF it was cut; the
    same request with the last PLACE as `place` goes on from there (`sagong.log_frames` does).
    `previous` reads the run before. `limit` bounds the bytes (0: none).
    """

    id: str
    stdout: bool = True
    stderr: bool = True
    since: float = 0.0
    until: float = 0.0
    tail: int = -1
    follow: bool = False
    timestamps: bool = False
    previous: bool = False
    details: bool = False
    limit: int = 0
    place: bytes = b""


class WaitRequest(Message):
    """`condition`: not-running, next-exit, removed.

    `run` is the first whose end is a next exit (0: the present one or the next); as the first result
    said it, for whoever asks again after a cut.
    """

    id: str
    condition: str = "not-running"
    run: int = 0


class WaitResult(Message):
    """The code it ended with; the first item says `waiting` at once, and for the end of which run."""

    waiting: bool = False
    run: int = 0
    code: int = 0
    error: str = ""


class ConnectSpec(Message):
    """Connect the sandbox to a network (also when it is not running: at its next start)."""

    id: str
    attachment: Attachment
    disconnect: bool = False
    force: bool = False


class DialRequest(Message):
    """A raw stream to a TCP port inside a sandbox (port forwarding)."""

    id: str
    port: int


class ShownMounts(Message):
    """Where what is mounted in a container can be seen by slot `image`: (target, path)."""

    mounts: tuple[tuple[str, str], ...] = ()


class TopResult(Message):
    """Processes as (host pid, /proc stat fields by name)."""

    processes: tuple[tuple[int, tuple[tuple[str, str], ...]], ...]


class ContainerEvent(Message):
    """Something happened: `action` in Docker's words (create, start, die, oom, kill, stop, restart,
    pause, unpause, update, rename, destroy, health_status: healthy, exec_create: …, exec_start: …,
    exec_die, detach, resize, mount, unmount, connect, disconnect; volume_create: its image
    declares a volume, which was made as `volume` of the attributes).

    `volumes` of start and die are those that it has mounted (name, path, whether it may write); of
    destroy those that went with it.

    `number` grows by one per event of this node; time in nanoseconds since the epoch.
    """

    number: int
    time: int
    action: str
    id: str
    owner: str = ""
    attributes: tuple[tuple[str, str], ...] = ()
    volumes: tuple[tuple[str, str, bool], ...] = ()


@slot("node", version=1, events=(ContainerEvent,))
class Node(Protocol):
    """The one way to start a container."""

    @method(
        idempotent=True,
        raises=(AlreadyExists, InvalidArgument, NotFound, Conflict, ResourceExhausted),
    )
    async def create_sandbox(self, spec: SandboxSpec) -> SandboxStatus:
        """Make a sandbox; the same spec again returns it."""
        ...

    @method(idempotent=True, raises=(FailedPrecondition,))
    async def remove_sandbox(self, ref: Ref) -> None:
        """Remove a sandbox; FailedPrecondition while containers are in it; unknown is no error."""
        ...

    @method(idempotent=True, raises=(NotFound,))
    async def sandbox(self, ref: Ref) -> SandboxStatus:
        """One sandbox."""
        ...

    @method(idempotent=True, raises=(NotFound, Conflict, InvalidArgument, ResourceExhausted))
    async def connect(self, spec: ConnectSpec) -> SandboxStatus:
        """Connect to a network or take off one."""
        ...

    @method(idempotent=True, raises=(AlreadyExists, InvalidArgument, NotFound, ResourceExhausted))
    async def create(self, spec: ContainerSpec) -> ContainerStatus:
        """Make a container; NotFound for its image says `No such image: NAME`."""
        ...

    @method(idempotent=True, raises=(NotFound,))
    async def expect(self, ref: Ref) -> None:
        """A start of this container is about to be asked for: what it needs may be made ready now.

        Without a start it is given back after some seconds. What fails is told by the start.
        """
        ...

    @method(
        idempotent=True,
        raises=(NotFound, FailedPrecondition, InvalidArgument, Conflict, ResourceExhausted),
    )
    async def start(self, request: StartRequest) -> ContainerStatus:
        """Start; running already returns at once. Errors as of runtime.run; it can be tried again."""
        ...

    @method(idempotent=True, raises=(NotFound,), seconds=86400.0)
    async def stop(self, request: StopRequest) -> ContainerStatus:
        """Stop and wait for the end; not running is no error. Restart policies do not apply."""
        ...

    @method(
        idempotent=False, raises=(NotFound, FailedPrecondition, InvalidArgument), seconds=86400.0
    )
    async def restart(self, request: StopRequest) -> ContainerStatus:
        """Stop, then start."""
        ...

    @method(idempotent=False, raises=(NotFound, FailedPrecondition, InvalidArgument))
    async def kill(self, request: KillRequest) -> None:
        """Signal; FailedPrecondition (`container ID is not running`) when it is not running.

        A paused one goes on with it, unless it is named to stop by another signal.
        """
        ...

    @method(idempotent=True, raises=(NotFound, FailedPrecondition))
    async def pause(self, ref: Ref) -> None:
        """Freeze; FailedPrecondition when paused already or not running."""
        ...

    @method(idempotent=True, raises=(NotFound, FailedPrecondition))
    async def resume(self, ref: Ref) -> None:
        """Thaw; FailedPrecondition when not paused."""
        ...

    @method(idempotent=True, raises=(NotFound, InvalidArgument))
    async def update(self, spec: UpdateSpec) -> ContainerStatus:
        """Change limits, restart policy or name."""
        ...

    @method(idempotent=True, raises=(NotFound, FailedPrecondition), seconds=120.0)
    async def remove(self, request: RemoveRequest) -> None:
        """Remove; FailedPrecondition when it runs and `force` is not set. Unknown is NotFound."""
        ...

    @method(idempotent=True, raises=(NotFound,))
    async def inspect(self, ref: Ref) -> ContainerStatus:
        """One container."""
        ...

    @method(idempotent=True)
    async def list(self, query: NodeQuery) -> StatusList:
        """All containers."""
        ...

    @method(idempotent=True)
    async def runtimes(self) -> RuntimeList:
        """The runtimes that a container can be made for."""
        ...

    @method(idempotent=True, raises=(NotFound, FailedPrecondition, InvalidArgument))
    async def exec(self, spec: ExecSpec) -> ExecState:
        """Start a process in a running container."""
        ...

    @method(idempotent=True, raises=(NotFound,))
    async def exec_state(self, ref: ExecRef) -> ExecState:
        """An exec's state."""
        ...

    @method(idempotent=True, raises=(NotFound, FailedPrecondition))
    async def attach(self, spec: AttachSpec) -> Address:
        """Streams of a running container."""
        ...

    @method(idempotent=True, raises=(NotFound, FailedPrecondition))
    async def resize(self, spec: ResizeSpec) -> None:
        """Resize a terminal."""
        ...

    @method(idempotent=True, raises=(NotFound, FailedPrecondition))
    async def logs(self, request: LogsRequest) -> Address:
        """A log stream; FailedPrecondition when the driver keeps none."""
        ...

    @method(idempotent=True, raises=(NotFound, InvalidArgument), seconds=86400.0)
    def wait(self, request: WaitRequest) -> AsyncIterator[WaitResult]:
        """First `waiting` at once, then the result.

        It can be asked again after a cut: a removed container still answers for two minutes.
        """
        ...

    @method(idempotent=True, raises=(NotFound,))
    async def refresh(self, ref: Ref) -> None:
        """Slot `image` wrote into a container's files: one that runs is made to see that."""
        ...

    @method(idempotent=True, raises=(NotFound,), seconds=86400.0)
    def show(self, ref: Ref) -> AsyncIterator[ShownMounts]:
        """One item: volumes, and what is bound into a container from the machine, until it is left.

        As `runtime.show`; of one that does not run as well.
        """
        ...

    @method(idempotent=True, raises=(NotFound, FailedPrecondition))
    async def top(self, ref: Ref) -> TopResult:
        """Processes of a container."""
        ...

    @method(idempotent=True, raises=(NotFound, FailedPrecondition))
    async def dial(self, request: DialRequest) -> Address:
        """A raw stream to a port inside a sandbox."""
        ...
