"""What a create body must hold, in Docker's words, and what its client is warned of. Pure.

Docker checks before it looks for the image, so that a wrong option is not answered with a pull.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from sagong.errors import InvalidArgument
from sagong.linux import capabilities
from sagong_docker.body import CreateBody, Healthcheck, HostConfig
from sagong_docker.machine import Machine
from sagong_docker.signals import number

__all__ = [
    "HOST_LINKS",
    "check_body",
    "check_network_mode",
    "check_platform",
    "warnings",
]

_DEVICE_RULE = re.compile(r"[acb] (?:[0-9]+|\*):(?:[0-9]+|\*) [rwm]{1,3}")
_ACCESS = re.compile(r"[rwm]{1,3}")
_LONGEST_HOSTNAME = 64
# A name, with a version in parentheses perhaps (containerd's platforms).
_OS = re.compile(r"[a-z0-9_.-]+(\([a-z0-9_.+-]*\))?")
_MILLISECOND = 10**6
_PLATFORM_WORDS = frozenset(
    (
        "linux", "windows", "darwin", "freebsd", "netbsd", "openbsd", "solaris", "wasip1", "386",
        "amd64", "arm", "arm64", "loong64", "mips", "mipsle", "mips64", "mips64le", "ppc64", "ppc64le",
        "riscv64", "s390x", "wasm", "x86_64", "aarch64", "armhf", "armel", "i386", "x86-64",
    )
)  # fmt: skip
_CONFLICT = "conflicting options: "
_UNDEFINED = "can't be used with links. This would result in undefined behavior"
HOST_LINKS = f"{_CONFLICT}host type networking {_UNDEFINED}"


def check_body(body: CreateBody, host: HostConfig, machine: Machine) -> None:
    """Raise the first complaint."""
    for complaint in _complaints(body, host, machine):
        raise InvalidArgument(complaint)


def _complaints(body: CreateBody, host: HostConfig, machine: Machine) -> Iterator[str]:
    yield from check_network_mode(body, host)
    if host.isolation.lower() not in ("", "default"):
        yield f"invalid isolation ({host.isolation}): linux only supports 'default'"
    if host.cpu_realtime_period or host.cpu_realtime_runtime:
        yield "kernel does not support CPU real-time scheduler"
    yield from _program(body)
    for bindings in (host.port_bindings or {}).values():
        if any(isinstance(binding.host_port, int) for binding in bindings or ()):
            yield (
                "invalid JSON: json: cannot unmarshal number into Go struct field "
                "PortBinding.HostConfig.PortBindings.HostPort of type string"
            )
    if body.healthcheck is not None:
        yield from _health(body.healthcheck)
    if host.auto_remove and host.restart_policy and host.restart_policy.name not in ("", "no"):
        yield "can't create 'AutoRemove' container with restart policy"
    yield from _capabilities(host)
    if len(body.hostname) > _LONGEST_HOSTNAME:
        yield f'hostname "{body.hostname}" is too long (maximum {_LONGEST_HOSTNAME} bytes)'
    if host.shm_size < 0:
        yield "SHM size can not be less than 0"
    if not -1000 <= host.oom_score_adj <= 1000:
        yield f"Invalid value {host.oom_score_adj}, range for oom score adj is [-1000, 1000]"
    if "" in (host.annotations or {}):
        yield "invalid Annotations: the empty string is not permitted as an annotation key"
    for rule in host.device_cgroup_rules or ():
        if not _DEVICE_RULE.fullmatch(rule):
            yield f"invalid device cgroup rule format: '{rule}'"
    for device in host.devices or ():
        if not _ACCESS.fullmatch(device.cgroup_permissions or "rwm"):
            yield f"invalid device cgroup permissions: {device.cgroup_permissions}"
        if not device.path_on_host:
            yield (
                'error gathering device information while adding custom device "": '
                "no such file or directory"
            )
    if host.userns_mode not in ("", "host", "private"):
        yield f"invalid USER mode: {host.userns_mode}"


def check_network_mode(body: CreateBody, host: HostConfig) -> Iterator[str]:
    """What does not go with a container's or the host's network."""
    if host.uts_mode == "host" and body.hostname:
        yield _CONFLICT + "hostname and the UTS mode"
    if host.network_mode == "host" and host.links:
        yield HOST_LINKS
    kind, _, other = host.network_mode.partition(":")
    if kind != "container":
        return
    if not other:
        yield "invalid network mode: invalid container format container:<name|id>"
    for wrong, text in (
        (body.hostname, "hostname and the network mode"),
        (host.links, "container type network " + _UNDEFINED),
        (host.dns, "dns and the network mode"),
        (host.extra_hosts, "custom host-to-IP mapping and the network mode"),
        (
            host.port_bindings or host.publish_all_ports,
            "port publishing and the container type network mode",
        ),
        (body.exposed_ports, "port exposing and the container type network mode"),
    ):
        if wrong:
            yield _CONFLICT + text


def _program(body: CreateBody) -> Iterator[str]:
    if body.working_dir and not body.working_dir.startswith("/"):
        yield (
            f"the working directory '{body.working_dir}' is invalid, "
            "it needs to be an absolute path"
        )
    if "\0" in body.working_dir:
        yield f"the working directory {body.working_dir!r} is invalid, it has a zero byte"
    if body.stop_signal:
        number(body.stop_signal)
    for entry in body.env or ():
        if not entry or entry.startswith("="):
            yield f"invalid environment variable: {entry}"


def check_platform(text: str) -> None:
    """Refuse what names no platform, in containerd's words."""
    parts = text.lower().split("/")
    if text and not _OS.fullmatch(parts[0]):
        raise InvalidArgument(
            f'"{parts[0]}" is an invalid OS component of "{text}": invalid argument'
        )
    if len(parts) > 3:
        raise InvalidArgument(f'"{text}": cannot parse platform specifier: invalid argument')
    if text and len(parts) == 1 and parts[0] not in _PLATFORM_WORDS:
        raise InvalidArgument(
            f'"{text}": unknown operating system or architecture: invalid argument'
        )


def _health(given: Healthcheck) -> Iterator[str]:
    for name, value in (
        ("Interval", given.interval),
        ("Timeout", given.timeout),
        ("StartPeriod", given.start_period),
        ("StartInterval", given.start_interval),
    ):
        if value and value < _MILLISECOND:
            yield f"{name} in Healthcheck cannot be less than 1ms"
    if given.retries < 0:
        yield "Retries in Healthcheck cannot be negative"
    if given.test and given.test[0] not in ("NONE", "CMD", "CMD-SHELL", ""):
        yield f"Unknown Type '{given.test[0]}' in Healthcheck: it is NONE, CMD or CMD-SHELL"


def _capabilities(host: HostConfig) -> Iterator[str]:
    for field, names in (("CapAdd", host.cap_add), ("CapDrop", host.cap_drop)):
        for name in names or ():
            full = name.upper()
            full = full if full.startswith("CAP_") else f"CAP_{full}"
            if full not in ("CAP_ALL", *capabilities.NAMES):
                yield f'invalid {field}: unknown capability: "{full}"'


def warnings(host: HostConfig, machine: Machine) -> list[str]:
    """What a client is told of, though the container is made."""
    found = []
    discarded = "or the cgroup is not mounted. "
    if host.memory_swappiness not in (None, -1) and not machine.swappiness:
        found.append(
            f"Your kernel does not support memory swappiness capabilities {discarded}"
            "Memory swappiness discarded."
        )
    if host.oom_kill_disable and machine.unified:
        found.append("Your kernel does not support OomKillDisable. OomKillDisable discarded.")
    elif host.oom_kill_disable and not host.memory:
        found.append(
            "OOM killer is disabled for the container, but no memory limit is set, "
            "this can result in the system running out of resources."
        )
    if host.blkio_weight and not machine.io_weight:
        found.append(f"Your kernel does not support Block I/O weight {discarded}Weight discarded.")
    if host.blkio_weight_device:
        found.append(
            f"Your kernel does not support Block I/O weight_device {discarded}"
            "Weight-device discarded."
        )
    if host.network_mode == "host" and host.port_bindings:
        found.append("Published ports are discarded when using host network mode")
    return found
