"""Overlays that need not outlive the machine leave nothing that only root can delete."""

from __future__ import annotations

import os
from pathlib import Path
from shutil import which

import msgspec
import pytest
from tests.conformance.runtime_rig import BUSYBOX, Rig, rig
from tests.small_disk import small_disk
from tests.system.chaos.faults import no_inodes

from sagong.conformance.runtime_lab import RuntimeLab, wait_until
from sagong.contracts.runtime import Mount, RunSpec
from sagong.errors import ResourceExhausted
from sagong.linux import syscalls
from sagong.shim.runtime import MonitoredRuntime
from sagong_runtime_linux import RuntimeLinux
from sagong_runtime_oci import RuntimeOci

needs_runc = pytest.mark.skipif(which("runc") is None, reason="needs runc (package runc)")
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not BUSYBOX.exists(), reason="needs /bin/busybox (package busybox-static)"),
]


def upon(made: Rig, lab: RuntimeLab, directory: Path, *more: str) -> RunSpec:
    """A container that writes to a root whose upper directory and work are in a directory."""
    upper, work = directory / "upper", directory / "work"
    options = (f"lowerdir={made.rootfs}", f"upperdir={upper}", f"workdir={work}", *more)
    root = Mount(target="/", kind="overlay", source="overlay", options=options)
    spec = lab.spec(lab.process("echo x > /made"))
    return msgspec.structs.replace(spec, mounts=(root, *spec.mounts[1:]))


@pytest.mark.parametrize("make", [RuntimeLinux, pytest.param(RuntimeOci, marks=needs_runc)])
@pytest.mark.parametrize("more", [(), ("volatile",)], ids=["kept", "volatile"])
async def test_a_root_without_an_inode_for_its_work_is_refused_for_want_of_room(
    make: type[MonitoredRuntime], more: tuple[str, ...], tmp_path: Path
) -> None:
    """It was mounted read-only without a word, or refused by what was missing then."""
    with small_disk(tmp_path, "4m"):
        for name in ("upper", "work"):
            (tmp_path / name).mkdir()
        async with rig(make) as made:
            lab = made.lab()
            with no_inodes(tmp_path), pytest.raises(ResourceExhausted, match="make room there"):
                await lab.runtime.run(upon(made, lab, tmp_path, *more))
            assert (await lab.output(upon(made, lab, tmp_path, *more))).code == 0
            await lab.clean()


async def test_the_mark_of_a_volatile_root_goes_with_its_container(tmp_path: Path) -> None:
    upper, work = tmp_path / "upper", tmp_path / "work"
    upper.mkdir()
    work.mkdir()
    async with rig() as made:
        lab = made.lab()
        spec = upon(made, lab, tmp_path, "volatile")
        assert (await lab.output(spec)).code == 0
        assert (upper / "made").read_text() == "x\n"
        await wait_until(lambda: os.listdir(work) == ["work"], "the end of the mark")
        await lab.clean()


@pytest.mark.parametrize("make", [RuntimeLinux, pytest.param(RuntimeOci, marks=needs_runc)])
async def test_a_start_that_was_killed_before_it_took_the_mark_away_can_be_made_anew(
    make: type[MonitoredRuntime], tmp_path: Path
) -> None:
    """The kernel refuses a volatile overlay that was mounted before: "invalid argument"."""
    for name in ("upper", "work", "there"):
        (tmp_path / name).mkdir()
    async with rig(make) as made:
        lab = made.lab()
        spec = upon(made, lab, tmp_path, "volatile")
        syscalls.mount(
            "overlay", str(tmp_path / "there"), "overlay", 0, ",".join(spec.mounts[0].options)
        )
        syscalls.umount(str(tmp_path / "there"))
        assert (tmp_path / "work" / "work" / "incompat" / "volatile").is_dir()
        assert (await lab.output(spec)).code == 0
        assert (tmp_path / "upper" / "made").read_text() == "x\n"
        await lab.clean()
