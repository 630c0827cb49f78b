"""From a container's spec to a `RunSpec`, all that the runtime needs. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from sagong.contracts.image import Prepared
from sagong.contracts.network import Sandbox
from sagong.contracts.node import (
    MASKED_PATHS,
    READONLY_PATHS,
    ContainerSpec,
    SandboxSpec,
    StartRequest,
)
from sagong.contracts.runtime import (
    DeviceRule,
    LogSpec,
    Mount,
    Namespaces,
    Process,
    RunSpec,
)
from sagong_node import defaults, mounts
from sagong_node.command import Merged, completed, merge
from sagong_node.user_ranges import mapping
from sagong_node.users import resolve

__all__ = ["Site", "attended", "command_of", "process_of", "run_spec"]


class Site(msgspec.Struct, frozen=True):
    """What was prepared for a container: its root, network, mounts, files and log.

    `user_base` is where the ids of its user namespace begin on the host, 0 for the host's own.
    """

    root: Prepared
    sandbox: SandboxSpec
    network: Sandbox | None
    mounts: tuple[Mount, ...]
    files: tuple[Mount, ...]
    log: LogSpec
    hostname: str
    domainname: str = ""
    user_base: int = 0


def command_of(spec: ContainerSpec, site: Site) -> Merged:
    """The command as it will be executed."""
    return merge(spec.command, site.root.image.config, site.hostname)


def process_of(spec: ContainerSpec, site: Site) -> Process:
    """The first process."""
    merged = command_of(spec, site)
    account = resolve(merged.user, spec.command.groups, site.root.passwd, site.root.group)
    return Process(
        args=merged.args,
        env=completed(merged.env, HOME=account.home),
        cwd=merged.cwd,
        user=account.user,
        tty=spec.command.tty,
        rows=spec.command.rows,
        columns=spec.command.columns,
        stdin=spec.command.stdin,
        stdin_once=spec.command.stdin_once,
        capabilities=defaults.capabilities(
            spec.add_capabilities, spec.drop_capabilities, privileged=spec.privileged
        ),
        no_new_privileges=spec.no_new_privileges,
        rlimits=spec.rlimits,
        oom_score_adjust=spec.oom_score_adjust,
        oom_score_bounded=spec.oom_score_bounded,
    )


def attended(run: RunSpec, spec: ContainerSpec, request: StartRequest) -> RunSpec:
    """The same, for who will attach."""
    return msgspec.structs.replace(
        run,
        expect_attach=request.expect_attach or spec.expect_attach,
        attach_stdin=request.attach_stdin,
    )


def run_spec(spec: ContainerSpec, site: Site, run: int) -> RunSpec:
    """The whole value that the runtime is given, but who will attach."""
    system = defaults.system_mounts(
        shm_size=spec.shm_size,
        host_ipc=spec.ipc_mode == "host",
        privileged=spec.privileged,
        writable_cgroups=spec.writable_cgroups,
    )
    masked = MASKED_PATHS if spec.masked_paths is None else spec.masked_paths
    readonly = READONLY_PATHS if spec.readonly_paths is None else spec.readonly_paths
    if spec.privileged:
        masked = readonly = ()
    return RunSpec(
        id=spec.id,
        run=run,
        group=site.sandbox.group,
        mounts=(_root(spec, site.root.root), *mounts.ordered(system, site.files, site.mounts)),
        process=process_of(spec, site),
        namespaces=_namespaces(spec, site),
        hostname="" if spec.uts_mode == "host" else site.hostname,
        domainname=site.domainname,
        devices=spec.devices,
        device_rules=tuple(DeviceRule(rule=rule) for rule in spec.device_rules),
        limits=spec.limits,
        sysctls=spec.sysctls,
        seccomp="unconfined" if spec.privileged and spec.seccomp == "default" else spec.seccomp,
        apparmor=spec.apparmor,
        selinux=spec.selinux,
        masked_paths=masked,
        readonly_paths=readonly,
        readonly_root=spec.readonly_root,
        privileged=spec.privileged,
        cgroup_parent=site.sandbox.cgroup_parent,
        init=spec.init,
        log=site.log,
        labels=(("owner", site.sandbox.owner), ("name", spec.name)),
    )


def _root(spec: ContainerSpec, root: Mount) -> Mount:
    """What goes with its container need not outlive the machine: its end waits for no disk."""
    writes = root.kind == "overlay" and any(o.startswith("upperdir=") for o in root.options)
    if not spec.remove or not writes:
        return root
    return msgspec.structs.replace(root, options=(*root.options, "volatile"))


def _namespaces(spec: ContainerSpec, site: Site) -> Namespaces:
    network = "host"
    if site.network is not None and site.network.path:
        network = f"path:{site.network.path}"
    elif site.network is None or site.network.mode != "host":
        network = "new"
    return Namespaces(
        network=network,
        pid="group" if site.sandbox.share_pid else spec.pid_mode,
        ipc=spec.ipc_mode,
        uts=spec.uts_mode,
        cgroup=spec.cgroup_mode,
        **_users(site),
    )


def _users(site: Site) -> dict[str, Any]:
    """The user namespace that owns the network's, with what is mapped in it."""
    if not site.user_base:
        return {}
    users = mapping(site.user_base)
    path = site.network.user_path if site.network is not None else ""
    user = f"path:{path}" if path else "new"
    return {"user": user, "uid_map": users.uid_map, "gid_map": users.gid_map}
