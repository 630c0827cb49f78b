"""testcontainers against the whole engine: throwaway containers of somebody's test suite."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator

import pytest
from tests.compat.docker import reaper
from tests.compat.docker.docker_engine import IMAGE, Engine

pytest.importorskip("testcontainers", reason="needs testcontainers (extra test)")

pytestmark = pytest.mark.root


@pytest.fixture
def throwaway(docker: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """The environment that testcontainers reads, without its reaper."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{docker.socket}")
    monkeypatch.setenv("TESTCONTAINERS_RYUK_DISABLED", "true")
    from testcontainers.core.config import testcontainers_config

    monkeypatch.setattr(testcontainers_config, "ryuk_disabled", True)
    yield docker


def test_a_server_is_waited_for_and_asked(throwaway: Engine) -> None:
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.waiting_utils import wait_for_logs

    server = (
        DockerContainer(IMAGE)
        .with_command("sh -c 'echo ready; exec httpd -f -p 80 -h /var/www'")
        .with_exposed_ports(80)
        .with_env("A", "1")
        .with_kwargs(init=True)
    )
    with server:
        wait_for_logs(server, "ready", timeout=60)
        address = f"http://{server.get_container_host_ip()}:{server.get_exposed_port(80)}/"
        throwaway.wait_until(lambda: _answers(address))
        with urllib.request.urlopen(address, timeout=60) as answer:
            assert answer.read() == b"hello from sagong\n"
        code, output = server.exec(["sh", "-c", "echo $A"])
        assert (code, output) == (0, b"1\n")
        out, _ = server.get_logs()
        assert out == b"ready\n"
    assert throwaway.ok("ps", "-aq") == ""


def _answers(address: str) -> bool:
    """Whether anybody listens there yet."""
    with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=60):
        return True
    return False


def test_containers_find_each_other_by_name(throwaway: Engine) -> None:
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.network import Network

    with Network() as network:
        server = (
            DockerContainer(IMAGE)
            .with_command("httpd -f -p 80 -h /var/www")
            .with_network(network)
            .with_network_aliases("server")
            .with_kwargs(init=True)
        )
        client = DockerContainer(IMAGE).with_command("sleep 600").with_network(network)
        with server, client.with_kwargs(init=True):
            asked = "until wget -qO- http://server/ 2>/dev/null; do sleep 0.1; done"
            code, output = client.exec(["sh", "-c", asked])
            assert (code, output) == (0, b"hello from sagong\n")


_LEAVER = """
import os
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network
network = Network().create()
box = DockerContainer(os.environ["IMAGE"]).with_command("sleep 600").with_network(network)
box.with_volume_mapping("left-behind", "/v", "rw").with_kwargs(init=True).start()
print("left", flush=True)
os._exit(9)
"""


def test_the_reaper_removes_what_a_killed_client_left(docker: Engine) -> None:
    name = reaper.build(docker)
    docker.ok("run", "-d", "--init", "--name", "another", IMAGE, "sleep", "600")
    environment = {
        **os.environ,
        "DOCKER_HOST": f"unix://{docker.socket}",
        "IMAGE": IMAGE,
        "RYUK_CONTAINER_IMAGE": name,
        "RYUK_RECONNECTION_TIMEOUT": "1s",
        "TESTCONTAINERS_DOCKER_SOCKET_OVERRIDE": str(docker.socket),
        "TESTCONTAINERS_RYUK_DISABLED": "false",
    }
    left = subprocess.run(
        [sys.executable, "-c", _LEAVER], env=environment, capture_output=True, text=True, timeout=90
    )
    assert (left.returncode, left.stdout) == (9, "left\n"), left.stderr
    docker.wait_until(lambda: docker.ok("ps", "-a", "--format", "{{.Names}}") == "another")
    assert docker.ok("network", "ls", "-q", "--filter", "type=custom") == ""
    docker.ok("rmi", name)
