"""What plugins can be told: the structs that they give to `host.config`, and what does not fit them."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from sagong import forms

__all__ = ["setting_mistakes", "settings_of"]


def settings_of(package: Path) -> list[type[msgspec.Struct]]:
    """The structs that a plugin's settings are decoded into: whatever it gives to `host.config`.

    ImportError if the package, which has to be one of this environment, can't be imported.
    """
    places = dict.fromkeys(
        place for path in sorted(package.rglob("*.py")) for place in _asked(path)
    )
    found: dict[type[msgspec.Struct], None] = {}
    for path, name in places:
        module = ".".join(path.relative_to(package.parent).with_suffix("").parts)
        found[getattr(import_module(module.removesuffix(".__init__")), name)] = None
    return list(found)


def _asked(path: Path) -> Iterator[tuple[Path, str]]:
    for node in ast.walk(ast.parse(path.read_bytes())):
        match node:
            case ast.Call(
                func=ast.Attribute(value=ast.Name("host"), attr="config"), args=[ast.Name(name)]
            ):
                yield path, name


def setting_mistakes(unit: str, settings: Mapping[str, Any], package: str) -> list[str]:
    """What of a unit's settings its plugin, a package of this environment, would refuse, a line each.

    Values that only the plugin can judge (a free range of addresses) it judges when it starts.
    """
    spec = find_spec(package) if settings else None
    if spec is None or not spec.submodule_search_locations:
        return []
    where = f"units.{unit}.settings"
    try:
        kinds = settings_of(Path(spec.submodule_search_locations[0]))
    except ImportError as error:
        return [f"{where}: {package} can't be imported: {error}"]
    # Of several the one that was meant.
    return min(
        (forms.decode(dict(settings), kind, where)[1] for kind in kinds), key=len, default=[]
    )
