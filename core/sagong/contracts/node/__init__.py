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
from typing import Protocol

from sagong.contract import method, slot
from sagong.contracts.node.containers import (
    MASKED_PATHS,
    READONLY_PATHS,
    Command,
    ContainerEvent,
    ContainerSpec,
    ContainerStatus,
    FileMount,
    HostFile,
    RestartPolicy,
    SandboxSpec,
    SandboxStatus,
    StatusList,
    StatusState,
)
from sagong.contracts.node.execs import (
    AccountQuery,
    AttachSpec,
    ExecRef,
    ExecSpec,
    ExecState,
    ResizeSpec,
)
from sagong.contracts.node.health import HealthSpec, HealthState
from sagong.contracts.node.requests import (
    ConnectSpec,
    DialRequest,
    KillRequest,
    LogsRequest,
    NodeQuery,
    Ref,
    RemoveRequest,
    ShownMounts,
    StartRequest,
    StopRequest,
    TopResult,
    UpdateSpec,
    WaitRequest,
    WaitResult,
)
from sagong.contracts.runtime import RuntimeList, User
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
    "MASKED_PATHS",
    "READONLY_PATHS",
    "AccountQuery",
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

    @method(idempotent=True, raises=(NotFound, InvalidArgument))
    async def account(self, query: AccountQuery) -> User:
        """Ids of a user; InvalidArgument, in Docker's words, for a name that the container lacks."""
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
