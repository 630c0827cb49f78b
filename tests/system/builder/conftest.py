"""One engine for all tests of building."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.compat.docker.docker_engine import Engine, engine


@pytest.fixture(scope="package")
def running_engine() -> Iterator[Engine]:
    """The engine."""
    with engine() as made:
        yield made


@pytest.fixture
def docker(running_engine: Engine) -> Iterator[Engine]:
    """The engine, without containers after the test."""
    yield running_engine
    running_engine.clear()
