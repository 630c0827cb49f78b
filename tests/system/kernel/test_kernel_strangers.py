"""Plugins of others: installed into environments of their own, pinned, run, replaced, removed."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from sagong.contracts.scheduler import Question, Scheduler
from sagong.operator import connect
from tests.system.instance import REPOSITORY, Instance, environment, instance

pytestmark = pytest.mark.root

PERL = REPOSITORY / "examples/02-scheduler-in-perl"
CONFIGURATION = """
profile = "bare"
[units.scheduler]
plugin = "scheduler_binpack"
"""
CLASS = '''
import own_ordering
from sagong.contracts.scheduler import Placement, Question, Verdict
import msgspec

class Last:
    """Every pod to the last node, by a library that only this plugin has."""

    def __init__(self, host):
        host.log.info("%s", own_ordering.__version__)

    def place(self, question):
        names = [msgspec.json.decode(node)["metadata"]["name"] for node in question.nodes]
        metas = [msgspec.json.decode(pod)["metadata"] for pod in question.pods]
        node = own_ordering.last(names)
        return Verdict(
            placements=tuple(Placement(namespace="", name=m["name"], node=node) for m in metas)
        )
'''
MANIFEST = """
[plugin]
name = "scheduler_last"
version = "{version}"
summary = "every pod to the last node"
class = "scheduler_last:Last"
[provides]
scheduler = 1
"""


def wheel(directory: Path, name: str, version: str, files: dict[str, str], more: str = "") -> Path:
    """A wheel by hand, as the specification of binary distributions has it."""
    path = directory / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    head = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{more}"
    contents = {
        **files,
        f"{info}/METADATA": head,
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{file},,\n" for file in contents) + f"{info}/RECORD,,\n"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in {**contents, f"{info}/RECORD": record}.items():
            archive.writestr(file, text)
    return path


def plugin_wheel(directory: Path, version: str = "1.0") -> Path:
    """A scheduler with a dependency of its own, which lies beside it."""
    ordering = "__version__ = '3.1'\ndef last(names):\n    return max(names)\n"
    wheel(directory, "own_ordering", "3.1", {"own_ordering.py": ordering})
    files = {
        "scheduler_last/__init__.py": CLASS,
        "scheduler_last/plugin.toml": MANIFEST.format(version=version),
        f"scheduler_last-{version}.dist-info/entry_points.txt": (
            "[sagong.plugins]\nscheduler_last = scheduler_last\n"
        ),
    }
    needs = "Requires-Dist: own_ordering>=3\nRequires-Dist: sagong\n"
    return wheel(directory, "scheduler_last", version, files, needs)


@pytest.fixture(scope="module")
def running() -> Iterator[Instance]:
    """A kernel with one scheduler."""
    with instance(CONFIGURATION) as found:
        found.wait_ready()
        yield found


def command(running: Instance, *words: str, links: Path | None = None) -> str:
    """The command line, which finds wheels only in `links`; standard output and error."""
    if words[0] == "swap":
        words += ("--trial", "0")  # else a kill within the trial brings the old one back
    done = subprocess.run(
        [sys.executable, "-m", "sagong.cli", "--root", str(running.root), *words],
        env={**environment(), "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(links or "/nonexistent")},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    return done.stdout + done.stderr


def place(running: Instance) -> list[str]:
    """Nodes for two pods, asked of whoever fills slot scheduler."""

    async def ask() -> list[str]:
        async with connect(running.paths) as operator:
            scheduler = await operator.use(Scheduler)
            allocatable = {"cpu": "4", "memory": "4Gi", "pods": "10"}
            nodes = tuple(
                msgspec.json.encode(
                    {"metadata": {"name": name}, "status": {"allocatable": allocatable}}
                )
                for name in ("alpha", "omega")
            )
            container = {"name": "c", "resources": {"requests": {"cpu": "1"}}}
            pods = tuple(
                msgspec.json.encode(
                    {"metadata": {"name": name}, "spec": {"containers": [container]}}
                )
                for name in ("p", "q")
            )
            verdict = await scheduler.place(Question(pods=pods, nodes=nodes))
            return [placement.node for placement in verdict.placements]

    return asyncio.run(ask())


def test_a_wheel_with_dependencies_of_its_own_runs(running: Instance, tmp_path: Path) -> None:
    said = command(running, "plugin", "install", str(plugin_wheel(tmp_path)), links=tmp_path)
    assert "scheduler_last 1.0 installed, digest" in said, said
    assert "provides scheduler/1" in said
    listed = command(running, "plugins")
    assert "shelf" in next(x for x in listed.splitlines() if x.startswith("scheduler_last"))
    tried = command(
        running, "swap", "--dry-run", "scheduler", "last", "--only", "empty_question_is_answered"
    )
    assert "in its sandbox" in tried and "scheduler: conforms" in tried, tried
    assert "generation" in command(running, "swap", "scheduler", "last")
    assert place(running) == ["omega", "omega"]
    with pytest.raises(ModuleNotFoundError):
        __import__("own_ordering")  # it is in the plugin's environment alone


def test_a_new_version_is_installed_over_the_old_one(running: Instance, tmp_path: Path) -> None:
    said = command(running, "plugin", "install", str(plugin_wheel(tmp_path, "1.1")), links=tmp_path)
    assert "scheduler_last 1.1 installed" in said, said
    assert "serves after" in command(running, "swap", "scheduler")
    assert place(running) == ["omega", "omega"]
    homes = [p for p in (running.paths.data / "shelf/scheduler_last").iterdir() if p.is_dir()]
    assert len(homes) == 1


def test_what_was_changed_is_not_started(running: Instance) -> None:
    package = next((running.paths.data / "shelf/scheduler_last").rglob("scheduler_last"))
    source = package / "__init__.py"
    genuine = source.read_text()
    source.write_text(genuine + "\n")
    assert "was changed" in command(running, "swap", "scheduler")
    assert place(running) == ["omega", "omega"], "the old one serves on"
    os.kill(running.pid("scheduler"), 9)
    assert "was changed; install it again" in _problem(running)
    assert "was changed" in command(running, "plugin", "verify")
    assert "was changed" in command(running, "check")
    source.write_text(genuine)
    command(running, "restart", "scheduler")
    running.wait_ready()
    (package / "extra.py").write_text("")
    assert "extra.py is new" in command(running, "plugin", "verify")
    (package / "extra.py").unlink()


def _problem(running: Instance) -> str:

    limit = time.monotonic() + 60
    while not (problem := running.status().units[0].problem).startswith("plugin"):
        assert time.monotonic() < limit, problem
        time.sleep(0.05)
    return problem


def test_a_plugin_in_use_stays(running: Instance) -> None:
    assert "runs in scheduler" in command(running, "plugin", "remove", "scheduler_last")
    assert "serves after" in command(running, "swap", "scheduler", "binpack")
    assert "removed" in command(running, "plugin", "remove", "scheduler_last")
    assert not (running.paths.data / "shelf/scheduler_last").exists()
    assert "was not installed" in command(running, "plugin", "remove", "scheduler_last")


def test_a_package_without_entry_points_is_rehearsed(running: Instance, tmp_path: Path) -> None:
    """Installed from its directory, without a name that begins as the platform's own do."""
    command(running, "new-plugin", "scheduler", "plain", "--directory", str(tmp_path))
    assert "installed" in command(running, "plugin", "install", str(tmp_path / "plain/plain"))
    words = ("swap", "--dry-run", "scheduler", "plain", "--only", "fits_exactly")
    tried = command(running, *words)
    assert "in its sandbox" in tried and "scheduler: conforms" in tried, tried
    assert "removed" in command(running, "plugin", "remove", "plain")


@pytest.mark.skipif(shutil.which("perl") is None, reason="needs perl")
def test_a_plugin_in_perl_serves_from_its_sandbox(running: Instance) -> None:
    said = command(running, "plugin", "install", str(PERL))
    assert "scheduler_perl 0.1.0 installed" in said, said
    tried = command(running, "swap", "--dry-run", "scheduler", "perl", "--only", "fits_exactly")
    assert "on a platform of its own" in tried and "scheduler: conforms" in tried, tried
    assert "serves after" in command(running, "swap", "scheduler", "perl")
    assert place(running) == ["alpha", "omega"]
    status = Path(f"/proc/{running.pid('scheduler')}/status").read_text()
    assert "NoNewPrivs:\t1" in status
    assert "CapEff:\t0000000000000000" in status
    os.kill(running.pid("kernel"), 9)
    running.wait_ready()
    assert place(running) == ["alpha", "omega"], "adopted by the kernel's successor"
    assert "serves after" in command(running, "swap", "scheduler")
    assert "serves after" in command(running, "swap", "scheduler", "binpack")


def test_a_socket_that_nobody_else_could_connect_to_is_refused(
    running: Instance, tmp_path: Path
) -> None:
    """Found by a program in Ruby: it served the operator, who is root, and no other."""
    shutil.copytree(PERL, tmp_path / "shut")
    for path in tmp_path.glob("shut/*/Plugin.pm"):
        path.write_text(path.read_text().replace("chmod 0666, $self->{launch}{bus};", ""))
    for path in tmp_path.glob("shut/*/plugin.toml"):
        path.write_text(path.read_text().replace("scheduler_perl", "scheduler_shut"))
    assert "installed" in command(running, "plugin", "install", str(tmp_path / "shut"))
    assert "chmod it 0666" in command(running, "swap", "scheduler", "shut")
    assert place(running), "the old one serves on"
    command(running, "plugin", "remove", "scheduler_shut")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "neither pyproject.toml nor a package with plugin.toml"),
        ({"a/plugin.toml": "x ="}, "not TOML"),
        ({"a/plugin.toml": MANIFEST.format(version=1), "a/__init__.py": ""}, "the package is a"),
        (
            {
                "sagong_kube/plugin.toml": MANIFEST.format(version=1)
                .replace("scheduler_last:Last", "sagong_kube:K")
                .replace("scheduler_last", "kube")
            },
            "is a plugin of sagong itself",
        ),
        (
            {
                "scheduler_last/plugin.toml": MANIFEST.format(version=1)
                + '[companion]\ncommand = ["x"]\nwhy = "wants everything"\n'
            },
            "--companion",
        ),
    ],
)
def test_what_can_not_be_installed_is_refused_and_leaves_nothing(
    running: Instance, tmp_path: Path, files: dict[str, str], said: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    before = sorted((running.paths.data / "shelf").rglob("record.json"))
    assert said in command(running, "plugin", "install", str(tmp_path))
    assert sorted((running.paths.data / "shelf").rglob("record.json")) == before
    assert not list((running.paths.data / "shelf").glob(".unfinished/*"))
