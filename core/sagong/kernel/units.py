"""Units: what is to run, resolved from configuration and manifests. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sagong.config import Config, UnitConfig
from sagong.errors import InvalidArgument
from sagong.manifest import Manifest, Uses

__all__ = ["Unit", "resolve", "resolve_one"]


@dataclass(frozen=True)
class Unit:
    """A place in the system that one plugin fills: a slot's instance, or a service."""

    name: str
    instance: str
    manifest: Manifest
    package: str
    settings: Mapping[str, Any]
    listens: Mapping[str, str]

    @property
    def identity(self) -> str:
        """The key of its uid and data: the same plugin in two instances is two identities."""
        name = self.manifest.plugin.name
        return f"{name}@{self.instance}" if self.instance else name

    def uses(self) -> Iterator[tuple[str, Uses]]:
        """Slots it calls."""
        return self.manifest.used_slots()

    def routes(self) -> tuple[tuple[str, int, str], ...]:
        """(slot, version, instance) of all it calls or hears."""
        called = [(slot, use.version, use.instance) for slot, use in self.uses()]
        heard = [(slot, h.version, h.instance) for slot, h in self.manifest.hears.items()]
        return tuple(dict.fromkeys([*called, *heard]))


Load = Callable[[str], tuple[str, Manifest]]


def resolve(config: Config, load: Load) -> dict[str, Unit]:
    """All units of a configuration; `load` gives package and manifest of a plugin's name."""
    return {
        name: resolve_one(name, unit, load) for name, unit in config.units.items() if unit.enabled
    }


def resolve_one(name: str, unit: UnitConfig, load: Load) -> Unit:
    """One unit; its plugin is by default the one of the same name."""
    package, manifest = load(unit.plugin or name)
    unknown = set(unit.listens) - set(manifest.listens)
    if unknown:
        raise InvalidArgument(
            f"units.{name}.listens: {manifest.plugin.name} has no listener {sorted(unknown)[0]}"
        )
    return Unit(name, unit.instance, manifest, package, unit.settings, unit.listens)
