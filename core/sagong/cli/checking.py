"""What is wrong with a manifest beyond its form: names that nobody has, code that is not there.

Nothing of the plugin is executed: its code is only read.
"""

from __future__ import annotations

import ast
import difflib
import re
import tomllib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from sagong import contracts, manifest
from sagong.contract import SlotSpec, slot_of
from sagong.linux.capabilities import NAMES
from sagong.manifest import Manifest
from sagong.sandbox import GROUPS

__all__ = ["mistakes", "packages_of", "source_mistakes"]

_PLACES = ("run", "data", "etc", "cgroup", "prefix", "hostname")
_WORDS = {"package", "python", "own", "uid"}
_PORT_MOST = 65535


def source_mistakes(source: Path) -> Iterator[str]:
    """Of all plugins in a directory (a repository, or a package), each mistake in a line."""
    packages = packages_of(source)
    if not packages:
        yield (
            f"{source}: no plugin.toml here or one directory below; give a package of a plugin, or its "
            "repository (`sagong new-plugin` makes one)"
        )
    for package in packages:
        where = str(package / "plugin.toml")
        try:
            found, problems = manifest.read((package / "plugin.toml").read_text())
        except (OSError, UnicodeDecodeError) as error:
            yield f"{where}: {error}"
            continue
        yield from (f"{where}: {text}" for text in problems)
        if found is None:
            continue
        own = _own_slots(source) | _own_slots(package.parent)
        yield from (f"{where}: {text}" for text in mistakes(found, own))
        if not problems:
            yield from (f"{where}: {text}" for text in _code_mistakes(found, package, own))


def packages_of(source: Path) -> list[Path]:
    """Directories with a manifest."""
    if source.name == "plugin.toml":
        return [source.parent]
    if (source / "plugin.toml").exists():
        return [source]
    return sorted(path.parent for path in source.glob("*/plugin.toml"))


def mistakes(found: Manifest, own: Collection[str] = ()) -> Iterator[str]:
    """Names in a manifest that stand for nothing; `own` are slots that the plugin brings itself."""
    known = _known()
    for slot, version in found.provided():
        yield from _slot_mistakes(f"provides.{slot}", slot, version, known, own)
    for key, use in found.uses.items():
        slot, where = use.slot or key, f"uses.{key}"
        yield from _slot_mistakes(where, slot, use.version, known, own)
        spec = known.get(slot, {}).get(use.version)
        if spec is not None:
            yield from (
                f"{where}.methods: {slot}/{use.version} has no {name}; {_near(name, spec.methods)}"
                for name in use.methods
                if name not in spec.methods
            )
        if use.rules and slot != "objects":
            yield f"{where}.rules: only slot objects knows rules; leave them out"
    for slot, hears in found.hears.items():
        yield from _slot_mistakes(f"hears.{slot}", slot, hears.version, known, own)
    for slot in found.streams:
        if slot not in known and slot not in own:
            yield f"streams.{slot}: no such slot; {_near(slot, known)}"
    yield from _right_mistakes(found)
    yield from _listener_mistakes(found)


def _known() -> dict[str, dict[int, SlotSpec]]:
    known: dict[str, dict[int, SlotSpec]] = {}
    for protocol in contracts.protocols():
        spec = slot_of(protocol)
        known.setdefault(spec.name, {})[spec.version] = spec
    return known


def _slot_mistakes(
    where: str,
    slot: str,
    version: int,
    known: dict[str, dict[int, SlotSpec]],
    own: Collection[str],
) -> Iterator[str]:
    if slot in own:
        return
    if slot not in known:
        yield (
            f"{where}: no such slot; {_near(slot, known)} (a slot of your own is an entry point of "
            "the group sagong.contracts)"
        )
    elif version not in known[slot]:
        there = ", ".join(map(str, sorted(known[slot])))
        yield f"{where}: contract {slot} has no version {version}; there are: {there}"


def _near(name: str, names: Collection[str]) -> str:
    """What was meant, or all that there is."""
    found = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {found[0]}?" if found else f"there are: {', '.join(sorted(names))}"


def _right_mistakes(found: Manifest) -> Iterator[str]:
    rights = found.rights
    for capability in rights.capabilities:
        if capability.name not in NAMES:
            meant = _near(capability.name, NAMES)
            yield f"rights.capabilities: no capability {capability.name}; {meant}"
    for right in rights.seccomp:
        if right.group not in GROUPS:
            yield f"rights.seccomp: no group {right.group}; {_near(right.group, GROUPS)}"
    for path in rights.paths:
        yield from _path_mistakes(f"rights.paths {path.path}", path.path)
    for device in rights.devices:
        if not device.path.startswith("/dev/"):
            yield f"rights.devices {device.path}: a path below /dev"


def _path_mistakes(where: str, path: str) -> Iterator[str]:
    for name in re.findall(r"\{(\w*)\}", path):
        if name not in _PLACES:
            yield f"{where}: no place {{{name}}}; {_near(name, _PLACES)}"
    if path and not path.startswith(("/", "{run}", "{data}", "{etc}")):
        yield f"{where}: an absolute path, or one that begins with {{run}}, {{data}} or {{etc}}"
    if ".." in path.split("/"):
        yield f"{where}: without .."


def _listener_mistakes(found: Manifest) -> Iterator[str]:
    for name, listener in found.listens.items():
        kind, _, rest = listener.address.partition(":")
        if kind in ("tcp", "udp"):
            host, _, port = rest.rpartition(":")
            if not host or not port.isdigit() or not 0 <= int(port) <= _PORT_MOST:
                yield f"listens.{name}.address {listener.address}: {kind}:HOST:PORT, a port up to 65535"
        elif kind == "unix":
            yield from _path_mistakes(f"listens.{name}.address", rest)
        if not re.fullmatch(r"0?[0-7]{3}", listener.mode):
            yield f'listens.{name}.mode {listener.mode!r}: an octal mode such as "0600"'


def _own_slots(directory: Path) -> set[str]:
    """Slots whose contracts a repository brings, by its pyproject.toml."""
    try:
        project = tomllib.loads((directory / "pyproject.toml").read_text())
        points: dict[str, Any] = project["project"]["entry-points"]["sagong.contracts"]
    except (OSError, KeyError, TypeError, tomllib.TOMLDecodeError):
        return set()
    return set(points)


# The code, read and not run.


def _code_mistakes(found: Manifest, package: Path, own: Collection[str]) -> Iterator[str]:
    plugin = found.plugin
    for word in plugin.command:
        for name in re.findall(r"\{(\w*)\}", word):
            if name not in _WORDS:
                yield f"plugin.command: no {{{name}}}; {_near(name, _WORDS)}"
    if plugin.class_:
        yield from _class_mistakes(found, package, own)
    if found.deputy is not None:
        module, _, name = found.deputy.function.partition(":")
        tree = _tree(package, module)
        if tree is None or name not in _names(tree):
            yield f"deputy.function {found.deputy.function}: no such function; write module:name"


def _class_mistakes(found: Manifest, package: Path, own: Collection[str]) -> Iterator[str]:
    module, _, name = found.plugin.class_.partition(":")
    if module.partition(".")[0] != package.name:
        right = f"{package.name}:{name}"
        yield f"plugin.class {found.plugin.class_}: this package is {package.name}; say {right}"
        return
    tree = _tree(package, module)
    if tree is None:
        yield f"plugin.class {found.plugin.class_}: there is no module {module}, or it is no Python"
        return
    names = _names(tree)
    if name not in names:
        yield f"plugin.class {found.plugin.class_}: {module} has no {name}; {_near(name, names)}"
    node = next((n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == name), None)
    if node is None or node.bases or found.plugin.kind == "hook":
        return
    methods = _names(node)
    if "implementation" in ast.dump(node) or "__getattr__" in methods:
        return
    known = _known()
    for slot, version in found.provided():
        spec = known.get(slot, {}).get(version) if slot not in own else None
        lacking = sorted(set(spec.methods) - methods) if spec is not None else []
        if lacking:
            yield f"{name} provides {slot}/{version} and has no method {', '.join(lacking)}"


def _tree(package: Path, module: str) -> ast.Module | None:
    path = package.parent.joinpath(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    try:
        return ast.parse(file.read_text())
    except (OSError, SyntaxError, ValueError):
        return None


def _names(tree: ast.Module | ast.ClassDef) -> set[str]:
    """What is defined, imported or assigned there."""
    found: set[str] = set()
    for node in tree.body:
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                found.add(name)
            case ast.AsyncFunctionDef(name=name):
                found.add(name)
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                found |= {(a.asname or a.name).partition(".")[0] for a in names}
            case ast.Assign(targets=targets):
                found |= {t.id for t in targets if isinstance(t, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=name)):
                found.add(name)
    return found
