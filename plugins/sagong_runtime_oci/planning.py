"""From a `RunSpec` or an `ExecRequest` to a bundle's configuration; pure, no look at the machine.

What only the machine knows (numbers of devices, where the root is mounted, namespaces of a group) is
left to `bundle.py`, which completes the configuration in the launcher's fork.
"""

from __future__ import annotations

import functools
from typing import Any

import msgspec

from sagong.contracts.runtime import ExecRequest, LogSpec, Mount, Process, RunSpec
from sagong.errors import InvalidArgument
from sagong.linux import capabilities
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
from sagong_runtime_oci.seccomp_rules import seccomp_of

__all__ = ["VERSION", "exec_request", "run_request"]

# What every runtime understands; fields that 1.1 and 1.2 added are ignored by older ones.
VERSION = "1.0.2"
_NAMESPACES = ("network", "pid", "ipc", "uts", "cgroup")
_KINDS = frozenset({"overlay", "bind", "tmpfs", "proc", "sysfs", "devpts", "mqueue", "cgroup"})
_ROOTS = frozenset({"overlay", "bind", "tmpfs"})
_OF_HOST = frozenset({"source", "idmap"})


def run_request(spec: RunSpec, facts: HostFacts, *, parent: str) -> dict[str, Any]:
    """The message that makes a monitor create and start this container."""
    validate(spec)
    check_labels(spec, facts)
    spaces = spec.namespaces
    return {
        "op": "run",
        "id": spec.id,
        "run": spec.run,
        "cgroup": cgroup_path(spec, parent),
        "private_pid": spaces.pid == "new",
        "group_kinds": [k for k in _NAMESPACES if getattr(spaces, k) == "group"],
        "user": user_maps(spec) if spaces.user != "host" else None,
        "plan": msgspec.json.encode(_bundle(spec, facts, parent)).decode(),
        "session": session_of(spec.process, spec.log, hold=spec.expect_attach),
        "owner": fifo_owner(spec, spec.process),
    }


def _bundle(spec: RunSpec, facts: HostFacts, parent: str) -> dict[str, Any]:
    """What the engine needs for a bundle: the configuration, and what to look up for it."""
    root = spec.mounts[0]
    if root.kind not in _ROOTS:
        raise InvalidArgument(f"the root can't be of kind {root.kind!r}: overlay, bind, tmpfs")
    return {
        "config": configuration(spec, facts, parent),
        "root": [root.kind, root.source, root.options],
        "devices": [[d.source, d.target, d.permissions] for d in spec.devices],
        "all_devices": spec.privileged,
        "limits": msgspec.to_builtins(spec.limits),
        "make_sources": [m.source for m in spec.mounts[1:] if "source" in m.options],
        "mapped": [n for n, m in enumerate(spec.mounts[1:]) if "idmap" in m.options],
        "sources": [m.source for m in spec.mounts[1:] if m.kind == "bind"],
        "init": spec.init,
    }


def configuration(spec: RunSpec, facts: HostFacts, parent: str) -> dict[str, Any]:
    """The bundle's config.json but for what the machine must be asked."""
    found: dict[str, Any] = {
        "ociVersion": VERSION,
        "process": process_of(spec.process, spec, facts, privileged=spec.privileged),
        "root": {"readonly": spec.readonly_root},
        "mounts": [_mount(mount, spec) for mount in spec.mounts[1:]],
        "annotations": {"org.sagong.id": spec.id},
        "linux": _linux(spec, facts, parent),
    }
    if spec.namespaces.uts in ("new", "group") and spec.hostname:
        found["hostname"] = spec.hostname
    return found


def _linux(spec: RunSpec, facts: HostFacts, parent: str) -> dict[str, Any]:
    rules = [_device_rule(rule.rule) for rule in spec.device_rules]
    closed = {"allow": spec.privileged, "access": "rwm"}
    linux: dict[str, Any] = {
        "namespaces": _namespaces(spec),
        "cgroupsPath": "/" + cgroup_path(spec, parent),
        "resources": {"devices": [closed, *rules]},
        "sysctl": _sysctls(spec),
        "maskedPaths": () if spec.privileged else spec.masked_paths,
        "readonlyPaths": () if spec.privileged else spec.readonly_paths,
    }
    if spec.namespaces.user != "host":
        linux["uidMappings"] = _maps(spec.namespaces.uid_map)
        linux["gidMappings"] = _maps(spec.namespaces.gid_map)
    spread = _root_propagation(spec)
    if spread:
        linux["rootfsPropagation"] = spread
    free = spec.privileged and spec.seccomp in ("", "default")
    filtered = None if free else _seccomp(spec, facts)
    if filtered:
        linux["seccomp"] = filtered
    return linux


def _sysctls(spec: RunSpec) -> dict[str, str]:
    """The domain name is one: the specification's field for it is younger than some runtimes."""
    named = spec.domainname and spec.namespaces.uts in ("new", "group")
    return dict(spec.sysctls) | ({"kernel.domainname": spec.domainname} if named else {})


def _maps(table: tuple[tuple[int, int, int], ...]) -> list[dict[str, int]]:
    return [{"containerID": a, "hostID": b, "size": count} for a, b, count in table]


def _namespaces(spec: RunSpec) -> list[dict[str, str]]:
    """`group` has an empty path for the engine to fill in."""
    found = [{"type": "mount"}]
    for kind in _NAMESPACES:
        value = getattr(spec.namespaces, kind)
        if value == "new":
            found.append({"type": kind})
        elif value == "group":
            found.append({"type": kind, "path": ""})
        elif value.startswith("path:"):
            found.append({"type": kind, "path": value.removeprefix("path:")})
    return found


def _root_propagation(spec: RunSpec) -> str:
    """As Docker: the root spreads as far as the mount that wants most."""
    wanted = {name.lstrip("r") for m in spec.mounts[1:] for name in m.options}
    return "shared" if "shared" in wanted else "slave" if "slave" in wanted else ""


def _mount(mount: Mount, spec: RunSpec) -> dict[str, Any]:
    if not mount.target.startswith("/"):
        raise InvalidArgument(f"mount target {mount.target!r} must be an absolute path")
    if mount.kind not in _KINDS:
        raise InvalidArgument(f"mount kind {mount.kind!r} at {mount.target} is unknown")
    options = [option for option in mount.options if option not in _OF_HOST]
    if mount.kind == "bind":
        if not mount.source.startswith("/"):
            raise InvalidArgument(f"bind source {mount.source!r} must be an absolute path")
        if not {"bind", "rbind"} & set(options):
            options.insert(0, "rbind")
    return {
        "destination": mount.target,
        "type": mount.kind,
        "source": mount.source or mount.kind,
        "options": options,
    }


def _device_rule(rule: str) -> dict[str, Any]:
    """`c 1:3 rwm` as an object; * is any."""
    try:
        kind, numbers, access = rule.split()
        major, minor = (None if n == "*" else int(n) for n in numbers.split(":"))
    except ValueError:
        raise InvalidArgument(f"device rule {rule!r} is not like 'c 1:3 rwm'") from None
    found = {"allow": True, "type": kind, "major": major, "minor": minor, "access": access}
    return {key: value for key, value in found.items() if value is not None}


@functools.cache
def _default_seccomp(names: frozenset[str]) -> dict[str, Any]:
    """Docker's policy, made once for each set of capabilities."""
    return seccomp_of(default_policy(names))


def _seccomp(spec: RunSpec, facts: HostFacts) -> dict[str, Any] | None:
    if spec.seccomp == "unconfined":
        return None
    names = _capabilities(spec.process, facts, privileged=False)
    if spec.seccomp in ("", "default"):
        return _default_seccomp(frozenset(names))
    try:
        return seccomp_of(parse_profile(spec.seccomp, names))
    except ValueError as error:
        raise InvalidArgument(str(error)) from None


def _capabilities(what: Process, facts: HostFacts, *, privileged: bool) -> tuple[str, ...]:
    """Those to keep; what the machine itself lacks is left out."""
    if privileged:
        return capabilities.names_of(facts.bounding)
    try:
        return capabilities.names_of(capabilities.mask_of(what.capabilities) & facts.bounding)
    except ValueError as error:
        raise InvalidArgument(f"capabilities of the process: {error}") from None


def process_of(
    what: Process, spec: RunSpec, facts: HostFacts, *, privileged: bool
) -> dict[str, Any]:
    """The `process` of a configuration, or of `exec --process`."""
    names = _capabilities(what, facts, privileged=privileged)
    ambient = names if what.ambient else ()
    user = what.user
    found: dict[str, Any] = {
        "terminal": what.tty,
        "user": {
            "uid": user.uid,
            "gid": user.gid,
            "additionalGids": user.groups,
            "umask": 0o022 if what.umask is None else what.umask,
        },
        "args": what.args,
        "env": what.env,
        "cwd": what.cwd or "/",
        "capabilities": {
            "bounding": names,
            "effective": names,
            "permitted": names,
            "inheritable": ambient,
            "ambient": ambient,
        },
        "rlimits": [_rlimit(limit.name, limit.soft, limit.hard) for limit in what.rlimits],
        "noNewPrivileges": what.no_new_privileges,
        "oomScoreAdj": oom_score(what, spec, facts),
    }
    if what.tty and (what.rows or what.columns):
        found["consoleSize"] = {"height": what.rows, "width": what.columns}
    if spec.apparmor and spec.apparmor != "unconfined" and facts.apparmor and not privileged:
        found["apparmorProfile"] = spec.apparmor
    if spec.selinux and facts.selinux:
        found["selinuxLabel"] = spec.selinux
    return found


def _rlimit(name: str, soft: int, hard: int) -> dict[str, Any]:
    """-1 is no limit, which the specification writes as the largest number."""
    unlimited = 2**64 - 1
    values = {"soft": soft, "hard": hard}
    numbers = {key: unlimited if value < 0 else value for key, value in values.items()}
    return {"type": f"RLIMIT_{name.upper()}", **numbers}


def exec_request(
    spec: RunSpec, request: ExecRequest, facts: HostFacts, *, cgroup: str
) -> dict[str, Any]:
    """The message that makes the monitor start a further process; its cgroup is the binary's matter."""
    what = request.process
    if not what.args:
        raise InvalidArgument("exec needs a command")
    check_process(what)
    privileged = request.privileged or (spec.privileged and not what.capabilities)
    return {
        "op": "exec",
        "id": request.id,
        "exec_id": request.exec_id,
        "plan": msgspec.json.encode(process_of(what, spec, facts, privileged=privileged)).decode(),
        "session": session_of(what, LogSpec(driver="none"), hold=True)
        | {"stdin_once": True, "stragglers": True},
        "owner": fifo_owner(spec, what),
    }
