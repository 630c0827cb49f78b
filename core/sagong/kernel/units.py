"""Units: what is to run, resolved from configuration and manifests. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from msgspec.structs import replace

from sagong.config import Config, UnitConfig
from sagong.errors import AlreadyExists, InvalidArgument
from sagong.fitting import misfits
from sagong.kernel.journal import Choices
from sagong.manifest import Manifest, Uses

__all__ = [
    "Unit",
    "check_room",
    "chosen",
    "laid",
    "resolve_one",
    "with_unit",
    "without_unit",
]

T = TypeVar("T")


@dataclass(frozen=True)
class Unit:
    """A place in the system that one plugin fills: a slot's instance, or a service."""

    name: str
    instance: str
    manifest: Manifest
    package: str
    settings: Mapping[str, Any]
    listens: Mapping[str, str]
    hooks: tuple[str, ...] = ()
    idle_wish: float | None = None

    @property
    def idle_seconds(self) -> float:
        """After how long without work it leaves until it is called again; 0: never."""
        if not self.manifest.life.on_demand:
            return 0.0
        return self.manifest.life.idle_seconds if self.idle_wish is None else self.idle_wish

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
        return tuple(dict.fromkeys(route for route, _ in self._wishes()))

    def needs(self) -> tuple[tuple[str, int, str], ...]:
        """The routes that it can't do without."""
        return tuple(dict.fromkeys(route for route, optional in self._wishes() if not optional))

    def _wishes(self) -> Iterator[tuple[tuple[str, int, str], bool]]:
        for slot, use in self.uses():
            yield (slot, use.version, use.instance), use.optional
        for slot, hears in self.manifest.hears.items():
            yield (slot, hears.version, hears.instance), hears.optional


Load = Callable[[str], tuple[str, Manifest]]


def chosen(config: Config, choices: Choices) -> dict[str, UnitConfig]:
    """The units to run: the configured ones, less those taken away, and those added since."""
    units = {
        name: unit
        for name, unit in config.units.items()
        if unit.enabled and name not in choices.disabled
    }
    added = {
        name: laid(name, own, config.units.get(name, UnitConfig()))
        for name, own in choices.units.items()
    }
    return {**units, **added}


def with_unit(choices: Choices, name: str, own: UnitConfig) -> Choices:
    """The choices with a unit more, by what was asked of it."""
    return replace(
        choices,
        units={**choices.units, name: own},
        disabled=tuple(n for n in choices.disabled if n != name),
        resting=_without(choices.resting, name),
    )


def without_unit(choices: Choices, config: Config, name: str, *, forget: bool = False) -> Choices:
    """The choices less a unit; what was asked of it rests until it comes back, or is forgotten."""
    own = choices.units.get(name, UnitConfig())
    if plugin := choices.plugins.get(name):
        own = laid(name, UnitConfig(plugin=plugin), own)
    rests = not forget and own != UnitConfig()
    known = config.units.get(name)
    disabled = set(choices.disabled) | ({name} if known and known.enabled else set())
    return replace(
        choices,
        plugins=_without(choices.plugins, name),
        units=_without(choices.units, name),
        disabled=tuple(sorted(disabled)),
        resting={**_without(choices.resting, name), **({name: own} if rests else {})},
    )


def _without(table: Mapping[str, T], name: str) -> dict[str, T]:
    return {key: value for key, value in table.items() if key != name}


def laid(name: str, own: UnitConfig, configured: UnitConfig) -> UnitConfig:
    """What the operator asked of a unit, over what is configured of it; or was asked before."""
    plugin = own.plugin or configured.plugin
    same = own.plugin_of(name) == configured.plugin_of(name) or not own.plugin
    settings = configured.settings if same else {}
    return UnitConfig(
        plugin=plugin,
        instance=own.instance or configured.instance,
        settings={**settings, **own.settings},
        listens={**configured.listens, **own.listens},
        hooks=configured.hooks,
        idle_seconds=configured.idle_seconds,
    )


def check_room(new: Unit, units: Mapping[str, Unit]) -> None:
    """Whether a unit can stand beside the others: none fills its place, or has its data."""
    for other in units.values():
        if other.name == new.name:
            raise AlreadyExists(
                f"unit {new.name} is there already, filled by {other.manifest.plugin.name}; "
                f"replace it by `sagong swap {new.name} PLUGIN`, or choose another name"
            )
        same = set(other.manifest.provided()) & set(new.manifest.provided())
        if same and other.instance == new.instance:
            slot, version = min(same)
            called = f"instance {other.instance}" if other.instance else "the one without a name"
            raise AlreadyExists(
                f"unit {other.name} is {called} of {slot}/{version} already; "
                "give the new one a name with --instance"
            )
        if other.identity == new.identity:
            raise AlreadyExists(
                f"unit {other.name} runs {new.manifest.plugin.name} with the same data already; "
                "give the new one a name with --instance"
            )


def resolve_one(name: str, unit: UnitConfig, load: Load) -> Unit:
    """One unit; `load` gives package and manifest of a plugin's name."""
    package, manifest = load(unit.plugin_of(name))
    problems = list(misfits(name, unit, manifest, lambda hook: load(hook)[1]))
    if problems:
        raise InvalidArgument("; ".join(problems))
    return Unit(
        name,
        unit.instance,
        manifest,
        package,
        unit.settings,
        unit.listens,
        unit.hooks,
        unit.idle_seconds,
    )
