"""Docker's own clients that are plugins of its command line: where they are, and one in use.

They are found where Docker finds them, or where `packaging/clients` has put them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.compat.docker.docker_engine import Engine

__all__ = ["CLIENTS", "Plugin", "found", "plugin"]

CLIENTS = Path(os.environ.get("XDG_CACHE_HOME", "/var/cache")) / "sagong-tests" / "clients"

_PLACES = (
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
)


def found(name: str) -> Path | None:
    """Where a plugin is."""
    fetched = CLIENTS / name / "usr" / "libexec" / "docker" / "cli-plugins" / name
    own = Path(os.environ.get("DOCKER_CONFIG", Path.home() / ".docker")) / "cli-plugins"
    places = [fetched, *(place / name for place in (own, *map(Path, _PLACES)))]
    on_path = shutil.which(name)
    return next((p for p in places if p.exists()), Path(on_path) if on_path else None)


@dataclass(frozen=True)
class Plugin:
    """The command line with this plugin, speaking to an engine."""

    engine: Engine
    config: Path

    def environment(self) -> dict[str, str]:
        """Of its processes."""
        return {**self.engine.environment(), "DOCKER_CONFIG": str(self.config)}

    def run(
        self,
        *words: str,
        cwd: Path | None = None,
        stdin: bytes = b"",
        seconds: float = 90,
        more: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """A command; both of its outputs, as they come, in `stdout`."""
        done = subprocess.run(
            ["docker", *words],
            cwd=cwd,
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**self.environment(), **(more or {})},
            timeout=seconds,
        )
        text = done.stdout.decode(errors="replace")
        return subprocess.CompletedProcess(done.args, done.returncode, text, "")

    def ok(
        self,
        *words: str,
        cwd: Path | None = None,
        stdin: bytes = b"",
        more: Mapping[str, str] | None = None,
    ) -> str:
        """What a command that must succeed said."""
        done = self.run(*words, cwd=cwd, stdin=stdin, more=more)
        assert done.returncode == 0, (words, done.stdout)
        return done.stdout

    def fails(self, *words: str, cwd: Path | None = None) -> str:
        """What a command that must fail said."""
        done = self.run(*words, cwd=cwd)
        assert done.returncode != 0, (words, done.stdout)
        return done.stdout


def plugin(engine: Engine, name: str) -> Plugin:
    """The command line with a plugin, or a skip that says where it was looked for."""
    path = found(name)
    if path is None:
        pytest.skip(f"needs {name}: as a plugin of docker, or fetched by packaging/clients")
    config = engine.directory / f"config-{name}"
    (config / "cli-plugins").mkdir(parents=True, exist_ok=True)
    link = config / "cli-plugins" / name
    if not link.exists():
        link.symlink_to(path)
    return Plugin(engine, config)
