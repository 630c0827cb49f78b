"""testcontainers against the whole engine: throwaway containers of somebody's test suite."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator

import pytest
from tests.compat.docker.docker_engine import IMAGE, Engine

pytest.importorskip("testcontainers", reason="needs testcontainers (extra test)")

pytestmark = pytest.mark.root


@pytest.fixture
def throwaway(docker: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """The environment that testcontainers reads; its reaper is an image of Docker Hub's: without."""
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
        wait_for_logs(server, "ready", timeout=10)
        address = f"http://{server.get_container_host_ip()}:{server.get_exposed_port(80)}/"
        with urllib.request.urlopen(address, timeout=10) as answer:
            assert answer.read() == b"hello from sagong\n"
        code, output = server.exec(["sh", "-c", "echo $A"])
        assert (code, output) == (0, b"1\n")
        out, _ = server.get_logs()
        assert out == b"ready\n"
    assert throwaway.ok("ps", "-aq") == ""


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
        client = DockerContainer(IMAGE).with_command("sleep 60").with_network(network)
        with server, client.with_kwargs(init=True):
            code, output = client.exec(["wget", "-qO-", "http://server/"])
            assert (code, output) == (0, b"hello from sagong\n")
