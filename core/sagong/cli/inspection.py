"""`sagong status`, `plugins`, `contracts` and `check`."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from sagong import config, contracts, forms, manifest
from sagong.cli.checking import address_mistakes, mistakes, packages_of, source_mistakes
from sagong.cli.machine import lacks
from sagong.cli.rights import rights_in_words
from sagong.cli.settings import setting_mistakes
from sagong.cli.sources import near
from sagong.config import Paths
from sagong.contract import schema, slot_of
from sagong.contracts.kernel import (
    ProcessReport,
    ProcessStatus,
    ReportQuery,
    StatusQuery,
    SystemReport,
    SystemStatus,
    UnitStatus,
)
from sagong.errors import NotFound, SagongError
from sagong.fitting import misfits
from sagong.manifest import Manifest
from sagong.operator import connect
from sagong.sandbox import companions, effective
from sagong.shelf import Record, Shelf

__all__ = [
    "age",
    "check_arguments",
    "contracts_arguments",
    "plugins_arguments",
    "run_check",
    "run_contracts",
    "run_plugins",
    "run_status",
    "status_arguments",
]


def status_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `status`."""
    parser.add_argument("--json", action="store_true", help="for programs")


def plugins_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `plugins`."""
    parser.add_argument(
        "name",
        nargs="*",
        metavar="[show] NAME",
        help="one plugin: its manifest in words, and what its processes really have",
    )


def contracts_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `contracts`."""
    parser.add_argument("slot", nargs="?", default="", help="only this slot")
    parser.add_argument("--json", action="store_true", help="JSON Schema")


def check_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `check`."""
    parser.add_argument(
        "source",
        nargs="*",
        help="plugins that are not installed yet: packages, or their repositories (default: all "
        "that is installed, and the configuration)",
    )
    parser.add_argument(
        "--profile", default="", help="check the configuration over this one instead of its own"
    )


def run_status(options: argparse.Namespace) -> int:
    """Print a table, or JSON; status 1 while not everything serves."""
    status, report = asyncio.run(_status(Paths.below(options.root)))
    if options.json:
        print(msgspec.json.encode(status).decode())
    else:
        _print_status(status, report)
    return 0 if status.ready else 1


async def _status(paths: Paths) -> tuple[SystemStatus, SystemReport]:
    async with connect(paths) as operator:
        kernel = operator.kernel
        report = await kernel.report(ReportQuery())
        return await kernel.status(StatusQuery(memory=True)), report


def _print_status(status: SystemStatus, report: SystemReport) -> None:
    down = [unit.name for unit in status.units if unit.state == "down"]
    word = "ready" if status.ready else "not ready"
    word = f"degraded, without {', '.join(down)}" if down else word
    print(f"sagong {status.version}, profile {status.profile}: {word}")
    rows: list[tuple[str, ...]] = [
        ("UNIT", "PLUGIN", "STATE", "GEN", "PID", "UP", "PSS MB", "RESTARTS", "CALLS", "ERRORS")
    ]
    counts = {p.pid: p for p in report.processes}
    total = 0
    for unit in status.units:
        for process in unit.processes or (None,):
            total += process.memory if process else 0
            row = _row(unit.name, unit.plugin, unit.state, process, str(unit.restarts))
            row = (*row[:2], _word(unit, process, row[2]), *row[3:])
            rows.append((*row, *_counts(counts.get(process.pid) if process else None)))
    for process in status.others:
        total += process.memory
        row = _row(process.unit, "", process.state, process, "")
        rows.append((*row, *_counts(counts.get(process.pid))))
    _print_table(rows)
    print(f"{total / 1e6:.1f} MB in all")
    for told in report.processes:
        for trouble in told.troubles:
            print(f"{told.unit}: {trouble}")
    for name in report.silent:
        print(f"{name}: its process does not answer")
    for unit in status.units:
        if unit.problem:
            print(f"{unit.name}: {unit.problem}")
        for lack in unit.lacks:
            print(lack)
        if unit.trial:
            print(
                f"{unit.name}: {unit.plugin} is on trial for {unit.trial_seconds:.1f} s more; "
                f"if it fails, {unit.trial} comes back"
            )


def _word(unit: UnitStatus, process: ProcessStatus | None, stage: str) -> str:
    return "on trial" if process and unit.trial and stage == "serving" else stage


def _counts(report: ProcessReport | None) -> tuple[str, str]:
    """Calls and errors; of a process that reports nothing, nothing."""
    if report is None:
        return "", ""
    methods = report.methods
    return str(sum(m.calls for m in methods)), str(sum(m.errors for m in methods))


def _row(
    name: str, plugin: str, state: str, process: ProcessStatus | None, restarts: str
) -> tuple[str, ...]:
    if process is None:
        return (name, plugin, state, "", "", "", "", restarts)
    return (
        name,
        process.plugin or plugin,
        process.state,
        str(process.generation or ""),
        str(process.pid),
        age(time.time() - process.started),
        f"{process.memory / 1e6:.1f}",
        restarts,
    )


def age(seconds: float) -> str:
    """How long something has been there, in its largest unit of which there are two at least."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds // size:.0f}{unit}"
    return f"{max(seconds, 0):.0f}s"


def _print_table(rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def run_plugins(options: argparse.Namespace) -> int:
    """List installed plugins, or show one's manifest line by line."""
    shelf = Shelf(Paths.below(options.root))
    records = shelf.records()
    installed = {name: manifest.load(package) for name, package in manifest.discover().items()}
    for name, record in records.items():
        try:
            installed[name] = record.manifest()
        except SagongError as error:
            print(error, file=sys.stderr)  # the others are there all the same
    words = options.name[1:] if options.name[:1] == ["show"] else options.name
    if not words:
        _print_installed(installed, records)
    for name in words:
        if name not in installed:
            raise NotFound(f"no plugin {name}; see `sagong plugins`")
        for line in rights_in_words(installed[name]):
            print(line)
        _print_effective(Paths.below(options.root), name)
    return 0


def _print_installed(installed: dict[str, Manifest], records: dict[str, Record]) -> None:
    rows = [("NAME", "KIND", "VERSION", "PROVIDES", "FROM", "SUMMARY")]
    for name, found in sorted(installed.items()):
        provides = " ".join(f"{slot}/{v}" for slot, v in found.provided())
        plugin = found.plugin
        place = f"shelf {records[name].digest[:12]}" if name in records else "sagong"
        rows.append((name, plugin.kind, plugin.version, provides, place, plugin.summary))
    _print_table(rows)


def _title(pid: int) -> str:
    """What a process calls itself."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()


def _print_effective(paths: Paths, name: str) -> None:
    """The sandbox of each of the plugin's processes, read back from the operating system."""
    if os.geteuid() != 0:
        print("what its processes really have is shown to root")
        return
    try:
        status, _ = asyncio.run(_status(paths))
    except SagongError:
        print("nothing runs here now: the above is what it would get")
        return
    running = [p for unit in status.units for p in unit.processes if p.plugin == name]
    for process in running:
        print(f"\nunit {process.unit}, generation {process.generation}, {process.state}:")
        try:
            print(effective(process.pid).describe())
            for pid in companions(process.pid):
                print(f"\nbeside it, {_title(pid)}:")
                print(effective(pid).describe())
        except OSError as error:
            print(f"pid {process.pid}: {error.strerror}")
    if not running:
        print("it does not run now: the above is what it would get")


def run_contracts(options: argparse.Namespace) -> int:
    """Print all contracts."""
    found = [p for p in contracts.protocols() if options.slot in ("", slot_of(p).name)]
    if not found:
        raise NotFound(
            f"the platform has no contract {options.slot}: `sagong contracts` lists those that it has, "
            "one that a plugin brings is in its package"
        )
    if options.json:
        print(json.dumps([schema(protocol) for protocol in found], indent=2))
        return 0
    rows = [("METHOD", "REQUEST", "RESULT", "REPEATABLE")]
    for protocol in found:
        for method in slot_of(protocol).methods.values():
            result = _name(method.result)
            rows.append(
                (
                    method.wire_name,
                    _name(method.request),
                    f"stream of {result}" if method.stream else result,
                    "yes" if method.mark.idempotent else "no",
                )
            )
    _print_table(rows)
    return 0


def _name(kind: Any) -> str:
    return "" if kind is type(None) else kind.__name__


def run_check(options: argparse.Namespace) -> int:
    """Check configuration, manifests and machine; each problem on a line of its own."""
    if options.source:
        return _check_sources(options.source)
    paths = Paths.below(options.root)
    problems: list[str] = []
    installed: dict[str, Manifest] = {}
    for name, package in manifest.discover().items():
        try:
            installed[name] = manifest.load(package)
        except SagongError as error:
            problems.append(str(error))
    own: dict[str, set[str]] = {}
    for record in _shelved(Shelf(paths), problems):
        installed[record.name] = record.manifest()
        own[record.name] = record.contracts()
    for name, found in installed.items():
        problems += [f"plugin {name}: {text}" for text in mistakes(found, own.get(name, ()))]
    problems += _configuration_problems(paths, options.profile, installed)
    for problem in problems:
        print(problem)
    print(_checked(len(installed), len(problems)))
    return 1 if problems else 0


def _checked(plugins: int, problems: int) -> str:
    """How many of each, in words."""
    ending = (
        "no problem" if problems == 0 else "1 problem" if problems == 1 else f"{problems} problems"
    )
    return f"{'1 plugin' if plugins == 1 else f'{plugins} plugins'} checked, {ending}"


def _check_sources(sources: Sequence[str]) -> int:
    """Check plugins that are not installed yet."""
    found = [text for source in sources for text in source_mistakes(Path(source))]
    for text in found:
        print(text)
    count = sum(len(packages_of(Path(source))) for source in sources)
    print(_checked(count, len(found)))
    return 1 if found else 0


def _shelved(shelf: Shelf, problems: list[str]) -> Iterator[Record]:
    """Installed plugins that are whole; what is wrong with the others goes to `problems`."""
    for path in sorted(shelf.directory.glob("*/record.json")):
        try:
            record = shelf.find(path.parent.name)
            if record is not None:
                shelf.verify(record)
                record.manifest()
                yield record
        except SagongError as error:
            problems.append(str(error))


def _installed(name: str, installed: dict[str, Manifest]) -> Manifest:
    if name not in installed:
        raise NotFound(f"no plugin {name} is installed")
    return installed[name]


def _configuration_problems(
    paths: Paths, profile: str, installed: dict[str, Manifest]
) -> list[str]:
    """What is wrong in its form, what else is in what was probably meant, what the machine lacks."""
    try:
        chosen, mistakes = config.look(paths, profile)
    except SagongError as error:
        return [str(error)]
    told = [line for lines in mistakes.values() for line in lines]
    more = [line for line in _unit_problems(chosen, installed) if not forms.about(line, told)]
    written = [f"{file}: {line}" for file, lines in mistakes.items() for line in lines]
    return [*written, *more, *lacks(chosen.running())]


def _unit_problems(chosen: config.Config, installed: dict[str, Manifest]) -> list[str]:
    units = chosen.running()
    plugins = {name: unit.plugin_of(name) for name, unit in units.items()}
    own = manifest.discover()
    problems = [
        f"units.{name}: no plugin {plugin} is installed; {near(plugin, installed)}"
        for name, plugin in plugins.items()
        if plugin not in installed
    ]
    for name, unit in units.items():
        found = installed.get(plugins[name])
        if found is not None:
            problems += misfits(name, unit, found, lambda hook: _installed(hook, installed))
            problems += address_mistakes(f"units.{name}.listens", unit.listens)
            # Those of others are not imported: that would run them, outside of their sandboxes.
            if package := own.get(plugins[name]):
                problems += setting_mistakes(name, unit.settings, package)
    provided = {
        (slot, version)
        for plugin in plugins.values()
        if (found := installed.get(plugin))
        for slot, version in found.provided()
    }
    for name, plugin in plugins.items():
        found = installed.get(plugin)
        for slot, use in found.used_slots() if found else ():
            if (slot, use.version) not in provided and not use.optional:
                problems.append(
                    f"units.{name}: nothing provides {slot}/{use.version}, which it calls"
                )
    return problems
