"""Overlays that need not outlive the machine leave nothing that only root can delete."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest
from tests.conformance.runtime_rig import BUSYBOX, rig

from sagong.conformance.runtime_lab import wait_until
from sagong.contracts.runtime import Mount

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not BUSYBOX.exists(), reason="needs /bin/busybox (package busybox-static)"),
]


async def test_the_mark_of_a_volatile_root_goes_with_its_container(tmp_path: Path) -> None:
    upper, work = tmp_path / "upper", tmp_path / "work"
    upper.mkdir()
    work.mkdir()
    async with rig() as made:
        lab = made.lab()
        options = (f"lowerdir={made.rootfs}", f"upperdir={upper}", f"workdir={work}", "volatile")
        root = Mount(target="/", kind="overlay", source="overlay", options=options)
        spec = lab.spec(lab.process("echo x > /made"))
        spec = msgspec.structs.replace(spec, mounts=(root, *spec.mounts[1:]))
        assert (await lab.output(spec)).code == 0
        assert (upper / "made").read_text() == "x\n"
        await wait_until(lambda: os.listdir(work) == ["work"], "the end of the mark")
        await lab.clean()
