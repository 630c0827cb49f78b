"""The runtime suite against runtime_oci with a real launcher and runc, and with other binaries.

With crun all of it runs where SAGONG_CRUN names one and cgroups are not hybrid, which crun refuses;
on a hybrid machine by hand: `unshare -m sh -c "umount /sys/fs/cgroup/unified; mount -t tmpfs none
/sys/fs/cgroup/unified; SAGONG_CRUN=… pytest …"`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from tests.conformance.runtime_rig import BUSYBOX, Rig, held, launched
from tests.system.runtime_oci.bundles import program

from sagong.conformance import runtime as suite
from sagong.contract import conforms
from sagong.contracts.runtime import Runtime
from sagong.testing import Check, check_name, checks
from sagong_runtime_linux import RuntimeLinux
from sagong_runtime_oci import RuntimeOci

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not BUSYBOX.exists(), reason="needs /bin/busybox (package busybox-static)"),
    pytest.mark.skipif(shutil.which("runc") is None, reason="needs runc (package runc)"),
]

CRUN = os.environ.get("SAGONG_CRUN", "")


@pytest.fixture(scope="module")
def launcher() -> Iterator[Rig]:
    """One for all checks."""
    with launched(RuntimeOci, RuntimeLinux) as made:
        yield made


@pytest.fixture(scope="module")
def crun() -> Iterator[Rig]:
    """For those of crun."""
    with launched(RuntimeOci, binary=CRUN) as made:
        yield made


@pytest.mark.parametrize("check", checks(suite), ids=check_name)
async def test_runtime_oci(check: Check, launcher: Rig) -> None:
    """Each check over the same launcher, which must be left with nothing."""
    await held(launcher, check)


# What a binary says and does for itself: the rest is bundles, monitors and streams, alike for all.
OF_A_BINARY = (
    *("exec_has_a_terminal", "exec_refuses_in_dockers_words", "errors_are_in_dockers_words"),
    *("default_devices", "tmpfs_has_its_options", "overlays_are_mounted_inside"),
    *("user_namespace_maps_ids", "paused_can_be_killed", "processes_are_the_containers"),
    *("remove_leaves_nothing", "limits_are_in_force", "out_of_memory_is_told"),
    *("links_to_descriptors_make_nothing_on_the_host", "no_program_begins_outside"),
    "who_may_trace_finds_no_stranger",
)
# Refused by it: a link of the image that leads nowhere inside, where others make what is missing.
CRUN_REFUSES = {"links_of_the_image_stay_inside"}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """`sagong-runtime` as a binary."""
    with launched(RuntimeOci, binary=str(program(tmp_path_factory.mktemp("own")))) as made:
        yield made


@pytest.mark.parametrize(
    "check", [c for c in checks(suite) if check_name(c) in OF_A_BINARY], ids=check_name
)
async def test_runtime_oci_with_sagong_runtime(check: Check, own: Rig) -> None:
    """The other way round, by our own command line."""
    await held(own, check)


@pytest.mark.parametrize(
    "check",
    [c for c in checks(suite) if CRUN and check_name(c) not in CRUN_REFUSES],
    ids=check_name,
)
async def test_runtime_oci_with_crun(check: Check, crun: Rig) -> None:
    """All that crun takes."""
    await held(crun, check)


def test_the_chosen_checks_exist() -> None:
    """So that a renamed one does not silently go."""
    assert {*OF_A_BINARY, *CRUN_REFUSES} <= {check_name(check) for check in checks(suite)}


def test_runtime_oci_has_the_slots_form() -> None:
    """Method by method."""
    conforms(Runtime, RuntimeOci)
