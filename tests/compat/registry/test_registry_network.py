"""With TLS of its own, and as a copy of Debian's registry."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests import sample_image
from tests.compat.registry.peers import docker_registry, platform
from tests.compat.registry.tools import Tools, home_of_tools
from tests.compat.registry.wire import MANIFEST
from tests.system.instance import Instance

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("skopeo") is None, reason="needs skopeo"),
    pytest.mark.skipif(shutil.which("docker-registry") is None, reason="needs docker-registry"),
]


@pytest.fixture
def tools() -> Iterator[Tools]:
    """Clients without a past."""
    with home_of_tools() as home:
        yield Tools(home)


def certificate(instance: Instance) -> Path:
    (found,) = (instance.paths.data / "plugins").rglob("registry.crt")
    return found


def test_tls_of_its_own(tools: Tools, tmp_path: Path) -> None:
    sample = sample_image.build(tmp_path)
    with platform('tls = true\nnames = ["registry.test"]') as (instance, host):
        trusted = tools.home / "certs"
        trusted.mkdir()
        shutil.copy(certificate(instance), trusted / "ca.crt")
        there = f"docker://{host}/tls/app:1"
        copy = ("skopeo", "--insecure-policy", "copy")
        refused = tools.run(*copy, f"oci:{sample.oci_layout}", there)
        assert refused.returncode != 0 and "certificate" in refused.stderr
        tools.ok(*copy, "--dest-cert-dir", str(trusted), f"oci:{sample.oci_layout}", there)
        back = f"oci:{tools.home / 'back'}:1"
        tools.ok(*copy, "--src-cert-dir", str(trusted), there, back)
        context = ssl.create_default_context(cafile=trusted / "ca.crt")
        address, _, port = host.partition(":")
        with socket.create_connection((address, int(port))) as plain:
            with context.wrap_socket(plain, server_hostname="registry.test"):
                pass
        instance.run("swap", "registry", "--quiet")
        tools.ok("skopeo", "inspect", "--cert-dir", str(trusted), there)


def fetched(host: str, reference: str) -> tuple[dict[str, str], bytes]:
    request = urllib.request.Request(
        f"http://{host}/v2/debian/app/manifests/{reference}", headers={"Accept": MANIFEST}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return dict(answer.headers), answer.read()


def test_a_copy_of_debians_registry_outlives_it(tools: Tools, tmp_path: Path) -> None:
    sample = sample_image.build(tmp_path)
    with contextlib.ExitStack() as upstreams:
        upstream = upstreams.enter_context(docker_registry(tmp_path))
        source = f"oci:{sample.oci_layout}"
        tools.skopeo("copy", "--dest-tls-verify=false", source, f"docker://{upstream}/app:1")
        settings = f'prefix = "debian"\nurl = "http://{upstream}"\ntag_seconds = 0.0'
        with platform(f"[[units.registry.settings.upstreams]]\n{settings}") as (_, host):
            there = f"docker://{host}/debian/app:1"
            tools.skopeo("copy", "--src-tls-verify=false", there, f"oci:{tools.home / 'a'}:1")
            headers, raw = fetched(host, "1")
            assert "Warning" not in headers
            upstreams.close()
            headers, again = fetched(host, "1")
            assert again == raw and headers["Warning"].startswith("299 - ")
            tools.skopeo("copy", "--src-tls-verify=false", there, f"oci:{tools.home / 'b'}:1")
            with pytest.raises(urllib.error.HTTPError) as missing:
                fetched(host, "2")
            told = json.loads(missing.value.read())
            assert missing.value.code == 503 and upstream in told["errors"][0]["message"]
