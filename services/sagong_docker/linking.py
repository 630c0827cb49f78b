"""Links between containers of the default network: `--link NAME:ALIAS`, kept by ids.

Who links is told where the others are when it starts, and again when one of them has started anew.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import msgspec

from sagong.contracts.image import ImageConfig
from sagong.contracts.node import UpdateSpec
from sagong.errors import InvalidArgument, NotFound, SagongError
from sagong_docker import wiring
from sagong_docker.ask import convert
from sagong_docker.body import HostConfig
from sagong_docker.container_view import environment
from sagong_docker.engine import Engine
from sagong_docker.links import Link
from sagong_docker.network_view import joined
from sagong_docker.record import ContainerRecord
from sagong_docker.validity import HOST_LINKS

__all__ = ["bring", "linked", "other_names", "renamed", "renew", "shown", "unlink"]


async def linked(engine: Engine, texts: Iterable[str]) -> dict[str, str]:
    """Ids by alias, of what a create body names; InvalidArgument in Docker's words."""
    found: dict[str, str] = {}
    for text in texts:
        name, _, alias = text.partition(":")
        if not name or ":" in alias:
            raise InvalidArgument(f"bad format for links: {text}")
        try:
            record = await engine.container(name)
        except NotFound as error:
            raise InvalidArgument(f"could not get container for {name}: {error.message}") from None
        if record.host.get("NetworkMode") == "host":
            raise InvalidArgument(HOST_LINKS)
        found[(alias or record.name).strip("/")] = record.id
    return found


def shown(engine: Engine, name: str, links: dict[str, str]) -> list[str]:
    """HostConfig.Links of the container of that name; those that are gone are left out."""
    known = ((alias, engine.catalog.containers.get(id_)) for alias, id_ in links.items())
    return [f"/{other.name}:/{name}/{alias}" for alias, other in known if other is not None]


def other_names(records: Iterable[ContainerRecord]) -> dict[str, list[str]]:
    """What containers are called by those that link to them, by id: `/who/alias`."""
    found: dict[str, list[str]] = {}
    for record in records:
        for alias, id_ in record.links.items():
            found.setdefault(id_, []).append(f"/{record.name}/{alias}")
    return found


async def bring(engine: Engine, record: ContainerRecord) -> None:
    """Tell its hosts file and its environment of those that it links to, as they are now."""
    if not record.links:
        return
    bridge = next((n for n in await engine.networks() if n.name == "bridge"), None)
    on = bridge.id if bridge else ""
    links = [await _link(engine, record, alias, id_, on) for alias, id_ in record.links.items()]
    host = convert(record.host, HostConfig)
    gateways = tuple(s.gateway for s in bridge.subnets if s.gateway) if bridge else ()
    env = [entry for link in links for entry in link.variables(record.name)]
    await engine.node.update(
        UpdateSpec(
            id=record.id,
            hosts=wiring.hosts(host, [(link.address, link.hosts) for link in links], gateways),
            env=(*env, *(record.config.get("Env") or ())),
        )
    )


async def renew(engine: Engine, id_: str) -> None:
    """One has started: those that run and link to it learn where it is now."""
    for record in list(engine.catalog.containers.values()):
        if id_ in record.links.values():
            with contextlib.suppress(SagongError):
                if joined(await engine.status(record)) is not None:
                    await bring(engine, record)


async def unlink(engine: Engine, name: str) -> None:
    """`docker rm --link PARENT/ALIAS`."""
    parent, _, alias = name.removeprefix("/").partition("/")
    record = await engine.container(parent)
    if alias not in record.links:
        raise NotFound(f"No such link: {name}")
    links = {key: id_ for key, id_ in record.links.items() if key != alias}
    host = {**record.host, "Links": shown(engine, record.name, links) or None}
    changed = msgspec.structs.replace(record, links=links, host=host)
    await engine.catalog.change_container(changed)
    with contextlib.suppress(SagongError):
        await bring(engine, changed)


async def _link(engine: Engine, record: ContainerRecord, alias: str, id_: str, bridge: str) -> Link:
    """The other one, as it is on the default network `bridge`; who is not on it can't be linked."""
    other = engine.catalog.containers.get(id_)
    if other is None:
        raise NotFound(f"No such container: {id_}")
    status = await engine.status(other)
    network = joined(await engine.status(_on_the_network(engine, other)))
    if network is None:
        raise SagongError(
            f"Cannot link to a non running container: /{other.name} AS /{record.name}/{alias}"
        )
    endpoint = next((e for e in network.endpoints if e.network == bridge), None)
    if endpoint is None:
        raise SagongError(
            f"Cannot link to /{other.name}, as it does not belong to the default network"
        )
    image = status.image.config if status.image else ImageConfig()
    return Link(
        name=other.name,
        alias=alias,
        address=endpoint.ipv4 or endpoint.ipv6,
        ports=tuple({*image.exposed_ports, *(other.config.get("ExposedPorts") or ())}),
        env=tuple(environment(image, other.config)),
        hostname=str(other.config.get("Hostname") or "") or other.id[:12],
    )


def _on_the_network(engine: Engine, record: ContainerRecord) -> ContainerRecord:
    """Who has the network that a container is on: itself, or the one that its mode names."""
    seen = {record.id}
    while True:
        kind, _, other = str(record.host.get("NetworkMode") or "").partition(":")
        lender = engine.catalog.containers.get(other) if kind == "container" else None
        if lender is None or lender.id in seen:
            return record
        record = lender
        seen.add(lender.id)


def renamed(engine: Engine, record: ContainerRecord) -> Iterator[ContainerRecord]:
    """Records that show a name which this one had: its own, and those of who links to it."""
    for each in [record, *engine.catalog.containers.values()]:
        if each.links and (each is record or record.id in each.links.values()):
            host = {**each.host, "Links": shown(engine, each.name, each.links)}
            if host != each.host:
                yield msgspec.structs.replace(each, host=host)
