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
from tests.ports import free_port

__all__ = ["by_certificate", "free_port", "needs_registry", "running_registry"]

needs_registry = pytest.mark.skipif(
    shutil.which("docker-registry") is None, reason="needs docker-registry (Debian's package)"
)


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


def certificate(directory: Path) -> None:
    """A self-signed certificate for 127.0.0.1, good for either side."""
    words = [
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    names = "subjectAltName=DNS:localhost,IP:127.0.0.1,DNS:registry.test"
    words += ["-days", "2", "-subj", "/CN=registry.test", "-addext", names]
    subprocess.run(
        ["openssl", *words, "-keyout", "key.pem", "-out", "cert.pem"],
        cwd=directory,
        check=True,
        capture_output=True,
    )


@contextlib.contextmanager
def by_certificate(directory: Path) -> Iterator[str]:
    """A registry that knows its clients by their certificates; `cert.pem` and `key.pem` are good."""
    certificate(directory)
    pair = f"certificate: {directory}/cert.pem, key: {directory}/key.pem"
    tls = f"  tls: {{{pair}, clientcas: [{directory}/cert.pem]}}\n"
    with running_registry(directory, http=tls) as host:
        yield host


def wait_listening(process: subprocess.Popen[bytes], port: int) -> None:
    """Wait until the registry accepts connections."""
    for _ in range(1200):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if process.poll() is not None:
            raise RuntimeError("docker-registry ended at once; is its configuration right?")
        time.sleep(0.05)
    raise RuntimeError("docker-registry does not listen after a minute")


def tags_of(host: str, repository: str) -> str:
    """The registry's own list of tags."""
    with urllib.request.urlopen(f"http://{host}/v2/{repository}/tags/list", timeout=30) as answer:
        return str(answer.read().decode())
