"""Configuration of `image_overlay`, decoded once and strictly."""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = ["Registries", "Settings"]


class Registries(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How registries are reached.

    `insecure`: hosts, host:ports or CIDR blocks that may speak http or have certificates that
    nobody knows; 127.0.0.0/8 and ::1 always may. `mirrors`: URLs that are asked first, by the host
    of the registry they stand for ("*": any other); a list is for docker.io. `index`: the registry
    that a search without a host asks. `push_as`: manifests are pushed as they are, or "oci" or
    "docker".
    `certificates`: directories HOST[:PORT] with *.crt (authorities), *.cert and *.key (client), or
    containerd's hosts.toml. `attempts`: tries of each request, and of a transfer since something
    came; `seconds`: without an answer or a byte; `mirror_seconds`: until a mirror has said that it
    is there; `busy_seconds`: the longest wait that a busy registry may ask for (Retry-After).
    `proxy` and `no_proxy` go before HTTPS_PROXY and NO_PROXY of the environment.
    """

    insecure: tuple[str, ...] = ()
    mirrors: tuple[str, ...] | dict[str, tuple[str, ...]] = ()
    index: str = "docker.io"
    push_as: Literal["same", "oci", "docker"] = "same"
    certificates: tuple[str, ...] = ("{etc}/certs.d", "/etc/docker/certs.d")
    attempts: int = 5
    seconds: float = 60.0
    mirror_seconds: float = 15.0
    busy_seconds: float = 60.0
    proxy: str = ""
    no_proxy: str = ""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`parallel`: layers unpacked at once; `downloads` and `uploads`: layers at once per image.

    `max_layer_size` in bytes and `max_layer_entries` bound what one archive may unpack to;
    `max_layer_ratio`, if not 0, how many times its size, once that is above 1 GiB (gzip reaches 1032).
    `reserve` bytes of the filesystem always stay free, of a small one no more than a quarter.
    `layer_size` bounds the writable layer of each container that asks for no size of its own, in
    bytes (0: none); it needs project quotas. `registries` says how they are reached.
    """

    parallel: int = 2
    downloads: int = 3
    uploads: int = 5
    max_layer_size: int = 256 << 30
    max_layer_entries: int = 2_000_000
    max_layer_ratio: int = 5000
    reserve: int = 64 << 20
    layer_size: int = 0
    registries: Registries = Registries()
