"""Clients that others wrote, each with a home, a store and settings of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.bench.peers import scratch
from tests.system.instance import Instance, environment

__all__ = ["Tools", "dockerd", "home_of_tools", "operator"]


@dataclass(frozen=True)
class Tools:
    """Runs tools; what they remember lies below `home`."""

    home: Path
    docker_host: str = ""

    def run(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run one."""
        given = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "DOCKER_CONFIG": str(self.home / "docker"),
            "DOCKER_HOST": self.docker_host,
            "REGISTRY_AUTH_FILE": str(self.home / "auth.json"),
            "XDG_RUNTIME_DIR": str(self.home / "run"),
            "STORAGE_DRIVER": "vfs",
        }
        return subprocess.run(
            words, input=stdin, env=given, capture_output=True, text=True, timeout=90
        )

    def ok(self, *words: str, stdin: str = "") -> str:
        """The output of one that must succeed."""
        done = self.run(*words, stdin=stdin)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout.strip()

    def skopeo(self, *words: str) -> str:
        """skopeo over plain HTTP."""
        return self.ok("skopeo", "--insecure-policy", *words)

    def podman(self, *words: str, stdin: str = "") -> str:
        """podman with a store of its own."""
        store = ("--root", str(self.home / "store"), "--runroot", str(self.home / "run"))
        return self.ok("podman", *store, *words, stdin=stdin)

    def buildah(self, *words: str) -> str:
        """buildah with a store of its own."""
        store = ("--root", str(self.home / "store"), "--runroot", str(self.home / "run"))
        return self.ok("buildah", *store, *words)


@contextlib.contextmanager
def home_of_tools() -> Iterator[Path]:
    """A short directory that goes with what tools mounted below it."""
    with scratch() as home:
        (home / "auth.json").write_text("{}")
        yield home


def operator(instance: Instance, *words: str, stdin: str = "") -> str:
    """`sagong registry …` on an instance."""
    command = [sys.executable, "-m", "sagong.cli", "--root", str(instance.root), "registry"]
    done = subprocess.run(
        [*command, *words],
        input=stdin,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout


@contextlib.contextmanager
def dockerd(directory: Path) -> Iterator[str]:
    """Docker Engine without networks, for its way with registries; its address."""
    directory.mkdir()
    address = f"unix://{directory}/s"
    places = ("--data-root", "d", "--exec-root", "e", "--pidfile", "pid", "-H")
    command = ["dockerd", "--bridge=none", "--iptables=false", "--ip6tables=false"]
    command += [w if w.startswith("-") else f"{directory}/{w}" for w in places]
    command += [address, "--storage-driver", "vfs"]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        limit = time.monotonic() + 60
        while subprocess.run(["docker", "-H", address, "version"], capture_output=True).returncode:
            assert process.poll() is None and time.monotonic() < limit, (
                directory / "log"
            ).read_text()[-3000:]
            time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait(60)
        shutil.rmtree(directory, ignore_errors=True)
