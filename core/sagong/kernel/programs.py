"""Programs: where a plugin's code lies, what runs it, and that it is what was installed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from sagong import manifest
from sagong.errors import NotFound
from sagong.kernel.units import Unit
from sagong.manifest import Manifest
from sagong.shelf import Shelf

__all__ = ["Programs"]


class Programs:
    """First-party plugins are forked from the zygote; others are executed, each as its place asks."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    def load(self, name: str) -> tuple[str, Manifest]:
        """Package and manifest of a plugin by its name: from the shelf, or of the platform itself."""
        record = self._shelf.find(name)
        if record is not None:
            return record.package, record.manifest()
        package = manifest.discover().get(name, f"sagong_{name}")
        if find_spec(package) is None:
            raise NotFound(f"no plugin {name} is installed; see `sagong plugins`")
        return package, manifest.load(package)

    def command(self, unit: Unit) -> tuple[str, ...]:
        """What to execute after the sandbox stands; () to be forked with the platform's own Python.

        Raises FailedPrecondition if an installed plugin's files are not those of its record.
        """
        words = unit.manifest.plugin.command
        record = self._shelf.find(unit.manifest.plugin.name)
        if record is not None:
            self._shelf.verify(record)
            if not words:
                return (record.python, "-m", "sagong.stranger")
            return _filled(words, record.directory, record.python)
        return _filled(words, _directory(unit.package), "") if words else ()

    def package(self, unit: Unit) -> Path:
        """The directory of its package."""
        record = self._shelf.find(unit.manifest.plugin.name)
        return Path(record.directory if record is not None else _directory(unit.package))

    def hooks(self, unit: Unit) -> tuple[tuple[str, str], ...]:
        """Classes to load into the unit's process, each with the directory it is imported from.

        Raises FailedPrecondition if an installed hook's files are not those of its record.
        """
        found = []
        for name in unit.hooks:
            record = self._shelf.find(name)
            if record is not None:
                self._shelf.verify(record)
            site = str(Path(record.directory).parent) if record is not None else ""
            found.append((self.load(name)[1].plugin.class_, site))
        return tuple(found)

    def paths(self, unit: Unit) -> tuple[str, ...]:
        """Directories that its code, and its hooks', is read from, beside the platform's own."""
        names = (unit.manifest.plugin.name, *unit.hooks)
        homes = tuple(r.home for name in names if (r := self._shelf.find(name)) is not None)
        own = unit.manifest.plugin.command and self._shelf.find(names[0]) is None
        return (*homes, _directory(unit.package)) if own else homes


def _filled(words: tuple[str, ...], package: str, python: str) -> tuple[str, ...]:
    """`{package}` and `{python}` in a manifest's command."""
    return tuple(w.replace("{package}", package).replace("{python}", python) for w in words)


def _directory(package: str) -> str:
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise NotFound(f"no package {package}; is the plugin installed?")
    return spec.submodule_search_locations[0]
