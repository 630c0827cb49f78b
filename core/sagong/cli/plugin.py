"""`sagong plugin install`, `verify` and `remove`: strangers' plugins, in environments of their own."""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Sequence
from importlib.metadata import distributions
from pathlib import Path

from sagong import config, manifest
from sagong.cli.rights import rights_in_words
from sagong.config import Paths
from sagong.contracts.kernel import StatusQuery
from sagong.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    SagongError,
)
from sagong.manifest import Manifest
from sagong.operator import connect
from sagong.shelf import Record, Shelf, digests

__all__ = ["plugin_arguments", "run_plugin"]

# What is being made has one name, so one installation follows the other.
_UNFINISHED, _LOCK = ".unfinished", ".lock"


def plugin_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `plugin`."""
    verbs = parser.add_subparsers(dest="step", required=True, metavar="STEP")
    install = verbs.add_parser("install", help="from a directory or a wheel, or again over the old")
    install.add_argument("source", help="a directory with pyproject.toml or plugin.toml, or a .whl")
    install.add_argument(
        "--companion",
        action="store_true",
        help="allow a program outside the sandbox, with full rights (the manifest's [companion])",
    )
    verify = verbs.add_parser("verify", help="hold installed files against what was installed")
    verify.add_argument("name", nargs="*", help="plugins (default: all)")
    remove = verbs.add_parser("remove", help="take a plugin away that no unit runs")
    remove.add_argument("name", help="as `sagong plugins` names it")


def run_plugin(options: argparse.Namespace) -> int:
    """Do the step."""
    paths = Paths.below(options.root)
    shelf = Shelf(paths)
    if options.step == "install":
        return _install(shelf, options.source, companion=options.companion)
    if options.step == "verify":
        return _verify(shelf, options.name)
    return _remove(paths, shelf, options.name)


def _install(shelf: Shelf, text: str, *, companion: bool) -> int:
    source = Path(text).resolve()
    if not source.exists():
        raise InvalidArgument(f"{text} does not exist; give a directory or a wheel")
    os.umask(0o022)  # the plugin has a user of its own, who is to read it
    shelf.directory.mkdir(parents=True, exist_ok=True)
    with open(shelf.directory / _LOCK, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        home = shelf.place(_UNFINISHED)
        try:
            _make_environment(home)
            _fill(home, source)
            record = _recorded(shelf, home, source, companion=companion)
        except BaseException:
            shutil.rmtree(home, ignore_errors=True)
            raise
        shelf.put(record)
        shutil.rmtree(shelf.directory / _UNFINISHED, ignore_errors=True)
    print(f"{record.name} {record.version} installed, digest {record.digest[:16]}; it may:")
    for line in rights_in_words(record.manifest())[1:]:
        print(f"  {line}")
    print(_next_step(record.manifest()))
    return 0


def _next_step(found: Manifest) -> str:
    name = found.plugin.name
    if found.plugin.kind == "hook":
        into = ", ".join(found.hooks)
        return (
            f'load it: hooks = ["{name}"] below [units.UNIT] in sagong.toml, for units of {into}; '
            "then sagong upgrade kernel, and sagong swap UNIT"
        )
    return f"run it: sagong enable {name}, or sagong swap UNIT {name}"


def _make_environment(home: Path) -> None:
    """A virtual environment without pip, in which the platform's own packages are seen last."""
    _run(sys.executable, "-m", "venv", "--without-pip", str(home))
    own = dict.fromkeys([*_roots(), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
    (_site(home) / "zz-sagong.pth").write_text("".join(f"{path}\n" for path in own))


def _roots() -> list[str]:
    """Where sagong itself lies: its source root, or its site-packages."""
    import sagong

    return [str(Path(next(iter(sagong.__path__))).parent)]


def _site(home: Path) -> Path:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return home / "lib" / version / "site-packages"


def _fill(home: Path, source: Path) -> None:
    """The plugin and its dependencies; a directory without pyproject.toml is copied as it is."""
    if source.is_dir() and not (source / "pyproject.toml").exists():
        _copy(_site(home), source)
    elif source.is_dir() or source.suffix == ".whl":
        pip = [sys.executable, "-m", "pip", "--python", f"{home}/bin/python", "install", "--quiet"]
        print(
            f"{source}: pip builds it, and asks its index for what that and the plugin need",
            flush=True,
        )
        _run(*pip, "--disable-pip-version-check", "--no-input", "--compile", str(source))
    else:
        raise InvalidArgument(f"{source} is neither a directory nor a wheel (.whl)")


def _copy(site: Path, source: Path) -> None:
    packages = [source] if (source / "plugin.toml").exists() else _packages(source)
    if not packages:
        raise InvalidArgument(
            f"{source}: neither pyproject.toml nor a package with plugin.toml; "
            "`sagong new-plugin` makes one that is whole"
        )
    for package in packages:
        ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
        shutil.copytree(package, site / package.name, symlinks=True, ignore=ignored)
    _run(sys.executable, "-m", "compileall", "-q", str(site))


def _packages(directory: Path) -> list[Path]:
    return sorted(path.parent for path in directory.glob("*/plugin.toml"))


def _run(*command: str) -> None:
    # pip's children read its settings from here: where no index answers, that is told soon.
    environment = {"PIP_RETRIES": "1", "PIP_DEFAULT_TIMEOUT": "5", **os.environ}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        said = reason(f"{done.stdout}\n{done.stderr}")
        raise FailedPrecondition(f"{' '.join(command[:4])} … failed: {said}")


def reason(said: str) -> str:
    """Of all that a failed pip has said, what went wrong: its errors and those of its children.

    That an index does not answer is a warning to pip; the error is then only that nothing was found.
    """
    lines = [line.strip(" │╰─>×") for line in said.splitlines()]
    found = list(dict.fromkeys(line for line in lines if line.startswith("ERROR: ")))
    if "connection broken by" in said:
        found.append("its index does not answer: PIP_INDEX_URL and PIP_FIND_LINKS name another one")
    return "; ".join(found or [line for line in lines if line][-4:])


def _recorded(shelf: Shelf, home: Path, source: Path, *, companion: bool) -> Record:
    """What came into the environment, checked, at its final place."""
    package = _plugin_package(_site(home), source)
    found = manifest.parse((package / "plugin.toml").read_text(), where=f"{package}/plugin.toml")
    _check(found, package, companion=companion)
    final = shelf.place(found.plugin.name)
    home.rename(final)
    return Record(
        name=found.plugin.name,
        version=found.plugin.version,
        package=package.name,
        home=str(final),
        directory=str(final / package.relative_to(home)),
        source=str(source),
        installed=time.time(),
        files=digests(final),
    )


def _plugin_package(site: Path, source: Path) -> Path:
    named = [
        site / point.value.partition(":")[0].replace(".", "/")
        for distribution in distributions(path=[str(site)])
        for point in distribution.entry_points.select(group="sagong.plugins")
    ]
    found = sorted(set(named)) or _packages(site)
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise InvalidArgument(
            f"{source} brings {len(found)} plugins ({names}); install one at a time: "
            "a package with plugin.toml, named by the entry point group sagong.plugins"
        )
    return found[0]


def _check(found: Manifest, package: Path, *, companion: bool) -> None:
    name = found.plugin.name
    if name in manifest.discover():
        raise AlreadyExists(f"{name} is a plugin of sagong itself; give yours another plugin.name")
    if found.companion is not None and not companion:
        raise FailedPrecondition(
            f"{name} wants a companion outside the sandbox ({found.companion.why}); "
            "if you trust it with full rights, install it with --companion"
        )
    module = found.plugin.class_.partition(":")[0]
    if module and module.partition(".")[0] != package.name:
        raise InvalidArgument(f"plugin.class {found.plugin.class_}: the package is {package.name}")


def _verify(shelf: Shelf, names: Sequence[str]) -> int:
    records = shelf.records()
    for name in names:
        if name not in records:
            raise shelf.lacks(name)
    wrong = 0
    if not records:
        print("no plugin was installed here")
    for name in names or records:
        try:
            shelf.verify(records[name])
            print(f"{name} {records[name].version}: {len(records[name].files)} files as installed")
        except FailedPrecondition as error:
            print(error)
            wrong += 1
    return 1 if wrong else 0


def _remove(paths: Paths, shelf: Shelf, name: str) -> int:
    users = asyncio.run(_units_of(paths, name))
    if loaded := _units_with(paths, name):
        raise FailedPrecondition(
            f"{name} is a hook of {', '.join(loaded)}; first take it out of `hooks` in sagong.toml, "
            f"then `sagong upgrade kernel` and `sagong swap {loaded[0]}`"
        )
    if users:
        raise FailedPrecondition(
            f"{name} runs in {', '.join(users)}; first `sagong disable` or `sagong swap` that"
        )
    shelf.remove(name)
    print(f"{name} removed; its data stays in {paths.data}/plugins")
    return 0


def _units_with(paths: Paths, name: str) -> list[str]:
    """Configured units that would not start without a hook."""
    try:
        units = config.load(paths).units
    except SagongError:
        return []  # nothing can be started by it, with or without the hook
    return [unit for unit, wanted in units.items() if name in wanted.hooks and wanted.enabled]


async def _units_of(paths: Paths, name: str) -> list[str]:
    """Units that a plugin fills now; none where nothing runs."""
    try:
        async with connect(paths) as operator:
            status = await operator.kernel.status(StatusQuery())
    except NotFound:
        return []
    return [unit.name for unit in status.units if unit.plugin == name]
