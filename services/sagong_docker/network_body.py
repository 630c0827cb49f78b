"""A network's create body as the network that is asked for; configuration networks. Pure.

A configuration network (`--config-only`) has subnets, labels and options for networks that are made
from it (`--config-from`). It is Docker's alone: nobody is attached to it, and no plugin knows it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from msgspec.structs import replace

from sagong.contracts.network import Network, Subnet
from sagong.errors import InvalidArgument, NotFound, PermissionDenied
from sagong_docker.pools import check_pools
from sagong_docker.record import NetworkRecord

__all__ = [
    "NO_ENDPOINT",
    "PREDEFINED",
    "check_configuration",
    "configurations",
    "configured",
    "defaulted",
    "is_configuration",
    "kept",
    "made_from",
    "network_of",
]

PREDEFINED = frozenset(("host", "none", "bridge", "default"))
NO_ENDPOINT = "cannot create endpoint on configuration-only network"
_GATEWAY_OPTION = "com.docker.network.bridge.gateway_mode_ipv4"
_KEPT = ("IPAM", "Options", "EnableIPv4", "ConfigFrom")
_CONFIGURATION = ("IPAM", "Options", "EnableIPv4", "EnableIPv6", "Labels", "ConfigOnly")
_VERSIONS = (
    ("EnableIPv4", "com.docker.network.enable_ipv4"),
    ("EnableIPv6", "com.docker.network.enable_ipv6"),
)
_BOOLEANS = {"1": True, "t": True, "true": True, "0": False, "f": False, "false": False}
_OPERATOR = ("Internal", "Attachable", "Ingress", "Scope")


def network_of(id_: str, name: str, driver: str, body: Mapping[str, Any]) -> Network:
    """What the network plugin is asked for."""
    ipam = body.get("IPAM") or {}
    if ipam.get("Driver") not in (None, "", "default"):
        raise InvalidArgument(f"could not find an available IPAM driver: {ipam['Driver']}")
    check_pools(ipam.get("Config") or ())
    options = {str(k): str(v) for k, v in (body.get("Options") or {}).items()}
    return Network(
        id=id_,
        name=name,
        driver=driver,
        subnets=tuple(_subnets(ipam.get("Config") or ())),
        internal=bool(body.get("Internal")),
        attachable=bool(body.get("Attachable")),
        ipv4=body.get("EnableIPv4") is not False,
        ipv6=bool(body.get("EnableIPv6")),
        isolated=options.get(_GATEWAY_OPTION) == "isolated",
        options=tuple(options.items()),
        labels=tuple((str(k), str(v)) for k, v in (body.get("Labels") or {}).items()),
        created=time.time(),
    )


def _subnets(configs: Iterable[Mapping[str, Any]]) -> Iterator[Subnet]:
    for config in configs:
        if not config or not config.get("Subnet"):
            continue
        auxiliary = config.get("AuxiliaryAddresses") or config.get("AuxAddress") or {}
        yield Subnet(
            subnet=str(config["Subnet"]),
            gateway=str(config.get("Gateway") or ""),
            ip_range=str(config.get("IPRange") or ""),
            reserved=tuple((str(k), str(v)) for k, v in auxiliary.items()),
        )


def kept(body: Mapping[str, Any]) -> dict[str, Any]:
    """What a network's record needs of its body."""
    wanted = _CONFIGURATION if body.get("ConfigOnly") else _KEPT
    return {k: body[k] for k in wanted if body.get(k) is not None}


def is_configuration(record: NetworkRecord | None) -> bool:
    """Whether it is nothing but a configuration."""
    return record is not None and bool(record.body.get("ConfigOnly"))


def made_from(record: NetworkRecord | None) -> str:
    """The name of the configuration network that a network was made from; "" is none."""
    return str(((record.body if record else {}).get("ConfigFrom") or {}).get("Network") or "")


def configurations(records: Iterable[NetworkRecord]) -> Iterator[Network]:
    """The configuration networks among them."""
    for record in records:
        if is_configuration(record):
            network = network_of(record.id, record.name, "null", record.body)
            yield replace(network, created=record.created / 1e9)


def check_configuration(body: Mapping[str, Any]) -> None:
    """Refuse what a configuration network must not say, in Docker's words."""
    if any(body.get(key) for key in _OPERATOR):
        raise PermissionDenied(
            "configuration network can only contain network specific fields. Network operator "
            "fields like [ ingress | internal | attachable | scope ] are not supported."
        )
    if (body.get("ConfigFrom") or {}).get("Network"):
        raise PermissionDenied(
            "a configuration network cannot depend on another configuration network"
        )


def defaulted(body: dict[str, Any], options: Mapping[str, str]) -> dict[str, Any]:
    """The body with the driver's default options, and the versions of IP that options name.

    One that the body overrides by a field of its own is not shown as an option.
    """
    own = body.get("Options") or {}
    given = {**options, **own}
    versions: dict[str, bool] = {}
    for field, option in _VERSIONS:
        if option not in given:
            continue
        if body.get(field) is None:
            versions[field] = _boolean(option, given[option])
        elif option not in own:
            del given[option]
    return {**body, **versions, "Options": given} if given or versions else body


def _boolean(option: str, text: object) -> bool:
    word = str(text).lower()
    if word not in _BOOLEANS:
        raise InvalidArgument(f"invalid value for {option}: {text}")
    return _BOOLEANS[word]


def configured(body: dict[str, Any], records: Iterable[NetworkRecord]) -> dict[str, Any]:
    """The body with what the configuration network says that it names, if it names one."""
    name = str((body.get("ConfigFrom") or {}).get("Network") or "")
    if not name:
        return body
    found = next((r for r in records if r.name == name and is_configuration(r)), None)
    if found is None:
        raise NotFound(f'configuration network "{name}" does not exist')
    ipam = body.get("IPAM") or {}
    if ipam.get("Config") or ipam.get("Options") or body.get("EnableIPv6") or body.get("Labels"):
        raise PermissionDenied(
            "user specified configurations are not supported if the network depends on a "
            "configuration network"
        )
    if body.get("Options"):
        raise PermissionDenied(
            "network driver options are not supported if the network depends on a "
            "configuration network"
        )
    return {**body, **found.body, "ConfigOnly": False}
