"""Images between docker, Debian's registry and skopeo: pulled from one, pushed for the other."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from shutil import which

import pytest
from tests import sample_image
from tests.system.instance import Instance, environment, instance

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(which("docker") is None, reason="needs the docker command line"),
    pytest.mark.skipif(which("docker-registry") is None, reason="needs docker-registry"),
    pytest.mark.skipif(which("skopeo") is None, reason="needs skopeo"),
]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry on a free port of the loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    directory = tmp_path_factory.mktemp("registry")
    config = directory / "config.yml"
    config.write_text(
        "version: 0.1\nlog: {level: error}\n"
        f"storage: {{filesystem: {{rootdirectory: {directory}}}, delete: {{enabled: true}}}}\n"
        f"http: {{addr: 127.0.0.1:{port}}}\n"
    )
    process = subprocess.Popen(
        ["docker-registry", "serve", str(config)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        limit = time.monotonic() + 20
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert time.monotonic() < limit, "the registry does not come up"
            time.sleep(0.05)
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def running() -> Iterator[Instance]:
    """An engine without images."""
    with instance('profile = "docker"\n') as found:
        yield found


def run(running: Instance, *words: str) -> subprocess.CompletedProcess[str]:
    """Run docker or skopeo."""
    given = {**environment(), "DOCKER_HOST": f"unix://{running.paths.run}/docker.sock"}
    return subprocess.run(words, env=given, capture_output=True, text=True, timeout=60)


def test_an_image_goes_round(running: Instance, registry: str, tmp_path: Path) -> None:
    sample = sample_image.build(tmp_path)
    source = f"oci:{sample.oci_layout}"
    copied = run(
        running,
        "skopeo",
        "copy",
        "--insecure-policy",
        "--dest-tls-verify=false",
        source,
        f"docker://{registry}/a/b:1",
    )
    assert copied.returncode == 0, copied.stderr
    pulled = run(running, "docker", "pull", f"{registry}/a/b:1")
    assert "Status: Downloaded newer image" in pulled.stdout, pulled.stderr
    assert "Image is up to date" in run(running, "docker", "pull", f"{registry}/a/b:1").stdout
    said = run(running, "docker", "run", "--rm", f"{registry}/a/b:1", "echo", "pulled")
    assert said.stdout == "pulled\n", said.stderr
    run(running, "docker", "tag", f"{registry}/a/b:1", f"{registry}/c:2")
    pushed = run(running, "docker", "push", f"{registry}/c:2")
    assert "digest: sha256:" in pushed.stdout, pushed.stderr
    target = f"docker-archive:{tmp_path}/back.tar"
    read = run(
        running,
        "skopeo",
        "copy",
        "--insecure-policy",
        "--src-tls-verify=false",
        f"docker://{registry}/c:2",
        target,
    )
    assert read.returncode == 0, read.stderr


def test_what_is_not_there_is_said_as_docker_says_it(running: Instance, registry: str) -> None:
    missing = run(running, "docker", "pull", f"{registry}/none:1")
    assert missing.returncode == 1
    assert "manifest unknown" in missing.stderr or "not found" in missing.stderr
    dead = run(running, "docker", "pull", "127.0.0.1:1/x:1")
    assert dead.returncode == 1
    assert "refused" in dead.stderr
