"""From a `RunSpec` or an `ExecRequest` to a plan: pure functions, no look at the machine."""

from __future__ import annotations

import base64
import functools
from typing import Any

import msgspec

from sagong.contracts.runtime import ExecRequest, LogSpec, Process, RunSpec
from sagong.errors import InvalidArgument
from sagong.linux import capabilities, seccomp
from sagong.linux.cgroup_devices import DEFAULT_DEVICES
from sagong.linux.seccomp_profile import default_policy, parse_profile
from sagong.shim.facts import HostFacts
from sagong.shim.requests import (
    cgroup_path,
    check_labels,
    check_process,
    fifo_owner,
    oom_score,
    session_of,
    user_maps,
    validate,
)
from sagong_runtime_linux import process_operations as process
from sagong_runtime_linux import user_operations
from sagong_runtime_linux.device_operations import OpenTerminal
from sagong_runtime_linux.mount_planning import mounts_after, mounts_before, volatile_workdir
from sagong_runtime_linux.operations import encode_operations

__all__ = ["exec_request", "run_request"]

_NAMESPACES = ("network", "ipc", "uts", "cgroup")


def capability_mask(names: tuple[str, ...], facts: HostFacts, *, privileged: bool) -> int:
    """The capabilities to keep; what the machine itself lacks is left out, as runc does."""
    if privileged:
        return facts.bounding
    try:
        return _mask(names) & facts.bounding
    except ValueError as error:
        raise InvalidArgument(f"capabilities of the process: {error}") from None


@functools.lru_cache(64)
def _mask(names: tuple[str, ...]) -> int:
    """Most containers have the same ones."""
    return capabilities.mask_of(names)


@functools.lru_cache(64)
def _encoded_filter(text: str, mask: int) -> str:
    """A profile, or Docker's (""), compiled once for each set of capabilities."""
    names = capabilities.names_of(mask)
    policy = parse_profile(text, names) if text else default_policy(frozenset(names))
    return base64.b64encode(seccomp.compile_policy(policy)).decode()


def seccomp_filter(text: str, mask: int, *, privileged: bool) -> str:
    """The compiled filter as base64, "" for none: who is privileged has none but one of his own."""
    profile = "" if text == "default" else text
    if text == "unconfined" or (privileged and not profile):
        return ""
    try:
        return _encoded_filter(profile, mask)
    except ValueError as error:
        raise InvalidArgument(str(error)) from None


def run_request(spec: RunSpec, facts: HostFacts, *, parent: str) -> dict[str, Any]:
    """The message that makes a monitor start this container."""
    validate(spec)
    check_labels(spec, facts)
    mask = capability_mask(spec.process.capabilities, facts, privileged=spec.privileged)
    user = spec.namespaces.user != "host"
    shared = [k for k in _NAMESPACES if getattr(spec.namespaces, k) == "group"]
    entered, made = namespace_operations(spec)
    operations = [
        *mounts_before(spec, user=user),
        process.MakeCgroup(cgroup_path(spec, parent), limits_of(spec)),
        process.SetOomScore(oom_score(spec.process, spec, facts)),
        *entered,
        *(user_entry(pid=spec.namespaces.pid) if user else []),
        *made,
        *mounts_after(spec, facts.hierarchies, cgroup=cgroup_path(spec, parent), user=user),
        *process_setup(spec, facts, mask),
    ]
    return {
        "op": "run",
        "id": spec.id,
        "run": spec.run,
        "cgroup": cgroup_path(spec, parent),
        "pid": _pid_namespace(spec, user=user),
        "user": user_maps(spec) if user else None,
        "forks": user and spec.namespaces.pid == "new",
        "init": spec.init,
        "volatile": volatile_workdir(spec.mounts[0]),
        "private_pid": spec.namespaces.pid == "new",
        "group_kinds": shared,
        "plan": encoded_plan(operations, spec.process, init=spec.init),
        "session": session_of(spec.process, spec.log, hold=spec.expect_attach),
        "owner": fifo_owner(spec, spec.process),
    }


def encoded_plan(operations: list[Any], what: Process, *, init: bool = False) -> str:
    """The plan as a text that only the child reads: the monitor, which stays, remains small."""
    program = {"args": what.args, "env": what.env, "init": init}
    plan = {"operations": encode_operations(operations), "program": program}
    return msgspec.json.encode(plan).decode()


def limits_of(spec: RunSpec) -> dict[str, Any]:
    """Limits as the cgroup bindings name them, with the device rules."""
    limits = msgspec.to_builtins(spec.limits)
    if spec.privileged:
        limits["devices"] = ["a"]
    else:
        nodes = [f"{device.source} {device.permissions}" for device in spec.devices]
        rules = [rule.rule for rule in spec.device_rules]
        limits["devices"] = [*DEFAULT_DEVICES, *nodes, *rules]
    return limits  # type: ignore[no-any-return]


def _pid_namespace(spec: RunSpec, *, user: bool) -> str:
    """What the monitor forks into; a new one of a user namespace is made by the child itself."""
    wanted = spec.namespaces.pid
    if wanted == "host" or (user and wanted == "new"):
        return ""
    return wanted.removeprefix("path:")


def user_entry(*, pid: str) -> list[Any]:
    """Into the user namespace, with a mount and a pid namespace that belong to it."""
    return [
        process.EnterNamespace("user"),
        user_operations.BecomeMappedRoot(),
        process.Unshare(("mount",)),
        *([user_operations.ForkIntoPids()] if pid == "new" else []),
    ]


def namespace_operations(spec: RunSpec) -> tuple[list[Any], list[Any]]:
    """Enter what is given, then make what is new. The cgroup namespace comes after the cgroup."""
    entered: list[Any] = []
    new = []
    for kind in _NAMESPACES:
        value = getattr(spec.namespaces, kind)
        if value == "new":
            new.append(kind)
        elif value == "group":
            entered.append(process.EnterNamespace(kind))
        elif value.startswith("path:"):
            entered.append(process.EnterNamespace(kind, value.removeprefix("path:")))
    made = [process.Unshare(tuple(new))] if new else []
    loop = [process.LoopbackUp()] if spec.namespaces.network in ("new", "group") else []
    own = spec.namespaces.uts in ("new", "group")
    names = [process.SetHostname(spec.hostname, spec.domainname)] if own else []
    return entered, [*made, *loop, *names]


def process_setup(spec: RunSpec, facts: HostFacts, mask: int) -> list[Any]:
    """From the finished tree of mounts to the moment before exec."""
    what = spec.process
    operations: list[Any] = [process.JoinKeyring(f"_ses.{spec.id}")]
    operations += labels_of(spec, facts)
    operations += [process.ChangeDirectory(what.cwd or "/", create=True)]
    operations += confinement(spec, what, mask)
    return operations


def confinement(spec: RunSpec, what: Process, mask: int) -> list[Any]:
    """Limits and credentials; the filter goes last where no_new_privs allows that."""
    code = seccomp_filter(spec.seccomp, mask, privileged=spec.privileged)
    filtered = [process.Filter(code)] if code else []
    early = [] if what.no_new_privileges else filtered
    late = filtered if what.no_new_privileges else []
    user = what.user
    return [
        *(process.SetRlimit(limit.name, limit.soft, limit.hard) for limit in what.rlimits),
        process.SetUmask(0o022 if what.umask is None else what.umask),
        *([process.ForbidNewPrivileges()] if what.no_new_privileges else []),
        *early,
        process.TakeCredentials(user.uid, user.gid, user.groups, mask, what.ambient),
        process.ChangeDirectory(what.cwd or "/", final=True),
        *late,
    ]


def labels_of(spec: RunSpec, facts: HostFacts) -> list[Any]:
    """Labels for the security modules that the machine has."""
    labels: list[Any] = []
    if spec.apparmor and spec.apparmor != "unconfined" and facts.apparmor and not spec.privileged:
        labels.append(process.Confine("apparmor", spec.apparmor))
    if spec.selinux and facts.selinux:
        labels.append(process.Confine("selinux", spec.selinux))
    return labels


def exec_request(
    spec: RunSpec, request: ExecRequest, facts: HostFacts, *, cgroup: str
) -> dict[str, Any]:
    """The message that makes the monitor start a further process in the container."""
    what = request.process
    if not what.args:
        raise InvalidArgument("exec needs a command")
    check_process(what)
    mask = capability_mask(what.capabilities, facts, privileged=request.privileged)
    if spec.privileged and not what.capabilities:
        mask = facts.bounding
    kinds = ["mount", "uts", "ipc", "network", "cgroup"]
    mapped = spec.namespaces.user != "host"
    kinds += ["user"] if mapped else []
    enters_pid = spec.namespaces.pid != "host"
    terminal = terminal_operations(what, console="") if what.tty else []
    # In a user namespace nobody may trace who comes from outside.
    late = enters_pid and not mapped and _may_be_traced(spec, facts)
    kinds += ["pid"] if late else []
    labels = labels_of(spec, facts)
    operations = [
        process.EnterCgroup(cgroup),
        process.SetOomScore(oom_score(what, spec, facts)),
        process.EnterProcess(tuple(kinds)),
        *([user_operations.BecomeMappedRoot()] if mapped else []),
        process.JoinKeyring(f"_ses.{spec.id}"),
        *terminal,
        *([] if late else labels),
        process.ChangeDirectory(what.cwd or "/"),
        *confinement(spec, what, mask),
        # Labels are given by a /proc that shows no strangers.
        *([user_operations.ForkInside(), *labels] if late else []),
    ]
    return {
        "op": "exec",
        "id": request.id,
        "exec_id": request.exec_id,
        "enter_pid": enters_pid and not late,
        "forks": late,
        "plan": encoded_plan(operations, what),
        "session": session_of(what, LogSpec(driver="none"), hold=True)
        | {"stdin_once": True, "stragglers": True},
        "owner": fifo_owner(spec, what),
    }


def _may_be_traced(spec: RunSpec, facts: HostFacts) -> bool:
    """Whether a container has the right to trace, or one may that shares its processes.

    Who is privileged has the host's devices anyway.
    """
    if spec.namespaces.pid != "new" or spec.privileged:
        return not spec.privileged
    mask = capability_mask(spec.process.capabilities, facts, privileged=False)
    return bool(mask & capabilities.mask_of(["CAP_SYS_PTRACE"]))


def terminal_operations(what: Process, *, console: str) -> list[Any]:
    """A terminal from the container's own devpts."""
    size = (what.rows, what.columns)
    return [OpenTerminal("/dev/pts/ptmx", console, *size, what.user.uid, what.user.gid)]
