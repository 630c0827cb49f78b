"""The suite of `content` against image_overlay and the fake, and the fake's mutations it must catch."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.conformance.broken_content import MUTATIONS
from tests.conformance.bus_lab import over_the_bus
from tests.conformance.fake_content import Disk, FakeContent

from sagong.conformance import content as suite
from sagong.conformance.content import ContentLab
from sagong.conformance.rigs import Candidate, called_by, content_rig
from sagong.contract import conforms, filling
from sagong.contracts.content import Content
from sagong.errors import SagongError
from sagong.testing import Check, check_name, checks, local
from sagong_image_overlay import ImageOverlay

CHECKS = checks(suite)


@pytest.mark.root
@pytest.mark.parametrize("check", CHECKS, ids=check_name)
async def test_image_overlay(check: Check) -> None:
    async with content_rig(Candidate(ImageOverlay)) as lab:
        await check(lab)


@pytest.mark.root
async def test_image_overlay_has_the_slot_s_form() -> None:
    async with local(ImageOverlay) as plugin:
        conforms(Content, filling(plugin, Content))


@contextlib.asynccontextmanager
async def fake_lab(kind: type[FakeContent]) -> AsyncIterator[ContentLab]:
    """The fake, or a broken one."""
    disk = Disk()
    with tempfile.TemporaryDirectory(prefix="sagong-fake-", dir="/tmp") as top:
        running = [kind(disk, Path(top))]

        async def restart() -> None:
            await running[-1].stop()
            running.append(kind(disk, Path(top)))
            await running[-1].start()

        await running[0].start()
        first, second = (called_by(name, Content, lambda: running[-1]) for name in ("1", "2"))
        try:
            yield ContentLab(first, second, restart)
        finally:
            await running[-1].stop()


@pytest.mark.parametrize("check", CHECKS, ids=check_name)
async def test_the_fake(check: Check) -> None:
    async with fake_lab(FakeContent) as lab:
        await check(lab)


@pytest.mark.parametrize("kind", MUTATIONS, ids=lambda kind: kind.__name__)
async def test_a_broken_fake_is_caught(kind: type[FakeContent]) -> None:
    (check,) = (one for one in CHECKS if check_name(one) == MUTATIONS[kind])
    async with fake_lab(kind) as lab:
        with pytest.raises((AssertionError, SagongError)):
            await check(lab)


@pytest.mark.root
async def test_one_image_overlay_passes_all_over_the_bus(tmp_path: Path) -> None:
    async with local(ImageOverlay, data=tmp_path) as plugin:
        async with over_the_bus(Content, filling(plugin, Content)) as remote:
            for check in CHECKS:
                await check(ContentLab(content=remote))
