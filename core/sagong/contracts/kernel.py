"""Contract `kernel`: the directory and supervisor, as processes and the operator see it.

A process calls `attend` and follows the orders it gets until it ends; when the stream breaks (the
kernel died) it attends again and is known by its generation. The kernel carries no calls of others.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from sagong.contract import Message, method, slot
from sagong.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
)

__all__ = [
    "AccessEntry",
    "Attendance",
    "DisableRequest",
    "Done",
    "DownEntry",
    "Flood",
    "Gauge",
    "Idle",
    "Kernel",
    "MethodCount",
    "Order",
    "PartRef",
    "ProcessReport",
    "ProcessStatus",
    "ReportQuery",
    "RouteEntry",
    "RouteTable",
    "Span",
    "SpanList",
    "SpanQuery",
    "StatusQuery",
    "StopSystem",
    "SwapRequest",
    "SwapStep",
    "SystemReport",
    "SystemStatus",
    "Tracing",
    "UnitRef",
    "UnitSpec",
    "UnitStatus",
    "Waking",
]


class Attendance(Message):
    """A process says who it is; the kernel holds it against what it started (uid, generation).

    `health` says that it knows the order of that name.
    """

    unit: str
    generation: int
    pid: int
    health: bool = False


class RouteEntry(Message):
    """Who serves a slot now; `path` of the ipc socket.

    `every`: one of all instances, asked for by `instance = "*"`; of those also the ones that don't
    serve now are told, with generation 0. `default` is the one that calls without a name go to.
    """

    slot: str
    version: int
    instance: str = ""
    generation: int
    path: str
    every: bool = False
    default: bool = False


class AccessEntry(Message):
    """A uid, the unit's name behind it, the methods it may call here, and its manifest's rules.

    `rules` are RBAC rules (verbs, groups, resources) where the slot serves API objects.
    """

    uid: int
    name: str
    methods: tuple[str, ...]
    rules: tuple[dict[str, tuple[str, ...]], ...] = ()


class DownEntry(Message):
    """A slot that nobody serves: there is no unit, or it failed too often; calls fail at once."""

    slot: str
    version: int
    instance: str = ""
    reason: str


class Order(Message):
    """What the kernel wants of a process; absent parts change nothing.

    `action`: "start" (construct, take over `state`, serve; then `done`), "drain" (finish within
    `seconds`; then `done`, with exported state if a `successor` is to take it over, and if that is to
    come only when it is needed, `asleep`, with the time when it is at the latest), "health" (`done`,
    with `error` if something is wrong), "answer" (`done`, and nothing else), "purge" (take away
    what lives outside its own directories),
    "report" (`done` with a `ProcessReport` as state), "spans" (`done` with the `SpanList` of the cause
    in `state`), "stop" (end now). `dead` are paths of providers that are gone, `deserted` those where
    nothing that was asked has been or will be executed; `down` is the whole list of slots that are
    down, of those it calls. `tracing` begins or ends the recording of spans.
    """

    id: int
    routes: tuple[RouteEntry, ...] | None = None
    dead: tuple[str, ...] = ()
    deserted: tuple[str, ...] = ()
    access: tuple[AccessEntry, ...] | None = None
    down: tuple[DownEntry, ...] | None = None
    action: str = ""
    state: bytes = b""
    seconds: float = 0.0
    tracing: bool | None = None
    successor: bool = False
    asleep: bool = False


class Done(Message):
    """An order was carried out, or failed with `error`.

    One that falls asleep is to be woken by `until`, in seconds since the epoch; 0 for no time.
    """

    unit: str
    generation: int
    order: int
    state: bytes = b""
    error: str = ""
    until: float = 0.0


class Flood(Message):
    """A caller (by its uid) floods a provider, which shut it out for so many seconds."""

    uid: int
    seconds: float


class Idle(Message):
    """A process has had no call, no stream but of events, and nothing else to do for long enough."""

    unit: str
    generation: int


class Waking(Message):
    """What a unit waits for has happened."""

    unit: str


class ProcessStatus(Message):
    """A process of the system. Times in seconds since the epoch.

    `memory` is its PSS in bytes, and that of what it forked: its deputy, helpers.
    """

    unit: str
    plugin: str
    generation: int
    pid: int
    uid: int
    state: str
    started: float
    memory: int = 0


class UnitStatus(Message):
    """A unit: what it is to run, what serves, and what went wrong with it.

    `state` is "serving", "starting", "stopping", "asleep": it starts when it is called, or "down":
    given up after too many failures but for a rare try. `trial` names the plugin that comes back if
    the present one fails in the next `trial_seconds`. `rank` orders units by what they call: lower
    ones come up first. `lacks` says, a line each, what it needs and nobody provides.
    """

    name: str
    plugin: str
    kind: str
    instance: str = ""
    slots: tuple[str, ...] = ()
    state: str
    trial: str = ""
    trial_seconds: float = 0.0
    rank: int = 0
    restarts: int = 0
    problem: str = ""
    lacks: tuple[str, ...] = ()
    processes: tuple[ProcessStatus, ...] = ()


class SystemStatus(Message):
    """The whole system. `others` are keeper, kernel, zygote and companions."""

    version: str
    profile: str
    boot: str
    ready: bool
    units: tuple[UnitStatus, ...]
    others: tuple[ProcessStatus, ...] = ()


class StatusQuery(Message):
    """`memory` also measures each process's PSS, which takes a millisecond or two a process."""

    memory: bool = False


class MethodCount(Message):
    """What a method has done since its process began.

    Bucket n counts calls of less than 2**n times 16.384 µs; the last of 24 all longer ones.
    """

    method: str
    calls: int = 0
    errors: int = 0
    seconds: float = 0.0
    buckets: tuple[int, ...] = ()


class Gauge(Message):
    """A figure of a plugin's own, as it is now: `image_blobs_bytes`, in units of the name."""

    name: str
    value: float
    help: str = ""


class ProcessReport(Message):
    """What a process has done since it began. `cpu` in seconds, `memory` (RSS) in bytes.

    `refused` counts calls without a right and malformed messages, `in_flight` what is served now.
    `troubles` are for the operator, a line each: what does not end, such as a hook.
    """

    unit: str
    plugin: str = ""
    generation: int
    pid: int
    started: float
    cpu: float = 0.0
    memory: int = 0
    refused: int = 0
    in_flight: int = 0
    methods: tuple[MethodCount, ...] = ()
    gauges: tuple[Gauge, ...] = ()
    troubles: tuple[str, ...] = ()


class ReportQuery(Message):
    """Reports of these units' processes, or of all."""

    units: tuple[str, ...] = ()


class SystemReport(Message):
    """Reports of all processes that answered; `silent` are units whose process did not in time."""

    at: float
    processes: tuple[ProcessReport, ...] = ()
    silent: tuple[str, ...] = ()


class Tracing(Message):
    """Record spans in every process, or stop it; ends by itself after `seconds`."""

    on: bool
    seconds: float = 600.0


class SpanQuery(Message):
    """Spans of a cause (a request's id) and of all below it; "" means all that are kept."""

    cause: str = ""


class Span(Message):
    """A call that was served. `began` in seconds since the epoch, `seconds` its length.

    `cause` is that of the call it served, a point and a number for each call below a request.
    `kind` is "request", "call" or "stream"; `error` an error's code, "" if it went well.
    """

    cause: str
    unit: str
    name: str
    kind: str = "call"
    began: float
    seconds: float
    error: str = ""


class SpanList(Message):
    """Spans, by time."""

    spans: tuple[Span, ...] = ()


class SwapRequest(Message):
    """Replace what fills `unit` by `plugin` ("" by itself), live.

    For `trial` seconds (below 0: as the newcomer's manifest says) the predecessor comes back if the
    newcomer dies or is not well. With `wait` the steps go on until that is decided.
    """

    unit: str
    plugin: str = ""
    trial: float = -1.0
    wait: bool = False


class SwapStep(Message):
    """Progress of a swap, of enabling or disabling.

    The last one has `finished`, and the generation that serves.
    """

    text: str
    finished: bool = False
    generation: int = 0


class UnitRef(Message):
    """Names a unit."""

    unit: str


class PartRef(Message):
    """Names a part that is no unit: `kernel`, `zygote`, or `UNIT-companion`."""

    part: str


class UnitSpec(Message):
    """A unit to be; what is empty is as it was before it was taken away, then as it is configured, then
    by the unit's name.

    `settings` is a JSON object, laid over those. `listens` are (name, address).
    """

    unit: str
    plugin: str = ""
    instance: str = ""
    settings: str = "{}"
    listens: tuple[tuple[str, str], ...] = ()


class DisableRequest(Message):
    """Take a unit away; `force` also one that others use.

    `forget` what was asked of it when it was enabled, or swapped: it comes back as it is configured.
    With that it may be one that was taken away before.
    """

    unit: str
    force: bool = False
    forget: bool = False


class RouteTable(Message):
    """Routes of all slots, for the operator's tools; `dead` and `deserted` since the last: see `Order`.

    `down` are slots that were given up for now.
    """

    routes: tuple[RouteEntry, ...]
    dead: tuple[str, ...] = ()
    deserted: tuple[str, ...] = ()
    down: tuple[DownEntry, ...] = ()


class StopSystem(Message):
    """End everything but containers; with `purge` each plugin also takes away what it made
    beyond its own directories: containers, interfaces, firewall rules."""

    seconds: float = 10.0
    purge: bool = False


@slot("kernel", version=1)
class Kernel(Protocol):
    """Directory and supervisor."""

    @method(idempotent=True, raises=(PermissionDenied, NotFound))
    def attend(self, attendance: Attendance) -> AsyncIterator[Order]:
        """Orders for a process, beginning with its routes and accesses."""
        ...

    @method(idempotent=True, raises=(PermissionDenied, NotFound))
    async def done(self, done: Done) -> None:
        """An order was carried out."""
        ...

    @method(idempotent=True, raises=(PermissionDenied, NotFound))
    async def idle(self, idle: Idle) -> None:
        """One that starts on demand may be let go; it is told to drain if it is."""
        ...

    @method(idempotent=True, raises=(PermissionDenied, NotFound))
    async def wake(self, waking: Waking) -> None:
        """Let a unit come up that left word with the caller before it fell asleep.

        Only for those that the unit's manifest names in `[life] wakes_on`. A unit that is not asleep is
        left as it is. The kernel itself wakes whoever left word with a provider that is replaced.
        """
        ...

    @method(idempotent=True)
    async def flooded(self, flood: Flood) -> None:
        """A caller is to have next to no processor time meanwhile.

        Only what a manifest lets call whoever asks is held back, and only if it has `limits.cpu`: a
        provider that lies harms nobody but its own callers, and none that users wait for.
        """
        ...

    @method(idempotent=True)
    async def status(self, query: StatusQuery) -> SystemStatus:
        """Everything at a glance."""
        ...

    @method(idempotent=True)
    async def report(self, query: ReportQuery) -> SystemReport:
        """What every process has done: calls by method, errors, times, gauges."""
        ...

    @method(idempotent=True, raises=(PermissionDenied,))
    async def trace(self, tracing: Tracing) -> None:
        """Begin or end the recording of spans everywhere."""
        ...

    @method(idempotent=True, raises=(PermissionDenied,))
    async def spans(self, query: SpanQuery) -> SpanList:
        """What was recorded."""
        ...

    @method(idempotent=True, raises=(PermissionDenied,))
    def routes(self) -> AsyncIterator[RouteTable]:
        """Who serves what: the whole table now, and again at every change."""
        ...

    @method(
        idempotent=False,
        raises=(NotFound, InvalidArgument, FailedPrecondition, PermissionDenied),
        seconds=120.0,
    )
    def swap(self, request: SwapRequest) -> AsyncIterator[SwapStep]:
        """Replace a unit's process while everything runs; on failure the old one goes on."""
        ...

    @method(
        idempotent=False,
        raises=(NotFound, InvalidArgument, AlreadyExists, FailedPrecondition, PermissionDenied),
        seconds=120.0,
    )
    def enable(self, spec: UnitSpec) -> AsyncIterator[SwapStep]:
        """Add a unit while everything runs, for good; one that does not start is not added."""
        ...

    @method(
        idempotent=False,
        raises=(NotFound, FailedPrecondition, PermissionDenied),
        seconds=120.0,
    )
    def disable(self, request: DisableRequest) -> AsyncIterator[SwapStep]:
        """Drain a unit and take it away, for good; its data stays.

        FailedPrecondition names the units that use it, unless it is forced.
        """
        ...

    @method(
        idempotent=False,
        raises=(NotFound, FailedPrecondition, PermissionDenied),
        seconds=60.0,
    )
    async def restart(self, unit: UnitRef) -> None:
        """Replace a unit's process by a new one, or start it anew where it was given up.

        Its crashes are forgotten. `FailedPrecondition` says why it does not serve.
        """
        ...

    @method(
        idempotent=False,
        raises=(NotFound, FailedPrecondition, PermissionDenied),
        seconds=30.0,
    )
    async def renew(self, part: PartRef) -> None:
        """Replace kernel, zygote or a companion by the code that is installed now.

        The kernel ends right after the answer, and its keeper starts it anew; it adopts everything.
        """
        ...

    @method(idempotent=True, raises=(PermissionDenied,))
    async def stop(self, request: StopSystem) -> None:
        """Stop the system; containers stay."""
        ...
