"""Contract `builder`: the service passes the suite, on a whole engine, over the bus."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import pytest

from sagong.conformance import builder as suite
from sagong.conformance.builder import BuilderLab
from sagong.contracts.builder import Builder
from sagong.contracts.image import Images
from sagong.contracts.node import Node
from sagong.operator import connect
from sagong.testing import Check, check_name, checks
from tests.compat.docker.docker_engine import IMAGE, Engine

pytestmark = pytest.mark.root


@contextlib.asynccontextmanager
async def laboratory(engine: Engine) -> AsyncIterator[BuilderLab]:
    """The engine's builder, with the slots that it works with."""
    async with connect(engine.instance.paths) as operator:
        yield BuilderLab(
            await operator.use(Builder),
            await operator.use(Images),
            await operator.use(Node),
            IMAGE,
        )


@pytest.mark.parametrize("check", checks(suite), ids=check_name)
async def test_builder(check: Check, docker: Engine) -> None:
    async with laboratory(docker) as lab:
        await check(lab)
