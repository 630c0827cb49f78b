"""A whole engine for tests of clients: an instance of profile docker, one image, the docker CLI."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import sample_image
from tests.system.instance import Instance, instance

IMAGE = sample_image.NAME


@dataclass(frozen=True)
class Engine:
    """The engine and a directory for files."""

    instance: Instance
    directory: Path

    @property
    def socket(self) -> Path:
        """Where the API is."""
        return self.instance.paths.run / "docker.sock"

    def environment(self) -> dict[str, str]:
        """Of commands that speak to it."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.directory),
            "DOCKER_HOST": f"unix://{self.socket}",
            "DOCKER_CONFIG": str(self.directory / "config"),
        }

    def docker(
        self, *words: str, stdin: bytes | None = None, seconds: float = 90
    ) -> subprocess.CompletedProcess[str]:
        """Run the docker command line."""
        done = subprocess.run(
            ["docker", *words],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            env=self.environment(),
            timeout=seconds,
        )
        out, err = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        return subprocess.CompletedProcess(done.args, done.returncode, out, err)

    def ok(self, *words: str, stdin: bytes | None = None) -> str:
        """The output of a command that must succeed."""
        done = self.docker(*words, stdin=stdin)
        assert done.returncode == 0, (words, done.returncode, done.stdout, done.stderr)
        return done.stdout.strip()

    def inspect(self, name: str) -> dict[str, Any]:
        """`docker inspect`."""
        found: dict[str, Any] = json.loads(self.ok("inspect", name))[0]
        return found

    def wait_for(self, name: str, template: str, wanted: str, seconds: float = 60) -> None:
        """Wait until inspection says what is wanted."""
        limit = time.monotonic() + seconds
        while (found := self.ok("inspect", "-f", template, name)) != wanted:
            assert time.monotonic() < limit, (name, template, found, wanted)
            time.sleep(0.05)

    def wait_said(self, name: str, text: str, seconds: float = 60) -> None:
        """Wait until it stands in the container's log."""
        self.wait_until(lambda: text in self.ok("logs", name), seconds)

    def wait_until(self, holds: Callable[[], bool], seconds: float = 60) -> None:
        """Wait for anything else."""
        limit = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < limit, "it never held"
            time.sleep(0.05)

    def clear(self) -> None:
        """Remove what a test left."""
        left = self.ok("ps", "-aq").split()
        if left:
            self.docker("rm", "-fv", *left)
        self.docker("network", "prune", "-f")
        self.docker("volume", "prune", "-af")


@contextlib.contextmanager
def engine() -> Iterator[Engine]:
    """Up, with the sample image loaded."""
    with instance('profile = "docker"\n') as running:
        with tempfile.TemporaryDirectory(dir="/tmp") as name:
            made = Engine(running, Path(name))
            sample = sample_image.build(made.directory)
            made.ok("load", "-i", str(sample.docker_archive))
            yield made
