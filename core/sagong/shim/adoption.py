"""A successor's work: take over what a killed monitor left running."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any, NamedTuple

from sagong.linux import process, syscalls
from sagong.shim.cgroups import container_cgroup
from sagong.shim.container import Container
from sagong.shim.directory import read_record
from sagong.shim.failure import NEVER_BEGAN
from sagong.shim.logs import open_log
from sagong.shim.loop import READ
from sagong.shim.session import UNKNOWN_CODE, Session
from sagong.shim.starting import exit_code

if TYPE_CHECKING:
    from sagong.shim.monitor import Monitor

__all__ = ["Inheritance", "adopt_container"]

# How often and how long to wait until the foreign parent has reaped and the kernel tells the code.
_ATTEMPTS = 100
_PAUSE_SECONDS = 0.02


class Inheritance(NamedTuple):
    """What the launcher hands to a monitor: lifelines by name, statuses of orphans it reaped."""

    lifelines: dict[str, int]
    reaped: dict[tuple[int, int], int]
    arguments: tuple[int, int]


def adopt_container(monitor: Monitor, container_id: str) -> None:
    """Take over a container and its exec'd processes; what has ended meanwhile ends now.

    One whose start was not finished, and can't be any more, is left out.
    """
    directory = monitor.directory.container(container_id)
    state = read_record(f"{directory}/state.json")
    if state is None or _never_began(monitor, directory, state):
        return
    group = container_cgroup(monitor.layout, state["cgroup"])
    container = Container(state, directory, group)
    container.started_at = state["started_at"]
    container.claim()
    monitor.containers[container_id] = container
    monitor.group_of(container).adopt(state)
    session = monitor.make_session(container, state["session"], directory)
    session.since = state["since"]
    known = read_record(f"{directory}/exit.json")
    # Who has left its code may be told to have ended, and be removed, at any moment.
    session.log = open_log(state["session"]["log"], begin=known is None)
    container.session = session
    if os.path.isdir(group.directory("memory") or ""):
        monitor.watch(container)
    for exec_id in _execs(directory):
        _adopt_exec(monitor, container, exec_id)
    _take_over(monitor, session, state, f"{container_id}//", known)


def _never_began(monitor: Monitor, directory: str, state: dict[str, Any]) -> bool:
    """Whether the monitor before died when the child was known and not yet let go."""
    if not state.get("marks") or any(
        os.path.exists(f"{directory}/{name}") for name in ("begun", "exit.json")
    ):
        return False
    identity = process.ProcessId(state["pid"], state["started"])
    pidfd = process.open_identified(identity)
    if pidfd is None:
        return _reaped_code(monitor, identity) == NEVER_BEGAN
    os.close(pidfd)
    return not monitor.engines.looking_after(state).began(state)


def _execs(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(f"{directory}/execs"))
    except FileNotFoundError:
        return []


def _adopt_exec(monitor: Monitor, container: Container, exec_id: str) -> None:
    directory = monitor.directory.execution(container.id, exec_id)
    state = read_record(f"{directory}/state.json")
    if state is None or os.path.exists(f"{directory}/exit.json"):
        return
    session = monitor.make_session(container, state["session"], directory)
    session.name = exec_id
    container.execs[exec_id] = session
    _take_over(monitor, session, state, f"{container.id}/{exec_id}/", None)


def _take_over(
    monitor: Monitor,
    session: Session,
    state: dict[str, Any],
    prefix: str,
    known: dict[str, Any] | None,
) -> None:
    lifelines = monitor.inherited.lifelines
    with contextlib.suppress(OSError):
        if not state["session"]["tty"]:
            session.open_fifos()
            stdin = lifelines.pop(f"{prefix}stdin", None)
            if stdin is not None:
                os.close(stdin)
            elif state["session"]["stdin"]:
                # Nobody kept it: it had been closed, and must stay so.
                session.close_input()
            session.deposit()
        elif f"{prefix}tty" in lifelines:
            session.use_terminal(lifelines.pop(f"{prefix}tty"))
    identity = process.ProcessId(state["pid"], state["started"])
    pidfd = process.open_identified(identity)
    session.spec = {**session.spec, "hold": 0}
    session.begin(identity.pid, identity.started)
    if pidfd is None:
        code = known["code"] if known else _reaped_code(monitor, identity)
        session.exited(code)
        return
    monitor.loop.add(pidfd, READ, lambda _: _ended(monitor, session, pidfd))


def _reaped_code(monitor: Monitor, identity: process.ProcessId) -> int:
    """The code that the launcher saw; 255, as containerd's, when nobody did."""
    status = monitor.inherited.reaped.get((identity.pid, identity.started))
    if status is None:
        # It ended after the launcher had forked us.
        status = monitor.ask_launcher(identity.pid, identity.started)
    return UNKNOWN_CODE if status is None else exit_code(status)


def _ended(monitor: Monitor, session: Session, pidfd: int) -> None:
    monitor.loop.drop(pidfd)
    _ask(monitor, session, pidfd, _ATTEMPTS)


def _ask(monitor: Monitor, session: Session, pidfd: int, attempts: int) -> None:
    """The kernel tells strangers the code once the parent has reaped (Linux 6.15)."""
    try:
        status = syscalls.exit_info(pidfd).status
    except OSError:
        status = monitor.ask_launcher(session.pid, session.started)
    if status is None and attempts:
        monitor.loop.later(_PAUSE_SECONDS, lambda: _ask(monitor, session, pidfd, attempts - 1))
        return
    os.close(pidfd)
    session.exited(UNKNOWN_CODE if status is None else exit_code(status))
