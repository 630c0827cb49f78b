"""How a monitor has a process started: an order to the engine, an attempt, what is told meanwhile."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from sagong.linux.cgroup import CgroupLayout
from sagong.shim.container import Container
from sagong.shim.directory import RunDirectory
from sagong.shim.failure import StartError
from sagong.shim.group import Group
from sagong.shim.jobs import Job
from sagong.shim.loop import Loop
from sagong.shim.session import Session

__all__ = ["Attempt", "Engine", "Order", "exit_code"]


def exit_code(status: int) -> int:
    """A wait status as a shell shows it."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


class Order(NamedTuple):
    """What an attempt needs, and whom it tells.

    `request` is what the runtime's plans made; `target` is the container's first process for an exec,
    0 for a run. `forked(pid)` makes the end of a child known to the attempt; `started(pid, ticks)`
    records the process durably before its program may run; `done` comes once, last, after the
    session has begun or with the error.
    With `ahead` nothing is told by `started`, and no program runs, before the attempt may proceed.
    """

    loop: Loop
    directory: RunDirectory
    layout: CgroupLayout
    group: Group
    session: Session
    request: dict[str, Any]
    target: int
    forked: Callable[[int], None]
    started: Callable[[int, int], None]
    done: Callable[[StartError | None], None]
    ahead: bool = False


class Attempt(Protocol):
    """One start. What it leaves after an error is nothing but what the session holds."""

    def begin(self) -> None:
        """Fork; OSError, ValueError or StartError when not even that is possible."""
        ...

    def proceed(self) -> None:
        """Of an order ahead: the program is wanted now."""
        ...

    def give_up(self, error: StartError) -> None:
        """It is not wanted any more: end what there is of it, and tell `done` this error."""
        ...

    def reaped(self, pid: int, status: int) -> None:
        """A child told by `forked` or `started` has ended, perhaps before we heard all it said."""
        ...


class Engine(Protocol):
    """Starts processes. `jobs` it does in its own way, by their names.

    `maker` is where it is found, `module:class`; it is made without arguments. `exec_plan` is where
    the plugin finds what plans its execs, `module:function` (`execs.ExecPlan`): a plugin of another
    engine, too, which has got its containers by a swap.
    """

    maker: str
    exec_plan: str

    @property
    def jobs(self) -> Mapping[str, Job]:
        """Jobs that replace the shim's, which act on cgroups."""
        ...

    def expect_starts(self, loop: Loop, directory: RunDirectory, layout: CgroupLayout) -> None:
        """In a monitor that is made for a start, before it has touched anything."""
        ...

    def attempt(self, order: Order) -> Attempt:
        """An attempt that has not begun."""
        ...

    def began(self, request: dict[str, Any]) -> bool:
        """Of a process that lives, and whose monitor died before it could tell: whether its program
        was let go, or waits for ever."""
        ...

    def clean(self, container: Container) -> None:
        """Leave nothing of a container that has ended or never began; its cgroup is removed after."""
        ...
