"""What the messages of every runtime hold alike, and what is refused before any is sent; pure."""

from __future__ import annotations

import posixpath
from typing import Any

import msgspec

from sagong.contracts.runtime import LogSpec, Process, RunSpec, ShowRequest
from sagong.errors import InvalidArgument
from sagong.shim.facts import HostFacts
from sagong.shim.rlimits import RLIMITS

__all__ = [
    "cgroup_path",
    "check_labels",
    "check_process",
    "check_sources",
    "fifo_owner",
    "hold_seconds",
    "layer_limit",
    "mapped",
    "oom_score",
    "session_of",
    "user_maps",
    "validate",
]

_HOLD_SECONDS = 10.0
# The one above is "leave it as it is" for setresuid(2).
_LAST_ID = 2**32 - 2
# Kernel parameters that belong to a namespace, by the namespace that must not be the host's.
_IPC_SYSCTLS = frozenset(
    {"kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall"}
    | {"kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced"}
)
_UTS_SYSCTLS = frozenset({"kernel.domainname", "kernel.hostname"})


def cgroup_path(spec: RunSpec, parent: str) -> str:
    """The container's cgroup below its parent; nothing leads out of the hierarchy."""
    inside = posixpath.normpath(f"/{spec.cgroup_parent or parent}").strip("/")
    return f"{inside}/{spec.id}"


def check_sources(request: ShowRequest) -> None:
    """Refuse to show what is no absolute path."""
    for source in request.sources:
        if not source.startswith("/") or "\0" in source:
            raise InvalidArgument(f"source {source!r} must be an absolute path")


def layer_limit(spec: RunSpec) -> tuple[RunSpec, dict[str, Any] | None]:
    """The spec without the bound of its root's upper directory, and that: the job to set it."""
    root = spec.mounts[0] if spec.mounts else None
    if root is None or root.kind != "overlay":
        return spec, None
    options = dict(option.partition("=")[::2] for option in root.options)
    if "project" not in options:
        return spec, None
    kept = tuple(o for o in root.options if o.partition("=")[0] not in ("project", "size"))
    root = msgspec.structs.replace(root, options=kept)
    job = {
        "directory": options["upperdir"],
        "project": int(options["project"]),
        "size": int(options["size"]),
    }
    return msgspec.structs.replace(spec, mounts=(root, *spec.mounts[1:])), job


def fifo_owner(spec: RunSpec, what: Process) -> tuple[int, int]:
    """The host's ids of a program's user in the container of `spec`."""
    user, spaces = what.user, spec.namespaces
    if spaces.user == "host":
        return user.uid, user.gid
    return mapped(user.uid, spaces.uid_map), mapped(user.gid, spaces.gid_map)


def mapped(inside: int, table: tuple[tuple[int, int, int], ...]) -> int:
    """An id of a user namespace as the host's."""
    for first, outside, count in table:
        if first <= inside < first + count:
            return outside + inside - first
    raise InvalidArgument(f"id {inside} is not in the user namespace's map {table}")


def user_maps(spec: RunSpec) -> dict[str, Any]:
    """How the engine comes to the user namespace: its path, or the maps of a new one."""
    spaces = spec.namespaces
    if spaces.user != "new" and not spaces.user.startswith("path:"):
        raise InvalidArgument(f"user namespace {spaces.user!r}: host, new or path:… is possible")
    if spaces.pid == "host":
        raise InvalidArgument(
            "cannot share the host PID namespace when user namespaces are enabled"
        )
    for table in (spaces.uid_map, spaces.gid_map):
        mapped(0, table)
    path = "" if spaces.user == "new" else spaces.user.removeprefix("path:")
    return {"path": path, "uid_map": spaces.uid_map, "gid_map": spaces.gid_map}


def oom_score(what: Process, spec: RunSpec, facts: HostFacts) -> int:
    """Of a program of the container; its first process's unless it has one of its own."""
    chosen = what if what.oom_score_adjust is not None else spec.process
    score = chosen.oom_score_adjust
    if score is None or chosen.oom_score_bounded:
        return max(score or 0, facts.least_oom_score)
    return score


def hold_seconds(spec: RunSpec) -> float:
    """How long output waits for the attach that a start expects."""
    return _HOLD_SECONDS if spec.expect_attach else 0


def session_of(what: Process, log: LogSpec, *, hold: bool) -> dict[str, Any]:
    """What the monitor must know of streams."""
    return {
        "tty": what.tty,
        "stdin": what.stdin,
        "stdin_once": what.stdin_once,
        "hold": _HOLD_SECONDS if hold else 0,
        "log": msgspec.to_builtins(log) | {"driver": log.driver, "path": log.path},
    }


def validate(spec: RunSpec) -> None:
    """Refuse what can't work, saying why."""
    if not spec.mounts or spec.mounts[0].target != "/":
        raise InvalidArgument("the first mount must be the root, with target /")
    if not spec.process.args:
        raise InvalidArgument("No command specified")
    if not spec.id or "/" in spec.id or spec.id.startswith("."):
        raise InvalidArgument(f"container id {spec.id!r} can't be a file's name")
    check_process(spec.process)
    if spec.log.driver not in ("json-file", "cri", "local", "none"):
        raise InvalidArgument(
            f"log driver {spec.log.driver!r} is unknown; known: json-file, cri, local, none"
        )
    for key, _ in spec.sysctls:
        _check_sysctl(spec, key)


def check_labels(spec: RunSpec, facts: HostFacts) -> None:
    """Refuse a profile that nothing here would enforce."""
    asked = spec.apparmor not in ("", "unconfined") and not spec.privileged
    if asked and not facts.apparmor:
        raise InvalidArgument(
            f"AppArmor profile {spec.apparmor!r} can't be applied: the machine's kernel has no "
            "AppArmor; use unconfined or leave it out"
        )


def check_process(what: Process) -> None:
    """Refuse limits without a name, ids that no kernel has, arguments that execve(2) can't take."""
    for number in (what.user.uid, what.user.gid, *what.user.groups):
        if not 0 <= number <= _LAST_ID:
            raise InvalidArgument(f"user or group {number} is not in the range 0-{_LAST_ID}")
    for limit in what.rlimits:
        if limit.name not in RLIMITS:
            raise InvalidArgument(f"rlimit {limit.name!r} is unknown: {', '.join(RLIMITS)}")
        if limit.hard >= 0 and not 0 <= limit.soft <= limit.hard:
            raise InvalidArgument(f"rlimit {limit.name}: soft {limit.soft} > hard {limit.hard}")
    for text in (*what.args, *what.env, what.cwd):
        if "\0" in text:
            raise InvalidArgument(f"NUL byte in {text!r}")
    if not what.cwd.startswith("/"):
        raise InvalidArgument(f"working directory {what.cwd!r} must be absolute")


def _check_sysctl(spec: RunSpec, key: str) -> None:
    """Only what belongs to a namespace of the container may be set."""
    spaces = spec.namespaces
    if key in _IPC_SYSCTLS or key.startswith("fs.mqueue."):
        owner = spaces.ipc
    elif key in _UTS_SYSCTLS:
        owner = spaces.uts
    elif key.startswith("net."):
        owner = spaces.network
    else:
        raise InvalidArgument(f"sysctl {key!r} is not separately configurable for a container")
    if owner == "host":
        raise InvalidArgument(f"sysctl {key!r} is not allowed in the host's namespace")
