"""Each test of the specification runs against each registry; a known deviation must really be one."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from shutil import which

import pytest
from tests.compat.registry.peers import DEVIATIONS, PEERS
from tests.compat.registry.wire import Client, client


@pytest.fixture(scope="session")
def started() -> Iterator[dict[str, str]]:
    """Hosts by peer, each started when it is first wanted."""
    yield {}


@pytest.fixture(scope="session")
def peers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[contextlib.ExitStack]:
    """What runs until the end."""
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture(params=sorted(PEERS))
def registry(
    request: pytest.FixtureRequest,
    started: dict[str, str],
    peers: contextlib.ExitStack,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Client]:
    """A client of the registry under test."""
    peer = str(request.param)
    if peer == "docker-registry":
        if which("docker-registry") is None:
            pytest.skip("needs docker-registry (Debian's package)")
        reason = _deviation(request.node)
        if reason:
            request.node.add_marker(pytest.mark.xfail(reason=reason, strict=True))
    if peer not in started:
        started[peer] = peers.enter_context(PEERS[peer](tmp_path_factory.mktemp("registry")))
    with client(started[peer]) as made:
        yield made


def _deviation(test: pytest.Function) -> str:
    """Why this test is expected to fail at docker-registry, "" if it is not."""
    with_parameters = test.name.replace("[docker-registry-", "[")
    return DEVIATIONS.get(with_parameters, DEVIATIONS.get(test.originalname, ""))


@pytest.fixture
def name() -> str:
    """A repository of the test's own."""
    return f"suite/{secrets.token_hex(6)}"
