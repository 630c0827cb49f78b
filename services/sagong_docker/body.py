"""Bodies of requests, in the names of the Docker API: all its fields; others are ignored."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

__all__ = [
    "ConnectBody",
    "CreateBody",
    "Device",
    "EndpointSettings",
    "ExecBody",
    "ExecStartBody",
    "Healthcheck",
    "HostConfig",
    "ImageBody",
    "LoginBody",
    "MountBody",
    "NetworkBody",
    "PortBinding",
    "RestartBody",
    "ThrottleDevice",
    "VolumeBody",
]

Words = tuple[str, ...] | str | None
Strings = tuple[str, ...] | None
StringMap = dict[str, str] | None
Unsigned = Annotated[int, msgspec.Meta(ge=0)]
# Names of things, each with an object of nothing.
Names = dict[str, dict[str, Any] | None] | None


class _Body(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """Base: names in Docker's spelling."""


class Healthcheck(_Body, frozen=True):
    """Durations are nanoseconds; 0 takes the default."""

    test: Strings = None
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class PortBinding(_Body, frozen=True):
    """Where a port is published; `host_port` is a number, a range, or nothing."""

    host_ip: str = ""
    host_port: str | int = ""


class RestartBody(_Body, frozen=True):
    """The restart policy."""

    name: str = ""
    maximum_retry_count: int = 0


class Device(_Body, frozen=True):
    """A device of the host."""

    path_on_host: str = ""
    path_in_container: str = ""
    cgroup_permissions: str = "rwm"


class ThrottleDevice(_Body, frozen=True):
    """A limit of a block device."""

    path: str = ""
    rate: Unsigned = 0


class WeightDevice(_Body, frozen=True):
    """A block device's share."""

    path: str = ""
    weight: Unsigned = 0


class DeviceRequest(_Body, frozen=True):
    """Devices that a driver is to find."""

    driver: str = ""
    count: int = 0
    device_ids: Strings = msgspec.field(default=None, name="DeviceIDs")
    capabilities: tuple[tuple[str, ...], ...] | None = None
    options: StringMap = None


class UlimitBody(_Body, frozen=True):
    """A resource limit."""

    name: str
    soft: int = 0
    hard: int = 0


class LogBody(_Body, frozen=True):
    """A log driver and its options."""

    type: str = ""
    config: StringMap = None


class BindOptions(_Body, frozen=True):
    """Options of a bind mount."""

    propagation: str = ""
    non_recursive: bool = False
    create_mountpoint: bool = False
    read_only_non_recursive: bool = False
    read_only_force_recursive: bool = False


class DriverConfig(_Body, frozen=True):
    """A volume's driver."""

    name: str = ""
    options: StringMap = None


class VolumeOptions(_Body, frozen=True):
    """Options of a volume mount."""

    no_copy: bool = False
    labels: StringMap = None
    driver_config: DriverConfig | None = None
    subpath: str = ""


class TmpfsOptions(_Body, frozen=True):
    """Options of a tmpfs mount."""

    size_bytes: int = 0
    mode: int = 0
    options: list[list[str]] | None = None


class ImageOptions(_Body, frozen=True):
    """Options of an image mount."""

    subpath: str = ""


class MountBody(_Body, frozen=True):
    """A mount in the long form."""

    type: str = ""
    source: str = ""
    target: str = ""
    read_only: bool = False
    consistency: str = ""
    bind_options: BindOptions | None = None
    volume_options: VolumeOptions | None = None
    tmpfs_options: TmpfsOptions | None = None
    image_options: ImageOptions | None = None
    cluster_options: dict[str, Any] | None = None


class EndpointIpam(_Body, frozen=True):
    """Addresses that a container wants on a network."""

    i_pv4_address: str = msgspec.field(default="", name="IPv4Address")
    i_pv6_address: str = msgspec.field(default="", name="IPv6Address")
    link_local_ips: Strings = msgspec.field(default=None, name="LinkLocalIPs")


class EndpointSettings(_Body, frozen=True):
    """A container's place on a network."""

    ipam: EndpointIpam | None = msgspec.field(default=None, name="IPAMConfig")
    links: Strings = None
    aliases: Strings = None
    mac_address: str = ""
    driver_opts: StringMap = None
    gw_priority: int = 0


class NetworkingConfig(_Body, frozen=True):
    """The networks of a container by name or id."""

    endpoints_config: dict[str, EndpointSettings | None] | None = None


class HostConfig(_Body, frozen=True):
    """What of the host a container gets."""

    binds: Strings = None
    network_mode: str = ""
    port_bindings: dict[str, tuple[PortBinding, ...] | None] | None = None
    restart_policy: RestartBody | None = None
    auto_remove: bool = False
    volume_driver: str = ""
    volumes_from: Strings = None
    mounts: tuple[MountBody, ...] | None = None
    log_config: LogBody | None = None
    console_size: tuple[Unsigned, ...] | None = None
    cap_add: Words = None
    cap_drop: Words = None
    cgroupns_mode: str = ""
    dns: Strings = None
    dns_options: Strings = None
    dns_search: Strings = None
    extra_hosts: Strings = None
    group_add: Strings = None
    ipc_mode: str = ""
    cgroup: str = ""
    cgroup_parent: str = ""
    links: Strings = None
    oom_score_adj: int = 0
    pid_mode: str = ""
    privileged: bool = False
    publish_all_ports: bool = False
    readonly_rootfs: bool = False
    security_opt: Strings = None
    storage_opt: StringMap = None
    annotations: StringMap = None
    tmpfs: StringMap = None
    uts_mode: str = msgspec.field(default="", name="UTSMode")
    userns_mode: str = ""
    shm_size: int = 0
    sysctls: StringMap = None
    runtime: str | None = None
    masked_paths: Strings = None
    readonly_paths: Strings = None
    init: bool | None = None
    devices: tuple[Device, ...] | None = None
    device_cgroup_rules: Strings = None
    device_requests: tuple[DeviceRequest, ...] | None = None
    ulimits: tuple[UlimitBody, ...] | None = None
    cpu_shares: int = 0
    memory: int = 0
    nano_cpus: int = 0
    blkio_weight: Annotated[int, msgspec.Meta(ge=0, lt=1 << 16)] = 0
    blkio_weight_device: tuple[WeightDevice, ...] | None = None
    blkio_device_read_bps: tuple[ThrottleDevice, ...] | None = None
    blkio_device_write_bps: tuple[ThrottleDevice, ...] | None = None
    blkio_device_read_iops: tuple[ThrottleDevice, ...] | None = msgspec.field(
        default=None, name="BlkioDeviceReadIOps"
    )
    blkio_device_write_iops: tuple[ThrottleDevice, ...] | None = msgspec.field(
        default=None, name="BlkioDeviceWriteIOps"
    )
    cpu_period: int = 0
    cpu_quota: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    memory_reservation: int = 0
    memory_swap: int = 0
    memory_swappiness: int | None = None
    oom_kill_disable: bool | None = None
    pids_limit: int | None = None
    cpu_realtime_period: int = 0
    cpu_realtime_runtime: int = 0
    isolation: str = ""
    container_id_file: str = msgspec.field(default="", name="ContainerIDFile")
    cpu_count: int = 0
    cpu_percent: int = 0
    io_maximum_iops: int = msgspec.field(default=0, name="IOMaximumIOps")
    io_maximum_bandwidth: int = msgspec.field(default=0, name="IOMaximumBandwidth")


class CreateBody(_Body, frozen=True):
    """The body of `POST /containers/create`."""

    hostname: str = ""
    domainname: str = ""
    user: str = ""
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    exposed_ports: Names = None
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    env: Strings = None
    cmd: Words = None
    entrypoint: Words = None
    healthcheck: Healthcheck | None = None
    image: str = ""
    volumes: Names = None
    working_dir: str = ""
    network_disabled: bool = False
    mac_address: str = ""
    labels: StringMap = None
    stop_signal: str = ""
    stop_timeout: int | None = None
    args_escaped: bool = False
    on_build: Strings = None
    shell: Words = None
    host_config: HostConfig | None = None
    networking_config: NetworkingConfig | None = None


class VolumeBody(_Body, frozen=True):
    """The body of `POST /volumes/create`."""

    name: str = ""
    driver: str = ""
    driver_opts: StringMap = None
    labels: StringMap = None
    cluster_volume_spec: dict[str, Any] | None = None


class SubnetBody(_Body, frozen=True):
    """A subnet of a network."""

    subnet: str = ""
    ip_range: str = msgspec.field(default="", name="IPRange")
    gateway: str = ""
    auxiliary_addresses: StringMap = None
    aux_address: StringMap = None


class IpamBody(_Body, frozen=True):
    """How a network's addresses are managed."""

    driver: str = ""
    options: StringMap = None
    config: tuple[SubnetBody, ...] | None = None


class ConfigFromBody(_Body, frozen=True):
    """The network that another one's configuration comes from."""

    network: str = ""


class NetworkBody(_Body, frozen=True):
    """The body of `POST /networks/create`."""

    name: str = ""
    check_duplicate: bool = False
    driver: str = ""
    scope: str = ""
    options: StringMap = None
    labels: StringMap = None
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_only: bool = False
    config_from: ConfigFromBody | None = None
    enable_i_pv4: bool | None = msgspec.field(default=None, name="EnableIPv4")
    enable_i_pv6: bool | None = msgspec.field(default=None, name="EnableIPv6")
    ipam: IpamBody | None = msgspec.field(default=None, name="IPAM")


class ConnectBody(_Body, frozen=True):
    """The body of `POST /networks/{id}/connect` and `disconnect`."""

    container: str = ""
    force: bool = False
    endpoint_config: EndpointSettings | None = None


class ExecBody(_Body, frozen=True):
    """The body of `POST /containers/{id}/exec`."""

    cmd: Strings = None
    env: Strings = None
    user: str = ""
    working_dir: str = ""
    detach: bool = False
    detach_keys: str = ""
    tty: bool = False
    privileged: bool = False
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    console_size: tuple[int, ...] | None = None


class ExecStartBody(_Body, frozen=True):
    """The body of `POST /exec/{id}/start`."""

    detach: bool = False
    tty: bool = False
    console_size: tuple[int, ...] | None = None


class ImageBody(_Body, frozen=True):
    """The body of `POST /commit`: what is changed in the image's config."""

    user: str = ""
    env: Strings = None
    cmd: Words = None
    entrypoint: Words = None
    working_dir: str = ""
    labels: StringMap = None
    exposed_ports: dict[str, Any] | None = None
    volumes: dict[str, Any] | None = None
    stop_signal: str = ""
    healthcheck: Healthcheck | None = None
    on_build: Strings = None
    shell: Strings = None


class LoginBody(msgspec.Struct, frozen=True, kw_only=True):
    """The body of `POST /auth`."""

    username: str = ""
    password: str = ""
    auth: str = ""
    serveraddress: str = ""
    identitytoken: str = ""
    registrytoken: str = ""
