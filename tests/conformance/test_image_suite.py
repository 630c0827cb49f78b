"""The image suite against image_overlay and the fake, and the fake's mutations that it must catch."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
from tests.conformance.broken_image import MUTATIONS
from tests.conformance.bus_lab import over_the_bus
from tests.conformance.fake_image import FakeImages
from tests.conformance.image_registry_server import running_registry

from sagong.conformance import image as suite
from sagong.conformance import image_builds as builds
from sagong.conformance import image_registry as registries
from sagong.conformance import image_roots as roots
from sagong.conformance import image_store as store
from sagong.conformance.image import ImageLab
from sagong.conformance.rigs import Candidate, image_lab
from sagong.contract import conforms
from sagong.contracts.image import Images
from sagong.errors import SagongError
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


def overlay_lab(data: Path, registry: str) -> AbstractAsyncContextManager[ImageLab]:
    """image_overlay, which can be started again on the same data."""
    return image_lab(Candidate(ImageOverlay), data, registry)


def test_every_check_is_part_of_the_suite() -> None:
    """They are written in several files; one that is not named in the suite's own never runs."""
    written = {
        check_name(check) for part in (builds, registries, roots, store) for check in checks(part)
    }
    assert written == {check_name(check) for check in checks(suite)}


def test_image_overlay_has_the_slot_s_form() -> None:
    conforms(Images, ImageOverlay)


@pytest.mark.parametrize("check", checks(suite), ids=check_name)
async def test_image_overlay(check: Check, tmp_path: Path, registry: str) -> None:
    async with overlay_lab(tmp_path, registry) as lab:
        await check(lab)


@contextlib.asynccontextmanager
async def fake_lab(kind: type[FakeImages]) -> AsyncIterator[ImageLab]:
    """The fake, or a broken one."""
    disk: dict[str, object] = {}
    with tempfile.TemporaryDirectory(prefix="sagong-fake-", dir="/tmp") as top:
        running = [kind(disk, Path(top))]

        async def restart() -> Images:
            await running[-1].stop()
            running.append(kind(disk, Path(top)))
            await running[-1].start()
            return running[-1]

        await running[0].start()
        try:
            yield ImageLab(images=running[0], restart=restart)
        finally:
            await running[-1].stop()


def test_the_fake_has_the_slot_s_form() -> None:
    conforms(Images, FakeImages)


@pytest.mark.parametrize("check", checks(suite), ids=check_name)
async def test_the_fake(check: Check) -> None:
    async with fake_lab(FakeImages) as lab:
        await check(lab)


@pytest.mark.parametrize("kind", MUTATIONS, ids=lambda kind: kind.__name__)
async def test_a_broken_fake_is_caught(kind: type[FakeImages]) -> None:
    (check,) = (one for one in checks(suite) if check_name(one) == MUTATIONS[kind])
    async with fake_lab(kind) as lab:
        with pytest.raises((AssertionError, SagongError)):
            await check(lab)


async def test_one_image_overlay_passes_all_over_the_bus(tmp_path: Path, registry: str) -> None:
    """Backwards: what a check leaves must not help the next."""
    async with local(ImageOverlay, data=tmp_path) as images, over_the_bus(Images, images) as remote:
        for check in reversed(checks(suite)):
            await check(ImageLab(images=remote, registry=registry))
