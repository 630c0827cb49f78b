"""What sandboxes and containers are to be, how they are, and what is told of them."""

from __future__ import annotations

from enum import StrEnum

from sagong.contract import Message
from sagong.contracts.image import Image
from sagong.contracts.network import JoinRequest
from sagong.contracts.network import Sandbox as NetworkSandbox
from sagong.contracts.node.health import HealthSpec, HealthState
from sagong.contracts.runtime import Device, Limits, LogSpec, Rlimit
from sagong.contracts.streams import Address

__all__ = [
    "MASKED_PATHS",
    "READONLY_PATHS",
    "Command",
    "ContainerEvent",
    "ContainerSpec",
    "ContainerStatus",
    "FileMount",
    "HostFile",
    "RestartPolicy",
    "SandboxSpec",
    "SandboxStatus",
    "StatusList",
    "StatusState",
]

# What containers see nothing of, and what they may not write, unless they ask for something else:
# the defaults of Docker Engine (moby, oci/defaults.go).
MASKED_PATHS = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)

READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


class SandboxSpec(Message):
    """What containers share: network, names, resolver.

    `owner` is who had it made: "docker", "kube", "builder"; behind a slash, for what somebody else
    makes in an owner's name ("docker/build").
    `network` asks for networks (its `id` is the sandbox's). `share_with` shares the network
    of another sandbox (`--network container:X`), by its id or by a container's name, and is looked up
    at each start. `explicit` sandboxes (pods) keep their
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

    bind: `source` a path of the host (`create` makes a missing directory, Docker's -v form; with
    `present` a missing one is refused when the container is made, not when it starts); with
    `bind` among the options without what is mounted below it, which `readonly` holds for, too,
    unless `ro` is among them.
    volume: `source` a volume's name, made when missing (`anonymous` ones are removed with -v / --rm);
    `copy` fills one that is empty with the image's content at the first start. `options` as of
    runtime's Mount.
    """

    kind: str
    target: str
    source: str = ""
    readonly: bool = False
    propagation: str = ""
    subpath: str = ""
    create: bool = False
    present: bool = False
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
    as `own` says (with the container; it is no part of what the container's status tells). Nor is
    `expected`: a start comes next, and what it needs may be made ready with the container (`expect`).

    `name` is for people and logs. `add_capabilities`/`drop_capabilities` change Docker's default
    set ("ALL" is known). Namespace modes are "new", "host", "group" or "container:ID".
    `runtime` names an instance of slot runtime ("" or runc: the default one).
    With a `shm_size` of 0 there is no /dev/shm. `masked_paths`/`readonly_paths` None mean
    `MASKED_PATHS` and `READONLY_PATHS`. `remove` deletes it when it ends.
    `writable_cgroups`: it may make control groups below its own. With `image_health` what `health`
    leaves out (None, an empty test, 0) is the image's, as Docker has it and pods do not.
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
    writable_cgroups: bool = False
    init: bool = False
    oom_score_adjust: int | None = None
    oom_score_bounded: bool = False
    stop_signal: str = ""
    stop_timeout: float = 10.0
    restart: RestartPolicy = RestartPolicy()
    remove: bool = False
    health: HealthSpec | None = None
    image_health: bool = False
    log: LogSpec = LogSpec()
    runtime: str = ""
    expect_attach: bool = False
    labels: tuple[tuple[str, str], ...] = ()
    own: SandboxSpec | None = None
    expected: bool = False


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


class StatusList(Message):
    """Containers in order of creation."""

    containers: tuple[ContainerStatus, ...] = ()


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
