"""Whether a plugin fits the unit that the configuration has for it, by its manifest. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from sagong.config import UnitConfig
from sagong.errors import SagongError
from sagong.manifest import Manifest

__all__ = ["misfits"]


def misfits(
    name: str, unit: UnitConfig, plugin: Manifest, hook: Callable[[str], Manifest]
) -> Iterator[str]:
    """What of a unit's table its plugin has no use for, a line each; `hook` loads one by its name."""
    where, who = f"units.{name}", plugin.plugin.name
    if plugin.plugin.kind == "hook":
        yield f"{where}: {who} is a hook, which runs in another unit: name it in that one's hooks"
    for listener in sorted(set(unit.listens) - set(plugin.listens)):
        there = ", ".join(plugin.listens) or "none"
        yield f"{where}.listens: {who} has no listener {listener}; there are: {there}"
    for found in unit.hooks:
        yield from _hook_misfits(where, found, plugin, hook)
    idle = unit.idle_seconds
    if idle is not None and not (idle == 0 or 0.1 <= idle < math.inf):
        yield f"{where}.idle_seconds: at least 0.1 seconds, or 0 for never"
    elif idle and not plugin.life.on_demand:
        yield (
            f"{where}.idle_seconds: {who} does not start on demand, "
            "see [life] of its plugin.toml; leave it out"
        )


def _hook_misfits(
    where: str, name: str, into: Manifest, hook: Callable[[str], Manifest]
) -> Iterator[str]:
    """A hook is loaded only into what its manifest names."""
    try:
        found = hook(name)
    except SagongError as error:
        yield f"{where}.hooks: {error.message}"
        return
    if not set(found.hooks) & {*into.provides, into.plugin.name}:
        meant = ", ".join(found.hooks) or "nothing: it is no hook"
        yield f"{where}.hooks: {found.plugin.name} is for {meant}, not for {into.plugin.name}"
