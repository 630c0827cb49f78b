"""The manifest of a plugin, `plugin.toml`: what it provides, uses, and what it may touch.

Unknown keys are refused with their path, and every right says why it is needed. The kernel reads
`PACKAGE/plugin.toml` without importing anything of the package.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from sagong import forms
from sagong.errors import InvalidArgument, NotFound

__all__ = [
    "EVERY",
    "Capability",
    "Companion",
    "Deputy",
    "DeviceRight",
    "Hears",
    "HookInto",
    "Life",
    "Limits",
    "Listener",
    "Manifest",
    "NetworkRight",
    "PathRight",
    "Plugin",
    "Restart",
    "Rights",
    "Rule",
    "SeccompGroup",
    "Streams",
    "Uses",
    "discover",
    "load",
    "parse",
    "read",
    "size_bytes",
]


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the manifest's tables."""


# What is left out by mistake must not mean all.
Names = Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]


class Plugin(_Table, frozen=True):
    """Who it is. `command` starts a program in another language instead of a Python class."""

    name: str
    version: str
    summary: str
    class_: str = msgspec.field(name="class", default="")
    command: tuple[str, ...] = ()
    kind: Literal["plugin", "service", "hook"] = "plugin"


class Rule(_Table, frozen=True):
    """API objects that a caller of slot `objects` may touch; "*" is all, "" the core group."""

    verbs: Names
    groups: Names
    resources: Names


class Uses(_Table, frozen=True):
    """Calls to a slot: which methods (all if none is named), of which instance.

    Instance "" is the default provider, "*" every one. `optional`: it can do without.
    """

    version: int
    why: str
    instance: str = ""
    methods: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = ()
    slot: str = ""
    optional: bool = False


class Hears(_Table, frozen=True):
    """Events of a slot, of instances as in `Uses`."""

    why: str
    version: int = 1
    instance: str = ""
    optional: bool = False


class Streams(_Table, frozen=True):
    """Byte streams of a slot, whose addresses some other provider hands on."""

    why: str


class HookInto(_Table, frozen=True):
    """What a hook is loaded into: units that fill the slot, or run the service, of the table's key."""

    why: str


class Listener(_Table, frozen=True):
    """A listening socket: `unix:PATH` or `tcp:HOST:PORT`, opened by the kernel, held by the keeper.

    `netlink:PROTOCOL:GROUP` hears what the machine's kernel tells that group (numbers of
    linux/netlink.h). With the address "" it is opened only if the configuration gives it one.
    """

    address: str
    why: str
    mode: str = "0600"
    group: str = ""
    optional: bool = False


# Who of a plugin's two processes has a right, where there is a `[deputy]`.
Holder = Literal["plugin", "deputy", "both"]


class Capability(_Table, frozen=True):
    """A Linux capability, held by the plugin's process, by its deputy's, or by both."""

    name: str
    why: str
    holder: Holder = "plugin"


class NetworkRight(_Table, frozen=True):
    """`host`: the machine's network; `none`: a network namespace without interfaces."""

    mode: Literal["none", "host"] = "none"
    why: str = ""


class PathRight(_Table, frozen=True):
    """A path to read or write; `shared` keeps mount propagation with the machine."""

    path: str
    access: Literal["read", "write"]
    why: str
    shared: bool = False
    optional: bool = False


class DeviceRight(_Table, frozen=True):
    """A device node."""

    path: str
    why: str
    optional: bool = False


class SeccompGroup(_Table, frozen=True):
    """A group of system calls that plugins are denied by default; `holder` as of capabilities."""

    group: str
    why: str
    holder: Holder = "plugin"


class Rights(_Table, frozen=True):
    """All that is granted beyond nothing."""

    capabilities: tuple[Capability, ...] = ()
    network: NetworkRight = NetworkRight()
    paths: tuple[PathRight, ...] = ()
    devices: tuple[DeviceRight, ...] = ()
    seccomp: tuple[SeccompGroup, ...] = ()


# No wait of the kernel's is longer than that, whatever a manifest says.
_DAY = 86_400


class Limits(_Table, frozen=True):
    """Limits of the process: sizes as `64M`, numbers of processes and open files.

    `disk` is for what it keeps in its own directories; "0" for who keeps what users bring. `cpu` is
    how many cores it may use at once; 0 for as many as there are.
    """

    memory: str = "256M"
    pids: Annotated[int, msgspec.Meta(ge=1, le=1 << 22)] = 64
    files: Annotated[int, msgspec.Meta(ge=16, le=1 << 30)] = 4096
    tmp: str = "64M"
    disk: str = "256M"
    cpu: Annotated[float, msgspec.Meta(ge=0, le=1 << 16)] = 1.0


class Restart(_Table, frozen=True):
    """How it is replaced: `overlap` of two generations, bounded by `drain_seconds`.

    One whose start takes longer than `start_seconds` is given up. For `trial_seconds` after a swap its
    predecessor comes back if it dies or is not well.
    """

    overlap: bool = True
    start_seconds: Annotated[float, msgspec.Meta(ge=1, le=_DAY)] = 60.0
    drain_seconds: Annotated[float, msgspec.Meta(ge=0, le=_DAY)] = 10.0
    trial_seconds: Annotated[float, msgspec.Meta(ge=0, le=_DAY)] = 5.0


class Life(_Table, frozen=True):
    """When it runs. `on_demand`: from a call of its slot, or a connection to its listener, until it
    had nothing to do for `idle_seconds`; otherwise always.

    `wakes_on` are keys of [uses] and [hears]: with their providers it leaves word of what it waits for
    before it falls asleep, so they may wake it; and of [listens], for what comes there by itself.
    One that `keeps_time` says until when it may sleep.
    `rouses` are keys of [uses] and [streams]: their providers, which are needed next, wake with it.
    """

    on_demand: bool = False
    wakes_on: tuple[str, ...] = ()
    rouses: tuple[str, ...] = ()
    keeps_time: bool = False
    idle_seconds: Annotated[float, msgspec.Meta(ge=0.1, le=_DAY)] = 60.0

    @property
    def expectant(self) -> bool:
        """It waits for more than calls, and nobody else knows for what: it runs first, sleeps then."""
        return bool(self.wakes_on) or self.keeps_time


class Companion(_Table, frozen=True):
    """A program of this package that runs outside the sandbox, with full rights, beside the plugin.

    `{lean}` before a module and words stands for Python without site packages, executed from a view of
    its file that nobody can write to: the module's `main` is called with the words.
    It outlives a swap. `directory` names the run directory that plugins share who take over from each
    other what such a program keeps there; without it each plugin has its own.
    """

    command: tuple[str, ...]
    why: str
    directory: str = ""


class Deputy(_Table, frozen=True):
    """A function (`module:name`) that runs in a process of its own, inside the sandbox, and holds
    rights instead of the plugin's process (`sagong.deputy`)."""

    function: str
    why: str


class Manifest(_Table, frozen=True):
    """A whole `plugin.toml`."""

    plugin: Plugin
    provides: dict[str, int | tuple[int, ...]] = {}
    uses: dict[str, Uses] = {}
    hears: dict[str, Hears] = {}
    streams: dict[str, Streams] = {}
    listens: dict[str, Listener] = {}
    hooks: dict[str, HookInto] = {}
    rights: Rights = Rights()
    limits: Limits = Limits()
    restart: Restart = Restart()
    life: Life = Life()
    companion: Companion | None = None
    deputy: Deputy | None = None

    def versions(self, slot: str) -> tuple[int, ...]:
        """The versions of a slot's contract that it fills; none if it does not fill the slot."""
        given = self.provides.get(slot, ())
        return (given,) if isinstance(given, int) else given

    def provided(self) -> Iterator[tuple[str, int]]:
        """Each slot and version that it fills."""
        for slot in self.provides:
            for version in self.versions(slot):
                yield slot, version

    def used_slots(self) -> Iterator[tuple[str, Uses]]:
        """Each use with its slot: the table's key, or `slot` where one slot is used twice."""
        for key, use in self.uses.items():
            yield use.slot or key, use


# As an instance: every provider of the slot, those that come later too.
EVERY = "*"

_NAME = re.compile(r"[a-z][a-z0-9_]{0,47}")
_SIZE = re.compile(r"(\d+)([KMG]?)")
_LARGEST = 1 << 50
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def parse(text: str, *, where: str) -> Manifest:
    """Read a manifest's text; every mistake is an `InvalidArgument` with `where`, path and remedy."""
    manifest, problems = read(text)
    if manifest is None or problems:
        raise InvalidArgument(f"{where}: " + "; ".join(problems))
    return manifest


def read(text: str) -> tuple[Manifest | None, list[str]]:
    """A manifest's text, and all mistakes that its form has; keys that nobody knows as they are meant.

    None if it is no manifest then either.
    """
    if text.startswith("\ufeff"):
        return None, ["it begins with a byte order mark, which TOML does not know; save it without"]
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        return None, [f"not TOML: {error}"]
    found, mistakes = forms.decode(tables, Manifest)
    mistakes = [_placed(line) for line in mistakes]
    if found is None:
        return None, mistakes
    return found, [*mistakes, *(p for p in _problems(found) if not forms.about(p, mistakes))]


def _placed(line: str) -> str:
    """What is said of a key of [plugin] that is a table of the manifest's."""
    found = re.match(r"plugin\.(\w+): no such key", line)
    if found and found[1] in Manifest.__struct_fields__:
        return f"plugin.{found[1]}: not in [plugin]; it is a table of its own, [{found[1]}]"
    return line


def _problems(manifest: Manifest) -> Iterator[str]:
    plugin = manifest.plugin
    if not _NAME.fullmatch(plugin.name):
        meant = re.sub(r"[^a-z0-9_]", "_", plugin.name.lower())
        better = f"; say {meant}" if _NAME.fullmatch(meant) else ""
        yield f"plugin.name {plugin.name!r}: lower-case letters, digits and _, at most 48{better}"
    if plugin.class_ and plugin.command:
        yield "plugin: either class (package:Class) or command, not both"
    if not plugin.class_ and not plugin.command:
        yield 'plugin: either class (package:Class) or command (["PROGRAM", "WORD"]) is missing'
    if plugin.class_ and plugin.class_.count(":") != 1:
        package, _, name = plugin.class_.rpartition(".")
        better = f", {package}:{name}" if package and ":" not in plugin.class_ else ""
        yield f"plugin.class {plugin.class_!r}: write it as package:Class{better}"
    if not plugin.summary.strip():
        yield "plugin.summary: say in a line what it does"
    for slot in manifest.provides:
        versions = manifest.versions(slot)
        if not versions or min(versions) < 1 or len(set(versions)) < len(versions):
            yield f"provides.{slot}: a version such as 1, or several such as [1, 2]"
    if bool(manifest.hooks) != (plugin.kind == "hook"):
        yield "plugin.kind hook and the table [hooks.SLOT] go together"
    if plugin.kind == "hook" and _beyond_hooks(manifest):
        yield "a hook has the rights of the unit it is loaded into, and none of its own: leave them out"
    if manifest.deputy is not None and not plugin.class_:
        yield "deputy: only a plugin with a class has one"
    if manifest.deputy is None and any(right.holder != "plugin" for right in held(manifest.rights)):
        yield "rights: a holder other than plugin needs a [deputy]"
    for right in manifest.rights.paths:
        if right.shared and right.access != "write":
            yield f"rights.paths {right.path}: what is shared can't be for reading alone; say write"
    if manifest.life.on_demand and not (manifest.provides or manifest.listens):
        yield "life.on_demand: nothing would wake it, as it provides no slot and listens nowhere"
    if not manifest.life.on_demand and manifest.life != Life():
        yield "life: only what is on_demand leaves when it is idle, and is woken; say on_demand = true"
    waking = manifest.uses.keys() | manifest.hears.keys() | manifest.listens.keys()
    for key in sorted(set(manifest.life.wakes_on) - waking):
        yield f"life.wakes_on: there is no [uses.{key}], [hears.{key}] or [listens.{key}] to wake it"
    for key in sorted(set(manifest.life.rouses) - manifest.uses.keys() - manifest.streams.keys()):
        yield f"life.rouses: there is no [uses.{key}] or [streams.{key}] to wake with it"
    for path, why in _reasons(manifest):
        if len(why.strip()) < 3:
            yield f"{path}.why: say why this right is needed"
    yield from _size_problems(manifest.limits)
    for name, listener in manifest.listens.items():
        # "" is one that only a configuration opens.
        if listener.address.partition(":")[0] not in ("", "unix", "tcp", "udp", "netlink"):
            near = re.fullmatch(r"(?:\w+://)?([^/]*:\d+)/?", listener.address)
            yield (
                f"listens.{name}.address {listener.address}: unix:PATH, tcp:HOST:PORT, udp:HOST:PORT "
                f"or netlink:PROTOCOL:GROUP{f', such as tcp:{near[1]}' if near else ''}"
            )


def _size_problems(limits: Limits) -> Iterator[str]:
    """A tmpfs of size 0 would have no bound at all (tmpfs(5)), no process fits into next to nothing."""
    for key, least in (("memory", "4M"), ("tmp", "4K"), ("disk", "0")):
        text = getattr(limits, key)
        if not _SIZE.fullmatch(text):
            near = re.match(r"\d+[KMG]", text.upper())
            yield f"limits.{key} {text}: a number with K, M or G, such as {near[0] if near else '64M'}"
        elif not size_bytes(least) <= size_bytes(text) <= _LARGEST:
            yield f"limits.{key} {text}: at least {least}, and no more than a petabyte"


def held(rights: Rights) -> tuple[Capability | SeccompGroup, ...]:
    """The rights that one of two processes may have alone."""
    return (*rights.capabilities, *rights.seccomp)


def _beyond_hooks(manifest: Manifest) -> bool:
    tables = (manifest.provides, manifest.uses, manifest.hears, manifest.streams, manifest.listens)
    return any(tables) or manifest.rights != Rights() or bool(manifest.plugin.command)


def _reasons(manifest: Manifest) -> Iterator[tuple[str, str]]:
    for table in ("uses", "hears", "streams", "listens", "hooks"):
        for key, value in getattr(manifest, table).items():
            yield f"{table}.{key}", value.why
    rights = manifest.rights
    for table in ("capabilities", "paths", "devices", "seccomp"):
        for number, value in enumerate(getattr(rights, table)):
            yield f"rights.{table}[{number}]", value.why
    if rights.network.mode != "none":
        yield "rights.network", rights.network.why
    if manifest.companion is not None:
        yield "companion", manifest.companion.why
    if manifest.deputy is not None:
        yield "deputy", manifest.deputy.why


def size_bytes(text: str) -> int:
    """`64M` as bytes."""
    found = _SIZE.fullmatch(text)
    if found is None:
        raise InvalidArgument(f"size {text!r}: a number with K, M or G, such as 64M")
    return int(found[1]) * _UNITS[found[2]]


def load(package: str) -> Manifest:
    """The manifest of an installed package, found without importing it."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise NotFound(f"no package {package}; is the plugin installed?")
    path = Path(spec.submodule_search_locations[0], "plugin.toml")
    try:
        text = path.read_text()
    except FileNotFoundError:
        raise NotFound(f"{path} is missing: {package} is not a sagong plugin") from None
    return parse(text, where=str(path))


def discover() -> dict[str, str]:
    """Installed plugins and services: plugin name to package, by entry points of sagong.plugins."""
    return {point.name: point.value for point in entry_points(group="sagong.plugins")}
