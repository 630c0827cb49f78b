"""Slot `runtime`: turns a `RunSpec` into running processes and keeps track of them.

States of a container::

    run ──► running ◄──► paused
               │
               ▼
            exited ──► (removed)

A container outlives the plugin: what watches it is its monitor. After a restart the plugin adopts
everything it finds; `Exited` is emitted once for every run, also for one that ended meanwhile. Who made
a container does not matter: after a swap all methods do the same for those of the other plugin.
Containers of one `group` (a pod) share ipc and uts namespaces, and the pid namespace when asked.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from enum import StrEnum
from typing import Protocol

from sagong.contract import Message, method, slot
from sagong.contracts.streams import Address
from sagong.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
)

__all__ = [
    "AttachRequest",
    "Container",
    "ContainerList",
    "ContainerRef",
    "ContainerState",
    "Device",
    "DeviceRule",
    "ExecRequest",
    "ExecStatus",
    "Exited",
    "Limits",
    "LogSpec",
    "Mount",
    "Namespaces",
    "OutOfMemory",
    "Process",
    "ProcessFacts",
    "ProcessList",
    "ResizeRequest",
    "Rlimit",
    "RunSpec",
    "Runtime",
    "RuntimeList",
    "ShowRequest",
    "Shown",
    "SignalRequest",
    "UpdateRequest",
    "User",
]


class Mount(Message):
    """A mount inside the container, done in order; the first has target "/" and is the root.

    `kind`: overlay, bind, tmpfs, proc, sysfs, devpts, mqueue, cgroup. For overlay, `options` are
    lowerdir=, upperdir=, workdir=, volatile (what is written need not outlive a failure of the
    machine; mounted again only without one), userxattr; the root's may bound the upper directory,
    which counts as the quota `project=` of its filesystem, to `size=` bytes. For bind, `source` is an
    absolute path of the host and `options` may be ro (the
    mount itself), rro (all below it, too), rbind, private|shared|slave (each with r…),
    nosuid, nodev, noexec, and `create` "file" or "directory" makes a missing target; with the option
    `source` a missing source directory of the host is made, too. `idmap` shows a source's ids as they
    are on the host to a container in a user namespace of its own, where its filesystem can; without it
    they are strangers' there, and root inside may do with them what anybody may. A tmpfs without `mode`
    has the one of its target, or 1777 where that was missing.
    """

    target: str
    kind: str
    source: str = ""
    options: tuple[str, ...] = ()
    create: str = "directory"


class User(Message):
    """Numeric ids of the process; names are resolved by whoever reads the image's passwd."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()


class Rlimit(Message):
    """A resource limit by its name without RLIMIT_, lower case (`nofile`); -1 is no limit."""

    name: str
    soft: int
    hard: int


class Process(Message):
    """What is executed. `capabilities` are names with CAP_; they are bounding, permitted, effective.

    For a uid other than 0 they are kept as ambient only when `ambient` is set. An `oom_score_adjust`
    lower than the kernel allows is refused, or raised to the least that it does with
    `oom_score_bounded`; none is 0, or the least above it.
    """

    args: tuple[str, ...]
    env: tuple[str, ...] = ()
    cwd: str = "/"
    user: User = User()
    tty: bool = False
    rows: int = 0
    columns: int = 0
    stdin: bool = False
    stdin_once: bool = False
    capabilities: tuple[str, ...] = ()
    ambient: bool = False
    no_new_privileges: bool = False
    rlimits: tuple[Rlimit, ...] = ()
    oom_score_adjust: int | None = None
    oom_score_bounded: bool = False
    umask: int | None = None


class Namespaces(Message):
    """Each is "new", "host", "group" (shared in the group), "container:ID", or "path:/…".

    `user` "new" maps with `uid_map`/`gid_map` as (inside, outside, count), which tell the same of one
    that is entered. What is new belongs to it; a network namespace by path should, too (else
    root inside can't bind port 80, nor see the network in /sys). It needs a root, and is not for
    the host's pid namespace.
    """

    network: str = "new"
    pid: str = "new"
    ipc: str = "new"
    uts: str = "new"
    cgroup: str = "new"
    user: str = "host"
    uid_map: tuple[tuple[int, int, int], ...] = ()
    gid_map: tuple[tuple[int, int, int], ...] = ()


class Device(Message):
    """A device node of the host made in the container; `permissions` of r, w, m."""

    source: str
    target: str
    permissions: str = "rwm"


class DeviceRule(Message):
    """A cgroup device rule such as `c 1:3 rwm`."""

    rule: str


class Limits(Message):
    """Resource limits; None leaves the kernel's. Units: bytes, CPUs as nanocpus, microseconds."""

    memory: int | None = None
    memory_swap: int | None = None
    memory_reservation: int | None = None
    memory_swappiness: int | None = None
    oom_kill_disable: bool = False
    cpu_shares: int | None = None
    cpu_quota: int | None = None
    cpu_period: int | None = None
    cpuset_cpus: str | None = None
    cpuset_mems: str | None = None
    pids: int | None = None
    io_weight: int | None = None
    io_read_bps: tuple[tuple[str, int], ...] = ()
    io_write_bps: tuple[tuple[str, int], ...] = ()
    io_read_iops: tuple[tuple[str, int], ...] = ()
    io_write_iops: tuple[tuple[str, int], ...] = ()


class LogSpec(Message):
    """Where output goes: driver "json-file", "cri" (Kubernetes' format), "local" or "none".

    `path` is the file to write; it is rotated at `max_size` bytes (0: never) into `max_files`; with
    `compress` those before the present one become gzip files (`path.1.gz`), soon.
    """

    driver: str = "json-file"
    path: str = ""
    max_size: int = 0
    max_files: int = 1
    tag: str = ""
    attributes: tuple[tuple[str, str], ...] = ()
    compress: bool = False


class RunSpec(Message):
    """Everything about one run of a container; `id` is made by the caller.

    `run` numbers the runs of the same container (restarts). `seccomp`: "default", "unconfined" or
    a profile as JSON in Docker's form. With `expect_attach` output waits for the first attach (at
    most ten seconds) so that none is lost, and the answer may have that attach's `stream`, with the
    program's input if `attach_stdin`.
    """

    id: str
    run: int = 1
    group: str = ""
    mounts: tuple[Mount, ...]
    process: Process
    namespaces: Namespaces = Namespaces()
    hostname: str = ""
    domainname: str = ""
    devices: tuple[Device, ...] = ()
    device_rules: tuple[DeviceRule, ...] = ()
    limits: Limits = Limits()
    sysctls: tuple[tuple[str, str], ...] = ()
    seccomp: str = "default"
    apparmor: str = ""
    selinux: str = ""
    masked_paths: tuple[str, ...] = ()
    readonly_paths: tuple[str, ...] = ()
    readonly_root: bool = False
    privileged: bool = False
    cgroup_parent: str = ""
    init: bool = False
    log: LogSpec = LogSpec()
    expect_attach: bool = False
    attach_stdin: bool = False
    labels: tuple[tuple[str, str], ...] = ()


class ContainerState(StrEnum):
    """States of a container in the runtime."""

    RUNNING = "running"
    PAUSED = "paused"
    EXITED = "exited"


class Container(Message):
    """A container as the runtime knows it. Times are seconds since the epoch; `code` as in a shell
    (128 + signal). `stream` is in the answer of a run that expected an attach and has just begun;
    without it `attach` gives one."""

    id: str
    run: int = 1
    group: str = ""
    state: ContainerState
    pid: int = 0
    code: int = 0
    oom_killed: bool = False
    started_at: float = 0.0
    finished_at: float = 0.0
    cgroup: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    stream: Address | None = None


class ContainerRef(Message):
    """Names a container."""

    id: str


class ContainerList(Message):
    """Containers, running or exited and not yet removed."""

    containers: tuple[Container, ...] = ()


class ExecRequest(Message):
    """A further process in a running container; `exec_id` is made by the caller."""

    id: str
    exec_id: str
    process: Process
    privileged: bool = False


class ExecStatus(Message):
    """An exec'd process: `code` is final when `running` is false. `stream` attaches to it."""

    exec_id: str
    running: bool
    pid: int = 0
    code: int = 0
    stream: Address | None = None


class AttachRequest(Message):
    """Attach to a container's streams; `replay` sends what came before within this run, too."""

    id: str
    stdin: bool = False
    replay: bool = False


class RuntimeList(Message):
    """Names of the runtimes there are; "" is the default one. `users` are those of containers that
    ask for none: "private" or "host"."""

    names: tuple[str, ...]
    users: str = "host"


class SignalRequest(Message):
    """Send a signal number to the first process, or with `all` to every process."""

    id: str
    signal: int
    all: bool = False


class ResizeRequest(Message):
    """Set a terminal's size; `exec_id` "" means the container's own."""

    id: str
    exec_id: str = ""
    rows: int
    columns: int


class UpdateRequest(Message):
    """Change limits of a running container; None leaves one as it is."""

    id: str
    limits: Limits


class ProcessFacts(Message):
    """A process as ps(1) shows it, from /proc/PID; ids are the host's, times are seconds.

    `user` is the effective uid, `state` the letter of proc(5), `tty` the device number (0: none),
    `started` counts from the machine's boot; `args` is empty for a process that shows none.
    `virtual` and `resident` are KiB of memory. From `group` on as proc(5) has them: the process
    group and session, the group in the terminal's foreground (-1: none), the kernel's flags,
    priority and nice value, the number of threads, the processor.
    """

    pid: int
    parent: int
    user: int
    state: str
    tty: int
    cpu: float
    started: float
    name: str
    args: tuple[str, ...] = ()
    virtual: int = 0
    resident: int = 0
    group: int = 0
    session: int = 0
    foreground: int = -1
    flags: int = 0
    priority: int = 20
    nice: int = 0
    threads: int = 1
    processor: int = 0


class ProcessList(Message):
    """All processes in a container: pids as the host sees them, and facts of those that live on.

    The runtime gives the facts, since whoever asks is sandboxed and can't read them in /proc.
    """

    pids: tuple[int, ...]
    facts: tuple[ProcessFacts, ...] = ()


class Exited(Message):
    """A run has ended; emitted once for each (id, run)."""

    id: str
    run: int
    code: int
    oom_killed: bool = False
    finished_at: float
    group: str = ""


class OutOfMemory(Message):
    """The kernel killed a process of the container for memory, or holds them where it may kill none."""

    id: str
    run: int


class ShowRequest(Message):
    """Files and directories of the machine by their absolute paths.

    Those of `sources` that are among `made` are made, as directories, when they are missing: what a
    start makes is there for a copy before it, too.
    """

    sources: tuple[str, ...]
    made: tuple[str, ...] = ()


class Shown(Message):
    """Where each is seen, in the same order."""

    paths: tuple[str, ...]


@slot("runtime", version=1, events=(Exited, OutOfMemory))
class Runtime(Protocol):
    """Runs containers."""

    @method(
        idempotent=True,
        raises=(AlreadyExists, InvalidArgument, NotFound, FailedPrecondition, ResourceExhausted),
    )
    async def run(self, spec: RunSpec) -> Container:
        """Start a container; returns when its program has been executed.

        The same (id, run) again returns the container as it is. AlreadyExists if another run of
        the id still runs. NotFound ("executable file not found in $PATH", "no such file or
        directory"), FailedPrecondition ("permission denied", "is a directory") carry the text that
        Docker's users know; nothing is left behind after an error.
        """
        ...

    @method(
        idempotent=True,
        raises=(AlreadyExists, InvalidArgument, NotFound, FailedPrecondition, ResourceExhausted),
    )
    async def prepare(self, spec: RunSpec) -> None:
        """A run of this spec may be asked for in the next moment: do ahead what can be done ahead.

        No program runs, and all other methods see nothing of it. A `run` of the same spec, but for
        who attaches, takes what is there; one of another spec, `remove` and `discard` leave nothing of
        it, and five seconds do. An error says only that nothing was prepared. A runtime may do nothing.
        """
        ...

    @method(idempotent=True)
    async def discard(self, container: ContainerRef) -> None:
        """What was prepared is not wanted; when this is answered its namespaces are free.

        Nothing prepared, and a run that has begun, are no error.
        """
        ...

    @method(
        idempotent=True,
        raises=(NotFound, InvalidArgument, FailedPrecondition, ResourceExhausted),
    )
    async def exec(self, request: ExecRequest) -> ExecStatus:
        """Start a process in a container; the same exec_id again returns its status.

        While nobody has come for its streams they are given again, since an answer can be lost.
        """
        ...

    @method(idempotent=True, raises=(NotFound,))
    async def exec_status(self, request: ExecRequest) -> ExecStatus:
        """Status of an exec by (id, exec_id); kept until the container is removed."""
        ...

    @method(idempotent=True, raises=(NotFound, FailedPrecondition))
    async def attach(self, request: AttachRequest) -> Address:
        """An address for the streams of a running container, protocol "frames"."""
        ...

    @method(idempotent=True, raises=(NotFound, InvalidArgument))
    async def signal(self, request: SignalRequest) -> None:
        """Signal a container; FailedPrecondition is never raised: an exited one is NotFound."""
        ...

    @method(idempotent=True, raises=(NotFound,))
    async def resize(self, request: ResizeRequest) -> None:
        """Resize a terminal."""
        ...

    @method(idempotent=True, raises=(NotFound,))
    async def pause(self, container: ContainerRef) -> None:
        """Freeze all processes; frozen already is no error. Whose first process was killed ends."""
        ...

    @method(idempotent=True, raises=(NotFound,))
    async def resume(self, container: ContainerRef) -> None:
        """Thaw; running already is no error."""
        ...

    @method(idempotent=True, raises=(NotFound, InvalidArgument))
    async def update(self, request: UpdateRequest) -> None:
        """Change limits."""
        ...

    @method(idempotent=True, raises=(NotFound,))
    async def refresh(self, container: ContainerRef) -> None:
        """The layers of a running container's root were changed beneath it: let it see that."""
        ...

    @method(idempotent=True, raises=(NotFound,))
    async def inspect(self, container: ContainerRef) -> Container:
        """One container."""
        ...

    @method(idempotent=True, raises=(NotFound,))
    async def processes(self, container: ContainerRef) -> ProcessList:
        """The container's processes."""
        ...

    @method(idempotent=True)
    async def list(self) -> ContainerList:
        """All containers, exited ones too until removed."""
        ...

    @method(idempotent=True)
    async def remove(self, container: ContainerRef) -> None:
        """Kill what runs, forget the container, clean up; unknown is no error."""
        ...

    @method(idempotent=True, raises=(NotFound,), seconds=86400.0)
    def wait(self, container: ContainerRef) -> AsyncIterator[Exited]:
        """One item when the container's present run has ended (at once if it has)."""
        ...

    @method(idempotent=True, raises=(NotFound, InvalidArgument), seconds=86400.0)
    def show(self, request: ShowRequest) -> AsyncIterator[Shown]:
        """Show parts of the machine, with what is mounted below them, in `{run}/mounts`.

        One item, when they are seen there; they are taken away when the caller leaves the stream or
        dies. For copies through a container's bind mounts, by who may see that directory alone; what
        lies there can be read and written, but no device opened and no program run.
        """
        ...
