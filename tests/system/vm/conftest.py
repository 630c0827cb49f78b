"""One machine for all tests here: a boot takes most of their time."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator

import pytest

from tests.system.vm import debian
from tests.system.vm.machine import Machine
from tests.system.vm.rig import lay_out, told


@pytest.fixture(scope="package")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """The booted machine, with the repository at its place and nothing started."""
    lacking = debian.missing_tools()
    if lacking:
        pytest.skip(lacking)
    if os.geteuid() != 0:
        pytest.skip("making the image takes root")
    work = tmp_path_factory.mktemp("vm", numbered=True)
    began = time.monotonic()
    image = debian.build()
    began = told("image", began)
    lay_out(work / "repository")
    debian.write_disk(image, work / "repository", work / "disk.img")
    for name in ("vmlinuz", "initrd"):
        shutil.copy(image / name, work / name)
    began = told("disk", began)
    with Machine(work) as booted:
        booted.wait_booted()
        told("boot", began)
        yield booted
    shutil.rmtree(work)
