"""What is wrong with a manifest beyond its form: names that nobody has, and what its package lacks."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from sagong import forms, manifest
from sagong.cli.sources import code_mistakes, known_slots, near
from sagong.contract import SlotSpec
from sagong.linux.capabilities import NAMES
from sagong.manifest import Manifest, Rule
from sagong.model.numbers import natural
from sagong.sandbox import GROUPS
from sagong.settings import PLACES

__all__ = ["address_mistakes", "mistakes", "packages_of", "source_mistakes"]

_PORT_MOST = 65535
# https://kubernetes.io/docs/reference/access-authn-authz/authorization/#determine-the-request-verb
_VERBS = (
    *("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "*"),
    *("use", "bind", "escalate", "impersonate", "approve", "sign", "attest"),
)
_RULES = 'as in rules = [{ verbs = ["get"], groups = [""], resources = ["pods"] }]'


def source_mistakes(source: Path) -> Iterator[str]:
    """Of all plugins in a directory (a repository, or a package), each mistake in a line."""
    packages = packages_of(source)
    if not packages:
        yield (
            f"{source}: no plugin.toml here or one directory below; give a package of a plugin, or its "
            "repository (`sagong new-plugin` makes one)"
        )
    names: Counter[str] = Counter()
    for package in packages:
        where = package / "plugin.toml"
        found, problems = _read(where)
        yield from (f"{where}: {text}" for text in problems)
        if found is None:
            continue
        project = {**_project(source), **_project(package.parent)}
        points = _entry_points(project)
        own = points.get("sagong.contracts", {})
        more = [*mistakes(found, own), *_name_mistakes(found, names)]
        more += code_mistakes(found, package, own)
        # An entry point has the plugin's name: that comes first.
        if not forms.about("plugin.name", problems):
            more += _project_mistakes(found, package, project)
        yield from (f"{where}: {text}" for text in more if not forms.about(text, problems))


def _read(path: Path) -> tuple[Manifest | None, list[str]]:
    try:
        return manifest.read(path.read_bytes().decode())
    except OSError as error:
        return None, [f"can't be read: {error.strerror}"]
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        return None, [
            f"line {line} is not UTF-8, as TOML has to be; save the file in that encoding"
        ]


def _name_mistakes(found: Manifest, names: Counter[str]) -> Iterator[str]:
    """A name counts once: among the platform's own, and in a repository."""
    name = found.plugin.name
    names[name] += 1
    if (
        manifest.discover().get(name, found.plugin.class_.partition(":")[0])
        != (found.plugin.class_.partition(":")[0])
    ):
        yield f"plugin.name {name}: a plugin of sagong itself is called so; give yours another name"
    if names[name] == 2:
        yield f"plugin.name {name}: another plugin of this repository is called so, too"


def _project_mistakes(found: Manifest, package: Path, project: Mapping[str, Any]) -> Iterator[str]:
    """What pyproject.toml says of the plugin: `sagong plugin install` finds it by that."""
    if "not TOML" in project:
        yield f"pyproject.toml: not TOML: {project['not TOML']}"
        return
    yield from _version_mistakes(found, project)
    yield from _point_mistakes(found, package, project)


def _version_mistakes(found: Manifest, project: Mapping[str, Any]) -> Iterator[str]:
    version = project.get("version", found.plugin.version)
    if version != found.plugin.version:
        yield f"plugin.version {found.plugin.version}: pyproject.toml says {version}; say the same"


def _point_mistakes(found: Manifest, package: Path, project: Mapping[str, Any]) -> Iterator[str]:
    said = _entry_points(project).get("sagong.plugins")
    if said is None:
        return
    right = f'{found.plugin.name} = "{package.name}"'
    if package.name not in {value.partition(":")[0] for value in said.values()}:
        yield f'pyproject.toml: [project.entry-points."sagong.plugins"] lacks {right}'
    elif said.get(found.plugin.name) != package.name:
        yield f'pyproject.toml: in [project.entry-points."sagong.plugins"] say {right}'


def packages_of(source: Path) -> list[Path]:
    """Directories with a manifest."""
    if source.name == "plugin.toml":
        return [source.parent]
    if (source / "plugin.toml").exists():
        return [source]
    return sorted(path.parent for path in source.glob("*/plugin.toml"))


def mistakes(found: Manifest, own: Collection[str] = ()) -> Iterator[str]:
    """Names in a manifest that stand for nothing; `own` are slots that the plugin brings itself."""
    known = known_slots()
    for slot, version in found.provided():
        yield from _slot_mistakes(f"provides.{slot}", slot, version, known, own)
    for key, use in found.uses.items():
        slot, where = use.slot or key, f"uses.{key}"
        yield from _slot_mistakes(where, slot, use.version, known, own)
        spec = known.get(slot, {}).get(use.version)
        if spec is not None:
            yield from (
                f"{where}.methods: {slot}/{use.version} has no {name}; {near(name, spec.methods)}"
                for name in use.methods
                if name not in spec.methods
            )
        if use.rules and slot != "objects" and slot in known:
            yield f"{where}.rules: only slot objects knows rules; leave them out"
        for n, rule in enumerate(use.rules):
            yield from _rule_mistakes(f"{where}.rules[{n}]", rule)
        if slot == "objects" and not use.rules:
            yield f"{where}.rules is missing: what no rule names is refused, {_RULES}"
    for slot, hears in found.hears.items():
        yield from _slot_mistakes(f"hears.{slot}", slot, hears.version, known, own)
    for key in found.hooks:
        if key not in {*known, *own, *manifest.discover()}:
            yield f"hooks.{key}: no such slot or service; {near(key, {*known, *manifest.discover()})}"
    for slot in found.streams:
        if slot not in known and slot not in own:
            yield f"streams.{slot}: no such slot; {near(slot, known)}"
    yield from _right_mistakes(found)
    yield from _listener_mistakes(found)


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
            f"{where}: no such slot; {near(slot, known)} (a slot of your own is an entry point of "
            "the group sagong.contracts; one of a package that the plugin needs is known where that "
            "is installed)"
        )
    elif version not in known[slot]:
        there = ", ".join(map(str, sorted(known[slot])))
        yield f"{where}: contract {slot} has no version {version}; there are: {there}"


def _rule_mistakes(where: str, rule: Rule) -> Iterator[str]:
    """Words that no request has: such a rule grants nothing, and nobody says so."""
    for verb in rule.verbs:
        if verb not in _VERBS:
            yield f"{where}.verbs: no verb {verb}; {near(verb, _VERBS)}"
    for group in rule.groups:
        if group == "core" or re.fullmatch(r"v\d\w*", group):
            yield f'{where}.groups {group}: the core group is ""'
        elif "/" in group:
            yield f"{where}.groups {group}: without its version, {group.partition('/')[0]}"
    for resource in rule.resources:
        if resource != resource.lower():
            yield f"{where}.resources {resource}: lower case and plural, such as pods or pods/status"


def _right_mistakes(found: Manifest) -> Iterator[str]:
    rights = found.rights
    for n, capability in enumerate(rights.capabilities):
        if capability.name not in NAMES:
            meant = near(f"CAP_{capability.name.upper().removeprefix('CAP_')}", NAMES)
            yield f"rights.capabilities[{n}].name: no capability {capability.name}; {meant}"
    for n, right in enumerate(rights.seccomp):
        if right.group not in GROUPS:
            yield f"rights.seccomp[{n}].group: no group {right.group}; {near(right.group, GROUPS)}"
    for n, path in enumerate(rights.paths):
        yield from _path_mistakes(f"rights.paths[{n}].path {path.path}", path.path)
    for n, device in enumerate(rights.devices):
        if not device.path.startswith("/dev/") or ".." in device.path.split("/"):
            yield f"rights.devices[{n}].path {device.path}: a path below /dev"


def _path_mistakes(where: str, path: str) -> Iterator[str]:
    for name in re.findall(r"\{(\w*)\}", path):
        if name not in PLACES:
            yield f"{where}: no place {{{name}}}; {near(name, PLACES)}"
    if path and not path.startswith(("/", "{run}", "{data}", "{etc}")):
        yield f"{where}: an absolute path, or one that begins with {{run}}, {{data}} or {{etc}}"
    if {".", ".."} & set(path.split("/")):
        yield f"{where}: without . and .."
    if path and not path.strip("/"):
        yield f"{where}: not the whole machine"


def _listener_mistakes(found: Manifest) -> Iterator[str]:
    takers: dict[str, str] = {}
    for name, listener in found.listens.items():
        if listener.address and takers.setdefault(listener.address, name) != name:
            other = takers[listener.address]
            yield f"listens.{name}.address {listener.address}: listens.{other} has it already"
        yield from _address_mistakes(f"listens.{name}.address", listener.address)
        if not re.fullmatch(r"0?[0-7]{3}", listener.mode):
            yield f'listens.{name}.mode {listener.mode!r}: an octal mode such as "0600"'


def address_mistakes(where: str, listens: Mapping[str, str]) -> Iterator[str]:
    """What of the addresses that a configuration gives to listeners can't be one, a line each."""
    for name, address in listens.items():
        yield from _address_mistakes(f"{where}.{name}", address)


def _address_mistakes(where: str, address: str) -> Iterator[str]:
    kind, _, rest = address.partition(":")
    if kind in ("tcp", "udp"):
        host, _, port = rest.rpartition(":")
        number = natural(port)
        if not host or number is None or number > _PORT_MOST:
            yield f"{where} {address}: {kind}:HOST:PORT, a port up to 65535"
    elif kind == "netlink" and not re.fullmatch(r"\d+:[1-9]\d*", rest):
        yield f"{where} {address}: netlink:PROTOCOL:GROUP, two numbers"
    elif kind == "unix":
        yield from _path_mistakes(where, rest)
    elif address and kind != "netlink":
        yield f"{where} {address}: unix:PATH, tcp:HOST:PORT or udp:HOST:PORT"


def _project(directory: Path) -> dict[str, Any]:
    """The table [project] of a repository's pyproject.toml; why it can't be read as `not TOML`."""
    try:
        return dict(tomllib.loads((directory / "pyproject.toml").read_text())["project"])
    except tomllib.TOMLDecodeError as error:
        return {"not TOML": str(error)}
    except (OSError, KeyError, TypeError, ValueError):
        return {}


def _entry_points(project: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Entry points by their groups."""
    try:
        return {group: dict(named) for group, named in project["entry-points"].items()}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}
