"""Debian's docker-registry on a free loopback port, for tests of pull and push."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

__all__ = ["needs_registry", "running_registry"]

needs_registry = pytest.mark.skipif(
    shutil.which("docker-registry") is None, reason="needs docker-registry (Debian's package)"
)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running_registry(
    directory: Path, *, extra: str = "", http: str = "", scheme: str = "http"
) -> Iterator[str]:
    """host:port of a registry that keeps its data below `directory`; `extra` is more YAML."""
    port = free_port()
    config = directory / f"registry-{port}.yml"
    config.write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem:\n    rootdirectory: "
        f"{directory}/registry-{port}\n  delete: {{enabled: true}}\n"
        f"http:\n  addr: 127.0.0.1:{port}\n{http}{extra}"
    )
    process = subprocess.Popen(
        ["docker-registry", "serve", str(config)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_listening(process, port)
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def wait_listening(process: subprocess.Popen[bytes], port: int) -> None:
    """Wait until the registry accepts connections."""
    for _ in range(200):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if process.poll() is not None:
            raise RuntimeError("docker-registry ended at once; is its configuration right?")
        time.sleep(0.05)
    raise RuntimeError("docker-registry does not listen after ten seconds")


def tags_of(host: str, repository: str) -> str:
    """The registry's own list of tags."""
    with urllib.request.urlopen(f"http://{host}/v2/{repository}/tags/list", timeout=5) as answer:
        return str(answer.read().decode())
