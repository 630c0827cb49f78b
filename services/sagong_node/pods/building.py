"""From a pod's container to the node's container: command, user, rights, limits, mounts. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from sagong.contracts.image import Image
from sagong.contracts.node import Command, ContainerSpec, FileMount, HostFile
from sagong.contracts.runtime import LogSpec
from sagong.errors import FailedPrecondition
from sagong.model.k8s.core_v1 import Pod, PodSecurityContext, SeccompProfile, SecurityContext
from sagong_node.pods.claims import SHARED_MEMORY_SIZE
from sagong_node.pods.environment import expand
from sagong_node.pods.mounting import SHARED_MEMORY
from sagong_node.pods.naming import (
    AnyContainer,
    Origin,
    container_id,
    container_name,
    labels,
)
from sagong_node.pods.resources import limits_of, oom_score

__all__ = ["Site", "check_user", "container_spec", "seccomp_of"]

_NET_SYSCTLS = "net."
DEFAULT_TERMINATION_PATH = "/dev/termination-log"


class Site(msgspec.Struct, frozen=True):
    """What is known when a container is made."""

    sandbox: str
    image: Image
    env: Mapping[str, str]
    mounts: tuple[FileMount, ...]
    resolv_conf: str
    log: Path
    log_size: int
    log_files: int
    termination: Path
    seccomp: str
    memory: int
    target: str = ""
    runtime: str = ""


def container_spec(pod: Pod, container: AnyContainer, origin: Origin, site: Site) -> ContainerSpec:
    """The container as the node makes it; the same for the same attempt."""
    context = container.security_context or SecurityContext()
    whole = pod.spec.security_context or PodSecurityContext()
    check_user(container, context, whole, site.image)
    privileged = bool(context.privileged)
    unmasked = context.proc_mount == "Unmasked"
    # One tmpfs for all containers of the pod, or what it mounts there itself; else one of its own.
    provided = any(mount.target == SHARED_MEMORY for mount in site.mounts)
    return ContainerSpec(
        id=container_id(origin.uid, origin.container, origin.attempt),
        sandbox=site.sandbox,
        name=container_name(origin),
        image=container.image,
        command=_command(container, context, whole, site),
        files=(HostFile(target="/etc/resolv.conf", content=site.resolv_conf.encode()),),
        mounts=(*site.mounts, _termination(container, site)),
        shm_size=0 if provided else SHARED_MEMORY_SIZE,
        image_volumes=True,
        limits=limits_of(container),
        sysctls=_sysctls(whole),
        add_capabilities=tuple(context.capabilities.add) if context.capabilities else (),
        drop_capabilities=tuple(context.capabilities.drop) if context.capabilities else (),
        privileged=privileged,
        no_new_privileges=context.allow_privilege_escalation is False and not privileged,
        readonly_root=bool(context.read_only_root_filesystem),
        masked_paths=() if unmasked else None,
        readonly_paths=() if unmasked else None,
        seccomp=site.seccomp,
        apparmor=_apparmor(context, whole),
        selinux=_selinux(context, whole),
        pid_mode=_pid_mode(pod, site),
        ipc_mode="host" if pod.spec.host_ipc else "group",
        uts_mode="group",
        oom_score_adjust=oom_score(pod, container, site.memory),
        oom_score_bounded=True,
        stop_timeout=float(pod.spec.termination_grace_period_seconds or 0),
        log=LogSpec(
            driver="cri", path=str(site.log), max_size=site.log_size, max_files=site.log_files
        ),
        runtime=site.runtime,
        labels=labels(origin),
    )


def _command(
    container: AnyContainer, context: SecurityContext, whole: PodSecurityContext, site: Site
) -> Command:
    """`command` replaces the entrypoint, `args` the cmd; a command alone drops the image's cmd."""
    entrypoint = tuple(expand(word, site.env) for word in container.command)
    cmd = tuple(expand(word, site.env) for word in container.args)
    groups = [str(group) for group in whole.supplemental_groups]
    if whole.fs_group is not None:
        groups.append(str(whole.fs_group))
    return Command(
        entrypoint=entrypoint or None,
        cmd=cmd if cmd or entrypoint else None,
        env=tuple(f"{name}={value}" for name, value in site.env.items()),
        cwd=container.working_dir,
        user=_user(context, whole, site.image),
        groups=tuple(groups),
        tty=container.tty,
        stdin=container.stdin,
        stdin_once=container.stdin_once,
    )


def _user(context: SecurityContext, whole: PodSecurityContext, image: Image) -> str:
    user = context.run_as_user if context.run_as_user is not None else whole.run_as_user
    group = context.run_as_group if context.run_as_group is not None else whole.run_as_group
    name = str(user) if user is not None else image.config.user.partition(":")[0]
    if group is not None:
        return f"{name or '0'}:{group}"
    return name if user is not None else ""


def check_user(
    container: AnyContainer, context: SecurityContext, whole: PodSecurityContext, image: Image
) -> None:
    """runAsNonRoot is checked against the user that it will be."""
    required = context.run_as_non_root
    if not (whole.run_as_non_root if required is None else required):
        return
    user = context.run_as_user if context.run_as_user is not None else whole.run_as_user
    if user is not None:
        if user == 0:
            raise FailedPrecondition(
                "container's runAsUser breaks non-root policy "
                f"(container: {container.name}, uid: 0)"
            )
        return
    name = image.config.user.partition(":")[0]
    if name and not name.isdigit():
        raise FailedPrecondition(
            f"container has runAsNonRoot and image has non-numeric user ({name}), cannot verify "
            f"user is non-root (container: {container.name})"
        )
    if not name or int(name) == 0:
        raise FailedPrecondition(
            f"container has runAsNonRoot and image will run as root (container: {container.name})"
        )


def _termination(container: AnyContainer, site: Site) -> FileMount:
    return FileMount(
        kind="bind",
        target=container.termination_message_path or DEFAULT_TERMINATION_PATH,
        source=str(site.termination),
    )


def _sysctls(whole: PodSecurityContext) -> tuple[tuple[str, str], ...]:
    """Those of the network namespace are its own affair: the sandbox has them."""
    return tuple(
        (s.name.replace("/", "."), s.value)
        for s in whole.sysctls
        if not s.name.startswith(_NET_SYSCTLS)
    )


def _pid_mode(pod: Pod, site: Site) -> str:
    if pod.spec.host_pid:
        return "host"
    return f"container:{site.target}" if site.target else "new"


def seccomp_of(pod: Pod, container: AnyContainer) -> SeccompProfile | None:
    """The container's profile, else the pod's."""
    own = container.security_context.seccomp_profile if container.security_context else None
    whole = pod.spec.security_context.seccomp_profile if pod.spec.security_context else None
    return own or whole


def _apparmor(context: SecurityContext, whole: PodSecurityContext) -> str:
    profile = context.app_armor_profile or whole.app_armor_profile
    if profile is None or profile.type == "RuntimeDefault":
        return ""
    return profile.localhost_profile or "" if profile.type == "Localhost" else "unconfined"


def _selinux(context: SecurityContext, whole: PodSecurityContext) -> str:
    options = context.se_linux_options or whole.se_linux_options
    if options is None or not (options.type or options.level):
        return ""
    user, role = options.user or "system_u", options.role or "system_r"
    return f"{user}:{role}:{options.type or 'container_t'}:{options.level or 's0'}"
