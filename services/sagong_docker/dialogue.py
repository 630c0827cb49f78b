"""`POST /grpc` and `POST /session`: BuildKit's protocol, carried to the builder as bytes."""

from __future__ import annotations

import asyncio
import contextlib

import msgspec

from sagong.contracts.builder import Dialogue, Surroundings
from sagong.errors import InvalidArgument
from sagong.http import RawStream
from sagong.streams import Link, connected
from sagong_docker import wiring
from sagong_docker.ask import Ask
from sagong_docker.body import CreateBody, HostConfig
from sagong_docker.creation import cgroup_mode
from sagong_docker.engine import Engine
from sagong_docker.machine import this_machine

__all__ = ["grpc", "session"]

_EXPOSED = "x-docker-expose-"


async def grpc(engine: Engine, ask: Ask) -> None:
    """The client asks the builder."""
    await _carried(engine, ask, "control")


async def session(engine: Engine, ask: Ask) -> None:
    """The builder asks the client."""
    await _carried(engine, ask, "session")


async def _carried(engine: Engine, ask: Ask, kind: str) -> None:
    # As Docker, without asking for `Connection: Upgrade`: Go programs that write it by hand do not.
    wanted = ask.request.header("upgrade")
    if not wanted:
        raise InvalidArgument("no upgrade proto in request")
    if wanted != "h2c":
        raise InvalidArgument(f"protocol {wanted} not supported")
    headers = tuple((n, v) for n, v in ask.request.headers.items() if n.startswith(_EXPOSED))
    dialogue = Dialogue(kind=kind, headers=headers, surroundings=await _surroundings(engine))
    address = await engine.builder.converse(dialogue)
    async with connected(address) as link:
        client = ask.request.hijack(
            101, [("Connection", "Upgrade"), ("Upgrade", "h2c")], "UPGRADED"
        )
        await _carry(client, link)


async def _surroundings(engine: Engine) -> Surroundings:
    """Docker's default network, for commands that ask for no other."""
    host = HostConfig()
    network = await engine.find_network(engine.settings.default_network)
    named = network.name != "none"
    places = wiring.attachments(CreateBody(), host, "", lambda _: network.id) if named else ()
    places = tuple(msgspec.structs.replace(place, aliases=()) for place in places)
    return Surroundings(
        network=wiring.join("", "", network.name, places=places),
        cgroup_mode=cgroup_mode(host, engine.settings, this_machine()),
        gateway=network.subnets[0].gateway if network.subnets else "",
    )


async def _carry(client: RawStream, link: Link) -> None:
    """Both ways, until either side ends."""

    async def up() -> None:
        while data := await client.read():
            await link.write(data)

    async def down() -> None:
        while data := await link.read():
            client.write(data)
            await client.drain()

    tasks = [asyncio.ensure_future(up()), asyncio.ensure_future(down())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(*tasks, return_exceptions=True)
