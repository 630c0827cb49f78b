"""A create body as the node's container and sandbox. Pure: what must be looked up is an argument."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sagong.contracts.image import Image, ImageConfig
from sagong.contracts.network import Attachment
from sagong.contracts.node import (
    Command,
    ContainerSpec,
    ContainerStatus,
    HealthSpec,
    RestartPolicy,
    SandboxSpec,
)
from sagong.contracts.runtime import Device
from sagong.errors import InvalidArgument
from sagong_docker import mounting, wiring
from sagong_docker.body import CreateBody, Healthcheck, HostConfig
from sagong_docker.log_options import LogOwner, log_spec
from sagong_docker.machine import Machine
from sagong_docker.naming import new_id
from sagong_docker.resources import limits, rlimits, size_of
from sagong_docker.settings import Settings
from sagong_docker.signals import number

__all__ = ["Lookup", "Wish", "cgroup_mode", "restart_policy", "translate", "words"]

OWNER = "docker"
_RESTARTS = frozenset(("no", "always", "unless-stopped", "on-failure"))
_SECURITY = frozenset(
    [
        "systempaths",
        "no-new-privileges",
        "writable-cgroups",
        "seccomp",
        "apparmor",
        "label",
        "userns",
    ]
)
_TRUE = frozenset(("", "true", "True", "1", "t"))
_BOOLEANS = frozenset(("", "true", "false", "True", "False", "1", "0", "t", "f"))


@dataclass(frozen=True)
class Lookup:
    """What the body refers to: networks by name, containers by name, and so on.

    `image` is there when more of it is needed than the node will look up.
    """

    networks: Mapping[str, str] = field(default_factory=dict)
    containers: Mapping[str, str] = field(default_factory=dict)
    lenders: tuple[tuple[ContainerStatus, str], ...] = ()
    exposed: tuple[str, ...] = ()
    published: frozenset[tuple[int, str]] = frozenset()
    runtimes: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    hostname: str = ""
    machine: Machine = field(default_factory=Machine)
    image: Image | None = None


@dataclass(frozen=True)
class Wish:
    """What the node is asked to make."""

    sandbox: SandboxSpec
    container: ContainerSpec


def translate(id: str, name: str, body: CreateBody, settings: Settings, lookup: Lookup) -> Wish:
    """The whole of it."""
    host = body.host_config or HostConfig()
    _check(body, host, settings, lookup)
    return Wish(
        _sandbox(id, name, body, host, settings, lookup),
        _container(id, name, body, host, settings, lookup),
    )


def _check(body: CreateBody, host: HostConfig, settings: Settings, lookup: Lookup) -> None:
    if not body.image:
        raise InvalidArgument("no command specified")
    if host.runtime and host.runtime not in (*settings.runtimes, *lookup.runtimes):
        raise InvalidArgument(f"unknown or invalid runtime name: {host.runtime}")
    if host.device_requests:
        wanted = host.device_requests[0]
        shown = " ".join(f"[{' '.join(group)}]" for group in wanted.capabilities or ())
        raise InvalidArgument(
            f'could not select device driver "{wanted.driver}" with capabilities: [{shown}]'
        )


def _sandbox(
    id: str, name: str, body: CreateBody, host: HostConfig, settings: Settings, lookup: Lookup
) -> SandboxSpec:
    asked = wiring.joining_mode(host, settings.default_network)
    mode = "none" if body.network_disabled else asked
    shared = mode.partition(":")[2] if mode.startswith("container:") else ""
    places: tuple[Attachment, ...] = ()
    if not shared and mode not in ("none", "host"):
        places = wiring.attachments(body, host, id, lambda n: lookup.networks.get(n, n))
    published = () if shared else wiring.ports(host, lookup.exposed, set(lookup.published))
    return SandboxSpec(
        id=id,
        owner=OWNER,
        hostname=body.hostname or (lookup.hostname if mode == "host" else ""),
        domainname=body.domainname,
        network=wiring.join(
            id,
            name,
            "none" if shared else mode,
            places=places,
            published=published,
            sysctls=host.sysctls,
            nameservers=tuple(host.dns or ()),
        ),
        share_with=lookup.containers.get(shared, shared),
        users=_users(host),
        cgroup_parent=host.cgroup_parent,
        dns=tuple(host.dns or ()),
        search=tuple(host.dns_search or ()),
        dns_options=tuple(host.dns_options or ()),
        hosts=wiring.hosts(host, (), lookup.gateways),
    )


def _container(
    id: str, name: str, body: CreateBody, host: HostConfig, settings: Settings, lookup: Lookup
) -> ContainerSpec:
    asked = mounting.mounts(body, host, new_id)
    own = [mounting.settled(mount, settings.root) for mount in asked]
    security = _security(host)
    return ContainerSpec(
        id=id,
        sandbox=id,
        name=name,
        image=body.image,
        command=_command(body, host),
        mounts=mounting.with_borrowed(own, lookup.lenders),
        devices=tuple(
            Device(
                source=d.path_on_host,
                target=d.path_in_container or d.path_on_host,
                permissions=d.cgroup_permissions or "rwm",
            )
            for d in host.devices or ()
        ),
        device_rules=tuple(host.device_cgroup_rules or ()),
        limits=limits(host, lookup.machine),
        shm_size=0 if host.ipc_mode == "none" else host.shm_size or 64 << 20,
        rlimits=rlimits(host),
        sysctls=tuple((k, v) for k, v in (host.sysctls or {}).items() if not k.startswith("net.")),
        add_capabilities=tuple(host.cap_add or ()),
        drop_capabilities=tuple(host.cap_drop or ()),
        privileged=host.privileged,
        no_new_privileges=security.no_new_privileges,
        readonly_root=host.readonly_rootfs,
        storage_size=_storage(host),
        masked_paths=host.masked_paths,
        readonly_paths=host.readonly_paths,
        seccomp=security.seccomp,
        writable_cgroups=security.writable_cgroups,
        apparmor=security.apparmor,
        selinux=security.selinux,
        pid_mode=_mode("PID", host.pid_mode, lookup),
        ipc_mode=_mode("IPC", host.ipc_mode, lookup),
        uts_mode=_mode("UTS", host.uts_mode, lookup),
        cgroup_mode=cgroup_mode(host, settings, lookup.machine),
        init=bool(host.init),
        oom_score_adjust=host.oom_score_adj or None,
        stop_signal=str(number(body.stop_signal)) if body.stop_signal else "",
        stop_timeout=float(
            settings.stop_seconds if body.stop_timeout is None else body.stop_timeout
        ),
        restart=restart_policy(host),
        remove=host.auto_remove,
        health=_health(body.healthcheck),
        image_health=True,
        log=log_spec(_log_owner(id, name, body, lookup.image), host, settings),
        runtime=(host.runtime or "") if host.runtime in lookup.runtimes else "",
        labels=tuple((body.labels or {}).items()),
    )


def _log_owner(id: str, name: str, body: CreateBody, image: Image | None) -> LogOwner:
    config = image.config if image else ImageConfig()
    entrypoint, cmd = words(body.entrypoint), words(body.cmd)
    if not entrypoint:
        entrypoint, cmd = config.entrypoint or (), cmd or config.cmd
    return LogOwner(
        id=id,
        name=name,
        image=body.image,
        image_id=image.id if image else "",
        args=(*entrypoint, *(cmd or ())),
        labels=dict(config.labels) | dict(body.labels or {}),
        environment=(*config.env, *(body.env or ())),
    )


def words(value: tuple[str, ...] | str | None) -> tuple[str, ...] | None:
    """Cmd or Entrypoint, which may also be one string; an empty list is nothing."""
    if value is None:
        return None
    return (value,) if isinstance(value, str) else tuple(value)


def _command(body: CreateBody, host: HostConfig) -> Command:
    entrypoint, cmd = words(body.entrypoint), words(body.cmd) or None
    if entrypoint == ():
        entrypoint = None
    size = host.console_size or (0, 0)
    return Command(
        entrypoint=entrypoint,
        cmd=cmd,
        env=tuple(body.env or ()),
        cwd=body.working_dir,
        user=body.user,
        groups=tuple(host.group_add or ()),
        tty=body.tty,
        rows=size[0] if len(size) == 2 else 0,
        columns=size[1] if len(size) == 2 else 0,
        stdin=body.open_stdin,
        stdin_once=body.stdin_once,
    )


def _users(host: HostConfig) -> str:
    """By --userns, or by --security-opt userns=, since docker's command line refuses "private"."""
    wanted = _options(host)[0].get("userns", host.userns_mode)
    if wanted not in ("", "host", "private"):
        raise InvalidArgument(f"invalid USER mode: {wanted}")
    return wanted


@dataclass(frozen=True)
class _Security:
    no_new_privileges: bool = False
    seccomp: str = "default"
    writable_cgroups: bool = False
    apparmor: str = ""
    selinux: str = ""


def _options(host: HostConfig) -> tuple[dict[str, str], list[str]]:
    """--security-opt by names, and all labels."""
    found: dict[str, str] = {}
    labels: list[str] = []
    for option in host.security_opt or ():
        key, separator, value = option.partition("=" if "=" in option else ":")
        flag = key in ("no-new-privileges", "writable-cgroups")
        if not separator and not flag:
            raise InvalidArgument(f'invalid --security-opt 1: "{option}"')
        if key not in _SECURITY or (flag and value not in _BOOLEANS):
            raise InvalidArgument(f'invalid --security-opt 2: "{option}"')
        if key == "systempaths" and value != "unconfined":
            raise InvalidArgument(f'invalid --security-opt 2: "{option}"')
        if key == "label":
            labels.append(value)
        else:
            found[key] = value
    return found, labels


def _security(host: HostConfig) -> _Security:
    found, labels = _options(host)
    seccomp = found.get("seccomp", "default")
    return _Security(
        no_new_privileges=found.get("no-new-privileges", "false") in _TRUE,
        seccomp="default" if seccomp == "builtin" else seccomp,
        writable_cgroups=found.get("writable-cgroups", "false") in _TRUE,
        apparmor=found.get("apparmor", ""),
        selinux=",".join(labels),
    )


def _mode(kind: str, text: str, lookup: Lookup) -> str:
    if text in ("", "private", "shareable", "none"):
        return "new"
    if text == "host":
        return "host"
    head, colon, other = text.partition(":")
    if head != "container" or not colon or kind == "UTS":
        raise InvalidArgument(f"invalid {kind} mode: {text}")
    return f"container:{lookup.containers.get(other, other)}"


def cgroup_mode(host: HostConfig, settings: Settings, machine: Machine) -> str:
    """Whether a container sees the machine's control groups (`host`) or its own alone (`new`)."""
    wanted = (
        host.cgroupns_mode or settings.cgroup_mode or ("private" if machine.unified else "host")
    )
    if wanted not in ("private", "host"):
        raise InvalidArgument(f"invalid cgroup namespace mode: {wanted}")
    return "host" if wanted == "host" else "new"


def restart_policy(host: HostConfig) -> RestartPolicy:
    """The policy, checked in Docker's words."""
    given = host.restart_policy
    if given is None:
        return RestartPolicy()
    name = given.name or "no"
    if name not in _RESTARTS:
        raise InvalidArgument(
            f"invalid restart policy: unknown policy '{name}'; use one of 'no', 'always', "
            "'on-failure', or 'unless-stopped'"
        )
    if given.maximum_retry_count < 0:
        raise InvalidArgument("invalid restart policy: maximum retry count cannot be negative")
    if given.maximum_retry_count and name != "on-failure":
        raise InvalidArgument(
            "invalid restart policy: maximum retry count can only be used with 'on-failure'"
        )
    return RestartPolicy(name=name, maximum=given.maximum_retry_count)


def _health(given: Healthcheck | None) -> HealthSpec | None:
    if given is None:
        return None
    return HealthSpec(
        test=tuple(given.test or ()),
        interval=given.interval / 1e9,
        timeout=given.timeout / 1e9,
        start_period=given.start_period / 1e9,
        start_interval=given.start_interval / 1e9,
        retries=given.retries,
    )


def _storage(host: HostConfig) -> int:
    options = dict(host.storage_opt or {})
    size = options.pop("size", "")
    if options:
        raise InvalidArgument(f"Unknown option {sorted(options)[0]}")
    return size_of(size) if size else 0
