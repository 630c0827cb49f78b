"""What this engine does not have: swarm and its family, plugins, checkpoints."""

from __future__ import annotations

import sagong_docker.refusal as refusals
from sagong.http import Response
from sagong_docker.ask import Ask
from sagong_docker.engine import Engine

__all__ = [
    "NOT_A_MANAGER",
    "no_checkpoints",
    "no_cluster_volumes",
    "no_new_plugins",
    "no_new_swarm",
    "no_plugin",
    "no_plugins",
    "no_swarm",
    "not_in_swarm",
]

_PLUGIN_VERBS = frozenset(("json", "enable", "disable", "set", "upgrade", "push"))
_EXPERIMENTAL = (
    "This experimental feature is disabled by default. Start the Docker daemon in experimental mode "
    "in order to enable it."
)
NOT_A_MANAGER = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect '
    "this node to swarm and try again."
)

_NO_NEW_SWARM = (
    "swarm mode is not part of this engine, which is for one machine: run `docker compose` on it, or "
    "use its Kubernetes API"
)
_NO_NEW_PLUGINS = (
    "Docker's managed plugins are not part of this engine: networks, volumes and runtimes are plugins "
    "of the platform (`sagong plugins`)"
)


async def no_new_swarm(engine: Engine, ask: Ask) -> Response:
    """`docker swarm init` and `join`: the advice that others are given leads here."""
    return refusals.refuse(501, _NO_NEW_SWARM)


async def no_new_plugins(engine: Engine, ask: Ask) -> Response:
    """`docker plugin install` and `create`."""
    return refusals.refuse(501, _NO_NEW_PLUGINS)


async def no_swarm(engine: Engine, ask: Ask) -> Response:
    """Every route of the swarm family."""
    return refusals.refuse(503, NOT_A_MANAGER)


async def not_in_swarm(engine: Engine, ask: Ask) -> Response:
    """Nothing can be left."""
    return refusals.refuse(503, "This node is not part of a swarm")


async def no_cluster_volumes(engine: Engine, ask: Ask) -> Response:
    """`docker volume update`."""
    text = "volume update only valid for cluster volumes, but swarm is unavailable"
    return refusals.refuse(503, text)


async def no_checkpoints(engine: Engine, ask: Ask) -> Response:
    """`docker checkpoint`."""
    return refusals.refuse(501, _EXPERIMENTAL)


async def no_plugins(engine: Engine, ask: Ask) -> Response:
    """`docker plugin ls`: Docker's managed plugins do not exist here."""
    ask.filters()
    return refusals.answer([])


async def no_plugin(engine: Engine, ask: Ask) -> Response:
    """One plugin."""
    name = ask.parts.get("name", "")
    head, slash, verb = name.rpartition("/")
    name = head if slash and verb in _PLUGIN_VERBS else name
    return refusals.refuse(404, f'plugin "{name}" not found')
