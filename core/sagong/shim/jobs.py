"""Short jobs with the launcher's rights: signals, freezing, limits, killing. Each has a fork of the
launcher, since it may have to wait; a signal does not, and is sent by the monitor, which is there."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Mapping
from typing import Any

from sagong.linux import mounts, process, quota, syscalls
from sagong.linux.cgroup import CgroupLayout
from sagong.shim import messages
from sagong.shim.cgroups import container_cgroup, resolved_limits
from sagong.shim.failure import StartError
from sagong.shim.process_facts import process_facts

__all__ = ["BRIEF", "JOBS", "Job", "perform", "perform_briefly"]

_NEW_MOUNTS = 0x20000  # CLONE_NEWNS

Job = Callable[[CgroupLayout, dict[str, Any]], dict[str, Any]]
# What a monitor may do between two turns of its loop.
BRIEF = frozenset({"signal"})


def perform(
    layout: CgroupLayout, number: int, request: dict[str, Any], own: Mapping[str, Job]
) -> bytes:
    """Do the job that the request names, in the engine's own way if it has one; the answer."""
    name = request.get("job", "")
    job = own.get(name) or JOBS.get(name)
    if job is None:
        return messages.failure(number, "unimplemented", f"no job {name!r}")
    try:
        return messages.answer(number, job(layout, request))
    except ProcessLookupError:
        return messages.failure(number, "not_found", "the process has ended")
    except StartError as error:
        return messages.failure(number, error.code, error.message)
    except (KeyError, TypeError) as error:
        return messages.failure(number, "internal", f"{type(error).__name__}: {error}")
    except (OSError, ValueError) as error:
        return messages.failure(number, "invalid_argument", _text(error))


def perform_briefly(
    layout: CgroupLayout, number: int, request: dict[str, Any], own: Mapping[str, Job]
) -> bytes:
    """As `perform`, by who must not wait: what an engine does in its own way, and what concerns a
    container that is frozen and may have to be thawed, is unimplemented here."""
    name = request.get("job", "")
    if name not in BRIEF or name in own or container_cgroup(layout, request["cgroup"]).halted():
        return messages.failure(number, "unimplemented", f"the launcher does {name!r}")
    return perform(layout, number, request, own)


def _text(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"{error.strerror}: {error.filename}"
    return str(error)


def _signal(layout: CgroupLayout, request: dict[str, Any]) -> dict[str, Any]:
    """To exactly the process meant; a frozen container is thawed to die."""
    number = request["signal"]
    group = container_cgroup(layout, request["cgroup"])
    if request["all"]:
        for pid in group.pids():
            _kill(pid, number)
    else:
        pidfd = process.open_identified(process.ProcessId(request["pid"], request["started"]))
        if pidfd is None:
            raise ProcessLookupError
        try:
            syscalls.pidfd_send_signal(pidfd, number)
        finally:
            os.close(pidfd)
    if number == signal.SIGKILL and group.halted():
        group.thaw()
    return {}


def _kill(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _freeze(layout: CgroupLayout, request: dict[str, Any]) -> dict[str, Any]:
    """Who was being killed meanwhile would stand for ever, half dead: he goes on to his end."""
    group = container_cgroup(layout, request["cgroup"])
    try:
        group.freeze()
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENODEV):
            raise
        raise ProcessLookupError from None
    if process.is_dying(process.ProcessId(request["pid"], request["started"])):
        group.thaw()
        raise ProcessLookupError
    return {}


def _thaw(layout: CgroupLayout, request: dict[str, Any]) -> dict[str, Any]:
    container_cgroup(layout, request["cgroup"]).thaw()
    return {}


def _limit(layout: CgroupLayout, request: dict[str, Any]) -> dict[str, Any]:
    container_cgroup(layout, request["cgroup"]).limit(resolved_limits(request["limits"]))
    return {}


def _refresh(layout: CgroupLayout, request: dict[str, Any]) -> dict[str, Any]:
    """Remount its root as it is: that drops what the kernel remembers of its names."""
    pidfd = process.open_identified(process.ProcessId(request["pid"], request["started"]))
    if pidfd is None:
        raise ProcessLookupError
    try:
        syscalls.setns(pidfd, _NEW_MOUNTS)
    finally:
        os.close(pidfd)
    flags = os.statvfs("/").f_flag
    if not flags & os.ST_RDONLY:
        kept = flags & (mounts.MS_NOSUID | mounts.MS_NODEV | mounts.MS_NOEXEC)
        syscalls.mount("", "/", "", mounts.MS_REMOUNT | kept)
    return {}


def _processes(layout: CgroupLayout, request: dict[str, Any]) -> dict[str, Any]:
    pids = container_cgroup(layout, request["cgroup"]).pids()
    return {"pids": pids, "facts": process_facts(pids)}


def _sweep(layout: CgroupLayout, request: dict[str, Any]) -> dict[str, Any]:
    """Kill everything in the cgroup and remove it; what is not there is no error."""
    group = container_cgroup(layout, request["cgroup"])
    try:
        group.kill()
    except OSError as error:
        # A file of a cgroup that its monitor removes at this moment: then nobody is in it.
        if error.errno not in (errno.ENODEV, errno.ENOENT):
            raise
    if request.get("remove", True):
        group.remove()
    return {}


def _bound(layout: CgroupLayout, request: dict[str, Any]) -> dict[str, Any]:
    """Limit what a project may take of the filesystem of a directory."""
    directory = os.open(request["directory"], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        quota.set_blocks(directory, request["project"], request["size"])
    finally:
        os.close(directory)
    return {}


JOBS: dict[str, Job] = {
    "bound": _bound,
    "signal": _signal,
    "freeze": _freeze,
    "thaw": _thaw,
    "limit": _limit,
    "processes": _processes,
    "refresh": _refresh,
    "sweep": _sweep,
}
