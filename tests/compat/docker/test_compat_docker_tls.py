"""The Docker API over TCP: only clients with a certificate of the authority, by the docker CLI."""

from __future__ import annotations

import datetime
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from tests.ports import free_port
from tests.sample_image import NAME, build
from tests.system.instance import Instance, instance

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("docker") is None, reason="needs the docker command line"),
]


_CONFIGURATION = """
profile = "docker"
[units.docker]
hooks = ["docker_guard"]
listens = {{ network = "tcp:127.0.0.1:{port}" }}
[units.docker.settings]
certificate = "{{etc}}/docker/cert.pem"
key = "{{etc}}/docker/key.pem"
client_ca = "{{etc}}/docker/ca.pem"
"""


class Authority:
    """A certificate authority in a directory; it writes files as Docker's clients want them."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        self.certificate = _signed(name, self.key, name, self.key, authority=True)

    def write(self, directory: Path, name: str) -> None:
        """`ca.pem`, `cert.pem` and `key.pem` for a client or server of this name."""
        directory.mkdir(exist_ok=True)
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        made = _signed(subject, key, self.certificate.subject, self.key, authority=False)
        pem = serialization.Encoding.PEM
        secret = key.private_bytes(
            pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (directory / "ca.pem").write_bytes(self.certificate.public_bytes(pem))
        (directory / "cert.pem").write_bytes(made.public_bytes(pem))
        (directory / "key.pem").write_bytes(secret)
        for path in directory.iterdir():
            path.chmod(0o644)


def _signed(
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    authority: bool,
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
    names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(names, critical=False)
        .sign(issuer_key, hashes.SHA256())
    )


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Instance, Path, int]]:
    """An instance with a listener over TCP; certificates of a good client and of a stranger."""
    directory = tmp_path_factory.mktemp("tls")
    root = Path(tempfile.mkdtemp(prefix="sgt-tls-", dir="/tmp"))
    port = free_port()
    good, bad = Authority(), Authority()
    good.write(directory / "client", "alice")
    bad.write(directory / "stranger", "mallory")
    # A stranger knows whom he talks to, but is not known.
    shutil.copy(directory / "client" / "ca.pem", directory / "stranger" / "ca.pem")
    (root / "etc").mkdir()
    good.write(root / "etc" / "docker", "server")
    with instance(_CONFIGURATION.format(port=port), root) as running:
        yield running, directory, port


def docker(
    *words: str,
    port: int,
    files: Path | None = None,
    socket: Path | None = None,
    given: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """The command line over TCP with a client's files, or the Unix socket; `given` is its input."""
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    environment["DOCKER_HOST"] = f"unix://{socket}" if socket else f"tcp://localhost:{port}"
    if files is not None:
        environment |= {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(files)}
    return subprocess.run(
        ["docker", *words],
        env=environment,
        input=given,
        capture_output=True,
        text=True,
        timeout=90,
    )


def test_a_client_of_the_authority_is_heard(secured: tuple[Instance, Path, int]) -> None:
    _, directory, port = secured
    done = docker("info", "-f", "{{.OSType}}", port=port, files=directory / "client")
    assert (done.returncode, done.stdout.strip()) == (0, "linux"), done.stderr


def test_the_end_of_the_input_reaches_a_container(secured: tuple[Instance, Path, int]) -> None:
    """The client ends its side of the connection, and reads on."""
    running, directory, port = secured
    files = directory / "client"
    archive = str(build(directory / "sample").docker_archive)
    loaded = docker("load", "-i", archive, port=port, files=files)
    assert loaded.returncode == 0, loaded.stderr
    command = ("run", "--rm", "-i", NAME, "sh", "-c", "cat; echo after")
    done = docker(*command, port=port, files=files, given="hello\n")
    assert (done.returncode, done.stdout) == (0, "hello\nafter\n"), done.stderr
    assert running.status().ready


def test_strangers_are_not_heard(secured: tuple[Instance, Path, int]) -> None:
    _, directory, port = secured
    stranger = docker("info", port=port, files=directory / "stranger")
    assert stranger.returncode != 0 and "Operating System" not in stranger.stdout
    plain = docker("info", port=port)
    assert plain.returncode != 0 and "Operating System" not in plain.stdout


def test_hooks_say_who_may_what(secured: tuple[Instance, Path, int]) -> None:
    running, directory, port = secured
    denied = docker("volume", "create", "secret", port=port, files=directory / "client")
    assert denied.returncode != 0
    assert (
        "authorization denied by plugin hook: alice may not make volumes over the network"
        in denied.stderr
    )
    allowed = docker("volume", "ls", port=port, files=directory / "client")
    assert allowed.returncode == 0, allowed.stderr
    local = docker("volume", "create", "mine", port=port, socket=running.paths.run / "docker.sock")
    assert local.returncode == 0, local.stderr


def test_without_certificates_the_port_is_refused(tmp_path: Path) -> None:
    port = free_port()
    open_port = f"""
profile = "docker"
[units.docker]
listens = {{ network = "tcp:127.0.0.1:{port}" }}
"""
    with pytest.raises(AssertionError, match="needs the settings certificate, key and client_ca"):
        with instance(open_port):
            pytest.fail("it serves the API to everybody")
