"""The image suite against image_overlay and the fake, and the fake's mutations that it must catch."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.conformance.image_registry_server import running_registry

from sagong.conformance import image as suite
from sagong.conformance.image import ImageLab
from sagong.contract import conforms
from sagong.contracts.image import Images
from sagong.testing import Check, check_name, checks, local
from sagong_image_overlay import ImageOverlay

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real registry, or "" where none is installed: then those checks hold of themselves."""
    if shutil.which("docker-registry") is None:
        yield ""
        return
    with running_registry(tmp_path_factory.mktemp("registry")) as host:
        yield host


@contextlib.asynccontextmanager
async def overlay_lab(data: Path, registry: str) -> AsyncIterator[ImageLab]:
    """image_overlay, which can be started again on the same data."""
    async with contextlib.AsyncExitStack() as stack:
        running = await stack.enter_async_context(contextlib.AsyncExitStack())

        async def start() -> Images:
            return await running.enter_async_context(local(ImageOverlay, data=data))

        async def restart() -> Images:
            await running.aclose()
            return await start()

        yield ImageLab(images=await start(), registry=registry, restart=restart)


def test_image_overlay_has_the_slot_s_form() -> None:
    conforms(Images, ImageOverlay)


@pytest.mark.parametrize("check", checks(suite), ids=check_name)
async def test_image_overlay(check: Check, tmp_path: Path, registry: str) -> None:
    async with overlay_lab(tmp_path, registry) as lab:
        await check(lab)
