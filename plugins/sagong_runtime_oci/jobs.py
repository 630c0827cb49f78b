"""Jobs of the launcher that the binary does: signals, freezing, limits, processes, the end."""

from __future__ import annotations

import contextlib
import json
import os
import stat
from typing import Any

from sagong.linux import process
from sagong.linux.cgroup import CgroupLayout
from sagong.shim.cgroups import container_cgroup
from sagong.shim.failure import StartError
from sagong.shim.jobs import JOBS, Job
from sagong.shim.process_facts import process_facts
from sagong_runtime_oci.binary import call
from sagong_runtime_oci.resources import resources_of

__all__ = ["OCI_JOBS", "delete", "device_numbers", "status"]

_SIGKILL = 9


def device_numbers(device: str) -> tuple[int, int]:
    """Numbers of a device given by its path or as MAJOR:MINOR."""
    if device.startswith("/"):
        found = os.stat(device)
        if not stat.S_ISBLK(found.st_mode) and not stat.S_ISCHR(found.st_mode):
            raise StartError("invalid_argument", f"{device} is not a device node")
        return os.major(found.st_rdev), os.minor(found.st_rdev)
    major, _, minor = device.partition(":")
    return int(major), int(minor)


def status(request: dict[str, Any]) -> str:
    """The runtime's own word: created, running, paused, stopped."""
    return str(json.loads(call(request["engine"], "state", request["id"]))["status"])


def _signal(layout: CgroupLayout, request: dict[str, Any]) -> dict[str, Any]:
    everyone = ["--all"] if request["all"] else []
    number = str(request["signal"])
    call(request["engine"], "kill", *everyone, request["id"], number)
    group = container_cgroup(layout, request["cgroup"])
    if request["signal"] == _SIGKILL and group.halted():
        # Not every runtime thaws what is to die.
        group.thaw()
    return {}


def _switch(request: dict[str, Any], verb: str, wanted: str) -> dict[str, Any]:
    """To be there already is no error."""
    try:
        call(request["engine"], verb, request["id"])
    except StartError:
        if status(request) != wanted:
            raise
    return {}


def _freeze(layout: CgroupLayout, request: dict[str, Any]) -> dict[str, Any]:
    """As the shim's job: who was being killed meanwhile goes on to his end."""
    found = _switch(request, "pause", "paused")
    if process.is_dying(process.ProcessId(request["pid"], request["started"])):
        _switch(request, "resume", "running")
        raise ProcessLookupError
    return found


def _thaw(layout: CgroupLayout, request: dict[str, Any]) -> dict[str, Any]:
    return _switch(request, "resume", "running")


def _limit(layout: CgroupLayout, request: dict[str, Any]) -> dict[str, Any]:
    resources = resources_of(request["limits"], device_numbers)
    given = json.dumps(resources).encode()
    call(request["engine"], "update", "--resources", "-", request["id"], given=given)
    return {}


def _processes(layout: CgroupLayout, request: dict[str, Any]) -> dict[str, Any]:
    listed = json.loads(call(request["engine"], "ps", "--format", "json", request["id"]))
    pids = sorted(int(pid) for pid in listed or ())
    return {"pids": pids, "facts": process_facts(pids)}


def _sweep(layout: CgroupLayout, request: dict[str, Any]) -> dict[str, Any]:
    """By the runtime, and what it leaves or never knew by the cgroup."""
    if request.get("remove", True):
        delete(request["engine"], request["id"])
    else:
        with contextlib.suppress(StartError):
            call(request["engine"], "kill", "--all", request["id"], str(_SIGKILL))
    return JOBS["sweep"](layout, request)


def delete(engine: dict[str, Any], container_id: str) -> None:
    """Forget it, killing what runs; unknown is no error."""
    with contextlib.suppress(StartError):
        call(engine, "delete", "--force", container_id)


OCI_JOBS: dict[str, Job] = {
    "signal": _signal,
    "freeze": _freeze,
    "thaw": _thaw,
    "limit": _limit,
    "processes": _processes,
    "sweep": _sweep,
}
