"""What a plugin or service is given: `Host`, its only way to the rest of the system.

A plugin is one class, named in its `plugin.toml`, made with its host::

    class Greeter:
        def __init__(self, host: Host) -> None:
            self._state = host.use(State, "local")

        @classmethod
        def imports(cls, settings: Mapping[str, Any]) -> None: ...   # optional: see below
        async def start(self) -> None: ...     # optional: before the first call is served
        async def health(self) -> None: ...    # optional: raises what is wrong; asked after the start
        async def stop(self) -> None: ...      # optional: after the last one
        def busy(self) -> bool: ...            # optional: on demand, has it work that is no call?
        async def doze(self) -> float: ...     # optional: it falls asleep; says until when
        async def tidy(self) -> None: ...      # optional: after stop, beside a successor
        async def purge(self) -> None: ...     # optional: before the last stop of an uninstallation
        async def greet(self, request: Greeting) -> Greeted: ...   # the methods of its slot

A slot's method of such a name is no step of the plugin's life; a class that needs both has the slot's
methods in another object, its attribute `implementation`.

A process imports its class before it attends the kernel, so before its predecessor lets go. What
only some settings need, and `__init__` or `start` would import, belongs into `imports`: it is given
the unit's settings as they stand in the configuration, and touches nothing that a predecessor may hold.

`health` is asked again and again while a newcomer is on trial (`[restart] trial_seconds`): if it
raises, or does not answer within five seconds, its predecessor comes back.

`doze` leaves word of what the plugin waits for with the providers in `[life] wakes_on`, up to what it
has dealt with; what came since then wakes it. It returns when it has to be up at the latest, in seconds
since the epoch, 0 for no time. If it raises, or the process ends meanwhile, the plugin comes up again.

A stateful plugin that can't overlap with its successor also has `async def export(self) -> bytes`
and `async def restore(self, state: bytes) -> None`, called between the last call of the old one and
the first of the new one. After `export` its `stop` lets go only of what the successor needs; what takes
time is for `tidy`, beside the successor, for at most five seconds.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec

from sagong.contract import Message

__all__ = ["Host", "Providers"]

S = TypeVar("S")
C = TypeVar("C", bound=msgspec.Struct)
M = TypeVar("M", bound=Message)


class Providers(Protocol):
    """The instances of one slot that there are now; `host.use(protocol, name)` calls one of them."""

    @property
    def names(self) -> tuple[str, ...]:
        """Their names; "" is the one without a name."""
        ...

    def follow(self) -> AsyncIterator[tuple[str, ...]]:
        """The names now, and again whenever a unit that fills the slot is added or taken away."""
        ...


class Host(Protocol):
    """A process's window on the system; everything in it is granted by the manifest."""

    @property
    def name(self) -> str:
        """The plugin's instance name, unique on this machine (`state-local`, `docker`)."""
        ...

    @property
    def instance(self) -> str:
        """Its name among several providers of its slot; "" is the default one."""
        ...

    @property
    def data(self) -> Path:
        """Its own directory that survives restarts and reboots."""
        ...

    @property
    def run(self) -> Path:
        """Its own directory that lives until reboot; sockets for byte streams belong here.

        Processes that may call this plugin can connect to sockets below it.
        """
        ...

    @property
    def root(self) -> Path:
        """The instance's run directory (`/run/sagong`): of it only what the manifest grants is seen."""
        ...

    @property
    def log(self) -> logging.Logger:
        """The plugin's logger: one line per event, facts as `extra` fields."""
        ...

    def config(self, kind: type[C]) -> C:
        """Its section of the configuration, decoded strictly; defaults where nothing is set."""
        ...

    def use(self, protocol: type[S], instance: str = "") -> S:
        """A proxy for the slot's provider, today's and every later one's.

        `instance` chooses among several providers of one slot (`State, "local"`). Calls wait for a
        provider until their deadline (`sagong.call.deadline`); of an optional slot that no unit fills
        they are `Unavailable` at once. Where the manifest grants every
        instance, the name may come from a user: `NotFound` lists those that there are.
        """
        ...

    def providers(self, protocol: type) -> Providers:
        """The instances of a slot of which the manifest grants every one (`instance = "*"`)."""
        ...

    def emit(self, event: Message) -> None:
        """Tell all listeners of this slot; never waits."""
        ...

    def hear(self, protocol: type, kind: type[M], instance: str = "") -> AsyncIterator[M | None]:
        """Events of the slot's provider, over its restarts and swaps.

        `None` comes first and whenever events may have been missed: read the whole state again.
        It ends when the instance is taken away.
        """
        ...

    async def wake(self, unit: str) -> None:
        """Let a unit come up that left word with this one before it fell asleep; see `[life] wakes_on`.

        Word need not outlive this process: its successor wakes, by coming up, whoever left word.
        """
        ...

    async def leave_word(self, protocol: type, instance: str = "") -> None:
        """In `doze`: have this unit woken by the next event that `hear` brings, which is kept for it.

        What `hear` has yielded counts as dealt with when the next one is asked for.
        """
        ...

    def gauge(self, name: str, read: Callable[[], float], help: str) -> None:
        """A figure of the plugin's own (`image_blobs_bytes`), read whenever a report is asked for.

        `read` must be quick and wait for nothing; `help` says in a line what the figure is.
        """
        ...

    @property
    def has_hooks(self) -> bool:
        """Whether hooks were loaded into this process."""
        ...

    def hooks(self, kind: type[S]) -> S:
        """An extension point: what all hooks of this process say, as lists (`sagong.hooks.points`)."""
        ...

    def listener(self, name: str) -> socket.socket:
        """A listening socket of the manifest's `[listens]`, opened by the keeper, non-blocking."""
        ...

    def deputy(self) -> socket.socket:
        """The socket to the process of the manifest's `[deputy]` (`sagong.deputy`); it blocks."""
        ...

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run background work owned by the host: cancelled at stop; an exception ends the process."""
        ...
