"""Who may follow in a unit: the unit as it stands, with another plugin or the same anew."""

from __future__ import annotations

from collections.abc import Mapping

from sagong.config import Config, UnitConfig
from sagong.errors import FailedPrecondition, NotFound
from sagong.kernel.units import Load, Unit, resolve_one

__all__ = ["Succession"]


class Succession:
    """Finds successors among what is installed."""

    def __init__(self, config: Config, load: Load) -> None:
        self._config = config
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
            )
            try:
                new = resolve_one(unit.name, config, self._load)
            except NotFound:
                continue
            return _fills(new, unit)
        raise NotFound(f"no plugin {wanted} is installed; see `sagong plugins`")

    def _settings(self, unit: Unit, plugin: str) -> Mapping[str, object]:
        if plugin == unit.manifest.plugin.name:
            return unit.settings
        configured = self._config.units.get(unit.name)
        if configured is None or (configured.plugin or unit.name) != plugin:
            return {}
        return configured.settings


def _fills(new: Unit, old: Unit) -> Unit:
    """The newcomer must provide what the old one did."""
    for slot, version in old.manifest.provides.items():
        if new.manifest.provides.get(slot) != version:
            raise FailedPrecondition(
                f"{new.manifest.plugin.name} does not provide {slot}/{version}, "
                f"which {old.name} has to"
            )
    return new
