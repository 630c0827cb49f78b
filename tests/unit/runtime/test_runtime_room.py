"""What is said, and what goes on, where no room is left for another file."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from tests.small_disk import small_disk
from tests.system.chaos.faults import no_inodes

from sagong.shim.directory import RunDirectory
from sagong.shim.failure import wrong
from sagong.shim.records import Records


def test_no_room_is_told_as_that() -> None:
    """Starts and execs were refused with an exception's name, as if it were a defect."""
    error = OSError(errno.ENOSPC, "No space left on device", "/run/x")
    found = wrong(error)
    assert (found.code, found.message) == (
        "resource_exhausted",
        "/run/x: no space left on device; make room there",
    )
    assert wrong(KeyError("x")).code == "internal"


@pytest.mark.root
def test_an_end_is_told_though_no_inode_is_free_for_its_mark(tmp_path: Path) -> None:
    """It was never told: `docker wait` hung, and a container of --rm stayed."""
    with small_disk(tmp_path, "1m"):
        (tmp_path / "containers/one").mkdir(parents=True)
        records = Records(RunDirectory(str(tmp_path)))
        with no_inodes(tmp_path):
            assert records.mark_first("one", "emitted")
        assert records.mark_first("one", "emitted")
        assert not records.mark_first("one", "emitted")
