"""Who may follow in a unit: the unit as it stands, with another plugin or the same anew."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sagong.config import UnitConfig
from sagong.errors import FailedPrecondition, NotFound
from sagong.kernel import directory
from sagong.kernel.units import Load, Unit, resolve_one

__all__ = ["Succession", "check_versions"]


class Succession:
    """Finds successors among what is installed; `configured` tells the units as they are wished."""

    def __init__(self, configured: Callable[[], Mapping[str, UnitConfig]], load: Load) -> None:
        self._configured = configured
        self._load = load

    def of(self, unit: Unit, plugin: str = "") -> Unit:
        """The unit with another plugin: `binpack` is short for `scheduler_binpack`; "" for its own.

        The manifest is read anew, so a newer version of the same plugin is found, too.
        """
        slots = list(unit.manifest.provides)
        wanted = plugin or unit.manifest.plugin.name
        for name in (*(f"{slot}_{wanted}" for slot in slots), wanted):
            config = UnitConfig(
                plugin=name,
                instance=unit.instance,
                settings=dict(self._settings(unit, name)),
                listens=dict(unit.listens),
                hooks=unit.hooks,
                idle_seconds=self._idle(unit, name),
            )
            try:
                new = resolve_one(unit.name, config, self._load)
            except NotFound:
                continue
            if set(unit.manifest.provides) - set(new.manifest.provides):
                raise FailedPrecondition(_unfit(new, unit))
            return new
        raise NotFound(f"no plugin {wanted} is installed; see `sagong plugins`")

    def fresh(self, name: str, wanted: UnitConfig) -> Unit:
        """A unit that was not there before."""
        return resolve_one(name, wanted, self._load)

    def _idle(self, unit: Unit, plugin: str) -> float | None:
        """The operator's word is for the unit; where another plugin can't obey it, it stays."""
        try:
            manifest = self._load(plugin)[1]
        except NotFound:
            return None
        return unit.idle_wish if manifest.life.on_demand else None

    def _settings(self, unit: Unit, plugin: str) -> Mapping[str, object]:
        if plugin == unit.manifest.plugin.name:
            return unit.settings
        configured = self._configured().get(unit.name)
        if configured is None or (configured.plugin or unit.name) != plugin:
            return {}
        return configured.settings


def check_versions(new: Unit, old: Unit, units: Mapping[str, Unit]) -> None:
    """The newcomer must fill its slots in all versions of their contracts that somebody uses."""
    lost = set(old.manifest.provided()) - set(new.manifest.provided())
    users = directory.dependents(old, units)
    for slot, version in sorted(lost):
        names = sorted(name for name, uses in users.items() if (slot, version) in uses)
        if names:
            raise FailedPrecondition(
                f"{new.manifest.plugin.name} does not provide {slot}/{version}, "
                f"which is used by {', '.join(names)}"
            )


def _unfit(new: Unit, old: Unit) -> str:
    slot = min(set(old.manifest.provides) - set(new.manifest.provides))
    return f"{new.manifest.plugin.name} does not provide {slot}, which {old.name} has to"
