"""`sagong new-plugin SLOT NAME`: a repository with manifest, code, tests and README that is whole."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Iterator
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import Any

from sagong.contract import Message, MethodSpec, SlotSpec, slot_of
from sagong.contracts import protocols
from sagong.errors import AlreadyExists, InvalidArgument, NotFound

__all__ = ["new_plugin_arguments", "run_new_plugin"]

_LIFE = {
    *("imports", "restore", "start", "drain", "health", "export", "stop", "busy", "doze"),
    *("tidy", "purge"),
}
_ALL_OBJECTS = 'rules = [{ verbs = ["*"], groups = ["*"], resources = ["*"] }]\n'
_SETTINGS = (
    "",
    "",
    "class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):",
    '    """`inner`: the instance that it stands before; by default the one without a name."""',
    "",
    '    inner: str = ""',
)
_BEHIND = (
    "        self._behind = host.config(Settings).inner",
    "        if self._behind == host.instance:",
    '            raise InvalidArgument("it stands before itself: give it an --instance, or set inner")',
)
# Slots of which no provider is without an instance's name.
_NAMED = {"state": "local"}
_NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*")


def new_plugin_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `new-plugin`."""
    parser.add_argument("slot", help="the slot that it fills: scheduler, state, image, …")
    parser.add_argument("name", help="its name, such as my-scheduler")
    parser.add_argument("--directory", default=".", help="where to make its directory")
    parser.add_argument("--summary", default="", help="what it does, in a line")


def run_new_plugin(options: argparse.Namespace) -> int:
    """Write the repository."""
    if not _NAME.fullmatch(options.name) or len(options.name) > 48:
        raise InvalidArgument(
            f"name {options.name!r}: lower-case letters, digits, - and _, a letter first, at most 48"
        )
    spec = _slot(options.slot)
    target = Path(options.directory, options.name)
    if target.exists():
        raise AlreadyExists(f"{target} exists already; choose another name or --directory")
    for path, text in _repository(spec, options.name, options.summary).items():
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        (target / path).write_text(text)
    python = f"{shlex.quote(sys.executable)} -m"
    first = "" if find_spec("pytest") else f"{python} pip install pytest && "
    there = shlex.quote(str(target))
    print(f"{target}: a plugin for slot {spec.name}; next: {first}cd {there} && {python} pytest")
    return 0


def _slot(name: str) -> SlotSpec:
    known = {slot_of(p).name: slot_of(p) for p in protocols()}
    if name not in known or name == "kernel":
        names = ", ".join(sorted(known.keys() - {"kernel"}))
        raise NotFound(f"no slot {name}; there are {names}")
    return known[name]


def _repository(spec: SlotSpec, distribution: str, summary: str) -> dict[str, str]:
    name = distribution.replace("-", "_")
    own = spec.name == "scheduler"
    said = summary or (
        "each pod to the node with most room"
        if own
        else f"stands before a provider of slot {spec.name} and hands every call on"
    )
    values = {
        "distribution": distribution,
        "name": name,
        "class": "".join(word.capitalize() for word in name.split("_")),
        "slot": spec.name,
        "version": str(spec.version),
        "protocol": spec.protocol.__name__,
        "module": spec.protocol.__module__,
        "summary": said,
        "hears": _hears(spec),
        # Who hands on whatever comes touches every object.
        "rules": _ALL_OBJECTS if spec.name == "objects" else "",
        "unit": "scheduler" if own else name,
        "run": f"sagong swap scheduler {name}" if own else _enabling(spec, name),
    }
    kind = "scheduler" if own else "forward"
    return {
        "pyproject.toml": _filled("pyproject.toml", values),
        "README.md": _filled("README.md", values),
        ".gitignore": _filled("gitignore", values),
        f"{name}/plugin.toml": _filled(f"{kind}.toml", values),
        f"{name}/__init__.py": _filled("scheduler.py", values) if own else _forwarder(spec, values),
        f"tests/test_{name}.py": _filled(f"{kind}_test.py", values),
    }


def _enabling(spec: SlotSpec, name: str) -> str:
    """The command that runs it beside the provider that it stands before."""
    inner = _NAMED.get(spec.name, "")
    before = f" --set inner={inner}" if inner else ""
    return (
        f"sagong enable {name} --instance outer{before}    # it stands before the provider "
        f"{inner or 'without a name'}; --set inner=NAME: before another"
    )


def _filled(template: str, values: dict[str, str]) -> str:
    text = files("sagong.templates").joinpath(f"{template}.in").read_text()
    return Template(text).substitute(values)


def _hears(spec: SlotSpec) -> str:
    if not spec.events:
        return ""
    return (
        f'[hears.{spec.name}]\nversion = {spec.version}\ninstance = "*"\n'
        'why = "hands its events on"\n\n'
    )


def _forwarder(spec: SlotSpec, values: dict[str, str]) -> str:
    return "\n".join([*_head(spec, values), *_class(spec, values), ""])


def _head(spec: SlotSpec, values: dict[str, str]) -> Iterator[str]:
    yield f'"""Slot `{spec.name}`: {values["summary"]}."""'
    yield ""
    yield "from __future__ import annotations"
    yield ""
    if any(method.stream for method in spec.methods.values()):
        yield "from collections.abc import AsyncIterator"
        yield ""
    yield from ("import msgspec", "")
    by_module = {"sagong.host": {"Host"}, "sagong.errors": {"InvalidArgument"}}
    for kind in _messages(spec):
        by_module.setdefault(kind.__module__, set()).add(kind.__name__)
    for module, names in sorted(by_module.items()):
        ordered = sorted(names, key=str.lower)
        line = f"from {module} import {', '.join(ordered)}"
        if len(line) <= 100:
            yield line
        else:
            yield from (f"from {module} import (", *(f"    {n}," for n in ordered), ")")
    yield ""
    yield f'__all__ = ["{values["class"]}"]'


def _messages(spec: SlotSpec) -> Iterator[type]:
    yield spec.protocol
    yield from spec.events
    for method in spec.methods.values():
        for kind in (method.request, method.result):
            if isinstance(kind, type) and issubclass(kind, Message):
                yield kind


def _class(spec: SlotSpec, values: dict[str, str]) -> Iterator[str]:
    """The plugin's class; a slot with methods named as steps of a plugin's life has them apart."""
    yield from _SETTINGS
    apart = bool(_LIFE & spec.methods.keys())
    if apart:
        yield from ("", "", "class Methods:")
        yield f'    """The methods of slot `{spec.name}`; what is not changed goes on as it came."""'
        yield from ("", f"    def __init__(self, inner: {spec.protocol.__name__}) -> None:")
        yield "        self._inner = inner"
        yield from _methods(spec)
    yield from ("", "", f"class {values['class']}:")
    yield f'    """Fills slot `{spec.name}`. Change what it is for; the rest goes on as it came."""'
    yield from ("", "    def __init__(self, host: Host) -> None:", "        self._host = host")
    yield from _BEHIND
    inner = f"host.use({spec.protocol.__name__}, self._behind)"
    yield (
        f"        self.implementation = Methods({inner})"
        if apart
        else f"        self._inner = {inner}"
    )
    yield from _events(spec)
    if not apart:
        yield from _methods(spec)


def _events(spec: SlotSpec) -> Iterator[str]:
    if not spec.events:
        return
    yield from ("", "    async def start(self) -> None:", '        """Hand events on."""')
    for event in spec.events:
        name = event.__name__
        yield f'        self._host.spawn(self._hand_on({name}), "events {name}")'
    yield from ("", "    async def _hand_on(self, kind: type) -> None:")
    yield f"        async for event in self._host.hear({spec.protocol.__name__}, kind, self._behind):"
    yield from ("            if event is not None:", "                self._host.emit(event)")


def _methods(spec: SlotSpec) -> Iterator[str]:
    for method in spec.methods.values():
        yield ""
        yield from _method(method)


def _method(method: MethodSpec) -> Iterator[str]:
    parameter = f", {method.parameter}: {_name(method.request)}" if method.parameter else ""
    call = f"self._inner.{method.name}({method.parameter or ''})"
    if method.stream:
        result = f"AsyncIterator[{_name(method.result)}]"
        yield f"    def {method.name}(self{parameter}) -> {result}:"
        yield f"        return {call}"
    else:
        yield f"    async def {method.name}(self{parameter}) -> {_name(method.result)}:"
        yield f"        return await {call}"


def _name(kind: Any) -> str:
    return "None" if kind is type(None) else str(kind.__name__)
