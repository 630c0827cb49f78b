"""What failures come to: lines of a log where machine or others could not, tracebacks of defects."""

from __future__ import annotations

import errno
import logging

import pytest

from sagong.errors import ResourceExhausted, Unavailable
from sagong.failures import no_room, tell

FULL = OSError(errno.ENOSPC, "No space left on device", "/data/x")


def test_a_full_disk_is_told_with_its_place_and_the_remedy() -> None:
    found = no_room("builder", FULL)
    assert found is not None
    assert found.message == "builder: the disk of /data/x is full: free space there"
    quota = no_room("builder", OSError(errno.EDQUOT, "Disk quota exceeded"))
    assert quota is not None
    assert quota.message == "builder: the disk is full: free space there"
    assert no_room("builder", OSError(errno.EIO, "Input/output error")) is None
    assert no_room("builder", ValueError("full")) is None


def test_a_group_is_a_full_disk_if_all_that_it_holds_are() -> None:
    assert no_room("node", ExceptionGroup("two", [FULL, FULL])) is not None
    assert no_room("node", ExceptionGroup("two", [FULL, ValueError("x")])) is None


@pytest.mark.parametrize(
    ("error", "kind", "line"),
    [
        (FULL, ResourceExhausted, "start failed: node: the disk of /data/x is full"),
        (Unavailable("runtime: nothing serves it"), Unavailable, "start failed: runtime: nothing"),
        (KeyError("x"), KeyError, "start failed"),
    ],
)
def test_only_defects_have_a_traceback(
    error: Exception, kind: type[Exception], line: str, caplog: pytest.LogCaptureFixture
) -> None:
    told = tell(logging.getLogger("told"), "start", "node", error)
    assert isinstance(told, kind)
    (record,) = caplog.records
    assert record.getMessage().startswith(line)
    assert bool(record.exc_info) == isinstance(error, KeyError)
