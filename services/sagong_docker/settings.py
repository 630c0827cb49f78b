"""Settings of the Docker API: the unit's section of the configuration."""

from __future__ import annotations

import msgspec

__all__ = ["Settings"]


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Defaults of containers and of the engine.

    `name` is shown by `docker info` ("" is the host's name). `default_network` is made when it is
    missing, with `default_subnet` ("" takes a free one); with "none" who names no
    network has none. `network_options` are of new networks that
    do not name them, by driver (`{ bridge = { "com.docker.network.driver.mtu" = "1400" } }`; versions
    of IP by `com.docker.network.enable_ipv4` and `…6`). `log_driver` and `log_options` are of
    containers that name none. `runtimes` are names that `--runtime` may have beside the default.
    `labels` are the engine's own. `history` bounds the events that `docker events --since` can
    show. `unfinished_seconds` after its start the engine takes back what a crash kept it from
    making whole. `stop_seconds` is the default of `docker stop`. `cgroup_mode` is what containers
    get that ask for none ("": private, but host with cgroup v1, as Docker has it). `root` is shown
    as Docker's root, `registry_mirrors` and `insecure_registries` as its own (how images come is
    settings of unit `image`).

    `certificate`, `key` and `client_ca` are files of the listener `network` (`listens = { network =
    "tcp:0.0.0.0:2376" }` of the unit): only clients whose certificate is of that authority are heard.
    `insecure` serves it without TLS: everybody who reaches the port is root on this machine then.
    """

    name: str = ""
    default_network: str = "bridge"
    default_subnet: str = ""
    network_options: dict[str, dict[str, str]] = {}
    log_driver: str = "json-file"
    log_options: dict[str, str] = {}
    runtimes: tuple[str, ...] = ("runc", "io.containerd.runc.v2")
    labels: tuple[str, ...] = ()
    history: int = 1024
    unfinished_seconds: float = 30.0
    stop_seconds: float = 10.0
    cgroup_mode: str = ""
    certificate: str = ""
    key: str = ""
    client_ca: str = ""
    insecure: bool = False
    registry_mirrors: tuple[str, ...] = ()
    insecure_registries: tuple[str, ...] = ()
    root: str = "{data}"
