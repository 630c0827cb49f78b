"""Configuration of the kubelet: who this node is, where pods are connected, what they are told."""

from __future__ import annotations

import msgspec

__all__ = ["PodSettings"]


class PodSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section of service `node`. Seconds and bytes; an empty `name` is the machine's hostname.

    `enabled` false runs no pods. The Node object is made unless `register` is false, with `labels`,
    `taints`, `address` ("" finds the machine's) and room for `max_pods`, less `reserved_cpu` and
    `reserved_memory`. Pods are evicted below `eviction_memory` (which is kept back, too) or
    `eviction_disk`, a share of the disk. Its lease is good for `lease_seconds` and renewed every
    `renew_seconds`, its status every `heartbeat_seconds`. `pulls` images are pulled at once. Logs of
    a container are `log_files` files of `log_size`. `cluster_dns` and `cluster_domain` are what pods
    are told of names.

    `network` is the id of the network that pods join; empty makes the bridge network "pods" with
    `pod_cidr`. `cluster_cidrs` and `service_cidrs` are the cluster's ranges, whose traffic keeps its
    address. `cgroup_parent` puts pods below `PARENT/QOS/podUID`; empty leaves it to the runtime.
    `log_directory` empty keeps logs below the service's own data. `seccomp_default` false runs
    containers without a profile of their own unconfined, as upstream does unless told otherwise.
    `seccomp_profiles` is the directory of profiles of type Localhost.
    `static_pods`, `static_containers` and `static_images` are directories below {etc} that are read
    and followed: manifests of pods, containers in files of their own, archives of images. Empty ones
    are none. `api` false: no API server is waited for, and only static pods run.
    `users` "private" gives containers and pods that don't say otherwise (`--userns=host`,
    `hostUsers: true`) a user namespace of their own; its ids are one of `user_ranges` ranges of 65,536
    from `user_first` on.
    """

    enabled: bool = True
    name: str = ""
    address: str = ""
    labels: dict[str, str] = {}
    taints: tuple[dict[str, str], ...] = ()
    register: bool = True
    network: str = ""
    pod_cidr: str = "10.244.0.0/24"
    cluster_cidrs: tuple[str, ...] = ("10.244.0.0/16",)
    service_cidrs: tuple[str, ...] = ("10.96.0.0/16",)
    cluster_dns: tuple[str, ...] = ("10.96.0.10",)
    cluster_domain: str = "cluster.local"
    max_pods: int = 110
    reserved_cpu: str = "0"
    reserved_memory: str = "100Mi"
    eviction_memory: str = "100Mi"
    eviction_disk: float = 0.10
    cgroup_parent: str = ""
    log_directory: str = ""
    log_size: int = 10 << 20
    log_files: int = 5
    seccomp_default: bool = True
    seccomp_profiles: str = "/etc/sagong/seccomp"
    lease_seconds: int = 40
    renew_seconds: float = 10.0
    heartbeat_seconds: float = 300.0
    pulls: int = 4
    static_pods: str = ""
    static_containers: str = ""
    static_images: str = ""
    api: bool = True
    users: str = "host"
    user_first: int = 0x70000000
    user_ranges: int = 4095
