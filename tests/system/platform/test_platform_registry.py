"""Images between docker, Debian's registry and skopeo: pulled from one, pushed for the other."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from shutil import which

import pytest
from tests import sample_image
from tests.conformance.image_registry_server import by_certificate, needs_registry, running_registry
from tests.system.instance import Instance, environment, instance

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(which("docker") is None, reason="needs the docker command line"),
    needs_registry,
    pytest.mark.skipif(which("openssl") is None, reason="needs openssl"),
    pytest.mark.skipif(which("skopeo") is None, reason="needs skopeo"),
]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry on a free port of the loopback."""
    with running_registry(tmp_path_factory.mktemp("registry")) as host:
        yield host


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A registry that wants a certificate, and a directory as of certs.d; the key is root's alone."""
    place, directory = tmp_path_factory.mktemp("secure"), tmp_path_factory.mktemp("certs")
    with by_certificate(place) as host:
        for name in ("ca.crt", "client.cert"):
            (directory / name).write_text((place / "cert.pem").read_text())
        (directory / "client.key").write_text((place / "key.pem").read_text())
        (directory / "client.key").chmod(0o600)
        yield host, directory


@pytest.fixture(scope="module")
def running(secure: tuple[str, Path]) -> Iterator[Instance]:
    """An engine without images that knows how to reach the secure registry."""
    root = Path(tempfile.mkdtemp(prefix="sgt-", dir="/tmp"))
    shutil.copytree(secure[1], root / "etc" / "certs.d" / secure[0])
    with instance('profile = "docker"\n', root) as found:
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


def test_a_client_s_key_is_root_s_alone(
    running: Instance, secure: tuple[str, Path], tmp_path: Path
) -> None:
    host, directory = secure
    source = f"oci:{sample_image.build(tmp_path).oci_layout}"
    target = [f"--dest-cert-dir={directory}", f"docker://{host}/a/b:1"]
    copied = run(running, "skopeo", "copy", "--insecure-policy", source, *target)
    assert copied.returncode == 0, copied.stderr
    pulled = run(running, "docker", "pull", f"{host}/a/b:1")
    assert "Status: Downloaded newer image" in pulled.stdout, pulled.stderr
    run(running, "docker", "tag", f"{host}/a/b:1", f"{host}/a/c:1")
    pushed = run(running, "docker", "push", f"{host}/a/c:1")
    assert "digest: sha256:" in pushed.stdout, pushed.stderr


def test_what_is_not_there_is_said_as_docker_says_it(running: Instance, registry: str) -> None:
    missing = run(running, "docker", "pull", f"{registry}/none:1")
    assert missing.returncode == 1
    assert "manifest unknown" in missing.stderr or "not found" in missing.stderr
    dead = run(running, "docker", "pull", "127.0.0.1:1/x:1")
    assert dead.returncode == 1
    assert "refused" in dead.stderr
